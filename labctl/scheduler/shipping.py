"""The files of a run that its workers need, by their hashes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from labctl.errors import HostError, UserError
from labctl.experiments.runner import Runner
from labctl.guests.prepare import Prepared
from labctl.kernels.hashed import Hashed
from labctl.scheduler.task import Setup, Shipped

PART_BYTES = 4 << 20


def setup_of(runner: Runner, prepared: Prepared) -> Setup:
    """Return the setup of an experiment's blocks.

    Raises:
        UserError: its guests need files of their host.
        HostError: a file cannot be read.
    """
    lab = prepared.lab
    if lab.defaults.launcher != "qemu":
        raise UserError(
            f"`launcher: {lab.defaults.launcher}` does not work with a scheduler: its guests "
            "have the files of their host",
            where=str(lab.path),
            hint="set `launcher: qemu` under `defaults:`, or measure without --scheduler",
        )
    names = list(dict.fromkeys(cell.kernel for cell in runner.plan.cells))
    images = {name: prepared.images[name] for name in names}
    known = [file for image in images.values() for file in image.files()]
    known.append(Hashed(prepared.initramfs.path, prepared.initramfs.hash))
    others = [disk.path for disk in prepared.disks]
    others += [prepared.ssh_key] if prepared.ssh_key is not None else []
    files = {str(one.path): _shipped(one) for one in known}
    return Setup(
        run=runner.facts.run,
        lab=lab,
        experiment=runner.plan.experiment.name,
        seed=runner.plan.seed,
        accel=prepared.accel,
        images=images,
        initramfs=prepared.initramfs,
        disks=prepared.disks,
        ssh_key=prepared.ssh_key,
        supply=runner.supply,
        health=runner.health,
        files=files | {str(path): _shipped(_hashed(path)) for path in others},
    )


def _hashed(path: Path) -> Hashed:
    try:
        return Hashed.of(path)
    except OSError as error:
        raise HostError(f"file cannot be read: {error.strerror}", where=str(path)) from error


def _shipped(file: Hashed) -> Shipped:
    return Shipped(file.path, file.sha256)


def parts(file: Shipped, size: int) -> Iterator[bytes]:
    """Yield the content of a file in parts; raise HostError if it cannot be read."""
    try:
        with file.path.open("rb") as opened:
            while content := opened.read(size):
                yield content
    except OSError as error:
        what = f"file cannot be read: {error.strerror}"
        raise HostError(what, where=str(file.path)) from error
