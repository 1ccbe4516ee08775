"""Synthetic runs whose documents are compared with golden files, byte for byte.

Every time comes from `random.Random`, so that a run is the same on every machine.
`python tests/unit/golden_runs.py` in the root of the checkout writes the files anew.
"""

import math
import os
import random
import sys
import tempfile
from pathlib import Path

from click.testing import CliRunner
from samples import replace, sample

from labctl.cli import labctl
from labctl.nightly import history
from labctl.nightly.changes import NightlyRun, Trial, Watch
from labctl.runs.folder import RunFolder

GOLDEN = Path(__file__).parent / "golden"
FIRST, SECOND, OLD = "20261124-015501-3fa2", "20261125-020000-77aa", "20261120-101010-0a0a"
LAB = "version: 1\nguests: {g: {}}\nkernels: {stock: {source: 'debian:linux-source-6.1'}}\n"
GIB = 2**30
TOPOLOGY = {
    "nodes": 4, "cpus_per_node": 1, "memory_per_node": 1536 * 2**20,
    "distances": {"local": 10, "remote": 21}, "hugepages": None,
}  # fmt: skip
PLACEMENT = {
    "vcpus": 4, "cores": 2, "overcommitted": True, "pinned": [2, 3], "emulator": [0],
    "host_nodes": [0],
}  # fmt: skip
IDLE = {
    "cores": 2.0, "wall_seconds": 2.0, "busy_seconds": 2.1, "own_seconds": 2.0,
    "steal_seconds": 0.0, "cpu_pressure_seconds": 0.25, "memory_pressure_seconds": 0.0,
    "frequency_hz": 2.5e9, "throttled_count": 0.0,
}  # fmt: skip


class Times:
    """Draws the samples of a run's cells, always the same ones."""

    def __init__(self, run, seed):
        self.run = run
        self.draw = random.Random(seed)

    def cell(self, experiment, factor=1.0, *, kernel="stock", blocks=8, spread=0.01, **changes):
        """Return a warm-up and three repetitions a block; a time is `factor` seconds."""
        control, setting = changes.get("control", False), changes.get("setting", {})
        name = "/".join([kernel + "+aa" * control, *(f"{k}={v}" for k, v in setting.items())])
        common = {
            "run": self.run, "experiment": experiment, "kernel": kernel, "cell": name,
            "label": kernel + " (A/A)" * control,
            "started_at": "2026-11-24T01:55:01+00:00",
        } | changes  # fmt: skip
        found = []
        for block in range(blocks):
            boot = factor * math.exp(self.draw.gauss(0, spread))
            for repetition in range(-1, 3):
                value = boot * math.exp(self.draw.gauss(0, spread / 4))
                found.append(
                    sample(
                        block=block,
                        boot_id=f"{name} {block}",
                        warmup=repetition < 0,
                        repetition=max(repetition, 0),
                        value=value,
                        **common,
                    )
                )
        return found

    def both(self, experiment, control=1.0, **changes):
        """Return the baseline and its A/A control."""
        return [
            *self.cell(experiment, **changes),
            *self.cell(experiment, control, control=True, **changes),
        ]


def measured(samples, back=1.5, cpu=1.2):
    """Return samples with the second metrics of freebench."""
    return [
        replace(
            s,
            measurements={
                "memory_back_nanoseconds": round(s.value * back * 1e9),
                "cpu_nanoseconds": round(s.value * cpu * 1e9),
                "other_cpu_nanoseconds": 10_000_000,
            },
        )
        for s in samples
    ]


def failing(samples, status, message="", blocks=(0, 3), **changes):
    """Return samples of which those of some blocks failed."""
    return [
        replace(s, status=status, value=None, message=message, **changes)
        if s.block in blocks and not s.warmup
        else s
        for s in samples
    ]


def loaded(samples, blocks):
    """Return samples with the host's load; in some blocks other processes used half of the CPU."""
    busy = IDLE | {"busy_seconds": 4.0}
    result = "other processes used 49 % of the CPU time"
    return [
        replace(s, load=busy, disturbed=result) if s.block in blocks else replace(s, load=IDLE)
        for s in samples
    ]


