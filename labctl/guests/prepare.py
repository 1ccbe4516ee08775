"""Prepare what guests need to start: images, initramfs and accelerator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from labctl.arch import ARCHITECTURES, X86_64, Architecture
from labctl.errors import UserError
from labctl.guests import (
    accelerator,
    busybox,
    confine,
    copied,
    disks,
    initramfs,
    launchers,
    login,
    modules,
    needs,
    qemu,
    scratch,
    topology_options,
)
from labctl.guests.disks import Disk
from labctl.guests.fleet import Fleet
from labctl.guests.guest import GuestSpec
from labctl.guests.initramfs import Initramfs
from labctl.guests.limits import NO_LIMITS, Limits
from labctl.guests.placement import Placement, place
from labctl.host import identity, state
from labctl.host.facts import HostFacts, read_facts
from labctl.kernels import kconfig, remains
from labctl.kernels.build import Builder, BuildProgress, Image
from labctl.kernels.images import given
from labctl.kernels.revisions import check_revisions
from labctl.lab.models import Kernel, Lab
from labctl.lab.state import BUILT, MEASURED
from labctl.lab.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Images, initramfs and accelerator for the guests of a lab."""

    lab: Lab
    host: identity.Host
    accel: str
    images: dict[str, Image]
    initramfs: Initramfs
    facts: HostFacts = field(default_factory=read_facts)
    ssh_key: Path | None = None
    disks: tuple[Disk, ...] = ()
    box: Path | None = None

    def spec(
        self,
        kernel: str,
        *,
        name: str,
        folder: Path,
        topology: Topology,
        command_line: str = "",
        pinned: bool = False,
        rewrites_code: bool = False,
    ) -> GuestSpec:
        """Return the spec of a guest; `command_line` is appended to the kernel's.

        With `pinned`, guests that run one at a time are pinned to the same CPUs. A kernel
        that `rewrites_code` of its own while it runs has one thread for all CPUs under TCG.

        Raises:
            UserError: the kernel's .config does not allow the topology, or the host's disk is
                too small for the guest's disks.
        """
        scratch.check_space(self.lab, topology)
        placement = self.placement(topology)
        own, image = self.lab.kernels[kernel].command_line, self.images[kernel]
        config = kconfig.read_values(image.config)
        if config is not None:
            Limits({kernel: [topology]}).check_config(kernel, config, image.arch)
        launcher = self.lab.defaults.launcher
        return GuestSpec(
            name=name,
            image=image,
            topology=topology,
            initramfs=self.initramfs.path,
            accel=self.accel,
            folder=folder,
            command_line=f"{own} {command_line}".strip(),
            launcher=launcher,
            programs=self.initramfs.programs,
            placement=placement if pinned else placement.unpinned(),
            transport=self.lab.defaults.transport,
            ssh_key=self.ssh_key,
            disks=self.disks,
            limits=self.lab.defaults.limits,
            # In threads of their own, CPUs have run code that another had replaced (int3), and
            # QEMU cannot count their instructions.
            one_thread=(rewrites_code or topology.icount) and self.accel == "tcg",
            files=(*image.files(), *self.initramfs.files(launcher)),
            box=self.box,
        )

    def placement(self, topology: Topology) -> Placement:
        """Return the host placement of a guest with this topology."""
        names = (name for name, one in self.lab.guests.items() if one == topology)
        return place(next(names, ""), topology, self.facts)


def build_images(
    lab: Lab,
    kernels: Iterable[str],
    progress: Callable[[BuildProgress], None],
    fragments: tuple[Path, ...] | None = None,
    limits: Limits = NO_LIMITS,
) -> dict[str, Image]:
    """Build missing images; return the images by kernel name.

    `fragments` are added to those of each kernel, by default the launcher's.

    Raises:
        ConfigError: a revision of a kernel from git does not exist.
        UserError: a kernel's configuration is too small for its guests, by `limits`, or an
            image lacks options that guests need.
    """
    kernels = list(dict.fromkeys(kernels))
    check_revisions(lab, kernels)
    for name in kernels if fragments is None else ():
        _check_image(lab.kernels[name], lab)
    builder = Builder(lab.state, progress, limits)
    return builder.images(
        _with(one, _asked_for(lab, one.arch) if fragments is None else fragments)
        for one in (lab.kernels[name] for name in kernels)
    )


def _asked_for(lab: Lab, arch: str) -> tuple[Path, ...]:
    ssh = (login.fragment(),) if lab.defaults.transport == "ssh" else ()
    names = (["root"] if lab.has_roots else []) + topology_options.fragments(
        lab.guests.values(), arch
    )
    folder = initramfs.source_folder() / "kconfig"
    more = (folder / f"{name}.config" for name in names)
    return (*launchers.fragments(lab.defaults.launcher), *ssh, *more)


def _check_image(kernel: Kernel, lab: Lab) -> None:
    """Raise a UserError if a built image lacks options, by the config beside it."""
    if not _is_image(kernel):
        return
    image = given(kernel)
    values = kconfig.read_values(image.config)
    if image.config is not None and values is not None:
        roots = needs.ROOTS if lab.has_roots else ()
        more = (*roots, *topology_options.of_guests(lab.guests.values(), kernel.arch))
        loadable: set[str] = set()
        if lab.defaults.launcher == "qemu":
            loadable = modules.loadable(image, needs.options(lab.defaults, kernel.arch, more))
        needs.check(kernel, values, image.config, lab.defaults, loadable, more)


