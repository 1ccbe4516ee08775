"""Comparisons of stored runs, by the rules that the runs were made with. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from msgspec import UNSET

from labctl.runs.record import RunExperiment, RunRecord
from labctl.runs.sample import Sample
from labctl.stats.comparison import ExperimentResult
from labctl.stats.health import Health, usable
from labctl.stats.observed import observed
from labctl.stats.paired import MINIMUM_BLOCKS
from labctl.stats.several import compare_all


def results_of(record: RunRecord, samples: Sequence[Sample]) -> list[ExperimentResult]:
    """Return the comparisons of each experiment of a run's record, in order."""
    return [_compare(samples, experiment) for experiment in record.experiments]


def spread_of(record: RunRecord, samples: Sequence[Sample], workload: str) -> float | None:
    """Return the median over cells of the standard deviation of a block's log ratio.

    None if no cell of the workload has two good blocks; experiments that compare differences
    do not count.
    """
    results = [_compare(samples, one) for one in record.experiments if one.workload == workload]
    found = [cell.sd_log for each in results for cell in each.cells if cell.sd_log]
    return statistics.median(found) if found else None


def used_of(experiment: RunExperiment, samples: Sequence[Sample]) -> tuple[list[Sample], Health]:
    """Return the samples of an experiment's blocks that count, and the host's health."""
    own = [sample for sample in samples if sample.experiment == experiment.name]
    least = MINIMUM_BLOCKS if experiment.blocks_min is UNSET else experiment.blocks_min
    return usable(own, least)


def _compare(samples: Sequence[Sample], experiment: RunExperiment) -> ExperimentResult:
    used, health = used_of(experiment, samples)
    result = compare_all(
        used,
        metrics=experiment.kinds,
        name=experiment.name,
        baseline=experiment.baseline,
        confidence=experiment.confidence,
    )
    return replace(result, health=health, observed=observed(experiment, used))
