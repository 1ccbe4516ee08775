"""Ratios of CPU times: `labctl --help` and `labctl report`, this checkout / another one.

    python bench/start.py --against FOLDER

FOLDER is a checkout of an earlier commit (`git worktree add FOLDER COMMIT`). Both run
alternately with this Python on the same stored run. CPU time is user and system time of the
command and of what it starts: on a busy host it varies less than wall time. Target: at most 1.1.
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

ROOT = Path(__file__).parent.parent
TARGET = 1.1
RUN = "20260101-000000-0000"
COMMANDS = (("--help",), ("report", RUN), ("report", RUN, "--json"))


def cpu_seconds():
    """Return the CPU time of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def seconds(checkout, words, lab):
    """Return the CPU seconds that one command of a checkout takes."""
    # With byte code, like an installed labctl.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    code = "import sys; from labctl.cli import main; sys.exit(main())"
    argv = [sys.executable, "-c", code, *words]
    began = cpu_seconds()
    subprocess.run(
        argv, cwd=lab, env=env | {"PYTHONPATH": str(checkout)}, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return cpu_seconds() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, required=True, help="checkout to compare with")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    before = options.against.absolute()
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        lab = Path(folder)
        for name in ("lab.yaml", "guest", "patches"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, lab / name)
        run = lab / ".labctl" / "runs" / RUN
        run.mkdir(parents=True)
        report.write(run, blocks=30, samples=3000)
        for words in COMMANDS:
            ratios = []
            for number in range(options.rounds + 1):
                order = [ROOT, before] if number % 2 else [before, ROOT]
                took = {checkout: seconds(checkout, words, lab) for checkout in order}
                if number:  # the first round writes the byte code
                    ratios.append(took[ROOT] / took[before])
            ratio = statistics.median(ratios)
            worst = max(worst, ratio)
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"labctl {' '.join(words)}: {ratio:.2f} ({spread}, target {TARGET})")
    return 0 if worst <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
