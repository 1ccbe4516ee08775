"""A lab with many stored runs and nightly runs, for tests of sites."""

import math
import random

import golden_runs
import nights_of
from samples import cell, replace

from labctl.nightly.changes import NightlyRun, Watch


def run_id(number):
    return f"202611{number // 24 + 1:02}-{number % 24:02}0000-{number:04x}"


def store_run(folder, number, kernel=None, times=(1.0,) * 6, status="ok"):
    """Write a run with one experiment; return its id."""
    run, patched = run_id(number), kernel or f"series-v{number}"
    own = cell([each / 1.4 for each in times], kernel=patched, run=run)
    if status != "ok":
        own = [replace(one, status=status, value=None) for one in own]
    samples = [*cell(times, run=run), *own]
    commit = {"commit": f"{number:012x}{0:028x}", "subject": f"mm: step {number}"}
    record = golden_runs.record_of(run) | {
        "kernels": {"stock": {"image": "ab" * 32}, patched: {"image": "cd" * 32, **commit}},
        "created_at": f"2026-11-{number // 24 + 1:02}T{number % 24:02}:00:00+00:00",
        "experiments": [{"name": "smoke", "workload": "free", "baseline": "stock",
                         "confidence": 0.95, "minimum_effect": 0.02}],
    }  # fmt: skip
    golden_runs.store(folder, record, samples)
    return run


def store_nights(folder, count):
    """Write a history of nightly runs without a change."""
    draw, watch = random.Random(4), Watch(math.log1p(0.02))
    for number in range(count):
        watch.add(
            NightlyRun(
                date=f"2026-10-{number + 1:02}",
                logs=(math.log(1.5) + draw.gauss(0, 0.004),),
                error=0.004,
                image=f"image {number}",
                setup=(("host", "h"),),
                trials=(),
            )
        )
    nights_of.store(folder, watch)
