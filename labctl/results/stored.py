"""What the samples of a stored run say, by the rule that the run was made with."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from labctl.results.comparison import ExperimentResult
from labctl.results.runs import RunFolder
from labctl.results.stats import compare
from labctl.results.store import Sample


def results_of(run: RunFolder) -> list[ExperimentResult]:
    """Return the comparisons of each of a run's experiments, in their order.

    Raises:
        UserError: the run's files are damaged.
    """
    samples = run.store.samples()
    return [_compare(samples, experiment) for experiment in run.read()["experiments"]]


def spread_of(run: RunFolder, workload: str) -> float | None:
    """Return the median over cells of the standard deviation of a block's log ratio.

    None if the run has no two good blocks of any cell of the workload.
    """
    names = {e["name"] for e in run.read()["experiments"] if e["workload"] == workload}
    if not names:
        return None
    cells = [cell for each in results_of(run) if each.name in names for cell in each.cells]
    return statistics.median(found) if (found := [c.sd_log for c in cells if c.sd_log]) else None


def _compare(samples: list[Sample], experiment: Mapping[str, Any]) -> ExperimentResult:
    return compare(
        [sample for sample in samples if sample.experiment == experiment["name"]],
        name=experiment["name"],
        baseline=experiment["baseline"],
        confidence=experiment["confidence"],
        minimum_effect=experiment["minimum_effect"],
        better=experiment["better"],
    )
