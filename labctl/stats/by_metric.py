"""A report with each further metric as an experiment of its own, for formats of one metric. Pure.

Such an experiment is called EXPERIMENT/METRIC, which no name in lab.yaml can be.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET
from msgspec.structs import replace

from labctl.runs.sample import Sample
from labctl.stats.report_types import Experiment, FurtherMetric, Report


def by_metric(document: Report) -> Report:
    """Return the report with an experiment for each metric; the first keeps the name."""
    found = [one for each in document.experiments for one in (each, *_further(each))]
    return replace(document, experiments=tuple(found))


def samples_by_metric(document: Report, samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples of the experiments of `by_metric`."""
    found = list(samples)
    for experiment in document.experiments:
        for one in experiment.further_metrics or ():
            name, scale = _name(experiment, one), one.scale or "ratio"
            found += [
                replace(sample.of_metric(one.metric, scale), experiment=name)
                for sample in samples
                if sample.experiment == experiment.name
            ]
    return found


def is_further(name: str) -> bool:
    """Whether the name of an experiment is that of a further metric."""
    return "/" in name


def _name(experiment: Experiment, metric: FurtherMetric) -> str:
    return f"{experiment.name}/{metric.metric}"


def _further(experiment: Experiment) -> list[Experiment]:
    health = experiment.host_health
    # What the host did, and what failed, is a remark of the first metric.
    quiet = None if health is None else replace(health, disturbed={}, stays_loaded=False, seen={})
    return [
        replace(
            experiment,
            name=_name(experiment, one),
            metric=one.metric,
            better=one.better,
            scale=one.scale,
            unit=one.unit,
            minimum_effect=one.minimum_effect,
            blocks=one.blocks,
            aa_control=one.aa_control,
            cells=one.cells,
            warnings=one.warnings,
            placement=UNSET,
            curves=(),
            host_health=quiet,
            failures=(),
            crashes=UNSET,
            observed=UNSET,
            passes=UNSET,
        )
        for one in experiment.further_metrics or ()
    ]
