"""Comparisons and noise of stored runs, by the rules that the runs were made with."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from labctl.errors import UserError
from labctl.lab_metrics import MetricKind
from labctl.results.comparison import ExperimentResult
from labctl.results.health import usable
from labctl.results.noise import Noise, best_repetitions, estimate
from labctl.results.paired import MINIMUM_BLOCKS
from labctl.results.runs import RunFolder
from labctl.results.stats import compare
from labctl.results.store import Sample


def results_of(record: Mapping[str, Any], samples: Sequence[Sample]) -> list[ExperimentResult]:
    """Return the comparisons of each experiment of a run's record, in order."""
    return [_compare(samples, experiment) for experiment in record["experiments"]]


def spread_of(run: RunFolder, workload: str) -> float | None:
    """Return the median over cells of the standard deviation of a block's log ratio.

    None if no cell of the workload has two good blocks.

    Raises:
        UserError: the run's files are damaged.
    """
    experiments = [e for e in run.read()["experiments"] if e["workload"] == workload]
    if not experiments:
        return None
    results = results_of({"experiments": experiments}, run.store.samples())
    found = [cell.sd_log for each in results for cell in each.cells if cell.sd_log]
    return statistics.median(found) if found else None


@dataclass(frozen=True, slots=True)
class ExperimentNoise:
    """The noise of one experiment of a run.

    `best_repetitions` is the most efficient number of repetitions per boot.
    """

    name: str
    workload: str
    noise: Noise
    repetitions: int | None
    best_repetitions: int | None


def noises_of(run: RunFolder) -> list[ExperimentNoise]:
    """Return the noise of each experiment of a run that has enough samples.

    Raises:
        UserError: the run's files are damaged, or no experiment has two blocks of two
            cells with repetitions.
    """
    record, samples = run.read(), run.store.samples()
    found = []
    for experiment in record["experiments"]:
        name = experiment["name"]
        noise = estimate([s for s in samples if s.experiment == name], name=name)
        if noise is not None:
            best = _best_repetitions(noise, record.get("timing", {}).get(name, []))
            repetitions = experiment.get("repetitions")
            workload = experiment["workload"]
            found.append(ExperimentNoise(name, workload, noise, repetitions, best))
    if not found:
        raise UserError(
            f"run {run.id}: too few samples to estimate the noise",
            where=str(run.path),
            hint="at least two cells, two blocks and two repetitions per boot are needed",
        )
    return found


def _best_repetitions(noise: Noise, timings: Sequence[Mapping[str, float]]) -> int | None:
    boots, visits = (sum(each[what] for each in timings) for what in ("boots", "visits"))
    if not boots or not visits:
        return None
    return best_repetitions(
        noise,
        boot_seconds=sum(each["boot_seconds"] for each in timings) / boots,
        visit_seconds=sum(each["workload_seconds"] for each in timings) / visits,
    )


def _compare(samples: Sequence[Sample], experiment: Mapping[str, Any]) -> ExperimentResult:
    own = [sample for sample in samples if sample.experiment == experiment["name"]]
    used, health = usable(own, experiment.get("blocks_min", MINIMUM_BLOCKS))
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
    return replace(result, health=health)
