"""How much load of other processes lengthens a repetition: the reason for `disturbed_share`.

    python bench/host_load.py

Measures stock while processes of this script, of the same priority as the guests, take a random
share of the CPUs that changes every two seconds, and prints `labctl methodology host-load` of the
run. The shares of the bins contain all other processes of the host. Takes five minutes.
"""

import multiprocessing
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
SECONDS = 900  # the load ends by itself
PERIOD_SECONDS, SLICE_SECONDS = 2.0, 0.02
SHARES = (0.0, 0.0, 0.03, 0.07, 0.12, 0.17, 0.25, 0.35, 0.5)
SIZE, REPETITIONS, BLOCKS = "768MiB", 20, 6


def load(seed, end):
    """Use a random share of one CPU until `end`; all processes of a seed use the same one."""
    draw = random.Random(seed)
    while time.monotonic() < end:
        share, until = draw.choice(SHARES), time.monotonic() + PERIOD_SECONDS
        while time.monotonic() < until:
            busy_until = time.monotonic() + share * SLICE_SECONDS
            while time.monotonic() < busy_until:
                pass
            time.sleep((1 - share) * SLICE_SECONDS)


def lab_in(folder):
    """Write a lab that measures stock only, with this checkout's builds."""
    document = yaml.safe_load((ROOT / "lab.yaml").read_text())
    kernel = document["kernels"]["stock"]
    kernel["kconfig"] = [str(ROOT / path) for path in kernel["kconfig"]]
    lab = {
        "version": 1,
        "state": str(ROOT / ".labctl"),
        "guests": {"numa4-small": document["guests"]["numa4-small"]},
        "kernels": {"stock": kernel},
        "workloads": {"munmap": {"use": "munmap", "parameters": {"size": SIZE}}},
        "experiments": {
            "loaded": {
                "workload": "munmap",
                "guest": "numa4-small",
                "kernels": ["stock"],
                "statistics": {
                    "blocks": {"min": BLOCKS, "max": BLOCKS}, "repetitions": REPETITIONS
                },
            }
        },
    }  # fmt: skip
    (folder / "lab.yaml").write_text(yaml.safe_dump(lab, sort_keys=False))


def main():
    cpus, end = multiprocessing.cpu_count(), time.monotonic() + SECONDS
    others = [multiprocessing.Process(target=load, args=(1, end), daemon=True) for _ in range(cpus)]
    argv = [sys.executable, "-m", "labctl"]
    with tempfile.TemporaryDirectory(prefix="labctl-bench-") as folder:
        lab_in(Path(folder))
        subprocess.run([*argv, "build"], cwd=folder, check=True)
        for each in others:
            each.start()
        try:
            # 1: the control differs, which a load may cause.
            assert subprocess.run([*argv, "run", "loaded"], cwd=folder, check=False).returncode < 2
        finally:
            for each in others:
                each.terminate()
        run = max((ROOT / ".labctl" / "runs").glob("*-*")).name
        print(f"\nrun {run}, load by {cpus} processes of the same priority")
        subprocess.run([*argv, "methodology", "host-load", run], cwd=folder, check=True)


if __name__ == "__main__":
    main()
