"""The plot of an experiment's repetitions over time, with the host's load below. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from labctl.reports import plots, svg, words
from labctl.runs.sample import Sample
from labctl.stats.health import load_percent
from labctl.stats.report_types import Experiment
from labctl.status import SampleStatus

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_POINTS = 3000  # a plot of a million points makes a page of 100 MB
_MOST_OF_LOAD = 300  # of each figure
_FAILED = "#d1495b"
# Colour and marker of each figure of the load, so that they differ not by colour alone.
_LOAD = {
    "others_percent": ("other processes", plots.COLOURS[1], "."),
    "steal_percent": ("hypervisor", plots.COLOURS[3], "+"),
    "cpu_pressure_percent": ("waiting for a CPU", plots.COLOURS[0], "1"),
    "memory_pressure_percent": ("waiting for memory", plots.COLOURS[2], "x"),
}


@dataclass(frozen=True, slots=True)
class Timeline:
    """The SVG, how many repetitions are `drawn` of how many, and whether their load is."""

    svg: str
    drawn: int
    count: int
    has_load: bool


@dataclass(frozen=True, slots=True)
class _Points:
    """Samples with their minutes since the first one, and the load of each in percent."""

    samples: Sequence[Sample]
    minutes: Sequence[float]
    loads: Sequence[Mapping[str, float]]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> _Points:
        times = [datetime.fromisoformat(each.started_at).timestamp() for each in samples]
        first = min(times, default=0.0)
        minutes = [(time - first) / 60 for time in times]
        loads = [load_percent(each.load) if each.load else {} for each in samples]
        return cls(samples, minutes, loads)

    def text(self, index: int, value: str) -> str:
        """Return what one point is, for a reader who points at it."""
        sample = self.samples[index]
        name = words.named(sample.label, sample.setting)
        where = f"block {sample.block}, repetition {sample.repetition}"
        why = f"; {sample.disturbed}" if sample.disturbed else ""
        return f"{name}: {value}; {where}, minute {self.minutes[index]:.1f}{why}"


def over_time(experiment: Experiment, samples: Sequence[Sample]) -> Timeline:
    """Return a plot of all repetitions over time, with the host's load if it is on record.

    Colours are kernels, crosses are disturbed repetitions, triangles are failed ones.
    Disturbed blocks are shaded. Many points are `thinned`.
    """
    shown = [each for each in samples if not each.warmup and each.status != SampleStatus.SKIPPED]
    points = _Points.of(shown)
    has_load = any(points.loads)
    values = svg.Values()
    ratios = (2.0, 1.0) if has_load else (1.0,)
    with plots.panels(3.6 if has_load else 2.6, ratios) as (axes, image):
        drawn = _repetitions(experiment, points, axes[0], values)
        _shade(experiment, points, axes)
        if has_load:
            _load(points, axes[1], values)
        axes[-1].set_xlabel("minutes since the first")
    name = f"{experiment.name}: every repetition over time"
    name += ", and the load of the host below" if has_load else ""
    count = sum(each.status == SampleStatus.OK for each in shown)
    return Timeline(svg.labelled(image.getvalue(), name, values), drawn, count, has_load)


def _repetitions(experiment: Experiment, points: _Points, axes: Axes, values: svg.Values) -> int:
    metric = experiment.kind
    numbers = [each.value or 0.0 for each in points.samples]
    of_label: dict[str, list[int]] = {}
    failed = []
    for index, each in enumerate(points.samples):
        if each.status == SampleStatus.OK:
            of_label.setdefault(each.label, []).append(index)
        else:
            failed.append(index)
    colours = plots.colours(experiment)
    drawn = 0
    for label, indices in sorted(of_label.items()):
        own = thinned(indices, points.minutes, numbers, most=_MOST_POINTS // len(of_label))
        drawn += len(own)
        sample = points.samples[indices[0]]
        colour = plots.OF_CONTROL if sample.control else colours[sample.kernel]
        for marker, size, is_disturbed in ((".", 3, False), ("x", 4, True)):
            shown = [i for i in own if bool(points.samples[i].disturbed) == is_disturbed]
            if not shown:
                continue
            texts = [points.text(i, words.value(numbers[i], metric)) for i in shown]
            axes.plot(
                [points.minutes[i] for i in shown],
                [numbers[i] for i in shown],
                marker,
                markersize=size,
                color=colour,
                gid=values.add(texts),
            )
        axes.plot([], [], "o", markersize=4, color=colour, label=plots.short(label))
    if failed := thinned(failed, points.minutes, numbers, most=_MOST_OF_LOAD):
        axes.plot(
            [points.minutes[i] for i in failed],
            [0.0] * len(failed),
            "^",
            markersize=5,
            color=_FAILED,
            clip_on=False,
            label="failed",
            gid=values.add([points.text(i, points.samples[i].status) for i in failed]),
        )
    unit = "seconds" if metric.is_elapsed else metric.name
    if not metric.is_elapsed and metric.value_unit:
        unit = f"{unit}, {'seconds' if metric.is_time else metric.unit}"
    axes.set_ylabel(plots.short(unit))
    if not metric.is_difference:
        axes.set_ylim(bottom=0)
    plots.legend(axes)
    return drawn


def _load(points: _Points, axes: Axes, values: svg.Values) -> None:
    for name, (label, colour, marker) in _LOAD.items():
        indices = [index for index, load in enumerate(points.loads) if name in load]
        percent = [load.get(name, 0.0) for load in points.loads]
        if not any(percent[index] for index in indices) and name != "others_percent":
            continue
        own = thinned(indices, points.minutes, percent, most=_MOST_OF_LOAD)
        if not own:
            continue
        axes.plot(
            [points.minutes[i] for i in own],
            [percent[i] for i in own],
            marker,
            markersize=4,
            linestyle="-",
            linewidth=0.5,
            color=colour,
            label=label,
            gid=values.add([points.text(i, f"{label} {percent[i]:.2g} %") for i in own]),
        )
    axes.set_ylabel("load, %")
    axes.set_ylim(bottom=0)
    plots.legend(axes, above=True)


def _shade(experiment: Experiment, points: _Points, panels: Sequence[Axes]) -> None:
    """Shade the blocks that the host disturbed, from their first to their last repetition."""
    health = experiment.host_health
    for block in map(int, health.disturbed if health else ()):
        minutes = [
            minute
            for minute, sample in zip(points.minutes, points.samples, strict=True)
            if sample.block == block
        ]
        if minutes:
            for axes in panels:
                axes.axvspan(min(minutes), max(minutes), color=_FAILED, alpha=0.12, linewidth=0)


def thinned(
    indices: Sequence[int], times: Sequence[float], values: Sequence[float], *, most: int
) -> list[int]:
    """Return at most `most` (3 or more) of the points, in the order of time.

    Keep the lowest, median and highest point of each stretch, so that outliers remain.
    """
    ordered = sorted(indices, key=times.__getitem__)
    if len(ordered) <= most:
        return ordered
    each = math.ceil(len(ordered) / (most // 3))
    kept = []
    for start in range(0, len(ordered), each):
        stretch = sorted(ordered[start : start + each], key=values.__getitem__)
        three = {stretch[0], stretch[len(stretch) // 2], stretch[-1]}
        kept += sorted(three, key=times.__getitem__)
    return kept
