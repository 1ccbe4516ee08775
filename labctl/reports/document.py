"""The one JSON object of `labctl run --json` and `labctl report --json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from labctl.lab_metrics import MetricKind
from labctl.results.comparison import Comparison, ExperimentResult
from labctl.results.failures import Failure
from labctl.results.health import Health
from labctl.results.scaling import curves

_DIGITS = 6
_OF_EXPERIMENT = (
    *("workload", "command", "guest", "metric", "set"),
    *("better", "confidence", "minimum_effect", "placement"),
)


def document(
    run_json: Mapping[str, Any], results: Sequence[ExperimentResult], *, folder: str = ""
) -> dict[str, Any]:
    """Return the report of a run as JSON values: no NaN, six significant digits.

    `run_json` is the run's own record; what it knows of an experiment beyond the
    comparisons (metric, workload, confidence) is taken over. `folder` is the run's, for
    the paths of consoles.
    """
    guests = run_json.get("guests", {})
    known = {
        each["name"]: {**each, "guest": guests.get(each.get("guest"))}
        for each in run_json.get("experiments", [])
    }
    return {
        "schema": 1,
        "run": run_json["run"],
        "created_at": run_json.get("created_at"),
        "seed": run_json.get("seed"),
        "finished": bool(run_json.get("finished", False)),
        "host": dict(run_json.get("host", {})),
        "accel": run_json["accel"],
        "kernels": {name: dict(kernel) for name, kernel in run_json.get("kernels", {}).items()},
        "notes": [],
        "experiments": [
            _plain(_experiment(known.get(each.name, {}), each, folder)) for each in results
        ],
    }


def _experiment(known: Mapping[str, Any], result: ExperimentResult, folder: str) -> dict[str, Any]:
    own = {
        "better": result.better,
        "confidence": result.confidence,
        "minimum_effect": result.minimum_effect,
    }
    taken = {name: known[name] for name in _OF_EXPERIMENT if name in known}
    # The scalability law is one of times: of a throughput it would call the worst the best.
    fitted = curves(result.cells) if MetricKind.of({**taken, **own}).is_speed else []
    return {
        "name": result.name,
        **taken,
        **own,
        "baseline": result.baseline,
        "blocks": result.blocks,
        "aa_control": _control(result.aa_control),
        "cells": [_cell(cell) for cell in result.cells],
        "curves": [asdict(curve) for curve in fitted],
        "host_health": _health(result.health),
        "failures": [_failure(each, folder) for each in result.failures],
        "warnings": list(result.warnings),
    }


def _health(health: Health | None) -> dict[str, Any] | None:
    """Return what the host did; None if the samples are too old to tell."""
    if health is None or not (health.seen or health.disturbed):
        return None
    return {
        "blocks": health.blocks,
        "disturbed": {str(block): why for block, why in health.disturbed.items()},
        "left_out": list(health.left_out),
        "stays_loaded": health.stays_loaded,
        "seen": {
            name: {"median": middle, "worst": worst}
            for name, (middle, worst) in health.seen.items()
        },
    }


def _failure(failure: Failure, folder: str) -> dict[str, Any]:
    console = failure.console and "/".join(filter(None, [folder, failure.console]))
    return {**asdict(failure), "console": console}


def _control(control: Comparison | None) -> dict[str, Any] | None:
    return None if control is None else _cell(control)


def _cell(cell: Comparison) -> dict[str, Any]:
    return {
        "cell": cell.cell,
        "kernel": cell.kernel,
        "label": cell.label,
        "setting": dict(cell.setting),
        "parameters": dict(cell.parameters),
        "n": cell.n,
        "blocks": cell.blocks,
        "blocks_visited": cell.blocks_visited,
        "median_seconds": cell.median_seconds,
        "spread_percent": cell.spread_percent,
        "ratio": cell.ratio,
        "ci": cell.ci,
        "p": cell.p,
        "p_corrected": cell.p_corrected,
        "p_beyond": cell.p_beyond,
        "p_sign_flip": cell.p_sign_flip,
        "p_wilcoxon": cell.p_wilcoxon,
        "sd_log": cell.sd_log,
        "smallest_effect": cell.smallest_effect,
        "verdict": cell.verdict,
        "reason": cell.reason,
        "blocks_needed": cell.blocks_needed,
        "failed": dict(cell.failed),
        "handovers": cell.counters.get("handovers"),
        "counters": dict(cell.counters),
        "memory_back": cell.secondary.get("memory_back"),
        "cpu": cell.secondary.get("cpu"),
    }


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Return the value as JSON can hold it."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
