"""What the simulations of the method found, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labctl.results.simulation import Promise

STYLES = {"terminal": "simple", "markdown": "github"}


def as_table(promises: Sequence[Promise], style: str) -> str:
    """Return one row for each noise and design; `style` is terminal or markdown."""
    from tabulate import tabulate

    rows = [_row(promise) for promise in promises]
    return tabulate(rows, headers="keys", tablefmt=STYLES[style], disable_numparse=True)


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
