"""The report of a run as one HTML file that needs no network. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType

from labctl.lab.metrics import is_freebench
from labctl.reports import (
    blocks,
    facts,
    failed,
    grid,
    health,
    heat,
    host_grid,
    page,
    plots,
    sentence,
    table,
    timeline,
    why,
    words,
)
from labctl.reports.consoles import Consoles
from labctl.runs.sample import Sample
from labctl.stats.by_metric import by_metric, samples_by_metric
from labctl.stats.explanation_types import Observed
from labctl.stats.failures import Failure
from labctl.stats.kinds import Verdict
from labctl.stats.report_types import Experiment, Report
from labctl.status import SampleStatus

_WITHOUT = Consoles()
_MOST_REMARKS = 8


def render(
    document: Report,
    samples: Sequence[Sample],
    *,
    lab: str = "",
    guests: Mapping[str, str] = MappingProxyType({}),
    consoles: Consoles = _WITHOUT,
    observed: Sequence[Observed] = (),
) -> str:
    """Return the page: results, tables, plots, host and guests, and how to repeat the run.

    `lab` is the text of the lab.yaml, `guests` are QEMU's command lines by the guest's name,
    `observed` is what the observers of the run and of its passes found.
    """
    title = f"labctl {document.run}"
    every, samples = by_metric(document), samples_by_metric(document, samples)
    body = [f"<h1>{escape(title)}</h1>", *_found(every)]
    for number, each in enumerate(every.experiments):
        own = [sample for sample in samples if sample.experiment == each.name]
        body += _experiment(number, each, own, consoles)
        body += why.of_experiment(each.name, observed)
    body += [
        *facts.measured_on(document),
        *facts.commands(document, lab, guests),
        *_excerpts(consoles),
    ]
    return page.whole(title, body)


def _found(document: Report) -> list[str]:
    basis = f"{document.accel.upper()}, {document.host.cores or '?'} cores"
    lines = []
    for number, each in enumerate(document.experiments):
        if each.control_differs:
            lines.append(page.warning(f"{each.name}: {_first(each)}"))
        if loaded := health.heading(each):
            lines.append(page.warning(f"{each.name}: {loaded}"))
        result = f"{sentence.sentence(each)}. {basis}."
        lines.append(
            f'<p class="found {_style(each)}"><b><a href="#{_id(number)}">{escape(each.name)}</a>'
            f"</b>: {escape(result)}</p>"
        )
    if document.accel == "tcg":
        note = table.tcg_note(document)
        lines.append(f"<p>{escape(note[0].upper() + note[1:])}.</p>")
    if not document.finished:
        command = words.resume_command(document.run, is_imported=bool(document.imported))
        lines.append(f"<p>The run is not finished: <code>{escape(command)}</code></p>")
    lines += [f"<p>{escape(note)}</p>" for note in document.notes]
    return lines


def _id(number: int) -> str:
    return f"experiment-{number + 1}"


def _style(experiment: Experiment) -> str:
    """Return the class of an experiment's result; of cells that differ in sign, that of none."""
    found = {cell.verdict for cell in experiment.compared if cell.verdict.is_difference}
    return grid.verdict_style(found.pop() if len(found) == 1 else Verdict.UNDECIDED)


def _first(experiment: Experiment) -> str:
    return str(next(iter(experiment.warnings), "the baseline differs from itself"))


