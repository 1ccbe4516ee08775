"""Guests for `labctl verify` that are dictionaries, and the programs that they answer."""

import contextlib
import itertools
import time

from synthetic import TUNABLES

from labctl.errors import GuestSplat
from labctl.transports import Outcome

MEMINFO = "MemTotal: 1000000 kB\nMemFree: {free} kB\nSlab: 1000 kB\nHugePages_Total: 3\n"
ZONEINFO = "Node 0, zone DMA32\n  pagesets\n    cpu: 0\n              count: 25\n"


class FakeGuest:
    """Answers programs from a table of functions; counts what is handed over."""

    def __init__(self, answers, lost_kib=0, handovers=1):
        self.answers = answers
        self.lost_kib = lost_kib
        self.free_kib = 900_000
        self.handovers = 0
        self.step = handovers
        self.tunables = {}
        self.written = []
        self.ran = []
        self.tolerated = frozenset()
        self.silence_seconds = 0.0

    def wait_ready(self, _):
        pass

    def exchange(self, writes, reads):
        self.tunables |= writes
        self.written.append(dict(writes))
        files = {
            "/proc/meminfo": MEMINFO.format(free=self.free_kib),
            "/proc/zoneinfo": ZONEINFO,
            f"{TUNABLES}/handovers": str(self.handovers),
            "/sys/kernel/debug/kmemleak": "",
        } | self.tunables
        return {path: files[path] for path in reads if path in files}

    def run(self, argv, *, timeout_seconds, stdin=b""):
        assert timeout_seconds > 0
        name = argv if isinstance(argv, str) else argv[1]
        self.ran.append(name)
        self.handovers += self.step
        self.free_kib -= self.lost_kib
        return self.answers.get(name, lambda: outcome(0))()


def outcome(status, stdout="", stderr=""):
    return Outcome("x", status, stdout.encode(), stderr.encode(), 0.1)


def splat():
    raise GuestSplat("BUG: KASAN: use-after-free", kind="bug", console_tail=["the end"])


def booter(folder, seconds=0.0):
    """Return what boots a guest in which `bad` fails, `late` with 32 workers, `splat` the kernel.

    A program takes some seconds.
    """
    numbers = itertools.count()

    def boot():
        own = folder / f"boot-{next(numbers)}"
        own.mkdir(parents=True)
        (own / "console.log").write_text("[    1.0] last words\n")
        guest = FakeGuest({})

        def late():
            time.sleep(seconds)
            return outcome(int(guest.tunables.get(f"{TUNABLES}/max_active") == "32"))

        def good():
            time.sleep(seconds)
            return outcome(0)

        answers = {"bad": lambda: outcome(1, "foreign byte\n"), "splat": splat, "late": late}
        guest.answers = {"good": good, **answers}
        return contextlib.nullcontext(guest)

    return boot
