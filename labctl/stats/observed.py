"""What the observers of an experiment found, and what observing costs. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median

from msgspec.structs import replace

from labctl.lab.metrics import Better
from labctl.observers import OBSERVERS
from labctl.observers.observer import is_observed
from labctl.observers.stacks import NAME as STACKS
from labctl.runs.record import RunExperiment
from labctl.runs.sample import Sample
from labctl.stats.cells import Cell, cells_of
from labctl.stats.compare import roles
from labctl.stats.counters import RATE, changes
from labctl.stats.explanation_types import Cost, Observed
from labctl.stats.frames import frames
from labctl.stats.paired import MINIMUM_BLOCKS, paired
from labctl.status import SampleStatus
from labctl.units import counted


def observed(experiment: RunExperiment, samples: Sequence[Sample]) -> Observed | None:
    """Return what the observers found; None if the experiment had none.

    `experiment` is its record, `samples` are those of its blocks that count.
    """
    names = experiment.observe
    if not names:
        return None
    confidence, metric = experiment.confidence, experiment.kind
    cells = cells_of(samples, metric.scale)
    baselines, controls, others = roles(cells, experiment.baseline)
    of_controls = changes(controls, (*baselines, *others), confidence=confidence)
    unstable = sorted({change.counter for one in of_controls for change in one.changes})
    found = changes(others, baselines, confidence=confidence, controls=controls, left_out=unstable)
    blocks = min((each.blocks for each in found), default=0)
    if STACKS in names:
        of_cells = frames(others, baselines, controls, confidence)
        found = [replace(one, frames=own) for one, own in zip(found, of_cells, strict=True)]
    return Observed(
        name=experiment.name,
        observers=names,
        baseline=experiment.baseline,
        level=RATE,
        confidence=confidence,
        cost=None if metric.is_difference else cost(cells, metric.better, confidence),
        cells=tuple(found),
        unstable=tuple(unstable),
        warnings=(*_few(blocks), *_silent(names, cells)),
    )


def cost(cells: Sequence[Cell], better: Better, confidence: float) -> Cost | None:
    """Return the metric with observers over the metric without, as a ratio of times.

    Both are of the same boots: in each block, one repetition of each cell is not observed.
    """
    ratios: dict[int, list[float]] = {}
    for cell in cells:
        for block, log in _log_ratios(cell).items():
            ratios.setdefault(block, []).append(log if better == "lower" else -log)
    if not ratios:
        return None
    result = paired([fmean(logs) for logs in ratios.values()], confidence=confidence, margin=0.0)
    return Cost(ratio=result.ratio, ci=result.ci, blocks=result.blocks)


def _log_ratios(cell: Cell) -> dict[int, float]:
    values: dict[int, tuple[list[float], list[float]]] = {}
    for sample in cell.samples:
        if sample.status == SampleStatus.OK and sample.value is not None:
            is_with = any(map(is_observed, sample.counters))
            values.setdefault(sample.block, ([], []))[is_with].append(sample.value)
    return {
        block: math.log(median(having) / median(without))
        for block, (without, having) in values.items()
        if having and without
    }


def _few(blocks: int) -> list[str]:
    if blocks >= MINIMUM_BLOCKS:
        return []
    return [
        f"{counted(blocks, 'block')} with counters: at least {MINIMUM_BLOCKS} are needed to compare"
    ]


def _silent(names: Sequence[str], cells: Sequence[Cell]) -> list[str]:
    """Return the observers without counters, by kernel."""
    found = []
    for name in names:
        for kernel in dict.fromkeys(cell.kernel for cell in cells):
            samples = [s for cell in cells if cell.kernel == kernel for s in cell.samples]
            if not any(c.startswith(f"{name}.") for s in samples for c in s.counters):
                options = ", ".join(" or ".join(group) for group in OBSERVERS[name].needs)
                needs = f" (it needs {options})" if options else ""
                found.append(f"{name}: no counters of kernel {kernel}{needs}")
    return found
