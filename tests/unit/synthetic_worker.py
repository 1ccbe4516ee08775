"""A worker whose guests are synthetic: `python synthetic_worker.py ADDRESS NAME FOLDER [HOW]`.

HOW is `slow`, `kvm`, `damages` or `impatient`. Each worker is a host of its own, with its own lock.
"""

import asyncio
import random
import sys
import time
from pathlib import Path

import checked_guest
import synthetic

from labctl.doctor.diagnosis import Diagnosis
from labctl.doctor.host_tests import HostTests
from labctl.host.identity import Host
from labctl.scheduler import worker
from labctl.scheduler.place import PLACE, Guests
from labctl.scheduler.serve import serve
from labctl.verify import memory

ADDRESS, NAME, FOLDER, *HOW = sys.argv[1:]
SECONDS = 0.01
CHECK_SECONDS = 0.05


class Timed(synthetic.World):
    """Guests that also take real time: a boot as long as a repetition."""

    def __init__(self, seconds):
        super().__init__(random.Random(NAME).random())
        self.speeds = {
            f"patched.step{n}": 1 / 1.2 if n >= synthetic.GUILTY else 1.0 for n in range(8)
        }
        self.speeds |= {"patched": 1.4}
        self.wait = lambda guest: time.sleep(seconds)
        self.on_boot = self.on_run = self.wait


def host():
    return Host(
        id=f"id-{NAME}", cpu_model="synthetic", cores=2, memory_bytes=1 << 30, kernel="6.1",
        qemu="9", boot_id=f"boot-{NAME}",
    )  # fmt: skip


def guests(place, setup, plan):
    (seconds,) = [one.parameters.get("wait", SECONDS) for one in setup.lab.workloads.values()]
    world = Timed(float(seconds) * (2 if "slow" in HOW else 1))
    return Guests(world.boot, load=world.load)


PLACE.given_folder, PLACE.name, PLACE.lock_folder = Path(FOLDER), NAME, Path(FOLDER)
PLACE.facts, PLACE.guests = host, guests
PLACE.check_boot = lambda place, setup, folder: checked_guest.booter(folder, CHECK_SECONDS)
memory._SETTLE_SECONDS = 0.0
PLACE.kvm = lambda facts: "" if "kvm" in HOW else "/dev/kvm does not exist"
whole = worker.receive


def damaged(sha256, token, content):
    whole(sha256, token, content[:-1] + b"?")


def diagnoses(self, *, builds):
    assert not builds
    yield Diagnosis("qemu", "ok", "9")
    yield Diagnosis("kvm", "warn", "missing")


setattr(HostTests, "diagnoses", diagnoses)  # noqa: B010 - of another type
if "impatient" in HOW:
    worker._PATIENCE_SECONDS = 0.5
if "damages" in HOW:
    setattr(worker, "receive", damaged)  # noqa: B010 - of another type; Dask finds functions by their names
asyncio.run(serve(ADDRESS, NAME))