def samples_of(run, seed, gain=1.0):
    """Return the samples of a run; a patched kernel is `gain` times as fast as usual."""
    times = Times(run, seed)

    def patched(experiment, ratio, **changes):
        return times.cell(experiment, 1 / ratio / gain, kernel="parallel-free", **changes)

    def at(value):
        return {"setting": {"max_active": value}}

    many = {"handovers": 12, "pages_handed": 786432}
    headline = [
        *measured(times.both("headline")),
        *measured(patched("headline", 1.43, counters=many), back=1.1, cpu=1.6),
    ]
    matrix = [*times.both("max-active", blocks=10), *patched("max-active", 0.9, **at(1), blocks=10)]
    for value, ratio in ((2, 1.5), (4, 1.9), (8, 2.0), (16, 1.7)):
        blocks = 8 if value == 4 else 10
        matrix += patched("max-active", ratio, **at(value), blocks=blocks, counters=many)
    matrix += patched("max-active", 1.0, setting={"batch_pages": 65536}, blocks=10)
    matrix += patched("max-active", 1.025, setting={"batch_pages": 1048576}, blocks=10)
    suspect = [*times.both("suspect", control=1.2), *patched("suspect", 1.4)]
    few = [*times.both("few", blocks=4), *patched("few", 1.4, blocks=4)]
    panic = "Kernel panic - not syncing: 0xdeadbeef\n[ 1.0] last words"
    failed = [
        *failing(times.both("failing"), "deadline", "no output for 300 s", blocks=(2,)),
        *failing(patched("failing", 1.4), "panic", panic, console="guests/a-000-b/console.log"),
        *failing(patched("failing", 1.4, **at(2)), "not-exercised", blocks=range(8)),
        *failing(patched("failing", 1.4, **at(4)), "bad-output", "elapsed is 'x'", blocks=range(8)),
        *failing(patched("failing", 0.5, **at(8)), "knob-refused", "EINVAL", blocks=(7,)),
    ]
    own = {"workload": "requests", "metric": "requests_per_second", "parameters": {"threads": 4}}
    throughput = [
        *times.both("throughput", 1.0, **own),
        *patched("throughput", 1 / 1.3, **own),
        *times.cell("throughput", 0.8, kernel="other", **own),
    ]
    disturbed = [*times.both("disturbed", blocks=10), *patched("disturbed", 1.4, blocks=10)]
    busy = [*times.both("busy", blocks=8), *patched("busy", 1.4, blocks=8)]
    return [
        *loaded(headline, ()), *matrix, *suspect, *few, *failed, *throughput,
        *loaded(disturbed, (2, 5)), *loaded(busy, range(1, 7)),
    ]  # fmt: skip


def record_of(run, patched_image="cd"):
    """Return a run's record, as `labctl run` writes it."""

    def experiment(name, **changes):
        return {
            "name": name, "workload": "free", "guest": "numa4", "target": None,
            "command": "freebench", "metric": "elapsed", "better": "lower", "baseline": "stock",
            "confidence": 0.95, "minimum_effect": 0.02, "blocks_min": 8, "blocks_max": 30,
            "repetitions": 3, "warmup": 1, "set": {"thp": "never"}, "cells": [],
            "placement": PLACEMENT,
        } | changes  # fmt: skip

    own = {"workload": "requests", "command": "load --seconds 1", "set": {}}
    better = {"metric": "requests_per_second", "better": "higher", "guest": None}
    return {
        "schema": 1,
        "run": run,
        "created_at": "2026-11-24T01:55:01+00:00",
        "seed": 42,
        "accel": "tcg",
        "finished": True,
        "host": {
            "id": "4711deadbeef", "cpu_model": "Xeon E5", "cores": 2, "memory_bytes": 8 * GIB,
            "kernel": "6.1.0-18-amd64", "qemu": "7.2.19",
        },
        "kernels": {
            "stock": {"image": "ab" * 32, "series": None, "release": "6.1.170", "patches": [],
                      "arch": "x86_64", "compiler": "gcc 12.2.0"},
            "parallel-free": {"image": patched_image * 32, "series": "ef" * 32,
                              "release": "6.1.170-pf", "patches": ["1" * 64, "2" * 64],
                              "arch": "x86_64", "compiler": "gcc 12.2.0"},
            "other": {"image": "aa" * 32, "series": None, "release": "6.6.1", "patches": []},
        },
        "guests": {"numa4": TOPOLOGY},
        "experiments": [
            experiment("headline"),
            experiment("max-active", set={"thp": "never", "scale": 0.12345678}),
            experiment("suspect"),
            experiment("few"),
            experiment("failing", target="box", placement=None),
            experiment("throughput", **own, **better),
            experiment("disturbed"),
            experiment("busy"),
            experiment("nothing"),
        ],
        "health": {"disturbed_share": 0.05},
    }  # fmt: skip


