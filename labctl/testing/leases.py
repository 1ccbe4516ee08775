"""Room for guests, shared by all pytest processes of a lab; and quiet while one measures.

A lease is a file that its owner holds by flock(2): the kernel gives it back
however the owner ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labctl import flock
from labctl.errors import HostError
from labctl.lab_topology import Topology
from labctl.units import GIB, MIB

# QEMU beside the guest's memory, translated code above all.
_QEMU_BYTES = 192 * MIB
_POLL_SECONDS = 0.2
_SUFFIX = ".lease"
# As long as a kernel may build, or an experiment may take.
_LOCK_SECONDS = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Room:
    """What guests need of a host, or what there is of it."""

    memory_bytes: int = 0
    vcpus: int = 0

    @classmethod
    def of(cls, topology: Topology) -> Room:
        """Return what one guest of this shape needs."""
        vcpus = topology.nodes * topology.cpus_per_node
        return cls(topology.memory_bytes + _QEMU_BYTES, vcpus)

    def __add__(self, other: Room) -> Room:
        return Room(self.memory_bytes + other.memory_bytes, self.vcpus + other.vcpus)

    def __or__(self, other: Room) -> Room:
        """Return what is enough for either."""
        memory_bytes = max(self.memory_bytes, other.memory_bytes)
        return Room(memory_bytes, max(self.vcpus, other.vcpus))

    def fits(self, other: Room) -> bool:
        """Say whether there is place for it in another one."""
        return self.memory_bytes <= other.memory_bytes and self.vcpus <= other.vcpus

    def __str__(self) -> str:
        return f"{self.memory_bytes / GIB:.1f} GiB and {self.vcpus} vCPUs"


@dataclass(frozen=True, slots=True)
class Lease:
    """Room that is held; `close` gives it back, as the end of the process does."""

    path: Path
    descriptor: int

    def close(self) -> None:
        """Give it back; call it once."""
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class Leases:
    """The leases in a folder; together they never exceed `limit`.

    `available_bytes` tells what memory the host really has left.
    """

    folder: Path
    limit: Room
    available_bytes: Callable[[], int]

    def take(self, room: Room, *, deadline_seconds: float) -> Lease:
        """Wait for room. Whoever holds some already may wait for another who waits for it.

        Raises:
            HostError: there is never that much, or not before the deadline.
        """
        if not room.fits(self.limit):
            raise HostError(
                f"the guests need {room}, and the tests of this lab may have {self.limit}",
                hint="give the nodes less memory, or the tests more: --lab-memory 12GiB",
            )
        deadline = time.monotonic() + deadline_seconds
        while (lease := self.take_now(room)) is None:
            if time.monotonic() > deadline:
                with locked(self.folder / "ledger.lock"):
                    held = self.held()
                raise HostError(
                    f"no room for guests of {room} within {deadline_seconds:g} s: others hold "
                    f"{held}, {self.available_bytes() / GIB:.1f} GiB are free",
                    hint="end other guests (`labctl down`), or take fewer processes (-n)",
                )
            time.sleep(_POLL_SECONDS)
        return lease

    def take_now(self, room: Room) -> Lease | None:
        """Return a lease if there is room at this moment."""
        with locked(self.folder / "ledger.lock"):
            if not (self.held() + room).fits(self.limit):
                return None
            if room.memory_bytes > self.available_bytes():
                return None
            path = self.folder / f"{uuid.uuid4().hex}{_SUFFIX}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            flock.take(descriptor, timeout_seconds=_POLL_SECONDS)  # it is new
            content = {"memory_bytes": room.memory_bytes, "vcpus": room.vcpus, "pid": os.getpid()}
            os.write(descriptor, json.dumps(content).encode())
            return Lease(path, descriptor)

    def held(self) -> Room:
        """Return what is held by all processes together; what dead ones held is cleared away.

        Under the ledger's lock: a lease that is being made would be taken for a dead one's.
        """
        total = Room()
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                with path.open("rb") as file:
                    if _is_free(file.fileno()):
                        path.unlink(missing_ok=True)
                        continue
                    content = json.loads(file.read())
                total += Room(content["memory_bytes"], content["vcpus"])
        return total


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a file's lock for the length of the block.

    Raises:
        HostError: others did not give it back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not flock.take(descriptor, shared=shared, timeout_seconds=_LOCK_SECONDS):
            raise HostError(f"another process has held it for {_LOCK_SECONDS:g} s", where=str(path))
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # also where a forked child has it open
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Quiet:
    """Guests of tests work, or one process measures: never both at the same time."""

    folder: Path

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Work in a guest; waits while a process measures."""
        with contextlib.ExitStack() as stack:
            with locked(self._door, shared=True):  # whoever wants to measure stands in it
                stack.enter_context(locked(self._hall, shared=True))
            yield

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Measure; waits until nobody works, and lets nobody begin meanwhile."""
        with locked(self._door), locked(self._hall):
            yield

    @property
    def _door(self) -> Path:
        return self.folder / "door.lock"

    @property
    def _hall(self) -> Path:
        return self.folder / "hall.lock"
