"""Memory and vCPU reservations shared by all pytest processes of a lab.

A lease is a file that its owner locks with flock(2): the kernel releases it when the
owner ends. `Quiet` keeps guests idle while one process measures.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labctl import flock
from labctl.errors import HostError
from labctl.lab.topology import Topology
from labctl.units import MIB, rough_size

# QEMU's own memory, mostly translated code.
_QEMU_BYTES = 192 * MIB
_POLL_SECONDS = 0.2
_SUFFIX = ".lease"
# Long enough for a kernel build or an experiment.
_LOCK_SECONDS = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Room:
    """Memory and vCPUs that guests need or a host provides."""

    memory_bytes: int = 0
    vcpus: int = 0

    @classmethod
    def of(cls, topology: Topology) -> Room:
        """Return the needs of one guest with this topology."""
        return cls(topology.memory_bytes + _QEMU_BYTES, topology.vcpus)

    def __add__(self, other: Room) -> Room:
        return Room(self.memory_bytes + other.memory_bytes, self.vcpus + other.vcpus)

    def __or__(self, other: Room) -> Room:
        """Return the larger of the two, for memory and vCPUs separately."""
        memory_bytes = max(self.memory_bytes, other.memory_bytes)
        return Room(memory_bytes, max(self.vcpus, other.vcpus))

    def fits(self, other: Room) -> bool:
        """Return whether this fits into `other`."""
        return self.memory_bytes <= other.memory_bytes and self.vcpus <= other.vcpus

    def __str__(self) -> str:
        return f"{rough_size(self.memory_bytes)} and {self.vcpus} vCPUs"


@dataclass(frozen=True, slots=True)
class Lease:
    """A reservation; `close` or the end of the process releases it."""

    path: Path
    descriptor: int

    def close(self) -> None:
        """Release the reservation; call once."""
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class Leases:
    """The leases in a folder; their sum never exceeds `limit`.

    `available_bytes` returns the memory available on the host.
    """

    folder: Path
    limit: Room
    available_bytes: Callable[[], int]

    def take(self, room: Room, *, deadline_seconds: float) -> Lease:
        """Wait for a lease. Can deadlock if the process already holds one.

        Raises:
            HostError: `room` exceeds the limit, or is not free before the deadline.
        """
        if not room.fits(self.limit):
            raise HostError(
                f"guests need {room}, but the limit for tests of this lab is {self.limit}",
                hint="reduce the memory of the nodes, or raise the limit: --lab-memory 12GiB",
            )
        deadline = time.monotonic() + deadline_seconds
        while (lease := self.take_now(room)) is None:
            if time.monotonic() > deadline:
                with locked(self.folder / "ledger.lock"):
                    held = self.held()
                raise HostError(
                    f"timeout after {deadline_seconds:g} s while waiting for {room}: other tests "
                    f"reserve {held}, {rough_size(self.available_bytes())} are free",
                    hint="stop other guests (`labctl down`), or use fewer processes (-n)",
                )
            time.sleep(_POLL_SECONDS)
        return lease

    def take_now(self, room: Room) -> Lease | None:
        """Return a lease if there is room now, else None."""
        with locked(self.folder / "ledger.lock"):
            if not (self.held() + room).fits(self.limit):
                return None
            if room.memory_bytes > self.available_bytes():
                return None
            path = self.folder / f"{uuid.uuid4().hex}{_SUFFIX}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            flock.take(descriptor, timeout_seconds=_POLL_SECONDS)  # no other process has a new file
            content = {"memory_bytes": room.memory_bytes, "vcpus": room.vcpus, "pid": os.getpid()}
            os.write(descriptor, json.dumps(content).encode())
            return Lease(path, descriptor)

    def held(self) -> Room:
        """Return the sum of all leases; remove those of dead processes.

        The caller must hold the ledger's lock: a lease that is being created has no lock
        yet and would be removed.
        """
        total = Room()
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                with path.open("rb") as file:
                    if flock.take(file.fileno(), shared=True, timeout_seconds=0):
                        path.unlink(missing_ok=True)
                        continue
                    content = json.loads(file.read())
                total += Room(content["memory_bytes"], content["vcpus"])
        return total


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a file's lock for the length of the block.

    Raises:
        HostError: another process does not release it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    busy = HostError(f"locked by another process for {_LOCK_SECONDS:g} s", where=str(path))
    with flock.held(descriptor, shared=shared, timeout_seconds=_LOCK_SECONDS, busy=lambda: busy):
        yield


@dataclass(frozen=True, slots=True)
class Quiet:
    """Either guests of tests work, or one process measures, never both."""

    folder: Path

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Use a guest in the block; wait while a process measures."""
        with contextlib.ExitStack() as stack:
            with locked(self._door, shared=True):  # a process that waits to measure holds it
                stack.enter_context(locked(self._hall, shared=True))
            yield

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Measure in the block; wait for all guests to be idle and keep them idle."""
        with locked(self._door), locked(self._hall):
            yield

    @property
    def _door(self) -> Path:
        return self.folder / "door.lock"

    @property
    def _hall(self) -> Path:
        return self.folder / "hall.lock"
