"""Report one million samples as HTML. Goal: at most 12 s and 1 GiB."""

import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from figure import Figure, report

from labctl.reports.report import report_of

SAMPLES = 10**6
MOST_SECONDS, MOST_MIB = 12.0, 1024.0
LEVELS = (1, 2, 4, 8, 16, 32)
BLOCKS = 1000


def write(folder, blocks=BLOCKS, samples=SAMPLES):
    """Write a run: stock, its A/A control and six settings of a series."""
    draw = random.Random(1)
    cells = [("stock", False, {}), ("stock", True, {})]
    cells += [("parallel-free", False, {"max_active": level}) for level in LEVELS]
    repetitions = samples // blocks // len(cells)
    experiment = {
        "name": "many", "workload": "free", "metric": "elapsed", "set": {}, "baseline": "stock",
        "better": "lower", "confidence": 0.95, "minimum_effect": 0.02,
    }  # fmt: skip
    record = {
        "schema": 1, "run": folder.name, "accel": "tcg", "seed": 1, "finished": True,
        "host": {}, "kernels": {}, "experiments": [experiment],
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    with (folder / "samples.jsonl").open("w") as file:
        for block in range(blocks):
            for order, (kernel, control, setting) in enumerate(cells):
                boot = draw.gauss(0, 0.02) - 0.3 * bool(setting)
                label = f"{kernel} (A/A)" if control else kernel
                name = "/".join(
                    [kernel + "+aa" * control, *(f"{k}={v}" for k, v in setting.items())]
                )
                for repetition in range(repetitions):
                    sample = {
                        "run": folder.name, "experiment": "many", "workload": "free",
                        "metric": "elapsed", "block": block, "order": order,
                        "repetition": repetition, "warmup": False, "kernel": kernel,
                        "label": label, "control": control, "cell": name, "setting": setting,
                        "parameters": {"op": "free"}, "status": "ok",
                        "value": 2.718 ** (boot + draw.gauss(0, 0.04)),
                        "boot_id": f"{block}-{order}", "image": kernel, "series": None,
                        "host": "h", "accel": "tcg", "schema": 1,
                        "started_at": f"2026-01-{1 + block // 36:02}T{block % 24:02}:"
                        f"{order * 7 + repetition // 20:02}:{repetition % 20:02}.{order:03}+00:00",
                    }  # fmt: skip
                    file.write(json.dumps(sample) + "\n")


def main():
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "20260101-000000-0000"
        run.mkdir()
        write(run)
        start = time.monotonic()
        _, text = report_of(Path(folder), run.name, "html")
        seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"page: {len(text) / 2**20:.1f} MiB")
    figures = (
        Figure(name="report of a million samples", value=seconds, goal=MOST_SECONDS, unit="s"),
        Figure(name="its memory", value=peak, goal=MOST_MIB, unit="MiB"),
    )
    return int(False in [report(figure) for figure in figures])


if __name__ == "__main__":
    sys.exit(main())
