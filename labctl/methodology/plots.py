"""Plots of the simulations of the method, as self-contained SVG. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labctl.reports import plots


def error_rates(kinds: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return plots of simulations: coverage of intervals, and runs with false differences.

    Bars are two standard errors to either side; the range within the limits is shaded.
    """
    drawn = {
        "coverage": ("coverage", 93, 97, "% of the 95 % intervals contain the true value"),
        "false-differences": ("any_difference", 0, 5, "% of the runs have a false difference"),
    }
    return {name: _plot(kinds, *what) for name, what in drawn.items()}


def _plot(
    kinds: Sequence[Mapping[str, Any]], field: str, low: float, high: float, label: str
) -> str:
    with plots.figure(plots.ROW_INCHES * len(kinds) + 0.8) as (axes, image):
        for row, kind in enumerate(kinds):
            axes.errorbar(
                [100 * kind[field]],
                [row],
                xerr=[200 * kind[f"{field}_error"]],
                fmt="o",
                markersize=4,
                capsize=3,
                color=plots.COLOURS[0],
            )
        axes.axvspan(low, high, color=plots.COLOURS[2], alpha=0.15, linewidth=0)
        axes.set_yticks(range(len(kinds)), [f"{k['noise']}, {k['design']}" for k in kinds])
        axes.set_ylim(len(kinds) - 0.5, -0.5)
        axes.set_xlabel(label)
    return image.getvalue()
