"""Samples for the tests of results and reports: made from block times, without a guest."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from labctl.runs.sample import Sample


def sample(**changes: Any) -> Sample:
    fields: dict[str, Any] = {
        "run": "20261124-015501-3fa2",
        "experiment": "smoke",
        "workload": "free",
        "metric": "elapsed",
        "block": 0,
        "order": 0,
        "repetition": 0,
        "warmup": False,
        "kernel": "stock",
        "label": "stock",
        "control": False,
        "cell": "stock",
        "setting": {},
        "parameters": {"op": "free", "size": 3 << 30},
        "status": "ok",
        "value": 1.0,
        "boot_id": "b",
        "image": "i" * 64,
        "series": None,
        "host": "h",
        "accel": "tcg",
        "started_at": "2026-11-24T01:55:01+00:00",
    }
    fields |= changes
    if fields["status"] != "ok" and "value" not in changes:
        fields["value"] = None
    return Sample(**fields)


def replace(record: Any, **changes: Any) -> Any:
    """A record with some fields changed: samples are msgspec's, all others dataclasses."""
    of = msgspec.structs if isinstance(record, msgspec.Struct) else dataclasses
    return of.replace(record, **changes)


def as_json(document: msgspec.Struct) -> str:
    """A document as JSON; raises ValueError for NaN."""
    return json.dumps(msgspec.to_builtins(document), allow_nan=False)


def cell(
    times: Sequence[float | None], *, kernel: str = "stock", repetitions: int = 1, **changes: Any
) -> list[Sample]:
    """One sample a block (None: the block has none), its repetitions around the time given."""
    setting: Mapping[str, Any] = changes.get("setting", {})
    control = changes.get("control", False)
    name = "/".join(
        [kernel + ("+aa" if control else ""), *(f"{k}={v}" for k, v in setting.items())]
    )
    label = kernel + (" (A/A)" if control else "")
    own = {"kernel": kernel, "label": label, "cell": name} | changes
    middle = repetitions // 2
    return [
        sample(block=block, repetition=r, value=time * (1 + 0.01 * (r - middle)), **own)
        for block, time in enumerate(times)
        if time is not None
        for r in range(repetitions)
    ]


def null_times(
    rng: np.random.Generator, blocks: int, cells: int, spread: float = 0.03
) -> list[list[float]]:
    """Times without any true difference: a shared drift of the host, and a boot's own luck."""
    host = rng.normal(0, 0.05, size=blocks).cumsum()
    logs = host + rng.normal(0, spread, size=(cells, blocks))
    return np.exp(logs).tolist()
