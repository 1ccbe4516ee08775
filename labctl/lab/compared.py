"""What an experiment compares: its metrics, in which direction and on which scale. Pure.

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


def metrics_of(experiment: ExperimentEntry, workload: WorkloadEntry) -> tuple[str, ...]:
    """Return the names of an experiment's metrics; the first one decides."""
    return experiment.metrics or (experiment.metric or workload.metric,)


def better_of(
    experiment: ExperimentEntry, workload: WorkloadEntry, metric: str | None = None
) -> Better | None:
    """Return whether less or more of a metric is better, None if undefined.

    The metric is one of the experiment's, by default the first.
    """
    metric = metric or metrics_of(experiment, workload)[0]
    own = workload.metrics.get(metric)
    better = experiment.better or (own.better if own is not None else None)
    better = better or (workload.better if metric == workload.metric else None)
    return metrics.better_of(metric, _command(workload), better)


def scale_of(
    experiment: ExperimentEntry, workload: WorkloadEntry, metric: str | None = None
) -> Scale:
    """Return whether a metric, by default the first, is compared by ratios or differences."""
    metric = metric or metrics_of(experiment, workload)[0]
    own = workload.metrics.get(metric)
    scale = experiment.scale or (own.scale if own is not None else None)
    return scale or (workload.scale if metric == workload.metric else None) or "ratio"


def compared(
    experiment: ExperimentEntry, workload: WorkloadEntry, statistics: Statistics
) -> tuple[Compared, ...]:
    """Return the metrics of an experiment; `statistics` are those of the lab.

    Raises:
        EffectError: a minimum effect is missing or does not fit.
    """
    return tuple(
        Compared(
            name=metric,
            better=better_of(experiment, workload, metric) or "lower",
            scale=scale_of(experiment, workload, metric),
            minimum_effect=_minimum_effect(experiment, workload, statistics, metric),
        )
        for metric in metrics_of(experiment, workload)
    )


def resolved(
    experiment: ExperimentEntry, workload: WorkloadEntry, statistics: Statistics
) -> Statistics:
    """Return an experiment's statistics: the lab's with the experiment's and metric's overrides.

    With `scale: difference` of the first metric, `minimum_effect` and `stop_at_half_width` are
    in the unit of its values. Raises EffectError as `compared` does.
    """
    first = metrics_of(experiment, workload)[0]
    least = _minimum_effect(experiment, workload, statistics, first)
    stop = statistics.stop_at_half_width
    own = experiment.statistics
    if "stop_at_half_width" in own.model_fields_set:
        written = own.stop_at_half_width
        path = ("statistics", "stop_at_half_width")
        stop = None if written is None else _value(written, experiment, workload, first, path)
    elif stop is not None and scale_of(experiment, workload) == "difference":
        stop = least * stop / statistics.minimum_effect
    effects = {"minimum_effect": least, "stop_at_half_width": stop}
    return own.over(statistics).model_copy(update=effects)


def _minimum_effect(
    experiment: ExperimentEntry, workload: WorkloadEntry, statistics: Statistics, metric: str
) -> float:
    """Return the minimum effect of a metric.

    That of the experiment's `statistics` is the first metric's, and a share is also that of
    other ratios without their own.
    """
    written, path = experiment.statistics.minimum_effect, ("statistics", "minimum_effect")
    if written is not None and metric == metrics_of(experiment, workload)[0]:
        return _value(written, experiment, workload, metric, path)
    entry = workload.metrics.get(metric)
    if entry is not None and entry.minimum_effect is not None:
        own = ("metrics", metric, "minimum_effect")
        return _value(entry.minimum_effect, experiment, workload, metric, own, is_of_workload=True)
    if scale_of(experiment, workload, metric) == "ratio":
        is_share = written is not None and scale_of(experiment, workload) == "ratio"
        if written is not None and is_share:
            return _value(written, experiment, workload, metric, path)
        return statistics.minimum_effect
    example = "2ms" if metrics.is_time(metric, _command(workload)) else "100"
    what = f"minimum_effect is missing: {metric} has `scale: difference`"
    key = f"statistics: {{minimum_effect: {example}}}"
    if metric != metrics_of(experiment, workload)[0]:
        key = f"metrics: {{{metric}: {{minimum_effect: {example}}}}} of the workload"
    hint = f"add the smallest difference that matters: {key}"
    raise EffectError(UnitError(what, hint), ())


def _value(
    effect: Effect,
    experiment: ExperimentEntry,
    workload: WorkloadEntry,
    metric: str,
    path: KeyPath,
    *,
    is_of_workload: bool = False,
) -> float:
    entry = workload.metrics.get(metric)
    unit = entry.unit if entry is not None else None
    scale = scale_of(experiment, workload, metric)
    try:
        return effect.on(scale, metric, unit, _command(workload))
    except UnitError as error:
        raise EffectError(error, path, is_of_workload=is_of_workload) from error


def _command(workload: WorkloadEntry) -> str:
    return workload.command or workload.script or ""
