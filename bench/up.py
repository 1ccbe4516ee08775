"""Ratio of times: `labctl up` / the same two QEMUs started without labctl.

Both boot the same two images in parallel until both have reached init. They alternate,
so that drift of the host affects both. Goal: at most 1.15.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figure import Figure, report

from labctl.guests import qemu
from labctl.guests.folder import prepare_folder
from labctl.guests.prepare import prepare
from labctl.lab.load import load
from labctl.transports.console import Console

ROOT = Path(__file__).parent.parent
KERNELS = ("stock", "parallel-free")
GOAL = 1.15


def by_hand(prepared, folder):
    """Return the seconds that plain QEMUs take until both consoles show the init."""
    specs = [
        prepared.spec(k, name=k, folder=folder / k, topology=prepared.lab.guests["numa4"])
        for k in KERNELS
    ]
    for spec in specs:
        prepare_folder(spec)
    began = time.monotonic()
    processes = [
        subprocess.Popen(qemu.command(spec), cwd=spec.folder, stdin=subprocess.DEVNULL)
        for spec in specs
    ]
    try:
        consoles = [Console(spec.folder / qemu.CONSOLE_LOG) for spec in specs]
        while not all(console.boot_id for console in consoles):
            time.sleep(0.02)
            for console in consoles:
                console.poll()
        return time.monotonic() - began
    finally:
        for process in processes:
            process.kill()
            process.wait()


def by_labctl():
    """Return the seconds that `labctl up` takes."""
    began = time.monotonic()
    _labctl("up", *KERNELS)
    seconds = time.monotonic() - began
    _labctl("down")
    return seconds


def _labctl(*words):
    # With byte code, like an installed labctl: its compilation is not part of `up`.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    argv = [sys.executable, "-m", "labctl", *words]
    subprocess.run(argv, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    prepared = prepare(load(ROOT / "lab.yaml"), KERNELS, lambda _: None)
    by_labctl()  # the first one writes the byte code
    hand, lab = [], []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            hand.append(by_hand(prepared, Path(folder)))
        lab.append(by_labctl())
        print(f"round {number + 1}: by hand {hand[-1]:.2f} s, labctl up {lab[-1]:.2f} s")
    ratios = [a / b for a, b in zip(lab, hand, strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f} in {rounds} rounds, {prepared.accel}"
    figure = Figure(name="labctl up / the same QEMUs by hand", value=statistics.median(ratios),
                    goal=GOAL, spread=spread)  # fmt: skip
    return int(not report(figure))


if __name__ == "__main__":
    sys.exit(main())
