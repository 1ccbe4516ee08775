"""Images, reservations and guests of one pytest process."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from labctl.arch import ARCHITECTURES
from labctl.errors import LabError
from labctl.experiments import tunables
from labctl.experiments.early import supplies_of_lab
from labctl.guests.fleet import Fleet
from labctl.guests.prepare import Prepared, prepare
from labctl.host import identity
from labctl.host.facts import read_memory
from labctl.kernels.build import BuildProgress
from labctl.lab.models import Lab
from labctl.testing.cases import Case
from labctl.testing.guest import LabGuest
from labctl.testing.leases import Lease, Leases, Quiet, Room, locked
from labctl.workloads.supply import Supply, merged, roots

_BOOT_SECONDS = 180.0
_WAIT_SECONDS = 1800.0
_MEMORY_SHARE = 0.75
# Idle vCPUs cost little; with this many busy vCPUs per core, guests still meet their deadlines.
_VCPUS_PER_CORE = 8
_LONGEST_NAME = 80


@dataclass(slots=True)
class Stay:
    """A guest of a test; `failed` is set when a test that uses it fails."""

    guest: LabGuest
    lab: Lab
    lease: Lease | None = None
    fleet: Fleet | None = None
    failed: bool = False
    _began: bool = False

    def start(self) -> None:
        """Start QEMU without waiting for the boot."""
        if self.fleet is None:
            self.guest.__enter__()
        else:
            self.fleet.start(self.guest)
        self._began = True

    def wait_ready(self) -> None:
        """Wait until the guest is ready, then set its tunables.

        Raises:
            GuestError: the guest does not boot, or a tunable cannot be set.
        """
        with self.guest.quiet.working():
            self.guest.wait_ready(_BOOT_SECONDS)
        values = self.guest.case.files(self.lab)
        if values:
            tunables.apply(self.guest, self.lab.tunables, values, {})

    @property
    def is_kept(self) -> bool:
        """Whether the guest keeps running after the test, like a guest of `labctl up`."""
        return self.fleet is not None and self.failed and self.fleet.running(self.guest.name)

    def end(self) -> None:
        """Stop the guest, unless it is kept. Safe to call twice."""
        if self._began:
            self._began = False
            if self.fleet is None:
                self.guest.__exit__()
            else:
                self.guest.detach()
                if not self.failed:
                    self.fleet.down(self.guest.name)
        if self.lease is not None:
            self.lease.close()
            self.lease = None


@dataclass(slots=True)
class Bench:
    """State shared by the tests of one pytest process.

    `keep` keeps the guests of failed tests running. `memory_bytes` limits the guests of
    all processes together, by default to three quarters of the host's memory.
    """

    lab: Lab
    keep: bool = False
    memory_bytes: int | None = None
    quiet: Quiet = field(init=False)
    leases: Leases = field(init=False)
    _prepared: dict[str, Prepared | LabError] = field(default_factory=dict)
    _supplies: dict[str, dict[str, Supply]] = field(default_factory=dict)
    _ahead: Stay | None = None

    def __post_init__(self) -> None:
        folder = self.lab.state_folder.leases
        memory = self.memory_bytes or int(read_memory().total_bytes * _MEMORY_SHARE)
        self.quiet = Quiet(folder)
        self.leases = Leases(
            folder,
            Room(memory, identity.usable_cores() * _VCPUS_PER_CORE),
            lambda: read_memory().available_bytes,
        )

    def prepare(self, kernels: Iterable[str], progress: Callable[[BuildProgress], None]) -> None:
        """Build missing kernels, once for all processes; `boot` raises build errors."""
        with locked(self.lab.state_folder.prepare_lock):
            for kernel in dict.fromkeys(kernels):
                if kernel not in self._prepared:
                    try:
                        supplies = self.supplies(kernel)
                        self._prepared[kernel] = prepare(
                            self.lab,
                            [kernel],
                            progress,
                            merged(supplies),
                            roots=roots(supplies),
                        )
                    except LabError as error:
                        self._prepared[kernel] = error

    def supplies(self, kernel: str) -> dict[str, Supply]:
        """Return what the workloads without an error bring into the guests of a kernel."""
        arch = self.lab.kernels[kernel].arch
        if arch not in self._supplies:
            self._supplies[arch] = supplies_of_lab(self.lab, ARCHITECTURES[arch])
        return self._supplies[arch]

    @contextlib.contextmanager
    def room(self, room: Room) -> Iterator[None]:
        """Wait for a reservation and hold it for the block.

        Raises:
            HostError: it exceeds the limit, or other processes do not release theirs.
        """
        lease = self.leases.take(room, deadline_seconds=_WAIT_SECONDS)
        try:
            yield
        finally:
            lease.close()

    def boot(self, case: Case, name: str, folder: Path) -> Stay:
        """Start a new guest and return it; the caller must hold a reservation for it.

        Raises:
            LabError: the kernel build failed, or QEMU cannot be started.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            if ahead.guest.case == case and ahead.guest.name == slug(name):
                self._give_back(ahead)
                return ahead
            ahead.end()
        return self._start(case, name, folder)

    def boot_ahead(self, case: Case, name: str, folder: Path) -> None:
        """Start the guest of the next test, if there is memory for it now."""
        lease = self.leases.take_now(Room.of(case.topology)) if self._ahead is None else None
        if lease is None:
            return
        try:
            self._ahead = self._start(case, name, folder)
            self._ahead.lease = lease
        except LabError:  # the next test will report it
            lease.close()

    def close(self) -> None:
        """Stop the guest started ahead."""
        if self._ahead is not None:
            self._ahead.end()
            self._ahead = None

    @staticmethod
    def _give_back(ahead: Stay) -> None:
        """Release the own reservation of a guest started ahead: its test holds one too."""
        if ahead.lease is not None:
            ahead.lease.close()
            ahead.lease = None

    def _start(self, case: Case, name: str, folder: Path) -> Stay:
        self.prepare([case.kernel], lambda _: None)
        prepared = self._prepared[case.kernel]
        if isinstance(prepared, LabError):
            raise prepared
        fleet = Fleet(self.lab.state_folder.guests) if self.keep else None
        if fleet is not None:
            folder = fleet.spec_folder(slug(name))
            if slug(name) in fleet.names():  # kept by an earlier session
                fleet.down(slug(name))
        spec = prepared.spec(
            case.kernel,
            name=slug(name),
            folder=folder,
            topology=case.topology,
            command_line=case.command_line(self.lab),
        )
        stay = Stay(LabGuest(spec, case, self.quiet), self.lab, fleet=fleet)
        with self.quiet.working():
            stay.start()
        return stay


def slug(text: str) -> str:
    """Return a valid guest name: `test_x[stock-thp=never]` becomes test_x-stock-thp.never."""
    words = re.sub(r"[^A-Za-z0-9_.]+", "-", text.replace("=", ".")).strip("-.")
    if len(words) <= _LONGEST_NAME:
        return words
    return f"{words[:_LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
