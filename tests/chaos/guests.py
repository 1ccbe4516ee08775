"""Boot and close guests one after the other; nothing that labctl holds may grow."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import held
import in_memory
import reliability
from tabulate import tabulate

from labctl.guests.guest import Guest
from labctl.guests.prepare import prepare
from labctl.lab.load import load

WARM_UP = 5  # imports, and what is made once
MOST_MORE_BYTES = 16 << 20  # of memory, which the allocator does not give back at once
BOOT_SECONDS = 600.0
LAB = """\
version: 1
defaults: {{accel: auto, guest: smallest}}
guests: {{smallest: {{nodes: 1, cpus_per_node: 1, memory_per_node: 128MiB}}}}
kernels: {{stock: {{source: 'image:{image}'}}}}
"""
TEXT = """\
## Guests

Guests of one process, booted, asked to run a command, and closed, one after the other. The
first {warm_up} are not counted. Written by `tox -e chaos -- --guests 500 --image FILE --write`; do
not edit.

"""


@dataclass(frozen=True)
class Counted:
    """What the process held before and after the guests."""

    guests: int
    before: held.Held
    after: held.Held
    seconds: float

    @property
    def faults(self) -> list[str]:
        """What grew."""
        found = [
            f"{count} more {name}" for name, count in self.after.more_than(self.before).items()
        ]
        grown = self.after.memory_bytes - self.before.memory_bytes
        return [*found, *([f"{grown >> 20} MiB more memory"] if grown > MOST_MORE_BYTES else [])]


def play(image: Path, guests: int, minutes: float) -> Counted:
    """Boot and close guests of a kernel image, as many as the time limit allows."""
    deadline = time.monotonic() + 60 * minutes
    folder = in_memory.folder("labctl-guests-")
    try:
        temporary, place = folder / "temporary", folder / "guests"
        temporary.mkdir()
        place.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        (folder / "lab.yaml").write_text(LAB.format(image=image.resolve()))
        lab = load(folder / "lab.yaml")
        prepared = prepare(lab, ["stock"], lambda _: None)

        def some(most: int) -> tuple[int, held.Held]:
            count = 0
            while count < most and (not count or time.monotonic() < deadline):
                count += 1
                spec = prepared.spec(
                    "stock", name="guest", folder=place / "guest", topology=lab.guests["smallest"]
                )
                with Guest(spec) as guest:
                    guest.wait_ready(BOOT_SECONDS)
                    assert guest.run("true", timeout_seconds=BOOT_SECONDS).status == 0
                shutil.rmtree(place / "guest")
            return count, held.held(place)

        (_, before), began = some(WARM_UP), time.monotonic()
        count, after = some(guests)
        return Counted(count, before, after, time.monotonic() - began)
    finally:
        shutil.rmtree(folder)


def page(counted: Counted, command: str) -> str:
    """Return the section of the page."""
    before, after = asdict(counted.before), asdict(counted.after)
    rows = [
        [name.replace("_", " "), before[name], after[name]]
        for name in before
        if name != "memory_bytes"
    ]
    rows.append(
        ["memory", *(f"{one.memory_bytes >> 20} MiB" for one in (counted.before, counted.after))]
    )
    table = tabulate(rows, ["held", "before", f"after {counted.guests} guests"], "github")
    where = reliability.where(command, counted.seconds)
    return f"{TEXT.format(warm_up=WARM_UP)}{where}\n\n{table}\n"


def write(counted: Counted, command: str) -> None:
    """Write the section of the page."""
    reliability.put("guests", page(counted, command))
