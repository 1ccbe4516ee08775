"""Plots of a report as self-contained SVG. Pure."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from labctl.reports import seed, words
from labctl.runs.sample import Sample
from labctl.stats.report_types import Experiment
from labctl.stats.scaling import Curve
from labctl.status import SampleStatus

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH_INCHES = 4.6  # readable on a phone, which shows it at four fifths of its size
ROW_INCHES = 0.28
INK = "#010203"  # of text and axes: stands for the page's own, dark or light
_BASELINE = "#7a7a7a"  # as the others readable on white and on black
COLOURS = ("#2a8fd0", "#e07b1a", "#2aa36b", "#c24d8f", "#8a6fd1")
_OF_CONTROL = "#b5a642"
_MOST_POINTS = 3000  # a plot of a million points makes a page of 100 MB


def intervals(experiment: Experiment) -> str:
    """Return the ratios of an experiment's cells, and its A/A control, with intervals."""
    every = [*filter(None, [experiment.aa_control]), *experiment.cells]
    cells = [cell for cell in every if cell.ratio and cell.interval]
    names = {id(cell): words.cell(cell) for cell in cells}
    own = zip(experiment.cells, words.names(experiment.cells), strict=True)
    names |= {id(cell): name for cell, name in own}
    with figure(ROW_INCHES * len(cells) + 0.8) as (axes, image):
        colours = _colours(experiment)
        for row, cell in enumerate(cells):
            if cell.ratio is None or cell.interval is None:
                continue
            low, high = cell.interval
            axes.errorbar(
                [cell.ratio],
                [row],
                xerr=[[cell.ratio - low], [high - cell.ratio]],
                fmt="o",
                markersize=4,
                capsize=3,
                color=_OF_CONTROL if cell is experiment.aa_control else colours[cell.kernel],
            )
        axes.axvline(1.0, color=_BASELINE, linewidth=1, linestyle=":")
        axes.set_yticks(range(len(cells)), [names[id(cell)] for cell in cells])
        axes.set_ylim(len(cells) - 0.5, -0.5)
        level = words.level(experiment.confidence)
        axes.set_xlabel(f"ratio to {experiment.baseline} ({level}); right is better")
    return image.getvalue()


def over_time(experiment: Experiment, samples: Sequence[Sample]) -> tuple[str, int, int]:
    """Return a plot of all good repetitions over time, and how many are drawn of how many.

    Colours are kernels, crosses are disturbed repetitions. Many points are `thinned`.
    """
    good = [each for each in samples if each.status == SampleStatus.OK and not each.warmup]
    times = [datetime.fromisoformat(each.started_at).timestamp() for each in good]
    values = [each.value or 0.0 for each in good]
    first = min(times, default=0.0)
    of_label: dict[str, list[int]] = {}
    for index, each in enumerate(good):
        of_label.setdefault(each.label, []).append(index)
    drawn = 0
    with figure(2.6) as (axes, image):
        colours = _colours(experiment)
        for label, indices in sorted(of_label.items()):
            own = thinned(indices, times, values, most=_MOST_POINTS // len(of_label))
            drawn += len(own)
            sample = good[indices[0]]
            colour = _OF_CONTROL if sample.control else colours[sample.kernel]
            for marker, size, shown in (
                (".", 3, [index for index in own if not good[index].disturbed]),
                ("x", 4, [index for index in own if good[index].disturbed]),
            ):
                axes.plot(
                    [(times[index] - first) / 60 for index in shown],
                    [values[index] for index in shown],
                    marker,
                    markersize=size,
                    color=colour,
                )
            axes.plot([], [], "o", markersize=4, color=colour, label=label)
        axes.set_xlabel("minutes since the first")
        metric = experiment.kind
        unit = "seconds" if metric.is_elapsed else metric.name
        axes.set_ylabel(f"{unit}, seconds" if metric.is_time and unit != "seconds" else unit)
        axes.set_ylim(bottom=0)
        _legend(axes)
    return image.getvalue(), drawn, len(good)


def thinned(
    indices: Sequence[int], times: Sequence[float], values: Sequence[float], *, most: int
) -> list[int]:
    """Return at most `most` (3 or more) of the points, in the order of time.

    Keep the lowest, median and highest point of each stretch, so that outliers remain.
    """
    ordered = sorted(indices, key=lambda index: times[index])
    if len(ordered) <= most:
        return ordered
    each = math.ceil(len(ordered) / (most // 3))
    kept = []
    for start in range(0, len(ordered), each):
        stretch = sorted(ordered[start : start + each], key=lambda index: values[index])
        three = {stretch[0], stretch[len(stretch) // 2], stretch[-1]}
        kept += sorted(three, key=lambda index: times[index])
    return kept


def curve(fitted: Curve, *, with_seed: bool = True) -> str:
    """Return times over the number of workers, the fit, and the original series' times.

    The latter are from another machine: all times are relative to one worker.
    """
    levels = fitted.levels
    with figure(2.6) as (axes, image):
        own = [one / fitted.seconds[0] for one in fitted.seconds]
        fit = [one / fitted.seconds[0] for one in fitted.fitted_seconds]
        ticks = set(levels)
        axes.plot(levels, own, "o", color=COLOURS[0], markersize=4, label=fitted.kernel)
        axes.plot(levels, fit, "-", color=COLOURS[0], linewidth=1, label="fitted")
        if with_seed and fitted.kernel == seed.SERIES and fitted.axis == "max_active":
            one = seed.MAX_ACTIVE[1].seconds
            ticks |= seed.MAX_ACTIVE.keys()
            axes.plot(
                list(seed.MAX_ACTIVE),
                [each.seconds / one for each in seed.MAX_ACTIVE.values()],
                "x--",
                color=_BASELINE,
                linewidth=1,
                markersize=4,
                label="the seed's, other hardware",
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(ticks), [str(level) for level in sorted(ticks)])
        axes.minorticks_off()
        axes.set_xlabel(fitted.axis)
        axes.set_ylabel(f"time over that at {levels[0]}")
        axes.set_ylim(bottom=0)
        _legend(axes)
    return image.getvalue()


def _legend(axes: Axes) -> None:
    # Near zero, where there are no points; to look for the best place takes long.
    axes.legend(loc="lower left", fontsize=8, frameon=False, labelcolor=INK, ncols=2)


def _colours(experiment: Experiment) -> dict[str, str]:
    """Return each kernel's colour in all plots of an experiment; the baseline is grey."""
    others = dict.fromkeys(cell.kernel for cell in experiment.cells)
    others.pop(experiment.baseline, None)
    own = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(others)}
    return {experiment.baseline: _BASELINE, **own}


@contextmanager
def figure(height_inches: float) -> Iterator[tuple[Axes, io.StringIO]]:
    """Draw one plot; it is in the text once the block ends."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    image = io.StringIO()
    style: dict[Any, Any] = {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "labctl",  # the same values, the same file
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(style):
        drawn = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
        yield drawn.add_subplot(), image
        drawn.savefig(image, format="svg", metadata={"Date": None}, transparent=True)
        text = image.getvalue()
        image.seek(0)
        image.truncate()
        # What is before belongs to a file of its own.
        image.write(text[text.index("<svg") :].replace(INK, "currentColor"))
