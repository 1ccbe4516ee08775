"""Comparisons of stored runs, by the rules that the runs were made with. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from labctl.lab.metrics import MetricKind
from labctl.runs.sample import Sample
from labctl.stats.compare import compare
from labctl.stats.comparison import ExperimentResult
from labctl.stats.health import Health, usable
from labctl.stats.observed import observed
from labctl.stats.paired import MINIMUM_BLOCKS


def results_of(record: Mapping[str, Any], samples: Sequence[Sample]) -> list[ExperimentResult]:
    """Return the comparisons of each experiment of a run's record, in order."""
    return [_compare(samples, experiment) for experiment in record["experiments"]]


def spread_of(record: Mapping[str, Any], samples: Sequence[Sample], workload: str) -> float | None:
    """Return the median over cells of the standard deviation of a block's log ratio.

    None if no cell of the workload has two good blocks.
    """
    experiments = [e for e in record["experiments"] if e["workload"] == workload]
    results = results_of({"experiments": experiments}, samples)
    found = [cell.sd_log for each in results for cell in each.cells if cell.sd_log]
    return statistics.median(found) if found else None


def used_of(
    experiment: Mapping[str, Any], samples: Sequence[Sample]
) -> tuple[list[Sample], Health]:
    """Return the samples of an experiment's blocks that count, and the host's health."""
    own = [sample for sample in samples if sample.experiment == experiment["name"]]
    return usable(own, experiment.get("blocks_min", MINIMUM_BLOCKS))


def _compare(samples: Sequence[Sample], experiment: Mapping[str, Any]) -> ExperimentResult:
    used, health = used_of(experiment, samples)
    metric = MetricKind.of(experiment)
    result = compare(
        used,
        name=experiment["name"],
        baseline=experiment["baseline"],
        confidence=experiment["confidence"],
        minimum_effect=experiment["minimum_effect"],
        better=metric.better,
        metric=metric,
    )
    return replace(result, health=health, observed=observed(experiment, used))
