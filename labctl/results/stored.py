"""What the samples of a stored run say, by the rule that the run was made with."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from labctl.results.comparison import ExperimentResult
from labctl.results.health import usable
from labctl.results.paired import MINIMUM_BLOCKS
from labctl.results.runs import RunFolder
from labctl.results.stats import compare
from labctl.results.store import Sample


def results_of(record: Mapping[str, Any], samples: Sequence[Sample]) -> list[ExperimentResult]:
    """Return the comparisons of each experiment of a run's record, in their order."""
    return [_compare(samples, experiment) for experiment in record["experiments"]]


def spread_of(run: RunFolder, workload: str) -> float | None:
    """Return the median over cells of the standard deviation of a block's log ratio.

    None if the run has no two good blocks of any cell of the workload.

    Raises:
        UserError: the run's files are damaged.
    """
    experiments = [e for e in run.read()["experiments"] if e["workload"] == workload]
    if not experiments:
        return None
    results = results_of({"experiments": experiments}, run.store.samples())
    found = [cell.sd_log for each in results for cell in each.cells if cell.sd_log]
    return statistics.median(found) if found else None


def _compare(samples: Sequence[Sample], experiment: Mapping[str, Any]) -> ExperimentResult:
    own = [sample for sample in samples if sample.experiment == experiment["name"]]
    used, health = usable(own, experiment.get("blocks_min", MINIMUM_BLOCKS))
    result = compare(
        used,
        name=experiment["name"],
        baseline=experiment["baseline"],
        confidence=experiment["confidence"],
        minimum_effect=experiment["minimum_effect"],
        better=experiment["better"],
    )
    return replace(result, health=health)
