"""Share of `labctl run`'s wall time spent in boots and workloads.

Uses the recorded times of the latest run; `--measure EXPERIMENT` starts a new run first.
Goal: at least 0.95.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from figure import Figure, report

from labctl.runs import folder as run_folder

ROOT = Path(__file__).parent.parent
GOAL = 0.95


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", metavar="EXPERIMENT")
    experiment = parser.parse_args().measure
    folder = ROOT / ".labctl" / "runs"
    if experiment or not run_folder.list_runs(folder):
        subprocess.run([sys.executable, "-m", "labctl", "run", experiment or "smoke"],
                       cwd=ROOT, check=False)  # fmt: skip
    run = run_folder.resolve(folder, "latest")
    status = 0
    for name, timings in run.document()["timing"].items():
        total = sum(t["total_seconds"] for t in timings)
        boot = sum(t["boot_seconds"] for t in timings)
        workload = sum(t["workload_seconds"] for t in timings)
        share = (boot + workload) / total
        spread = f"boots {boot:.0f} s, workload {workload:.0f} s, total {total:.0f} s"
        status |= not report(
            Figure(name=f"share of {name} in guests", value=share, goal=GOAL, at_least=True,
                   spread=f"{spread}, {run.read().accel}")
        )  # fmt: skip
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