def old_record():
    """Return the record of a run by an older labctl, which is not finished."""
    kept = ("schema", "run", "accel")
    record = {key: value for key, value in record_of(OLD).items() if key in kept}
    experiment = {
        "name": "few", "workload": "free", "baseline": "stock", "confidence": 0.95,
        "minimum_effect": 0.02,
    }  # fmt: skip
    return record | {"experiments": [experiment]}


def store(folder, record, samples):
    """Write a run; return its folder."""
    path = folder / ".labctl" / "runs" / record["run"]
    path.mkdir(parents=True)
    run = RunFolder(path)
    run.write(record)
    (path / "samples.jsonl").write_text("".join(f"{each.to_json()}\n" for each in samples))
    return path


def store_runs(folder):
    """Write a lab with three runs; the first one's last sample is torn."""
    (folder / "lab.yaml").write_text(LAB)
    path = store(folder, record_of(FIRST), samples_of(FIRST, 1))
    with (path / "samples.jsonl").open("ab") as file:
        file.write(b'{"run": "torn')
    changed = record_of(SECOND, "dd")
    changed["experiments"][3] |= {"workload": "exit"}
    store(folder, changed, samples_of(SECOND, 2, gain=1.1))
    old = [s for s in samples_of(OLD, 3) if s.experiment == "few"]
    store(folder, old_record(), old)


def store_nights(folder):
    """Write a history: a regression, an outlier, another host, failures."""
    draw = random.Random(4)

    def night(number, level, logs=1, trials=(), **setup):
        return NightlyRun(
            date=f"2026-10-{number + 1:02}",
            logs=tuple(math.log(level) + draw.gauss(0, 0.004) for _ in range(logs)),
            error=0.004,
            image=f"image {number}",
            setup=tuple(sorted(({"host": "h"} | setup).items())),
            trials=tuple(trials),
        )

    slower = [
        Trial(verdict="slower", ratio=ratio, ci=(ratio - 0.01, ratio + 0.01))
        for ratio in (0.86, 0.87, 0.86)
    ]
    watch = Watch(math.log1p(0.02))
    for number in range(8):
        watch.add(night(number, 1.5))
    watch.add(night(8, 1.3, logs=2, trials=slower))
    for number in range(9, 16):
        watch.add(night(number, 1.3))
    for number in range(17, 20):
        watch.add(night(number, 1.3, host="other"))
    import nights_of

    def extra(number):
        if number == 5:
            failed = {"integrity/a": "a foreign byte"}
            return {"checks": {"patched": {"passed": False, "failed": failed}}}
        if number == 6:
            broken = nights_of.row(watch.nights[6], 0.1, failed={"panic": 2}, failures=[
                {"status": "panic", "whose": "kernel", "reason": "Kernel panic", "count": 2,
                 "cells": ["patched"], "block": 1, "console": "guests/x/console.log"}])  # fmt: skip
            baseline = {"experiment": "exit", "cell": "stock", "kernel": "stock", "setting": {},
                        "failed": {"lost": 1}}  # fmt: skip
            own = nights_of.row(watch.nights[6], 0.1) | {"cell": "patched/a=1"}
            return {"cells": [own, broken | {"cell": "patched/b=1"}], "baselines": [baseline]}
        if number == 18:
            return {"cells": [nights_of.row(watch.nights[18], 0.1, suspect=True)]}
        return {}

    nights_of.store(folder, watch, extra)
    assert history.read(folder)


def printed(*words):
    """Return what a command prints about the lab in the current folder."""
    done = CliRunner().invoke(labctl, list(words))
    assert done.exit_code in (0, 1), done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.stdout.replace(str(Path.cwd()), "LAB")


DOCUMENTS = {
    "report.json": ("report", FIRST, "--json"),
    "report-old.json": ("report", OLD, "--json"),
    "compare.json": ("compare", FIRST, SECOND, "--json"),
    "nightly.json": ("nightly", "--replay", "--history", "history", "--json"),
}


def main():
    """Write all golden files."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        store_runs(Path(folder))
        store_nights(Path(folder) / "history")
        for name, words in DOCUMENTS.items():
            (GOLDEN / name).write_text(printed(*words))


if __name__ == "__main__":
    sys.exit(main())
