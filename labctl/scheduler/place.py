"""Where a worker measures: its folder, its name, its host's lock, and how guests start."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from labctl import files
from labctl.experiments import early
from labctl.experiments.block_guests import Boot
from labctl.experiments.booting import booter, log_of
from labctl.experiments.guest_like import GuestLike
from labctl.experiments.needs import Need
from labctl.experiments.plan import Plan
from labctl.guests import accelerator, confine
from labctl.guests.disks import Disk
from labctl.guests.guest import Guest
from labctl.guests.prepare import Prepared
from labctl.host import identity
from labctl.host import load as host_load
from labctl.host.facts import read_facts
from labctl.host.home import xdg_folder
from labctl.kernels.hashed import Hashed
from labctl.lab.state import StateFolder
from labctl.runs.folder import RunFolder
from labctl.scheduler.task import CheckSetup, Needed, Setup, Shipped
from labctl.verify.run import booter as check_booter
from labctl.verify.run import topology_of

CheckBoot = Callable[[], AbstractContextManager[Guest]]

_KEPT_SECONDS = 30 * 24 * 3600.0
_SHIPPED = re.compile(r"[0-9a-f]{64}(\.[0-9a-f]+\.part)?")


@dataclass(frozen=True, slots=True)
class Guests:
    """How the guests of a block are booted and where their logs are, from the run's folder."""

    boot: Boot
    log_of: Callable[[GuestLike], str] = lambda _: ""
    load: Callable[[], Mapping[str, float]] = host_load.load


def guests_of_qemu(place: Place, setup: Setup, plan: Plan) -> Guests:
    """Return guests of QEMU, after a check that they fit on this host.

    Raises:
        HostError: the host lacks memory or disk space.
    """
    prepared = _prepared(place, setup)
    early.check_memory(prepared.lab, [plan], prepared.facts)
    folder = RunFolder(place.run(setup.run))
    return Guests(booter(prepared, plan, folder), partial(log_of, folder=folder))


def check_boot_of_qemu(place: Place, setup: CheckSetup, folder: Path) -> CheckBoot:
    """Return what boots a guest in `folder` for checks, after a check that it fits on this host.

    Raises:
        HostError: the host lacks memory or disk space.
    """
    prepared = _prepared(place, setup)
    lab = prepared.lab
    name = lab.verify.guest or lab.defaults.guest
    early.check_room(lab, Need("", name, 1, topology_of(lab)), prepared.facts, "labctl verify")
    return check_booter(prepared, setup.kernel, folder)


def _prepared(place: Place, setup: Needed) -> Prepared:
    """Return the guests of a task, whose files are here."""

    def here(path: Path) -> Path:
        return place.path_of(setup.files[str(path)].sha256)

    images = {
        name: replace(
            image,
            bzimage=here(image.bzimage),
            config=None if image.config is None else here(image.config),
        )
        for name, image in setup.images.items()
    }
    assert setup.initramfs is not None
    return Prepared(
        lab=setup.lab.model_copy(update={"state": place.folder}),
        host=place.facts(),
        accel=setup.accel,
        images=images,
        initramfs=replace(setup.initramfs, path=here(setup.initramfs.path)),
        facts=read_facts(),
        ssh_key=None if setup.ssh_key is None else here(setup.ssh_key),
        disks=tuple(Disk.of(here(disk.path), disk.digest) for disk in setup.disks),
        box=confine.program(place.folder),
    )


def _why_not_kvm(host: identity.Host) -> str:
    cache = StateFolder(PLACE.folder).accelerator
    return accelerator.expected("auto", host=host, cache=cache)[1]


@dataclass(slots=True)
class Place:
    """The place of this process; `lock_folder` has the measuring locks, None for the system's.

    `given_folder`: of its files, None for the default.
    """

    given_folder: Path | None = None
    name: str = field(default_factory=socket.gethostname)
    facts: Callable[[], identity.Host] = identity.describe
    kvm: Callable[[identity.Host], str] = _why_not_kvm
    lock_folder: Path | None = None
    guests: Callable[[Place, Setup, Plan], Guests] = guests_of_qemu
    check_boot: Callable[[Place, CheckSetup, Path], CheckBoot] = check_boot_of_qemu

    @property
    def folder(self) -> Path:
        """The folder of this worker's files.

        Raises:
            HostError: none was given, and the user has no home folder.
        """
        return self.given_folder or xdg_folder("XDG_CACHE_HOME", ".cache") / "labctl" / "worker"

    def path_of(self, sha256: str) -> Path:
        """Return the path of a shipped file."""
        return self.files / sha256

    @property
    def files(self) -> Path:
        """The folder of shipped files, by their hashes."""
        return self.folder / "files"

    def run(self, run: str) -> Path:
        """Return the folder of a run, for the logs of its guests."""
        return StateFolder(self.folder).runs / run

    def has(self, file: Shipped) -> bool:
        """Return whether a file was shipped, and is undamaged."""
        path = self.path_of(file.sha256)
        if not Hashed(path, file.sha256).holds():
            return False
        path.touch()
        return True

    def tidy(self) -> None:
        """Remove shipped files that no run has asked for in the last weeks."""
        oldest = time.time() - _KEPT_SECONDS
        for path in self.files.glob("*"):
            if _SHIPPED.fullmatch(path.name) and path.stat().st_mtime < oldest:
                files.remove(path)


PLACE = Place()