def _is_image(kernel: Kernel) -> bool:
    return kernel.source.startswith("image:")


def _with(kernel: Kernel, fragments: tuple[Path, ...]) -> Kernel:
    """Return a kernel with the fragments that change an option; a prebuilt image is unchanged."""
    if _is_image(kernel):
        return kernel
    arch = ARCHITECTURES[kernel.arch]
    for path in fragments:
        # What is set already would only change the order, and so the image's address.
        before, after = (
            {option.name: option.value for option in kconfig.merge(kconfig.of_arch(each, arch))}
            for each in (kernel.kconfig, (*kernel.kconfig, path))
        )
        if before != after:
            kernel = kernel.model_copy(update={"kconfig": (*kernel.kconfig, path)})
    return kernel


def arch_of(lab: Lab, kernels: Iterable[str]) -> Architecture:
    """Return the common architecture of some of a lab's kernels.

    Raises:
        UserError: their architectures differ.
    """
    arches = {name: lab.kernels[name].arch for name in kernels}
    found = set(arches.values()) or {X86_64.name}
    if len(found) > 1:
        listed = ", ".join(f"{name} is {arch}" for name, arch in arches.items())
        raise UserError(
            f"kernels have different architectures: {listed}",
            where=str(lab.path),
            hint="select kernels or experiments of one architecture",
        )
    return ARCHITECTURES[found.pop()]


def remove_built(lab: Lab, *, runs_too: bool) -> list[Path]:
    """Remove sources, trees and images, with `runs_too` also runs; return the removed paths.

    Raises:
        UserError: another labctl uses them, or guests of `labctl up` are running.
        HostError: a file cannot be removed.
    """
    if not lab.state.is_dir():
        return []
    with state.cleared(lab.state):
        names = Fleet(lab.state_folder.guests).names()
        if names:
            raise UserError(
                f"guests still running: {', '.join(names)}", hint="stop them with `labctl down`"
            )
        trees = lab.state_folder.trees
        for lock in () if trees.is_symlink() else trees.glob("*/make.lock"):
            remains.end_orphans(lock)
        return state.remove(lab.state, (*BUILT, *(MEASURED if runs_too else ())))


def prepare(
    lab: Lab,
    kernels: Iterable[str],
    progress: Callable[[BuildProgress], None],
    files: Mapping[str, Path | str] | None = None,
    limits: Limits = NO_LIMITS,
    roots: Mapping[str, Disk] | None = None,
    choose: Callable[[str], str] | None = None,
) -> Prepared:
    """Build images and initramfs, and select the accelerator.

    `files` are additional files by their absolute path in the guest, a text being the
    target of a symbolic link. `limits` has the topologies
    of the guests, so that an unsuitable kernel is found before it is built. `roots` are
    those of workloads, by name. With `choose`, which returns the accelerator, other hosts run the
    guests.

    Raises:
        BuildError: a kernel or a guest program does not build.
        HostError: a tool is missing, or the requested accelerator does not work.
        UserError: the kernels have different architectures.
    """
    kernels = list(kernels)
    arch = arch_of(lab, kernels)
    # Report a missing tool before a build that takes minutes.
    if choose is None:
        qemu.check(arch)
    if arch.is_foreign:
        busybox.find(arch)
    if arch is X86_64:  # other architectures have only QEMU's emulation
        launchers.check(lab.defaults.launcher)
    with_ssh = lab.defaults.transport == "ssh"
    ssh_key = login.key(lab.state) if with_ssh else None
    more: dict[str, Path | str] = {**login.files(lab.state)} if with_ssh else {}
    images = build_images(lab, kernels, progress, limits=limits)
    if not images:
        raise UserError("no kernel selected")
    beside = login.beside_programs(lab.state) if with_ssh else {}
    start = disks.start_file(roots or {}, lab.defaults.launcher, lab.state)
    if lab.defaults.launcher == "qemu":
        given_images = [i for name, i in images.items() if _is_image(lab.kernels[name])]
        modules_of_roots = needs.ROOT_MODULES if lab.has_roots else ()
        options = (
            *modules_of_roots,
            *topology_options.modules_of_guests(lab.guests.values(), arch.name),
        )
        more |= modules.files(lab.state, given_images, lab.defaults, options)
        more |= {**(files or {}), **start}
    else:
        beside |= copied.beside_programs(lab.state, files or {}) | start
    archive = initramfs.build(lab.state, more, beside=beside, arch=arch)
    facts = identity.describe(arch)
    asked = lab.defaults.accel
    if choose is not None:
        accel = choose(asked if arch is X86_64 else "tcg")
    else:
        cache = lab.state_folder.accelerator
        accel = accelerator.choose(asked, host=facts, cache=cache, arch=arch)
    return Prepared(
        lab=lab,
        host=facts,
        accel=accel,
        images=images,
        initramfs=archive,
        ssh_key=ssh_key,
        disks=tuple({disk.serial: disk for disk in (roots or {}).values()}.values()),
        box=confine.program(lab.state),
    )
