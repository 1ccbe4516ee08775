"""The report of `labctl verify` as text, KTAP and JUnit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import convert
from tabulate import tabulate

from labctl.reports import words
from labctl.reports.junit import Case, render
from labctl.runs.types import Host
from labctl.units import counted
from labctl.verify.types import CheckResult, CheckStatus, KernelResult, Verification

_SHOWN = {
    CheckStatus.PASSED: "ok",
    CheckStatus.FAILED: "FAILED",
    CheckStatus.SKIPPED: "skipped",
    CheckStatus.KNOWN: "as its base",
    None: "-",
}


def terminal(document: Verification) -> str:
    """Return one table for each kernel, one row for each check, and the failures below.

    Then a table of the trials of all kernels, if there were any.
    """
    parts = [_table(name, kernel) for name, kernel in document.kernels.items()]
    parts += _trials(document.kernels)
    parts.append(f"{words.host(convert(document.host, Host))}; {document.accel.upper()}")
    return "\n\n".join(parts) + "\n"


def _table(name: str, kernel: KernelResult) -> str:
    checks = kernel.checks
    failed = [check for check in checks if check.status is CheckStatus.FAILED]
    rows = [
        {
            "variant": check.variant,
            "check": check.name,
            "setting": words.setting(check.setting),
            name: _SHOWN[check.status],
            **({kernel.base: _SHOWN[check.on_base]} if kernel.base else {}),
            "time": f"{check.seconds:.0f} s",
            "": _shorten(check.why),
        }
        for check in checks
    ]
    series = f"series {kernel.series[:12]}" if kernel.series else "no series"
    images = ", ".join(f"{variant} {image[:12]}" for variant, image in kernel.images.items())
    head = (
        f"{name}: {len(failed)} of {counted(len(checks), 'check')} failed"
        f" ({kernel.release}, {series}, images {images})"
    )
    lines = [head, "", tabulate(rows, headers="keys", tablefmt="simple"), "", *_ran(checks)]
    for check in failed:
        lines += ["", f"{_title(check)}: {check.why}"]
        lines += [f"  | {line}" for line in check.details]
    return "\n".join(lines)


def _trials(kernels: Mapping[str, KernelResult]) -> list[str]:
    """Return a table of the trials in which a process was OOM-killed, a column a kernel."""
    rows: dict[str, dict[str, str]] = {}
    for name, kernel in kernels.items():
        for check in kernel.checks:
            if check.trials:
                shown = f"{check.trials.with_kills} of {check.trials.count}"
                if check.handovers is not None:
                    shown += f" ({counted(check.handovers, 'handover')})"
                rows.setdefault(_title(check), {})[name] = shown
    if not rows:
        return []
    columns = [name for name in kernels if any(name in row for row in rows.values())]
    table = [[title, *(row.get(name, "-") for name in columns)] for title, row in rows.items()]
    headers = ["trials with OOM kills", *columns]
    return [tabulate(table, headers=headers, tablefmt="simple", disable_numparse=True)]


def _ran(checks: Sequence[CheckResult]) -> list[str]:
    """Return a line for each variant and setting: how many checks ran, and how long."""
    groups: dict[tuple[str, str], list[CheckResult]] = {}
    for check in checks:
        setting = words.setting(check.setting) or "defaults"
        groups.setdefault((check.variant, setting), []).append(check)
    rows = []
    for (variant, setting), group in groups.items():
        skipped = sum(check.status is CheckStatus.SKIPPED for check in group)
        ran = f"{counted(len(group) - skipped, 'check')}{f', {skipped} skipped' if skipped else ''}"
        counts = [check.handovers for check in group if check.handovers is not None]
        handed = f", {counted(sum(counts), 'handover')}" if counts else ""
        seconds = sum(check.seconds for check in group)
        rows.append(f"{variant}: {setting}: {ran} in {seconds:.0f} s{handed}")
    return rows


def _shorten(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def ktap(document: Verification) -> str:
    """Return KTAP version 1: kernels are tests, their checks are subtests.

    The format: Documentation/dev-tools/ktap.rst.
    """
    kernels = document.kernels
    lines = ["KTAP version 1", f"1..{len(kernels)}"]
    for number, (name, kernel) in enumerate(kernels.items(), 1):
        checks = kernel.checks
        lines += ["  KTAP version 1", f"  1..{len(checks)}"]
        for inner, check in enumerate(checks, 1):
            lines += [f"  {line}" for line in _result(inner, check)]
        lines.append(f"{'ok' if kernel.passed else 'not ok'} {number} {name}")
    return "\n".join(lines) + "\n"


def _result(number: int, check: CheckResult) -> list[str]:
    title, status, why = _title(check).replace("#", "no."), check.status, check.why
    if status is CheckStatus.FAILED:
        lines = [f"# {line}" for line in (why, *check.details)]
        return [*lines, f"not ok {number} {title}"]
    if status is CheckStatus.KNOWN:
        return [f"not ok {number} {title} # TODO {why}"]
    return [f"ok {number} {title}{f' # SKIP {why}' if status is CheckStatus.SKIPPED else ''}"]


def junit(document: Verification) -> str:
    """Return one suite for each kernel, with one test case for each check."""
    suites = {
        name: [_case(check) for check in kernel.checks] for name, kernel in document.kernels.items()
    }
    return render("labctl verify", suites)


def _case(check: CheckResult) -> Case:
    why, status = check.why, check.status
    return Case(
        name=_title(check),
        seconds=check.seconds,
        failures=[(why, "\n".join(check.details))] if status is CheckStatus.FAILED else [],
        skipped=None if status in (CheckStatus.PASSED, CheckStatus.FAILED) else why,
    )


def _title(check: CheckResult) -> str:
    name = f"{check.variant}: {check.name}"
    return " ".join(filter(None, [name, words.setting(check.setting)]))


FORMATS: Mapping[str, Callable[[Verification], str]] = {
    "terminal": terminal,
    "ktap": ktap,
    "junit": junit,
}
