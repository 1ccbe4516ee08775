"""The files of a run that its workers need, by their hashes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from labctl.errors import HostError, UserError
from labctl.experiments.runner import Runner
from labctl.guests.prepare import Prepared
from labctl.kernels.hashed import Hashed
from labctl.scheduler.task import CheckSetup, Setup, Shipped
from labctl.verify.engine import Todo

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
    return Setup(
        **_needed(prepared, names),
        run=runner.facts.run,
        experiment=runner.plan.experiment.name,
        seed=runner.plan.seed,
        supply=runner.supply,
        health=runner.health,
    )


def check_setup_of(todo: Todo) -> CheckSetup:
    """Return the setup of the checks of a variant of a kernel.

    Raises:
        HostError: a file cannot be read.
    """
    return CheckSetup(
        **_needed(todo.prepared, [todo.kernel.name]),
        kernel=todo.kernel.name,
        variant=todo.variant,
        programs=tuple(todo.programs),
        options=todo.options,
    )


def _needed(prepared: Prepared, kernels: Sequence[str]) -> dict[str, Any]:
    """Return the fields of `Needed`."""
    images = {name: prepared.images[name] for name in kernels}
    known = [file for image in images.values() for file in image.files()]
    known.append(Hashed(prepared.initramfs.path, prepared.initramfs.hash))
    others = [disk.path for disk in prepared.disks]
    others += [prepared.ssh_key] if prepared.ssh_key is not None else []
    files = {str(one.path): _shipped(one) for one in known}
    return {
        "lab": prepared.lab,
        "accel": prepared.accel,
        "images": images,
        "initramfs": prepared.initramfs,
        "disks": prepared.disks,
        "ssh_key": prepared.ssh_key,
        "files": files | {str(path): _shipped(_hashed(path)) for path in others},
    }


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
