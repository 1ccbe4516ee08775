"""A lab without QEMU: guests that are dictionaries with a noisy clock."""

import contextlib
import json
import random
from pathlib import Path

from labctl.errors import GuestPanic, TunableRefused
from labctl.experiments.description import Facts
from labctl.lab.entries import Defaults
from labctl.lab.models import Experiment, Kernel, Lab, Tunable, Workload
from labctl.lab.statistics import Blocks, Statistics
from labctl.lab.topology import Topology
from labctl.transports import Outcome

CORES = 2.0
GUILTY = 5  # the step of a series on workers that makes it slower
TUNABLES = "/sys/kernel/debug/parallel_free"


def lab(blocks=6, matrix=None, repetitions=2, **settings):
    """Return a lab with one experiment `e`: stock against patched."""
    return Lab(
        path=Path("lab.yaml"),
        root=Path(),
        state=Path(".labctl"),
        defaults=Defaults(guest="numa4"),
        guests={"numa4": Topology()},
        kernels={
            "stock": Kernel(name="stock", source="debian:linux-source-6.1"),
            "patched": Kernel(name="patched", source="debian:linux-source-6.1"),
        },
        tunables={
            "max_active": Tunable(
                name="max_active", file=f"{TUNABLES}/max_active", kernels=("patched",)
            ),
            "numa_balancing": Tunable(name="numa_balancing", parameter="numa_balancing"),
        },
        workloads={
            "free": Workload(name="free", command="freebench", parameters={"op": "free", "size": 1})
        },
        experiments={
            "e": Experiment(
                name="e",
                workload="free",
                kernels=("stock", "patched"),
                baseline="stock",
                matrix=matrix or {},
                **settings,
            )
        },
        statistics=Statistics(
            blocks=Blocks(min=blocks, max=blocks), repetitions=repetitions, stop_at_half_width=None
        ),
    )


FACTS = Facts(
    run="r", host="h", accel="tcg", images={"stock": ("i0", None), "patched": ("i1", "s1")}
)


class Guest:
    """A guest whose workload takes a second, or less if patched, with some noise."""

    def __init__(self, group, block, world):
        self.group = group
        self.block = block
        self.world = world
        self.boot_id = f"boot-{group.name}-{block}-{len(world.boots)}"
        self.files = {}
        if group.kernel.startswith("patched"):
            names = {"max_active": "8\n", "handovers": "0\n", "pages_handed": "0\n"}
            self.files = {f"{TUNABLES}/{name}": text for name, text in names.items()}
        self.paused = False

    def wait_ready(self, deadline_seconds):
        self.world.on_boot(self)

    def run(self, argv, *, timeout_seconds, stdin=b""):
        assert not self.paused
        awake = [g for g in self.world.alive if not g.paused]
        assert awake == [self], "somebody else runs while this one is measured"
        self.world.measured.append((self.block, self.group, tuple(argv)))
        self.world.spend(others=self.world.others(self))
        self.world.on_run(self)
        for name in ("handovers", "pages_handed"):
            path = f"{TUNABLES}/{name}"
            if path in self.files and self.world.exercised:
                self.files[path] = f"{int(self.files[path]) + 1}\n"
        faster = self.world.speeds.get(self.group.kernel, 1.0)
        seconds = self.world.draw.lognormvariate(0, 0.02) / faster
        text = json.dumps({"elapsed_nanoseconds": round(seconds * 1e9)}) + "\n"
        return Outcome(" ".join(argv), 0, text.encode(), b"", seconds)

    def exchange(self, writes, reads):
        for path, text in writes.items():
            if path not in self.files:
                raise TunableRefused(f"{path}: there is no such file")
            self.files[path] = f"{text}\n"
        return {path: self.files[path] for path in reads if path in self.files}

    def pause(self):
        self.paused = True

    def resume(self):
        self.paused = False


class World:
    """Boots guests, remembers what was done, and fails on request."""

    def __init__(self, seed=1):
        self.draw = random.Random(seed)
        self.boots = []
        self.alive = []
        self.measured = []
        self.exercised = True
        self.speeds = {"patched": 1.4}
        self.on_boot = lambda guest: None
        self.on_run = lambda guest: None
        self.others = lambda guest: 0.0
        self.seconds = 0.0
        self.counted = dict.fromkeys(("busy_seconds", "own_seconds", "steal_seconds"), 0.0)

    def spend(self, others):
        """Let a second pass in which the guest keeps one core busy, others a share of both."""
        self.seconds += 1.0
        self.counted["own_seconds"] += 1.0
        self.counted["busy_seconds"] += 1.0 + CORES * others

    def clock(self):
        return self.seconds

    def load(self):
        return {"cores": CORES, **self.counted}

    @contextlib.contextmanager
    def boot(self, group, block):
        guest = Guest(group, block, self)
        self.boots.append((block, group))
        self.alive.append(guest)
        try:
            yield guest
        finally:
            self.alive.remove(guest)


def panic(message="Kernel panic - not syncing: test"):
    raise GuestPanic(message, console_tail=["[ 1.0] last words"])
