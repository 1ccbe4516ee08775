"""What is sent to a worker and back: a block or checks, and their results. Values only."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from labctl.experiments.blocks import Block
from labctl.experiments.progress import Timing
from labctl.guests.disks import Disk
from labctl.guests.initramfs import Initramfs
from labctl.kernels.images import Image
from labctl.lab.models import Lab, Variant
from labctl.runs.sample import Sample
from labctl.stats.health import HealthRule
from labctl.verify.kernel import Check, Options
from labctl.verify.programs import Program
from labctl.verify.settings import Point
from labctl.workloads.supply import NOTHING, Supply

PROTOCOL = 2  # to be increased with each change of these values


@dataclass(frozen=True, slots=True)
class Shipped:
    """A file of the run by its path on the host of the command; workers have it by its hash."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """What guests need; paths are those on the host of the command.

    `files` has every file that guests read, by what it is for.
    """

    lab: Lab
    accel: str
    images: Mapping[str, Image]
    initramfs: Initramfs | None = None
    disks: tuple[Disk, ...] = ()
    ssh_key: Path | None = None
    files: Mapping[str, Shipped] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup(Needed):
    """What all blocks of an experiment share."""

    run: str
    experiment: str
    seed: int
    supply: Supply = NOTHING
    health: HealthRule = field(default_factory=HealthRule)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSetup(Needed):
    """What all checks of a variant of a kernel share."""

    kernel: str
    variant: Variant
    programs: tuple[Program, ...]
    options: Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A block as a task. `failures` are the guests' failures in earlier blocks."""

    setup: bytes
    block: Block
    topic: str
    key: str
    baseline_is_good: bool
    failures: tuple[Sample, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckTask:
    """The checks of a variant of a kernel at one setting, as a task."""

    setup: bytes
    point: Point
    topic: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReport:
    """A worker's host: its facts, and whether it can measure."""

    protocol: int
    version: str
    name: str
    machine: str
    facts: Mapping[str, str | int | bool]
    why_not_kvm: str  # empty if KVM works

    @property
    def id(self) -> str:
        """The stable id of the host."""
        return str(self.facts["id"])

    @property
    def boot_id(self) -> str:
        """The id of its kernel's boot; workers with the same one are on the same host."""
        return str(self.facts["boot_id"])


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a host could not measure a block."""

    what: str
    where: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} ({self.hint})" if self.hint else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a task, with logs by their path in the task's folder.

    With `failure`, the host could not measure; with `busy`, another measurement, which that
    describes, did not end.
    """

    logs: Mapping[str, bytes] = field(default_factory=dict)
    failure: Failure | None = None
    busy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockResult(Result):
    """The samples of a block, as sealed lines. With `baseline`, the baseline failed first."""

    lines: tuple[bytes, ...] = ()
    timing: Timing = field(default_factory=Timing)
    baseline: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult(Result):
    """The checks of a task."""

    checks: tuple[Check, ...] = ()


def packed(setup: Needed) -> bytes:
    """Return a setup as bytes."""
    return pickle.dumps(setup)


def unpacked(content: bytes) -> Needed:
    """Return the setup in bytes that `packed` returned."""
    found = pickle.loads(content)  # noqa: S301 - Dask's own messages are pickles of the same peer
    assert isinstance(found, Needed)
    return found
