"""The plot of a cell over nightly runs, as self-contained SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date

from labctl.nightly.types import CellTrend, Finding, NightlyValue
from labctl.reports import plots, svg, words


def trend(cell: CellTrend, changes: Sequence[Finding]) -> str:
    """Return a cell's ratios over nightly runs, one line for each segment; mark `changes`.

    Crosses are ratios that were disregarded after a repeat.
    """
    nights = cell.nights
    days = [_day(night.night) for night in nights]
    # Nightly runs of one day, as by hand, are at one place.
    begins = sorted({day for day, night in zip(days, nights, strict=True)
                     if night.night in {one.first for one in cell.segments}})  # fmt: skip
    values = svg.Values()
    with plots.figure(2.2) as (axes, image):
        for first, end in zip(begins, [*begins[1:], math.inf], strict=True):
            own = [index for index, day in enumerate(days) if first <= day < end]
            axes.plot(
                [days[index] for index in own],
                [nights[index].ratio for index in own],
                ".-",
                color=plots.COLOURS[0],
                linewidth=1,
                markersize=4,
                gid=values.add([_text(nights[index]) for index in own]),
            )
        for day, night in zip(days, nights, strict=True):
            dropped = [one for one in night.measured if abs(one / night.ratio - 1) > 1e-9]
            axes.plot([day] * len(dropped), dropped, "x", color=plots.INK, markersize=4)
        for change in changes:
            colour = plots.COLOURS[1] if (change.change or 1.0) < 1 else plots.COLOURS[2]
            axes.axvline(_day(change.since), color=colour, linestyle=":")
        axes.axhline(1.0, color=plots.INK, linewidth=1, linestyle=":")
        axes.set_ylabel(f"ratio to {plots.short(cell.baseline)}")
        axes.xaxis_date()
        axes.tick_params(axis="x", rotation=30)
    name = f"{cell.experiment}, {words.named(cell.kernel, cell.setting)}: ratio of each nightly run"
    return svg.labelled(image.getvalue(), name, values)


def _text(night: NightlyValue) -> str:
    interval = f" ({words.interval(night.ci)})" if night.ci else ""
    return f"{night.night}: ratio {words.ratio(night.ratio)}{interval}, run {night.run}"


def _day(text: str) -> int:
    """Return a date as matplotlib counts it: days since 1970."""
    return (date.fromisoformat(text) - date(1970, 1, 1)).days
