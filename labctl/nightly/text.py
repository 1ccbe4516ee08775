"""The report of nightly runs as a mail, as Markdown and as JUnit. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence

from labctl.nightly.findings import problems
from labctl.nightly.types import Between, Finding, Nightly
from labctl.reports import words
from labctl.reports.junit import Case, render
from labctl.stats.kinds import FindingKind
from labctl.units import counted

_COLUMNS = 72
_TITLES = {
    FindingKind.REGRESSED: "REGRESSED",
    FindingKind.CRASHES: "CRASHES",
    FindingKind.BROKEN: "BROKEN",
    FindingKind.IMPROVED: "improved",
    FindingKind.ALARM: "alarm, not settled",
    FindingKind.NOT_CONFIRMED: "not confirmed",
    FindingKind.NOT_THE_KERNEL: "not the kernel",
}
_HASH_DIGITS = 12


def mail(content: Nightly) -> str:
    """Return plain text of 72 columns; the first line is the subject of a mail."""
    lines = [subject(content), ""]
    for finding in _of_last_night(content):
        lines += [*_wrapped(heading(finding), ""), *_details(finding), ""]
    earlier = _of_earlier_nights(content)
    if earlier:
        lines += ["Found in earlier nightly runs:"]
        lines += [line for one in earlier for line in _wrapped(_short(one), "  ", hanging="    ")]
        lines.append("")
    lines += [line for warning in content.warnings for line in _wrapped(warning, "! ")]
    lines += _table(content)
    return "\n".join(lines).rstrip() + "\n"


def markdown(content: Nightly) -> str:
    """Return the report as Markdown."""
    lines = [f"## {subject(content)}", ""]
    for finding in _of_last_night(content):
        lines.append(f"- **{heading(finding)}**")
        lines += [f"  {line.strip()}" for line in _details(finding)]
    lines += [f"- {_short(one)}" for one in _of_earlier_nights(content)]
    lines += [f"- {warning}" for warning in content.warnings]
    lines += ["", "| cell | last run | usual | runs |", "|:--|--:|--:|--:|"]
    lines += [f"| {' | '.join(row)} |" for row in rows(content)]
    return "\n".join(lines) + "\n"


def junit(content: Nightly) -> str:
    """Return one test case for each cell; problems of the last nightly run are failures."""
    found = problems(content, of_last_night=True)
    suites: dict[str, list[Case]] = {}
    for cell in content.cells:
        own = [one for one in found if (one.experiment, one.cell) == (cell.experiment, cell.cell)]
        case = Case(
            name=words.named(cell.kernel, cell.setting),
            failures=list(map(_failure, own)),
            skipped=None if cell.measured_last_night else "not measured in the last nightly run",
        )
        suites.setdefault(cell.experiment, []).append(case)
    known = {(cell.experiment, cell.cell) for cell in content.cells}
    rest = [one for one in found if (one.experiment, one.cell) not in known]
    if rest:
        suites["guests and checks"] = [
            Case(name=name(one), failures=[_failure(one)]) for one in rest
        ]
    return render(f"labctl nightly {content.night}", suites)


def _failure(finding: Finding) -> tuple[str, str]:
    return heading(finding), "\n".join(line.strip() for line in _details(finding))


FORMATS: Mapping[str, Callable[[Nightly], str]] = {
    "terminal": mail,
    "markdown": markdown,
    "junit": junit,
}


def subject(content: Nightly) -> str:
    """Return the last nightly run in one line."""
    if not content.nights:
        return "labctl nightly: no nightly run yet"
    kinds = [one.kind for one in _of_last_night(content)]
    counts = ", ".join(
        f"{kinds.count(kind)} {_TITLES[kind]}" for kind in _TITLES if kinds.count(kind)
    )
    return f"labctl nightly {content.night}: {counts or 'no change'}"


def heading(finding: Finding) -> str:
    """Return a finding in one line."""
    change, since = about(finding)
    start = f"{title(finding)}: {name(finding)}: {change}"
    return start if finding.kind.is_failure else f"{start} since {since}"


def title(finding: Finding) -> str:
    """Return what was found, in a word or two."""
    return _TITLES[finding.kind]


def about(finding: Finding) -> tuple[str, str]:
    """Return the change or the failure, and the first nightly run with it."""
    is_failure = finding.kind.is_failure
    return str(finding.why) if is_failure else _by(finding), finding.since


def name(finding: Finding) -> str:
    """Return the experiment and the cell of a finding."""
    own = " ".join(filter(None, [finding.kernel, words.setting(finding.setting)]))
    return f"{finding.experiment}: {own}" if finding.experiment else own


def rows(content: Nightly) -> list[list[str]]:
    """Return for each cell: name, ratio of the last run, usual ratio, number of runs."""
    table = []
    for cell in content.cells:
        nights = cell.nights
        last = nights[-1]
        usual = sorted(night.ratio for night in nights[:-1])
        table.append(
            [
                f"{cell.experiment}: {words.named(cell.kernel, cell.setting)}",
                f"{words.ratio(last.ratio)} ({words.interval(last.ci)})"
                if cell.measured_last_night
                else "-",
                words.ratio(usual[len(usual) // 2]) if usual else "-",
                str(len(nights)),
            ]
        )
    return table


def _of_last_night(content: Nightly) -> list[Finding]:
    order = list(_TITLES)
    found = [one for one in content.findings if one.run == content.run]
    return sorted(found, key=lambda one: order.index(one.kind))


def _of_earlier_nights(content: Nightly) -> list[Finding]:
    found = problems(content, of_last_night=False)
    return [one for one in found if one.run != content.run]


def _by(finding: Finding) -> str:
    """Return the size and direction of a change of the ratio."""
    change, metric = finding.change or 1.0, finding.metric_kind
    percent = 100 * (1 / change - 1) if change < 1 else 100 * (change - 1)
    if metric.is_elapsed:
        return f"{percent:.3g} % {'slower' if change < 1 else 'faster'} against its baseline"
    factor = change if metric.better == "higher" else 1 / change
    way = "higher" if factor > 1 else "lower"
    return f"{words.noun(metric)} {abs(100 * (factor - 1)):.3g} % {way} against its baseline"


def _short(finding: Finding) -> str:
    return f"{finding.night}: {heading(finding)}"


def _details(finding: Finding) -> list[str]:
    if finding.kind.is_failure:
        return []
    ratios = f"{words.ratio(finding.before or None)} to {words.ratio(finding.after or None)}"
    metric = finding.metric_kind
    lines = [f"It went from {ratios} times as fast as {finding.baseline}."]
    if not metric.is_elapsed:
        lines = [f"Its ratio went from {ratios}: {metric.formula(str(finding.baseline))}."]
    for trial in finding.trials or ():
        lines.append(
            f"Against the kernel of {trial.against} it is "
            f"{metric.spoken(trial.verdict)}: ratio "
            f"{words.ratio(trial.ratio)}, {words.interval(trial.ci)}, run {trial.run}."
        )
    lines += _range(finding.between or None)
    return [line for each in lines for line in _wrapped(each, "  ")]


def _range(between: Between | None) -> list[str]:
    if between is None:
        return []
    lines = [f"The change came between {' and '.join(between.nights)}."]
    if between.series[0] != between.series[1]:
        old, new = (_hash(each) for each in between.series)
        numbers = ", ".join(map(str, between.patches_changed)) or "none"
        lines.append(
            f"Series {old} became {new}; patches changed or added: {numbers} (of "
            f"{between.patches[1]})."
        )
    for tree, (first, second) in between.commits.items():
        if first != second:
            lines.append(f"Commits of {tree}: {first or '?'}..{second or '?'}")
    images = " became ".join(_hash(each) for each in between.image)
    return [*lines, f"Image {images}."]


def _hash(text: str | None) -> str:
    return (text or "none")[:_HASH_DIGITS]


def _table(content: Nightly) -> list[str]:
    lines = ["Last nightly run and usual value, as ratios to the baseline:", ""]
    for cell, last, usual, nights in rows(content):
        lines += _wrapped(cell, "  ", hanging="    ")
        lines.append(f"      {last}; usual {usual}, {counted(int(nights), 'run')}")
    return lines if content.cells else []


def _wrapped(text: str, indent: str, hanging: str | None = None) -> Sequence[str]:
    return textwrap.wrap(
        text,
        _COLUMNS,
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
