"""Wall time of a matrix on four workers of a scheduler / on one host.

Guests are synthetic and equally fast everywhere: a boot or a repetition takes 50 ms of sleep. All
processes are on this host. Goal: at most 0.35; four hosts without any cost would take 0.25.
"""

import contextlib
import sys
import tempfile
import time
from pathlib import Path

from figure import Figure, report

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "unit"))

from scheduler_cluster import Cluster, Run
from synthetic import World

GOAL = 0.35
WORKERS = 4
BLOCKS = 24
SECONDS = 0.05
MATRIX = {"max_active": (1, 2, 4, 8, 16, 32)}


def run_in(folder):
    return Run(folder, blocks=BLOCKS, wait=SECONDS, matrix=MATRIX)


def main():
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        cluster = Cluster(folder, stack)
        names = [f"worker{number}" for number in range(WORKERS)]
        for each in names:
            cluster.start(each)
        cluster.wait_for(*names)
        far, near, world = run_in(folder / "far"), run_in(folder / "near"), World(3)
        world.on_boot = world.on_run = lambda _: time.sleep(SECONDS)
        began = time.monotonic()
        far.on(cluster)
        between = time.monotonic()
        near.locally(world)
        seconds = between - began, time.monotonic() - between
        assert sorted(s.key for s in far.samples()) == sorted(s.key for s in near.samples())
        hosts = len({sample.host for sample in far.samples()})
    spread = f"{seconds[0]:.1f} and {seconds[1]:.1f} s, {BLOCKS} blocks, {hosts} hosts"
    what = f"a matrix on {WORKERS} workers / on one host"
    value = seconds[0] / seconds[1]
    return int(not report(Figure(name=what, value=value, goal=GOAL, spread=spread)))


if __name__ == "__main__":
    sys.exit(main())
