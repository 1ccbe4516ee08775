"""Explain a stored run by the counters of its observers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from labctl.errors import UserError
from labctl.reports.document import rounded
from labctl.runs import folder as run_folder
from labctl.runs.folder import RunFolder
from labctl.runs.sample import Sample
from labctl.stats.explanation_types import Explanation, Observed
from labctl.stats.observed import observed
from labctl.stats.stored import used_of


def explanation_of(runs: Path, run_id: str) -> Explanation:
    """Return what the observers of a run in the folder `runs` found.

    Raises:
        UserError: there is no such run, its files are damaged, or it had no observers.
    """
    run = run_folder.resolve(runs, run_id)
    experiments = [*observed_of(run), *observed_in_passes(run)]
    if not experiments:
        raise UserError(
            f"run {run.id} has no counters: its experiments had no observers",
            where=str(run.path / "run.json"),
            hint="add `observe: [vmstat, interrupts]` to an experiment, or to `defaults:`, in "
            "lab.yaml, and run it again",
        )
    return Explanation(run=run.id, accel=run.read().accel, experiments=tuple(experiments))


def observed_in_passes(run: RunFolder) -> list[Observed]:
    """Return what the observers of a run's passes found."""
    return [each for part in run_folder.passes(run) for each in observed_of(part)]


def observed_of(run: RunFolder, samples: Sequence[Sample] | None = None) -> list[Observed]:
    """Return what the observers of a run, or of one of its passes, found.

    `samples` are its own, if they are read already.
    """
    experiments = [each for each in run.read().experiments if each.observe]
    if not experiments:
        return []
    if samples is None:
        samples = run.store.samples()
    found = []
    for experiment in experiments:
        used, _ = used_of(experiment, samples)
        found.append(observed(experiment, used))
    return [rounded(each) for each in found if each is not None]
