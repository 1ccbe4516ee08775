"""What an experiment compares: its metric, in which direction and on which scale. Pure.

An experiment's own keys come first, then those of the metric under `metrics:` of its workload,
then those of the workload, which count only for the workload's own metric.
"""

from __future__ import annotations

from dataclasses import dataclass

from labctl.lab import metrics
from labctl.lab.document import KeyPath
from labctl.lab.effect import Effect
from labctl.lab.entries import ExperimentEntry
from labctl.lab.metrics import Better, Scale
from labctl.lab.statistics import Statistics
from labctl.lab.workload_entry import WorkloadEntry
from labctl.units import UnitError


@dataclass(frozen=True, slots=True)
class Compared:
    """A metric as an experiment compares it.

    `minimum_effect` is a fraction, or in the unit of the values with `scale` difference.
    """

    name: str
    better: Better
    scale: Scale
    minimum_effect: float


class EffectError(UnitError):
    """A missing or unfitting effect; `path` starts from the experiment or its workload."""

    def __init__(self, error: UnitError, path: KeyPath, *, is_of_workload: bool = False) -> None:
        super().__init__(str(error), error.hint)
        self.path, self.is_of_workload = path, is_of_workload


def metric_of(experiment: ExperimentEntry, workload: WorkloadEntry) -> str:
    """Return the name of the metric that an experiment compares."""
    return experiment.metric or workload.metric


def better_of(experiment: ExperimentEntry, workload: WorkloadEntry) -> Better | None:
    """Return whether less or more of an experiment's metric is better, None if undefined."""
    metric = metric_of(experiment, workload)
    own = workload.metrics.get(metric)
    better = experiment.better or (own.better if own is not None else None)
    better = better or (workload.better if metric == workload.metric else None)
    return metrics.better_of(metric, _command(workload), better)


def scale_of(experiment: ExperimentEntry, workload: WorkloadEntry) -> Scale:
    """Return whether an experiment's metric is compared by ratios or by differences."""
    metric = metric_of(experiment, workload)
    own = workload.metrics.get(metric)
    scale = experiment.scale or (own.scale if own is not None else None)
    return scale or (workload.scale if metric == workload.metric else None) or "ratio"


def compared(
    experiment: ExperimentEntry, workload: WorkloadEntry, statistics: Statistics
) -> Compared:
    """Return the metric of an experiment; `statistics` are those of the lab.

    Raises:
        EffectError: the minimum effect is missing or does not fit.
    """
    return Compared(
        name=metric_of(experiment, workload),
        better=better_of(experiment, workload) or "lower",
        scale=scale_of(experiment, workload),
        minimum_effect=_minimum_effect(experiment, workload, statistics),
    )


def resolved(
    experiment: ExperimentEntry, workload: WorkloadEntry, statistics: Statistics
) -> Statistics:
    """Return an experiment's statistics: the lab's with the experiment's and metric's overrides.

    With `scale: difference`, `minimum_effect` and `stop_at_half_width` are in the unit of the
    values. Raises EffectError as `compared` does.
    """
    least = _minimum_effect(experiment, workload, statistics)
    stop = statistics.stop_at_half_width
    own = experiment.statistics
    if "stop_at_half_width" in own.model_fields_set:
        written = own.stop_at_half_width
        path = ("statistics", "stop_at_half_width")
        stop = None if written is None else _value(written, experiment, workload, path)
    elif stop is not None and scale_of(experiment, workload) == "difference":
        stop = least * stop / statistics.minimum_effect
    effects = {"minimum_effect": least, "stop_at_half_width": stop}
    return own.over(statistics).model_copy(update=effects)


def _minimum_effect(
    experiment: ExperimentEntry, workload: WorkloadEntry, statistics: Statistics
) -> float:
    own = experiment.statistics.minimum_effect
    if own is not None:
        return _value(own, experiment, workload, ("statistics", "minimum_effect"))
    metric = metric_of(experiment, workload)
    entry = workload.metrics.get(metric)
    if entry is not None and entry.minimum_effect is not None:
        path = ("metrics", metric, "minimum_effect")
        return _value(entry.minimum_effect, experiment, workload, path, is_of_workload=True)
    if scale_of(experiment, workload) == "ratio":
        return statistics.minimum_effect
    example = "2ms" if metrics.is_time(metric, _command(workload)) else "100"
    what = f"minimum_effect is missing: {metric} has `scale: difference`"
    hint = f"add the smallest difference that matters: statistics: {{minimum_effect: {example}}}"
    raise EffectError(UnitError(what, hint), ())


def _value(
    effect: Effect,
    experiment: ExperimentEntry,
    workload: WorkloadEntry,
    path: KeyPath,
    *,
    is_of_workload: bool = False,
) -> float:
    metric = metric_of(experiment, workload)
    entry = workload.metrics.get(metric)
    unit = entry.unit if entry is not None else None
    try:
        return effect.on(scale_of(experiment, workload), metric, unit, _command(workload))
    except UnitError as error:
        raise EffectError(error, path, is_of_workload=is_of_workload) from error


def _command(workload: WorkloadEntry) -> str:
    return workload.command or workload.script or ""
