"""The result of an experiment in one sentence. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from labctl.lab.metrics import MetricKind
from labctl.reports import words
from labctl.stats.kinds import Verdict
from labctl.stats.report_types import Cell, Experiment
from labctl.stats.scaling import Curve
from labctl.units import counted


def sentence(experiment: Experiment) -> str:
    """Return the result of an experiment.

    With several cells, name the best faster one and how many cells were tried: the best
    of many seems better than it is.
    """
    cells = experiment.compared
    if not cells:
        lost = next((cell for cell in experiment.cells if cell.failed), None)
        if not experiment.cells:
            return "nothing was measured"
        if lost is None:
            return "nothing was compared with the baseline"
        counts = ", ".join(f"{count} {status}" for status, count in lost.failed.items())
        return f"nothing was compared with the baseline, since {words.cell(lost)} failed ({counts})"
    if len(cells) == 1:
        return _one(experiment, cells[0])
    metric = experiment.kind
    counts = _counts(metric, cells)
    one_kernel = len({cell.kernel for cell in cells}) == 1
    what = f"{len(cells)} {'settings' if one_kernel else 'cells'}"
    faster = [cell for cell in cells if cell.verdict is Verdict.FASTER]
    if not faster:
        by = "" if metric.is_elapsed else f" in {words.noun(metric)}"
        return f"none of {what} is shown to be {metric.spoken('faster')}{by}: {counts}"
    best = max(faster, key=lambda cell: words.gain(cell, metric))
    return f"{_one(experiment, best)}: the best of {what} ({counts})"


def control(experiment: Experiment) -> str:
    """Return the result of the A/A control."""
    aa, metric = experiment.aa_control, experiment.kind
    if aa is None:
        return "A/A control: none"
    if aa.estimate is None:
        return "A/A control: no block has a good value"
    return (
        f"A/A control: {aa.kernel} against itself, {_estimate(aa, metric)} "
        f"({_interval(experiment, aa)}): {metric.spoken(aa.verdict)}"
    )


def corrected(experiment: Experiment, what: str) -> str:
    """Return for how many cells `what` is corrected; empty for a single cell."""
    count, metrics = len(experiment.compared), experiment.metric_count
    if count * metrics <= 1 or not any(cell.ci for cell in experiment.compared):
        return ""
    of = f"all {count} cells" if metrics == 1 else f"{counted(count, 'cell')} of {metrics} metrics"
    level = words.level(experiment.confidence)
    return f"each {level} is of its cell alone; {what} are corrected for {of} (Holm)"


def curve(fitted: Curve) -> str:
    """Return the recommended number of workers and the terms of the scalability law."""
    kernel, axis = fitted.kernel, fitted.axis
    if fitted.best == fitted.levels[0]:
        advice = f"no {axis} above {fitted.best} is faster"
    else:
        advice = (
            f"{axis}={fitted.recommended} is recommended, the smallest measured within 10 % of "
            f"the best; fitted, the shortest time is at {fitted.best} and the knee at "
            f"{fitted.knee}"
        )
    terms = [
        f"{name} {round(value, 6):.2g} ({words.interval(ci)})"
        for name, value, ci in (
            ("contention", fitted.contention, fitted.contention_ci),
            ("coherency", fitted.coherency, fitted.coherency_ci),
        )
    ]
    amdahl = "; Amdahl's law fits as well" if fitted.is_amdahl else ""
    return f"{kernel} over {axis}: {advice}; scalability law: {', '.join(terms)}{amdahl}"


def _one(experiment: Experiment, cell: Cell) -> str:
    baseline, name, verdict = experiment.baseline, words.cell(cell), cell.verdict
    if cell.estimate is None:
        return f"undecided, {name} against {baseline}: {cell.reason}"
    is_one_of_many = len(experiment.compared) * experiment.metric_count > 1
    alone, corrected = (" for it alone", " (Holm)") if is_one_of_many else ("", "")
    basis = (
        f"{_interval(experiment, cell)}{alone}, {_blocks(cell)}, "
        f"p {words.p_value(cell.p_corrected)}{corrected}"
    )
    metric = experiment.kind
    if metric.is_difference:
        return _of_difference(experiment, cell, basis)
    ratio = words.ratio(cell.ratio)
    deed, what = words.deed(metric, cell.parameters), words.noun(metric)
    if verdict.is_difference:
        # "0.91 times as fast" is easily read as a gain.
        if verdict is Verdict.SLOWER:
            name = f"{metric.spoken(verdict)}: {name}"
        if deed:
            return f"{name} {deed} {ratio} times as fast as {baseline} ({basis})"
        if metric.better == "higher":
            return f"{name} has {ratio} times the {what} of {baseline} ({basis})"
        times = words.ratio(1 / cell.ratio if cell.ratio else None)
        basis = f"ratio {ratio}, {basis}"
        return f"{name} has {times} times the {what} of {baseline} ({basis})"
    if verdict is Verdict.SAME:
        margin = words.effect(experiment.minimum_effect, metric)
        alike = f"{deed} as fast as" if deed else f"has the same {what} as"
        return f"{name} {alike} {baseline}, within {margin}: ratio {ratio} ({basis})"
    by = "" if metric.is_elapsed else f" in {what}"
    return _undecided(f"{name} against {baseline}{by}: ratio {ratio} ({basis})", cell)


def _blocks(cell: Cell) -> str:
    blocks = counted(cell.blocks, "block")
    if not cell.between_hosts:
        return blocks
    return f"{blocks} on {counted(len(cell.between_hosts.hosts), 'host')}"


def _of_difference(experiment: Experiment, cell: Cell, basis: str) -> str:
    metric, name, baseline = experiment.kind, words.cell(cell), experiment.baseline
    what = "time" if metric.is_elapsed else words.noun(metric)
    found = f"{_estimate(cell, metric)} ({basis})"
    if cell.verdict.is_difference:
        return f"{name} is {metric.spoken(cell.verdict)} than {baseline} in {what}: {found}"
    if cell.verdict is Verdict.SAME:
        margin = words.effect(experiment.minimum_effect, metric)
        return f"{name} has the same {what} as {baseline}, within {margin}: {found}"
    return _undecided(f"{name} against {baseline} in {what}: {found}", cell)


def _undecided(comparison: str, cell: Cell) -> str:
    more, unit = (cell.hosts_needed, "host") if cell.hosts_needed else (cell.blocks_needed, "block")
    hint = f"; about {counted(more, f'more {unit}')} would decide it" if more else ""
    return f"undecided, {comparison}; {cell.reason}{hint}"


def _estimate(cell: Cell, metric: MetricKind) -> str:
    return f"{words.estimate_noun(metric)} {words.estimate(cell, metric)}"


def _interval(experiment: Experiment, cell: Cell) -> str:
    if cell.ci is None:
        return "no interval"
    shown = words.estimate_interval(cell.ci, experiment.kind)
    return f"{words.level(experiment.confidence)} {shown}"


def _counts(metric: MetricKind, cells: Sequence[Cell]) -> str:
    found = [cell.verdict for cell in cells]
    names = (Verdict.FASTER, Verdict.SLOWER, Verdict.SAME, Verdict.UNDECIDED)
    return ", ".join(
        f"{found.count(name)} {metric.spoken(name)}" for name in names if name in found
    )
