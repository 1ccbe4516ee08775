"""Stored histories for tests: simulated nightly runs as `labctl nightly` would have stored them."""

import math

import msgspec

from labctl.nightly import history, html
from labctl.nightly.records import NightlyRecord
from labctl.nightly.types import CellTrend, Finding, Nightly, NightlyValue, SegmentStart
from labctl.runs.types import Host
from labctl.stats.kinds import FindingKind

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
    """Write the nightly runs of a watch into a folder, with what was measured because of alarms."""
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


def page():
    """Return the page of a history with two cells and a finding of every kind."""
    values = tuple(
        NightlyValue(
            night=f"2026-10-{number:02}",
            run=f"run{number}",
            ratio=(ratio := 1.4 + 0.01 * (number % 3) - 0.2 * (number > 6)),
            measured=(ratio,),
            ci=(ratio - 0.05, ratio + 0.05),
            blocks=8,
            image="ab" * 32,
        )
        for number in range(1, 11)
    )
    cells = tuple(
        CellTrend(
            experiment="exit",
            cell=f"patched:{size}",
            kernel="patched",
            setting={"size": size},
            baseline="stock",
            measured_last_night=size == "1GiB",
            nights=values,
            segments=(SegmentStart(first="2026-10-01", why="", continues=False),),
        )
        for size in ("1GiB", "2GiB")
    )
    findings = tuple(
        Finding(
            kind=kind,
            night=f"2026-10-{number:02}",
            run=f"run{number}",
            since=f"2026-10-{number - 1:02}",
            experiment="exit",
            cell="patched:1GiB",
            kernel="patched",
            setting={"size": "1GiB"},
            **(
                {"why": "panic"}
                if kind.is_failure
                else {"before": 1.4, "after": 1.2, "change": 1.2 / 1.4, "baseline": "stock"}
            ),
        )
        for number, kind in enumerate(FindingKind, 2)
    )
    content = Nightly(
        night="2026-10-10",
        run="run10",
        nights=10,
        host=msgspec.convert({"cores": 2, "cpu_model": "Xeon", "qemu": "7.2"}, Host),
        accel="tcg",
        commits={"linux": "0123456789ab"},
        findings=findings,
        cells=cells,
        warnings=("The A/A control differed in the last nightly run.",),
    )
    return html.render(content)
