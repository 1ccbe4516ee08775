"""Prepare a target: build the kernels and connect."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from labctl.arch import X86_64
from labctl.errors import UserError
from labctl.guests import initramfs
from labctl.guests.limits import NO_LIMITS, Limits
from labctl.guests.prepare import Prepared, build_images
from labctl.kernels.build import BuildProgress
from labctl.lab.models import Lab, Target
from labctl.targets.machine import Connect, TargetMachine, Tools
from labctl.transports.ssh import SshAddress

if TYPE_CHECKING:
    from labctl.transports.ssh.transport import SshTransport

# The `accel` value of runs on a target: no accelerator.
NATIVE = "native"


@contextlib.contextmanager
def prepare_target(
    lab: Lab,
    target: Target,
    kernels: Iterable[str],
    progress: Callable[[BuildProgress], None],
    check: Callable[[TargetMachine], None] = lambda _: None,
    files: Mapping[str, Path] | None = None,
    scripts: Mapping[str, str] | None = None,
    limits: Limits = NO_LIMITS,
    roots: Mapping[str, Path] | None = None,
) -> Iterator[tuple[Prepared, TargetMachine]]:
    """Build missing images and yield the target; it starts and ends with its own kernel.

    `check` is called before the first build. `files` are more files by their path on the
    target, `scripts` the texts of executables. `limits` reject unsuitable kernels before
    they are built. `roots` are archives of the roots of workloads, by name.

    Raises:
        BuildError: a kernel or a program does not build.
        HostError: the target cannot be reached, or not as root.
        BootFailed: the target does not come back with its own kernel.
        UserError: a kernel is not for x86_64.
    """
    kernels = list(kernels)
    foreign = [name for name in kernels if lab.kernels[name].arch != X86_64.name]
    if foreign:
        raise UserError(
            f"kernel {foreign[0]} is {lab.kernels[foreign[0]].arch}, but targets must be "
            f"{X86_64.name}",
            hint="measure it in guests: remove `target:` and --target",
        )
    tools = Tools(
        kexec=initramfs.program(lab.state, "kexec"),
        programs=(initramfs.program(lab.state, "freebench"),),
        files=files or {},
        scripts=scripts or {},
        roots=roots or {},
    )
    with TargetMachine(target, connect_to(target), tools) as machine:
        machine.describe()  # report problems before a build that takes minutes
        check(machine)
        fragment = initramfs.source_folder() / "kconfig" / "kexec.config"
        images = build_images(lab, kernels, progress, (fragment,), limits)
        machine.give_back()
        prepared = Prepared(
            lab=lab,
            host=machine.describe(),
            accel=NATIVE,
            images=images,
            initramfs=initramfs.build(lab.state),
        )
        yield prepared, machine


def connect_to(target: Target) -> Connect:
    """Return a function that creates transports to a target."""
    from labctl.transports.ssh.transport import SshTransport  # late: it imports fabric

    address = SshAddress(
        host=target.host,
        port=target.port,
        user=target.user,
        key=target.key,
        host_key=target.host_key,
        ssh_config=target.key is None,
    )

    def connect(*, silence_seconds: float) -> SshTransport:
        return SshTransport(
            address, alive=lambda: None, owner="labctl", silence_seconds=silence_seconds
        )

    return connect
