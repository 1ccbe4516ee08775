"""Compare two stored runs: which cells are comparable, and which changed. Pure.

Blocks of different runs are not pairs. But the host cancels in the log ratios of each
run's own blocks: these are compared, by Welch's t test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from labctl.errors import UserError
from labctl.lab.metrics import MetricKind
from labctl.stats.between_runs_types import Across, ChangedCell, ChangedExperiment
from labctl.stats.by_metric import by_metric
from labctl.stats.kinds import Verdict
from labctl.stats.paired import MINIMUM_BLOCKS, Paired, adjust, paired, t_tests
from labctl.stats.report_types import Cell, Experiment, Report
from labctl.stats.run_noise import RUN_SD
from labctl.stats.scale import difference as of_difference
from labctl.stats.verdict import Rule, why_undecided, word
from labctl.units import counted

_KNOWN = 1e9  # degrees of freedom of a variance that is known
# If one of these differs, the cells of two experiments are not comparable.
_SAME_EXPERIMENT = ("workload", "command", "guest", "metric", "better", "baseline", "set")


@dataclass(frozen=True, slots=True)
class Summary:
    """Number, mean and standard deviation of the log ratios of one cell's blocks.

    With scale difference they are of the differences, above 0 is better. With several `hosts`,
    the standard deviation is known as well as that of as many blocks.
    """

    blocks: int
    mean: float
    sd: float
    hosts: int | None = None

    @property
    def freedom(self) -> int:
        """The degrees of freedom of the standard deviation."""
        return (self.hosts or self.blocks) - 1


def across(first: Report, second: Report, run_sd: float = RUN_SD) -> Across:
    """Compare the reports of two runs.

    `run_sd` is the standard deviation of the noise that all blocks of a run share; that of a
    difference is this share of the baseline's value. A cell's `change` is the second run's
    ratio over the first one's, or the second run's difference minus the first one's. Times are
    given only if host, QEMU and the baseline's image are the same; they have no verdict.

    Each further metric of an experiment is an experiment of its own, with its own corrections.

    Raises:
        UserError: both are the same run, their accelerators differ, or they have no cell
            in common.
    """
    first, second = by_metric(first), by_metric(second)
    if first.run == second.run:
        raise UserError(
            f"cannot compare run {first.run} with itself",
            hint="select two different runs; the second defaults to the latest",
        )
    if first.accel != second.accel:
        raise UserError(
            f"the runs have different accelerators: {first.accel} and {second.accel}",
            hint="emulation and virtualisation slow down different things: "
            "ratios cannot be compared either",
        )
    both = _by_name(first), _by_name(second)
    common = [name for name in both[0] if name in both[1]]
    if not common:
        raise UserError(
            "the runs have no experiment in common",
            hint=f"they have: {', '.join(both[0])}; {', '.join(both[1])}",
        )
    same_host = _of_host(first) == _of_host(second)
    experiments = []
    for name in common:
        pair = both[0][name], both[1][name]
        images = [_image(run, pair[0].baseline) for run in (first, second)]
        experiments.append(_experiment(pair, images[0] == images[1], run_sd, same_host=same_host))
    if all(each.refused for each in experiments):
        reasons = "; ".join(f"{each.name}: {each.refused}" for each in experiments)
        raise UserError(f"nothing can be compared: {reasons}")
    return Across(
        runs=(first.run, second.run),
        hosts=(first.host, second.host),
        accel=first.accel,
        same_host=same_host,
        run_noise=run_sd,
        notes=tuple(_notes(first, second, experiments, same_host=same_host)),
        experiments=tuple(experiments),
    )


def difference(first: Summary, second: Summary, rule: Rule, *, run_sd: float) -> Paired:
    """Return the test of the change from the first summary to the second.

    Welch's t test, with Satterthwaite's degrees of freedom (Biometrics 2, 1946). The noise of
    a whole run, with the standard deviation `run_sd`, is a part of both variances that counts
    as known. `blocks` of the result is the smaller number of blocks. With fewer than two
    blocks, the result has only the mean.
    """
    mean = second.mean - first.mean
    blocks = min(first.blocks, second.blocks)
    parts = [each.sd**2 / each.blocks for each in (first, second)]
    if blocks < 2:
        return Paired(blocks, mean, None, None, None, None, None)
    variance = sum(parts) + 2 * run_sd**2
    if not variance:  # counts that are always 0
        return paired([mean] * blocks, confidence=rule.confidence, margin=rule.margin)
    error = math.sqrt(variance)
    uncertain = sum(
        part**2 / each.freedom for part, each in zip(parts, (first, second), strict=True)
    )
    freedom = variance**2 / uncertain if uncertain else _KNOWN
    tests = t_tests(mean, error, freedom, confidence=rule.confidence, margin=rule.margin)
    half_width, p, p_beyond, p_same = (float(each) for each in tests)
    return Paired(blocks, mean, None, half_width, p, p_beyond, p_same)


def _experiment(
    pair: tuple[Experiment, Experiment], same_baseline: bool, run_sd: float, *, same_host: bool
) -> ChangedExperiment:
    first, second = pair
    values = [(name, getattr(first, name), getattr(second, name)) for name in _SAME_EXPERIMENT]
    # A fact that an older labctl did not record does not count as a difference.
    known = [each for each in values if not any(one in (None, UNSET) for one in each[1:])]
    differences = [_difference_of(*each) for each in known if each[1] != each[2]]
    if first.kind.scale != second.kind.scale:
        differences.append(_difference_of("scale", first.kind.scale, second.kind.scale))
    cells = [] if differences else _cells(first, second, run_sd)
    if not (same_host and same_baseline):
        cells = [replace(cell, median_seconds=None) for cell in cells]
    return ChangedExperiment(
        name=first.name,
        metric=first.metric or None,
        better=first.better,
        scale=first.scale,
        unit=first.unit or second.unit,
        command=first.command or None,
        baseline=first.baseline,
        confidence=_confidence(first, second),
        refused=", ".join(differences) or ("" if cells else "no cell in common"),
        failures=(first.failures, second.failures),
        crashes=(first.crashes or (), second.crashes or ()),
        cells=tuple(cells),
        same_baseline=same_baseline,
    )


def _difference_of(what: str, first: object, second: object) -> str:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        keys = [key for key in {**first, **second} if first.get(key) != second.get(key)]
        each = (f"{key} {first.get(key)} and {second.get(key)}" for key in keys)
        return f"{what}: {', '.join(each)}"
    return f"{what} {first} and {second}"


def _cells(first: Experiment, second: Experiment, run_sd: float) -> list[ChangedCell]:
    effect = max(first.minimum_effect, second.minimum_effect)
    metric = first.kind
    rule = Rule.of(_confidence(first, second), effect, metric)
    if metric.is_difference:
        run_sd *= max(map(_size, (first, second)))
    others = {_key(cell): cell for cell in second.cells}
    pairs = [(cell, others[_key(cell)]) for cell in first.compared if _key(cell) in others]
    control_differs = first.control_differs or second.control_differs
    results = [_difference(pair, rule, run_sd) for pair in pairs]
    corrected = adjust([one.p if one else None for one in results])
    beyond = adjust([one.p_beyond if one else None for one in results])
    same = adjust([one.p_same if one else None for one in results])
    return [
        _row(pair, one, p, rule, control_differs=control_differs)
        for pair, one, p in zip(
            pairs, results, zip(corrected, beyond, same, strict=True), strict=True
        )
    ]


def _size(experiment: Experiment) -> float:
    """Return the absolute value of the baseline, the largest if it has several cells."""
    values = (cell.median_seconds for cell in experiment.cells if cell.is_baseline)
    return max((abs(value) for value in values if value is not None), default=0.0)


def _difference(pair: tuple[Cell, Cell], rule: Rule, run_sd: float) -> Paired | None:
    first, second = (_summary(cell, rule.metric) for cell in pair)
    return difference(first, second, rule, run_sd=run_sd) if first and second else None


def _summary(cell: Cell, metric: MetricKind) -> Summary | None:
    hosts = len(cell.between_hosts.hosts) if cell.between_hosts else None
    if metric.is_difference:
        own, sd = cell.difference, cell.sd_difference
        if own is UNSET or own is None or sd is UNSET or sd is None or cell.failed:
            return None
        return Summary(cell.blocks, own if metric.better == "higher" else -own, sd, hosts)
    if not cell.ratio or cell.sd_log is None or cell.failed:
        return None
    return Summary(cell.blocks, math.log(cell.ratio), cell.sd_log, hosts)


def _row(
    pair: tuple[Cell, Cell],
    result: Paired | None,
    p: tuple[float | None, float | None, float | None],
    rule: Rule,
    *,
    control_differs: bool,
) -> ChangedCell:
    first, second = pair
    p_corrected, p_beyond, p_same = p
    verdict, reason = Verdict.UNDECIDED, ""
    if result is None:
        reason = "a run has failures or too few blocks of this cell"
    elif result.blocks < MINIMUM_BLOCKS:
        blocks = counted(result.blocks, "block")
        reason = f"{blocks} in one of the runs, needs at least {MINIMUM_BLOCKS}"
    elif control_differs:
        reason = "the A/A control of one of the runs differs"
    else:
        verdict = word(result, p_beyond, p_same, rule)
        if verdict is Verdict.UNDECIDED:
            reason = why_undecided(p_corrected, rule)
    change, interval = (result.ratio, result.ci) if result else (None, None)
    found: dict[str, Any] = {}
    if rule.metric.is_difference:
        change, interval = of_difference(result, rule.metric) if result else (None, None)
        found["difference"] = tuple(each.estimate for each in pair)
    return ChangedCell(
        kernel=first.kernel,
        setting=first.setting,
        parameters=first.parameters,
        blocks=(first.blocks, second.blocks),
        ratio=(first.ratio, second.ratio),
        ci=(first.ci, second.ci),
        median_seconds=(first.median_seconds, second.median_seconds),
        change=change,
        change_ci=interval,
        p_beyond=p_beyond,
        p_same=p_same,
        verdict=verdict,
        reason=reason,
        **found,
    )


def _confidence(first: Experiment, second: Experiment) -> float:
    return float(max(first.confidence, second.confidence))


def _notes(
    first: Report, second: Report, experiments: Sequence[ChangedExperiment], *, same_host: bool
) -> list[str]:
    notes = [*first.notes, *second.notes]
    for run in (first, second):
        if not run.finished:
            notes.append(f"{run.run} is not finished")
        loaded = [each.name for each in run.experiments if _is_loaded(each)]
        if loaded:
            notes.append(f"in {run.run} the host was busy ({', '.join(loaded)})")
        few = [each.name for each in run.experiments if _uses_few_disturbed(each)]
        if few:
            notes.append(f"in {run.run} disturbed blocks are used ({', '.join(few)})")
    if not same_host:
        notes.append("different host or QEMU: ratios can be compared, times cannot")
    for name in sorted({each.baseline for each in experiments if not each.same_baseline}):
        notes.append(f"the baseline {name} has different images: this alone can change a ratio")
    kernels = first.kernels.keys() & second.kernels.keys()
    baselines = {each.baseline for each in experiments}
    for name in sorted(kernels - baselines):
        if _image(first, name) != _image(second, name):
            notes.append(f"{name} has different images in the runs: their change is compared")
    names = _by_name(first).keys() ^ _by_name(second).keys()
    notes += [f"{name} is in one of the runs only" for name in sorted(names)]
    refused = (each for each in experiments if each.refused)
    notes += [f"{each.name} is not compared: {each.refused}" for each in refused]
    return notes


def _is_loaded(experiment: Experiment) -> bool:
    health = experiment.host_health
    return health is not None and health.stays_loaded


def _uses_few_disturbed(experiment: Experiment) -> bool:
    """Whether disturbed blocks count, though the host was not busy all the time."""
    health = experiment.host_health
    return (
        health is not None
        and bool(health.disturbed)
        and not health.left_out
        and not health.stays_loaded
    )


def _by_name(report: Report) -> dict[str, Experiment]:
    return {each.name: each for each in report.experiments}


def _key(cell: Cell) -> tuple[str, str, str]:
    return cell.kernel, str(cell.setting), str(cell.parameters)


def _image(report: Report, kernel: str) -> str | None:
    found = report.kernels.get(kernel)
    return (found.image or None) if found else None


def _of_host(report: Report) -> tuple[object, object, object]:
    workers = {one.id for each in report.experiments for one in each.hosts or ()}
    return report.host.id, report.host.qemu, workers
