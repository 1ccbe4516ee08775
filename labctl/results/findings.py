"""What the nights found, as one JSON object: changes with what they lie between, failures. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from labctl.results.history import Change, Look
from labctl.results.nights import Record, Watched, by_night, has_failed, watched

# A verdict of a watch, as a kind of finding.
_KINDS = {
    "slower": "regressed",
    "faster": "improved",
    "same": "not-confirmed",
    "unchanged": "not-the-kernel",
}
PROBLEMS = ("regressed", "broken")
_SUSPECT_P = 0.01
_CONTROL_ALPHA = 0.05


def document(records: Sequence[Record]) -> dict[str, Any]:
    """Return what a history says: findings of all nights, and every cell's nights.

    `nights` counts nights, `night` and `run` are the last one's. A finding's `kind` is
    regressed, improved, broken (a guest or a check failed that had not failed on the
    night before), not-confirmed (measured against the kernel of before, there is no
    change), not-the-kernel (the ratio changed under one and the same image), or alarm (seen
    on the last night and not settled).

    Raises:
        HostError: the library that finds changes is not installed.
    """
    nights = list(by_night(records))
    cells = list(watched(records).values())
    last: Record = nights[-1][0] if nights else {}
    found = [
        *(finding for cell in cells for finding in _changes(cell)),
        *_broken([main for main, _ in nights]),
        *(finding for cell in cells for finding in _alarm(cell, last)),
    ]
    return {
        "schema": 1,
        "night": last.get("night"),
        "run": last.get("run"),
        "nights": len(nights),
        "host": last.get("host", {}),
        "accel": last.get("accel"),
        "commits": last.get("commits", {}),
        "findings": sorted(found, key=lambda one: (one["night"], one["experiment"] or "")),
        "cells": [_cell(cell, last) for cell in cells],
        "warnings": _warnings([main for main, _ in nights]),
    }


def problems(content: Mapping[str, Any], *, of_last_night: bool) -> list[Mapping[str, Any]]:
    """Return the regressions and failures of a history, or those of its last night."""
    return [
        one
        for one in content["findings"]
        if one["kind"] in PROBLEMS and (not of_last_night or one["run"] == content["run"])
    ]


def _changes(cell: Watched) -> Iterator[dict[str, Any]]:
    for change in cell.watch.changes:
        trials = [
            {"verdict": t.verdict, "ratio": t.ratio, "ci": t.ci, "run": t.run, "against": t.against}
            for t in change.trials
        ]
        yield _finding(cell, change.found, _KINDS[change.verdict], change.look) | {
            "trials": trials,
            "between": _between(cell, change),
        }


def _finding(cell: Watched, found: int, kind: str, look: Look) -> dict[str, Any]:
    first = found if look.first is None else look.first
    return {
        "kind": kind,
        "night": cell.records[found]["night"],
        "run": cell.records[found]["run"],
        "since": cell.records[first]["night"],
        "experiment": cell.experiment,
        "cell": cell.cell,
        "kernel": cell.kernel,
        "setting": dict(cell.setting),
        "baseline": cell.baseline,
        **{name: cell.rows[found].get(name) for name in ("command", "metric", "better")},
        "before": math.exp(look.before),
        "after": math.exp(look.after),
        "change": math.exp(look.after - look.before),
    }


def _between(cell: Watched, change: Change) -> dict[str, Any] | None:
    """Return what the change lies between: the last night without it, and the first with it."""
    if change.look.compared is None:
        return None
    old = cell.records[change.look.compared]
    first = change.found if change.look.first is None else change.look.first
    later = cell.records[first : change.found + 1]
    image = old["kernels"][cell.kernel]["image"]
    new = next((r for r in later if r["kernels"][cell.kernel]["image"] != image), later[-1])
    kernels = old["kernels"][cell.kernel], new["kernels"][cell.kernel]
    known = set(kernels[0].get("patches") or ())
    patches = kernels[1].get("patches") or ()
    return {
        "nights": [old["night"], new["night"]],
        "image": [kernel["image"] for kernel in kernels],
        "series": [kernel.get("series") for kernel in kernels],
        "patches_changed": [n for n, patch in enumerate(patches, 1) if patch not in known],
        "patches": [len(kernel.get("patches") or ()) for kernel in kernels],
        "commits": {
            name: [old.get("commits", {}).get(name), new.get("commits", {}).get(name)]
            for name in {**old.get("commits", {}), **new.get("commits", {})}
        },
    }


def _broken(mains: Sequence[Record]) -> Iterator[dict[str, Any]]:
    failed_before: dict[tuple[str, ...], bool] = {}
    key: tuple[str, ...]
    for main in mains:
        for row in (*main["cells"], *main.get("baselines", ())):
            key = ("cell", row["experiment"], row["cell"])
            if has_failed(row) and not failed_before.get(key, False):
                yield _failure(main, row["kernel"], _why(row, main["run"]), row)
            failed_before[key] = has_failed(row)
        for kernel, checks in main.get("checks", {}).items():
            key = ("checks", kernel)
            if not checks["passed"] and not failed_before.get(key, False):
                said = "; ".join(f"{name}: {why}" for name, why in checks["failed"].items())
                yield _failure(main, kernel, said or "no check was made", {})
            failed_before[key] = not checks["passed"]


def _why(row: Record, run: str) -> str:
    """Return how often a cell failed and why; a record of an older labctl has only counts."""
    told = []
    for status, count in row["failed"].items():
        alike = [one for one in row.get("failures", ()) if one["status"] == status]
        reasons = " or ".join(filter(None, (one["reason"] for one in alike)))
        console = next((one["console"] for one in alike if one["console"]), "")
        said = f"{count} {status}" + (f" ({alike[0]['whose']}): {reasons}" if alike else "")
        told.append(said + (f"; console: {run}/{console}" if console else ""))
    return ", ".join(told)


def _failure(main: Record, kernel: str, why: str, row: Record) -> dict[str, Any]:
    return {
        "kind": "broken",
        "night": main["night"],
        "run": main["run"],
        "since": main["night"],
        "experiment": row.get("experiment"),
        "cell": row.get("cell"),
        "kernel": kernel,
        "setting": dict(row.get("setting", {})),
        "why": why,
    }


def _alarm(cell: Watched, last: Record) -> Iterator[dict[str, Any]]:
    look = cell.last_look
    is_tonight = bool(cell.records) and cell.records[-1]["run"] == last.get("run")
    if is_tonight and look.first is not None and not look.verdict:
        yield _finding(cell, len(cell.records) - 1, "alarm", look)


def _cell(cell: Watched, last: Record) -> dict[str, Any]:
    nights = [
        {
            "night": night.date,
            "run": record["run"],
            "ratio": math.exp(value),
            "measured": [math.exp(log) for log in night.logs],
            "ci": row["ci"],
            "blocks": row["blocks"],
            "image": night.image,
        }
        for night, value, record, row in zip(
            cell.watch.nights, cell.watch.values, cell.records, cell.rows, strict=True
        )
    ]
    return {
        "experiment": cell.experiment,
        "cell": cell.cell,
        "kernel": cell.kernel,
        "setting": dict(cell.setting),
        "baseline": cell.baseline,
        "measured_last_night": cell.records[-1]["run"] == last.get("run"),
        "nights": nights,
        "segments": [
            {"first": nights[one.first]["night"], "why": one.why, "continues": one.continues}
            for one in cell.watch.segments
        ],
    }


def _warnings(mains: Sequence[Record]) -> list[str]:
    """Say whether the A/A controls differ more often than chance has it."""
    from scipy.stats import binomtest

    controls = {
        (main["run"], row["experiment"]): row["suspect"] for main in mains for row in main["cells"]
    }
    hits, count = sum(controls.values()), len(controls)
    lines = []
    if count and binomtest(hits, count, _CONTROL_ALPHA, alternative="greater").pvalue < _SUSPECT_P:
        lines.append(
            f"the A/A control differed in {hits} of {count} experiments: this lab cannot be trusted"
        )
    if mains:
        lines += [
            f"{row['experiment']} {row['cell']}: not judged, the A/A control differed tonight"
            for row in mains[-1]["cells"]
            if row["suspect"]
        ]
    return lines