def _experiment(
    number: int, experiment: Experiment, samples: Sequence[Sample], consoles: Consoles
) -> list[str]:
    parts = [
        f'<h2 id="{_id(number)}">{escape(experiment.name)}</h2>',
        grid.of_experiment(experiment),
        *_heat_maps(experiment),
        *_remarks(experiment, consoles),
    ]
    if any(cell.estimate is not None and cell.ci for cell in experiment.cells):
        caption = f"{_estimates(experiment)}, each with its interval."
        parts.append(page.figure(plots.intervals(experiment), caption))
    metric = experiment.kind
    with_seed = not metric.is_difference and metric.is_elapsed and is_freebench(metric.command)
    for fitted in experiment.curves:
        drawn = plots.curve(fitted, with_seed=with_seed)
        parts.append(page.figure(drawn, sentence.curve(fitted)))
    if any(sample.status == SampleStatus.OK for sample in samples):
        parts.append(_over_time(experiment, samples))
    if rows := host_grid.table(experiment):
        parts.append(page.details(f"{experiment.name} on each host", rows))
    if rows := blocks.table(experiment, samples, consoles.links):
        title = f"Blocks of {experiment.name} one by one"
        title += ", with their consoles" if consoles.links else ""
        parts.append(page.details(title, rows))
    return [*parts, *facts.placement(experiment.name, samples)]


def _remarks(experiment: Experiment, consoles: Consoles) -> list[str]:
    """Return the lines below a table; a failure has a link to the end of its console log.

    Of many lines, all but the first ones are closed at first.
    """
    failures = dict(zip(failed.lines(experiment.failures), experiment.failures, strict=False))
    items = []
    for line in table.remarks(experiment):
        link = _link(failures[line], consoles) if line in failures else ""
        items.append(f"<li>{escape(line)}{link}</li>")
    most = _MOST_REMARKS if len(items) > _MOST_REMARKS + 1 else len(items)
    parts = [f"<ul>{''.join(items[:most])}</ul>"]
    if rest := items[most:]:
        parts.append(
            f'<details class="more"><summary>{len(rest)} more remarks on '
            f"{escape(experiment.name)}</summary><ul>{''.join(rest)}</ul></details>"
        )
    return parts


def _link(failure: Failure, consoles: Consoles) -> str:
    for number, path in enumerate(consoles.excerpts):
        if f"/{failure.console}".endswith(f"/{path}"):
            return f' <a href="#console-{number + 1}">end of the console</a>'
    return ""


def _excerpts(consoles: Consoles) -> list[str]:
    """Return the ends of the console logs of failures, with links to the whole logs."""
    parts = ["<h2>Consoles of failures</h2>"] if consoles.excerpts else []
    for number, (path, text) in enumerate(consoles.excerpts.items()):
        whole = consoles.links.get(path)
        link = f'<p><a href="{escape(whole)}">The whole log</a></p>' if whole else ""
        parts.append(
            f'<details id="console-{number + 1}"><summary>{escape(path)}</summary>'
            f"{page.pre(text)}{link}</details>"
        )
    return parts


def _estimates(experiment: Experiment) -> str:
    return "Differences" if experiment.kind.is_difference else "Ratios"


def _heat_maps(experiment: Experiment) -> list[str]:
    maps = heat.maps_of(experiment)
    if not maps:
        return []
    widest = heat.widest(maps, experiment)
    note = (
        f"{words.estimate_noun(experiment.kind).capitalize()} to {experiment.baseline} and "
        "verdict: blue is better, orange is worse, a stronger colour is a larger difference."
    )
    drawn = [heat.table(one, experiment, widest=widest) for one in maps]
    return ["<h3>Two tunables at a time</h3>", f"<p>{escape(note)}</p>", *drawn]


def _over_time(experiment: Experiment, samples: Sequence[Sample]) -> str:
    found = timeline.over_time(experiment, samples)
    caption = "Every repetition when it was made: a drift of the host would be seen here."
    if found.drawn < found.count:
        caption = (
            f"{found.drawn:,} of {found.count:,} repetitions, when they were made: of each kernel "
            "and each stretch of time the shortest, the middle and the longest, so that no "
            "outlier is missing. A drift of the host would be seen here."
        )
    if any(sample.disturbed for sample in samples):
        caption += " A cross was disturbed by the host."
    if experiment.host_health and experiment.host_health.disturbed:
        caption += " Disturbed blocks are shaded."
    if found.has_load:
        caption += " Below: the load of the host during each repetition."
    return page.figure(found.svg, caption)
