"""Failures of samples as sentences, one for each kind. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from labctl.stats.crash_rates import CrashRate
from labctl.stats.failures import Failure
from labctl.stats.report_types import Experiment
from labctl.units import counted

_LEAST_P = 1e-4
_MOST_KINDS = 8
_MOST_CELLS = 4


def lines(found: Sequence[Failure]) -> list[str]:
    """Return one line for each kind of failure: count, status, cause, reason, cells."""
    lines = [_line(each) for each in found[:_MOST_KINDS]]
    rest = found[_MOST_KINDS:]
    if rest:
        samples = sum(each.count for each in rest)
        lines.append(f"failed: {samples} more in {len(rest)} more ways, see `labctl report --json`")
    return lines


def findings(experiment: Experiment, kernel: str | None = None) -> list[str]:
    """Return one line for each kernel, or the one, that crashes more often than its baseline."""
    rates = (one for one in experiment.crashes or () if kernel in (None, one.kernel))
    return crash_findings(rates, experiment.baseline)


def crash_findings(rates: Iterable[CrashRate], baseline: str) -> list[str]:
    """Return one line for each rate that is higher than that of the baseline."""
    return [_crash_rate(one, baseline) for one in rates if one.more_often]


def _crash_rate(rate: CrashRate, baseline: str) -> str:
    """Return the sentence on a kernel that crashes more often than its baseline."""
    p = f"p < {_LEAST_P:g}" if rate.p_corrected < _LEAST_P else f"p {rate.p_corrected:.2g}"
    return (
        f"CRASHES: {rate.kernel} crashes more often than {baseline}: {rate.crashed} of "
        f"{counted(rate.boots, 'boot')}, {baseline}: {rate.baseline_crashed} of "
        f"{rate.baseline_boots} (Fisher's exact test, Holm: {p})"
    )


def of_cell(found: Sequence[Failure], cell: str) -> list[str]:
    """Return the reasons of one cell's failures; `cell` is its id."""
    return [short(each) for each in found if cell in each.cells][:_MOST_KINDS]


def short(failure: Failure) -> str:
    """Return status, cause, reason and console log of a failure."""
    console = f"; console: {failure.console}" if failure.console else ""
    reason = f": {failure.reason}" if failure.reason else ""
    return f"{_named(failure)} ({failure.whose}){reason}{console}"


def _named(failure: Failure) -> str:
    """Return the status, and the fault of the guest if it says more."""
    says_more = failure.fault not in ("", failure.status)
    return failure.status + (f", {failure.fault}" if says_more else "")


def _line(failure: Failure) -> str:
    count, where = failure.count, _where(failure.cells, failure.block)
    again = f"; {failure.retried} measured again" if failure.retried else ""
    return f"failed: {count} {short(failure)} ({where}{again})"


def _where(cells: Sequence[str], block: int) -> str:
    more = len(cells) - _MOST_CELLS
    names = ", ".join(cells[:_MOST_CELLS]) + (f" and {more} more" if more > 0 else "")
    return f"{names}; first in block {block}"
