"""Plots of a report as SVG that stands by itself. Pure: values in, text out."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from labctl.reports import seed, words
from labctl.results.store import Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH_INCHES = 5.2  # readable on a phone, which shows it at three quarters of its size
_ROW_INCHES = 0.28
_INK = "#7a7a7a"  # of text and axes: readable on white and on black
_COLOURS = ("#2a8fd0", "#e07b1a", "#2aa36b", "#c24d8f", "#8a6fd1")
_OF_CONTROL = "#b5a642"
_MOST_VECTORS = 3000  # more points than these become pixels, or the page grows by megabytes
_DOTS_PER_INCH = 150


def intervals(experiment: Mapping[str, Any]) -> str:
    """Return the ratios of an experiment's cells as dots with their intervals."""
    cells = [cell for cell in experiment["cells"] if cell["ratio"] and cell["ci"]]
    with _figure(_ROW_INCHES * len(cells) + 0.8) as (axes, image):
        colours = _colours(experiment)
        for row, cell in enumerate(cells):
            low, high = cell["ci"]
            axes.errorbar(
                [cell["ratio"]],
                [row],
                xerr=[[cell["ratio"] - low], [high - cell["ratio"]]],
                fmt="o",
                markersize=4,
                capsize=3,
                color=colours[cell["kernel"]],
            )
        axes.axvline(1.0, color=_INK, linewidth=1, linestyle=":")
        axes.set_yticks(range(len(cells)), [words.cell(cell) for cell in cells])
        axes.set_ylim(len(cells) - 0.5, -0.5)
        level = words.level(experiment["confidence"])
        axes.set_xlabel(f"ratio to {experiment['baseline']} ({level}); right is better")
    return image.getvalue()


def over_time(experiment: Mapping[str, Any], samples: Sequence[Sample]) -> str:
    """Return each good repetition at the time when it was made, coloured by kernel."""
    good = [each for each in samples if each.status == "ok" and not each.warmup]
    times = [datetime.fromisoformat(each.started_at).timestamp() for each in good]
    first = min(times, default=0.0)
    with _figure(2.6) as (axes, image):
        colours = _colours(experiment)
        for label, kernel in sorted({each.label: each.kernel for each in good}.items()):
            own = [index for index, each in enumerate(good) if each.label == label]
            is_control = good[own[0]].control
            axes.plot(
                [(times[index] - first) / 60 for index in own],
                [good[index].value or 0.0 for index in own],
                ".",
                markersize=3,
                color=_OF_CONTROL if is_control else colours[kernel],
                label=label,
                rasterized=len(good) > _MOST_VECTORS,
            )
        axes.set_xlabel("minutes since the first")
        axes.set_ylabel(
            "seconds" if experiment.get("better") != "higher" else experiment.get("metric", "value")
        )
        axes.set_ylim(bottom=0)
        _legend(axes)
    return image.getvalue()


def curve(fitted: Mapping[str, Any]) -> str:
    """Return times over a number of workers with their fit, and the seed's beside them.

    The seed's times are of another machine: both are drawn relative to one worker.
    """
    levels = fitted["levels"]
    with _figure(2.6) as (axes, image):
        own = [one / fitted["seconds"][0] for one in fitted["seconds"]]
        fit = [one / fitted["seconds"][0] for one in fitted["fitted_seconds"]]
        ticks = set(levels)
        axes.plot(levels, own, "o", color=_COLOURS[0], markersize=4, label=fitted["kernel"])
        axes.plot(levels, fit, "-", color=_COLOURS[0], linewidth=1, label="fitted")
        if fitted["kernel"] == seed.SERIES and fitted["axis"] == "max_active":
            one = seed.MAX_ACTIVE[1].seconds
            ticks |= seed.MAX_ACTIVE.keys()
            axes.plot(
                list(seed.MAX_ACTIVE),
                [each.seconds / one for each in seed.MAX_ACTIVE.values()],
                "x--",
                color=_INK,
                linewidth=1,
                markersize=4,
                label="the seed's, other hardware",
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(ticks), [str(level) for level in sorted(ticks)])
        axes.minorticks_off()
        axes.set_xlabel(fitted["axis"])
        axes.set_ylabel(f"time over that at {levels[0]}")
        axes.set_ylim(bottom=0)
        _legend(axes)
    return image.getvalue()


def _legend(axes: Axes) -> None:
    axes.legend(fontsize=8, frameon=False, labelcolor=_INK, ncols=2)


def _colours(experiment: Mapping[str, Any]) -> dict[str, str]:
    """Return each kernel's colour in all plots of an experiment; the baseline is grey."""
    others = dict.fromkeys(cell["kernel"] for cell in experiment["cells"])
    others.pop(experiment["baseline"], None)
    own = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(others)}
    return {experiment["baseline"]: _INK, **own}


@contextmanager
def _figure(height_inches: float) -> Iterator[tuple[Axes, io.StringIO]]:
    """Draw one plot; it is in the text once the block ends."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    image = io.StringIO()
    style: dict[Any, Any] = {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "labctl",  # the same values, the same file
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": _INK,
        "axes.edgecolor": _INK,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
        yield figure.add_subplot(), image
        figure.savefig(
            image, format="svg", metadata={"Date": None}, transparent=True, dpi=_DOTS_PER_INCH
        )
        text = image.getvalue()
        image.seek(0)
        image.truncate()
        image.write(text[text.index("<svg") :])  # what is before belongs to a file of its own
