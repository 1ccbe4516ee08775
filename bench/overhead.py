"""Ratios of times: `labctl up` and `labctl run` of this checkout / of an earlier one.

    git worktree add ../before COMMIT
    python bench/overhead.py --against ../before --image .labctl/images/HASH/bzImage

Both start guests of the same image, by turns. `up` counts the time until its guests are ready,
`run` that of a whole run of two blocks.
Goal: at most 1.03 times the other checkout, by the upper end of the 95 % interval.
"""

import argparse
import contextlib
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figure import Figure, report

from labctl.stats.paired import paired

ROOT = Path(__file__).parent.parent
GOAL = 1.03
MARGIN = math.log(GOAL)
LAB = """\
version: 1
defaults: {{accel: auto, guest: two}}
guests: {{two: {{nodes: 2, cpus_per_node: 1, memory_per_node: 256MiB}}}}
kernels:
  stock: {{source: 'image:{image}'}}
  again: {{source: 'image:{image}'}}
workloads:
  free: {{command: freebench, parameters: {{op: free, size: 64MiB, threads: 2}}, metric: elapsed}}
experiments:
  tiny: {{workload: free, kernels: [stock, again], baseline: stock}}
statistics: {{blocks: {{min: 2, max: 2}}, repetitions: 3, warmup: 1, stop_at_half_width: none}}
"""
# What is timed, and what comes after it.
COMMANDS = {
    "labctl up": (("up", "stock", "again"), ("down",)),
    "labctl run": (("run", "tiny"), ()),
}


class Checkout:
    """A checkout, with a lab of its own."""

    def __init__(self, folder, lab, image):
        self.folder, self.lab = folder, lab
        lab.mkdir()
        (lab / "lab.yaml").write_text(LAB.format(image=image))

    def run(self, words):
        # With byte code, like an installed labctl.
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        code = "import sys; from labctl.cli import main; sys.exit(main())"
        subprocess.run(
            [sys.executable, "-c", code, *words], cwd=self.lab, check=True,
            env=env | {"PYTHONPATH": str(self.folder)}, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def seconds(self, words, after):
        """Return the wall time of a command."""
        began = time.monotonic()
        try:
            self.run(words)
            return time.monotonic() - began
        finally:
            if after:
                self.run(after)

    def end(self):
        with contextlib.suppress(subprocess.CalledProcessError):
            self.run(("down",))


def compare(name, checkouts, rounds):
    """Report the ratio of two checkouts; return whether it meets the goal."""
    logs = []
    for number in range(rounds + 1):
        order = checkouts if number % 2 else checkouts[::-1]
        took = {each: each.seconds(*COMMANDS[name]) for each in order}
        if number:  # the first round builds the guest programs and writes the byte code
            now, before = (took[each] for each in checkouts)
            logs.append(math.log(now / before))
            print(f"{name}, round {number}: {now:.2f} s, before {before:.2f} s", flush=True)
    found = paired(logs, confidence=0.95, margin=MARGIN)
    low, high = found.ci or (0.0, math.inf)
    spread = f"{low:.3f} to {high:.3f}, {rounds} rounds"
    return report(
        Figure(name=f"{name} / the same of {checkouts[1].folder.name}, upper end", value=high,
               goal=GOAL, spread=f"ratio {found.ratio:.3f}, {spread}")
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, required=True, help="checkout to compare with")
    parser.add_argument("--image", type=Path, required=True, help="kernel image of the guests")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=list(COMMANDS))
    options = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        places = {"now": ROOT, "before": options.against.resolve()}
        image = options.image.resolve()
        checkouts = [Checkout(tree, Path(folder, name), image) for name, tree in places.items()]
        try:
            for name in [options.only] if options.only else COMMANDS:
                good &= compare(name, checkouts, options.rounds)
        finally:
            for each in checkouts:
                each.end()
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
