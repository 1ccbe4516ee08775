"""The results of the simulations of the method, as tables and plots. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from labctl.methodology import plots
from labctl.methodology.nights import Count
from labctl.methodology.runs import Promise

if TYPE_CHECKING:
    from labctl.methodology.noise import ExperimentNoise

STYLES = {"terminal": "simple", "markdown": "github"}


def as_table(promises: Sequence[Promise], style: str) -> str:
    """Return one row for each noise and design; `style` is terminal or markdown."""
    from tabulate import tabulate

    rows = [_row(promise) for promise in promises]
    return tabulate(rows, headers="keys", tablefmt=STYLES[style], disable_numparse=True)


def nights_as_table(counts: Sequence[Count], style: str) -> str:
    """Return one row for each scenario of simulated nightly runs."""
    from tabulate import tabulate

    rows = [
        {
            "scenario": one.scenario,
            "nights": one.nights,
            "false alarm": _percent(one.false_alarms),
            "found in time": "-" if one.found is None else _percent(one.found),
            "after nights (median)": "-" if one.after is None else f"{one.after:g}",
            "measured again": f"{one.again:.1f}",
            "against before": f"{one.against:.1f}",
            "kept": "yes" if one.kept else "NO",
        }
        for one in counts
    ]
    return tabulate(rows, headers="keys", tablefmt=STYLES[style], disable_numparse=True)


def noise_table(found: Sequence[ExperimentNoise]) -> str:
    """Return one row of noise figures for each experiment of a run."""
    from tabulate import tabulate

    rows = [
        {
            "experiment": one.name,
            "within boots": _percent(one.noise.repetition_sd),
            "between boots": _percent(one.noise.boot_sd),
            "drift": f"{_percent(one.noise.drift_sd)} (correlation {one.noise.drift_memory:.2f})",
            "first repetition": f"{100 * one.noise.first_repetition:+.1f} %",
            "outliers": f"{_percent(one.noise.outliers)} (x {one.noise.outlier_factor:.2f})",
            "repetitions": f"{one.repetitions or '-'} (best {one.best_repetitions or 'unknown'})",
        }
        for one in found
    ]
    return tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True)


def plot_files(promises: Sequence[Promise]) -> dict[str, str]:
    """Return the plots of simulated kinds as SVG, by the names of their files."""
    drawn = plots.promises([promise.document() for promise in promises])
    return {f"methodology-{name}.svg": image for name, image in drawn.items()}


def _row(promise: Promise) -> dict[str, Any]:
    return {
        "noise": promise.noise,
        "run of": promise.design,
        "blocks": f"{promise.blocks:.1f}",
        "interval holds": f"{_percent(promise.coverage)} ± {_percent(promise.coverage_error)}",
        "any false difference": f"{_percent(promise.any_difference)} ± "
        f"{_percent(promise.any_difference_error)}",
        "any false verdict": _percent(promise.any_verdict),
        "the same, at the margin": _percent(promise.any_verdict_at_margin),
        "found the same": _percent(promise.same),
        f"{promise.effect:.0%} found": _percent(promise.power),
        "kept": "yes" if promise.kept else "NO",
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
