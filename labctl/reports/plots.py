"""Plots of a report as self-contained SVG. Pure."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from labctl.reports import seed, svg, words
from labctl.stats.report_types import Experiment
from labctl.stats.scaling import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH_INCHES = 4.6  # readable on a phone, which shows it at four fifths of its size
ROW_INCHES = 0.28
INK = "#010203"  # of text and axes: stands for the page's own, dark or light
OF_BASELINE = "#7a7a7a"  # as the others readable on white and on black
COLOURS = ("#2a8fd0", "#e07b1a", "#2aa36b", "#c24d8f", "#8a6fd1")
_MOST_LETTERS = 32
OF_CONTROL = "#b5a642"


def intervals(experiment: Experiment) -> str:
    """Return the ratios or differences of an experiment's cells and its A/A control."""
    every = [*filter(None, [experiment.aa_control]), *experiment.cells]
    metric = experiment.kind
    noun = words.estimate_noun(metric)
    cells = [cell for cell in every if cell.estimate is not None and cell.interval]
    names = {id(cell): words.cell(cell) for cell in cells}
    own = zip(experiment.cells, words.names(experiment.cells), strict=True)
    names |= {id(cell): name for cell, name in own}
    values = svg.Values()
    with figure(ROW_INCHES * len(cells) + 0.8) as (axes, image):
        of_kernel = colours(experiment)
        for row, cell in enumerate(cells):
            found = cell.estimate
            if found is None or cell.interval is None:
                continue
            low, high = cell.interval
            colour = OF_CONTROL if cell is experiment.aa_control else of_kernel[cell.kernel]
            spread = [[max(found - low, 0.0)], [max(high - found, 0.0)]]
            axes.errorbar([found], [row], xerr=spread, fmt="none", capsize=3, color=colour)
            text = (
                f"{names[id(cell)]}: {noun} {words.estimate(cell, metric)} "
                f"({words.estimate_interval(cell.ci, metric)}), {metric.spoken(cell.verdict)}"
            )
            gid = values.add([text])
            axes.plot([found], [row], "o", markersize=4, color=colour, gid=gid)
        axes.axvline(
            0.0 if metric.is_difference else 1.0, color=OF_BASELINE, linewidth=1, linestyle=":"
        )
        axes.set_yticks(range(len(cells)), [short(names[id(cell)]) for cell in cells])
        axes.set_ylim(len(cells) - 0.5, -0.5)
        level = words.level(experiment.confidence)
        side = "left" if metric.is_difference and metric.better == "lower" else "right"
        axes.set_xlabel(
            f"{noun} to {short(experiment.baseline)} ({level}); {side} is better", loc="right"
        )
    name = f"{experiment.name}: {noun} to {experiment.baseline} of each cell, with interval"
    return svg.labelled(image.getvalue(), name, values)


def curve(fitted: Curve, *, with_seed: bool = True) -> str:
    """Return times over the number of workers, the fit, and the original series' times.

    The latter are from another host: all times are relative to one worker.
    """
    levels = fitted.levels
    values = svg.Values()
    with figure(2.6) as (axes, image):
        own = [one / fitted.seconds[0] for one in fitted.seconds]
        fit = [one / fitted.seconds[0] for one in fitted.fitted_seconds]
        ticks = set(levels)
        texts = [
            f"{fitted.axis}={level}: {words.seconds(time)}, {relative:.3g} of that at {levels[0]}"
            for level, time, relative in zip(levels, fitted.seconds, own, strict=True)
        ]
        gid = values.add(texts)
        axes.plot(
            levels, own, "o", color=COLOURS[0], markersize=4, label=short(fitted.kernel), gid=gid
        )
        axes.plot(levels, fit, "-", color=COLOURS[0], linewidth=1, label="fitted")
        if with_seed and fitted.kernel == seed.SERIES and fitted.axis == "max_active":
            one = seed.MAX_ACTIVE[1].seconds
            ticks |= seed.MAX_ACTIVE.keys()
            axes.plot(
                list(seed.MAX_ACTIVE),
                [each.seconds / one for each in seed.MAX_ACTIVE.values()],
                "x--",
                color=OF_BASELINE,
                linewidth=1,
                markersize=4,
                label="the seed's, other hardware",
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(ticks), [str(level) for level in sorted(ticks)])
        axes.minorticks_off()
        axes.set_xlabel(short(fitted.axis))
        axes.set_ylabel(f"time over that at {levels[0]}")
        axes.set_ylim(bottom=0)
        legend(axes)
    name = f"{fitted.kernel}: time over {fitted.axis}, measured and fitted"
    return svg.labelled(image.getvalue(), name, values)


def short(name: str) -> str:
    """Return a name that leaves room for the plot; the values of the plot have it whole."""
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"


def legend(axes: Axes, *, above: bool = False) -> None:
    """Add the legend: near zero, where there are no points, or above the axes."""
    # To look for the best place takes long.
    place: dict[str, Any] = {"loc": "lower left", "ncols": 2}
    if above:
        place = {"loc": "lower left", "ncols": 4, "bbox_to_anchor": (0, 1), "borderaxespad": 0}
    axes.legend(fontsize=8, frameon=False, labelcolor=INK, **place)


def colours(experiment: Experiment) -> dict[str, str]:
    """Return each kernel's colour in all plots of an experiment; the baseline is grey."""
    others = dict.fromkeys(cell.kernel for cell in experiment.cells)
    others.pop(experiment.baseline, None)
    own = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(others)}
    return {experiment.baseline: OF_BASELINE, **own}


@contextmanager
def figure(height_inches: float) -> Iterator[tuple[Axes, io.StringIO]]:
    """Draw one plot; it is in the text once the block ends."""
    with panels(height_inches, (1.0,)) as (axes, image):
        yield axes[0], image


@contextmanager
def panels(
    height_inches: float, ratios: Sequence[float]
) -> Iterator[tuple[list[Axes], io.StringIO]]:
    """Draw plots below each other with one x axis; `ratios` are their relative heights."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    image = io.StringIO()
    style: dict[Any, Any] = {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "labctl",  # the same values, the same file
        "text.parse_math": False,  # names may have dollar signs
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
        axes = drawn.subplots(
            len(ratios), sharex=True, squeeze=False, gridspec_kw={"height_ratios": ratios}
        )
        yield list(axes[:, 0]), image
        drawn.savefig(image, format="svg", metadata={"Date": None}, transparent=True)
        text = image.getvalue()
        image.seek(0)
        image.truncate()
        # What is before belongs to a file of its own.
        image.write(text[text.index("<svg") :].replace(INK, "currentColor"))
