"""Ratios of CPU times: `labctl --help` / a bare Python, and this checkout / another one.

    python bench/start.py
    python bench/start.py --against FOLDER

FOLDER is a checkout of an earlier commit (`git worktree add FOLDER COMMIT`): then `labctl
--help` and `labctl report` of both run alternately with this Python on the same stored run.
CPU time is user and system time of the command and of what it starts: on a busy host it
varies less than wall time. Goals: at most 8 bare Pythons, and 1.1 times the other checkout.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import report
from figure import Figure
from figure import report as report_figure

ROOT = Path(__file__).parent.parent
PYTHONS = 8.0
GOAL = 1.1
RUN = "20260101-000000-0000"
COMMANDS = (("--help",), ("report", RUN), ("report", RUN, "--json"))


def cpu_seconds():
    """Return the CPU time of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def seconds(checkout, words, lab):
    """Return the CPU seconds that one command of a checkout takes; None is a bare Python."""
    # With byte code, like an installed labctl.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    code = "import sys; from labctl.cli import main; sys.exit(main())"
    argv = [sys.executable, "-c", code if checkout else "", *words]
    began = cpu_seconds()
    subprocess.run(
        argv, cwd=lab, env=env | {"PYTHONPATH": str(checkout)}, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return cpu_seconds() - began


def compare(name, words, lab, checkouts, rounds, goal):
    """Report the median ratio of two checkouts' CPU times; return whether it meets the goal."""
    ratios = []
    for number in range(rounds + 1):
        order = checkouts if number % 2 else checkouts[::-1]
        took = {checkout: seconds(checkout, words, lab) for checkout in order}
        if number:  # the first round writes the byte code
            ratios.append(took[checkouts[0]] / took[checkouts[1]])
    spread = f"{min(ratios):.2f} to {max(ratios):.2f} in {rounds} rounds"
    return report_figure(
        Figure(name=name, value=statistics.median(ratios), goal=goal, spread=spread)
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="checkout to compare with")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lab = Path(folder)
        for name in ("lab.yaml", "guest", "patches"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, lab / name)
        run = lab / ".labctl" / "runs" / RUN
        run.mkdir(parents=True)
        report.write(run, blocks=30, samples=3000)
        name = "labctl --help / python -c ''"
        good = compare(name, ("--help",), lab, [ROOT, None], options.rounds, PYTHONS)
        if options.against is not None:
            checkouts = [ROOT, options.against.absolute()]
            for words in COMMANDS:
                name = f"labctl {' '.join(words)} / the same of {options.against.name}"
                good &= compare(name, words, lab, checkouts, options.rounds, GOAL)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
