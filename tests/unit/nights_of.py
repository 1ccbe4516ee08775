"""Stored histories for tests: simulated nights as `labctl nightly` would have stored them."""

import math

import msgspec

from labctl.nightly import history
from labctl.nightly.records import NightlyRecord

CELL = "patched"


def row(night, log, **changes):
    ratio = math.exp(log)
    return {
        "experiment": "exit",
        "cell": CELL,
        "kernel": "patched",
        "setting": {},
        "workload": "exit",
        "metric": "elapsed",
        "better": "lower",
        "baseline": "stock",
        "confidence": 0.95,
        "minimum_effect": 0.02,
        "setup": dict(night.setup),
        "blocks": 8,
        "ratio": ratio,
        "ci": [ratio * 0.97, ratio * 1.03],
        "sd_log": night.error * math.sqrt(8),
        "verdict": "faster",
        "reason": "",
        "failed": {},
        "suspect": False,
    } | changes


def record(kind, night, run, cells, **more):
    content = {
        "schema": 1,
        "kind": kind,
        "night": night.date,
        "run": run,
        "at": f"{night.date}T02:00:00+00:00",
        "host": {"id": "h", "cores": 2, "qemu": "7.2"},
        "accel": "tcg",
        "kernels": {
            "stock": {"image": "stock", "series": None, "patches": []},
            "patched": {
                "image": night.image,
                "series": f"{night.date} series",
                "patches": ["one", f"two of {night.date}"],
            },
        },
        "cells": cells,
    } | more
    return msgspec.convert(content, NightlyRecord)


def store(folder, watch, extra=lambda number: {}):
    """Write a watch's nights into a folder, with what was measured because of alarms."""
    for number, night in enumerate(watch.nights):
        main = f"run-{number}"
        commits, cells = {"lab": f"v1-{number}-gabc"}, [row(night, night.logs[0])]
        history.append(
            folder,
            record("night", night, main, **{"cells": cells, "commits": commits} | extra(number)),
        )
        for log in night.logs[1:]:
            history.append(
                folder, record("again", night, f"{main}-again", [row(night, log)], of=main)
            )
        for trial in night.trials:
            cell = row(night, math.log(trial.ratio), verdict=trial.verdict, ci=list(trial.ci))
            history.append(
                folder,
                record("against", night, f"{main}-against", [cell], of=main, against="earlier"),
            )
