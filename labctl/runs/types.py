"""What a run records of its host, its kernels and its guests, as frozen structs. Pure."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from labctl.runs.sample import Scalar

Count = Annotated[int, Meta(ge=0, le=2**62)]
Share = Annotated[float, Meta(gt=0, lt=1)]
Settings = dict[str, Scalar]


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about the host."""

    boot_id: Annotated[
        str | UnsetType, Meta(description="The kernel's random id of this boot.")
    ] = UNSET
    cores: Annotated[Count | UnsetType, Meta(description="CPUs that labctl may use.")] = UNSET
    cpu_model: Annotated[str | UnsetType, Meta(description="Model name of the CPU.")] = UNSET
    id: Annotated[
        str | UnsetType, Meta(description="Hash of the machine id and the CPU model.")
    ] = UNSET
    kernel: Annotated[str | UnsetType, Meta(description="Release of the host's kernel.")] = UNSET
    memory_bytes: Annotated[Count | UnsetType, Meta(description="Memory of the host in bytes.")] = (
        UNSET
    )
    qemu: Annotated[str | UnsetType, Meta(description="Version of QEMU; empty without one.")] = (
        UNSET
    )
    qemu_as_root: Annotated[
        bool | UnsetType, Meta(description="Whether QEMU ran as root, as labctl did.")
    ] = UNSET
    qemu_without_sandbox: Annotated[
        bool | UnsetType, Meta(description="Whether QEMU ran without its sandbox (seccomp).")
    ] = UNSET


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel of a run."""

    arch: Annotated[str | UnsetType, Meta(description="Architecture: x86_64 or arm64.")] = UNSET
    commit: Annotated[
        str | UnsetType | None, Meta(description="Commit id of a source from git; else missing.")
    ] = UNSET
    compiler: Annotated[str | UnsetType | None, Meta(description="Compiler and its version.")] = (
        UNSET
    )
    image: Annotated[
        str | UnsetType | None,
        Meta(description="Hash of all inputs of the build: source, series, config, compiler."),
    ] = UNSET
    patches: Annotated[
        tuple[str, ...] | UnsetType | None,
        Meta(description="Hash of each patch of the series, in order."),
    ] = UNSET
    release: Annotated[str | UnsetType | None, Meta(description="Release, as in `uname -r`.")] = (
        UNSET
    )
    series: Annotated[
        str | UnsetType | None, Meta(description="Hash of the series; null without one.")
    ] = UNSET
    subject: Annotated[
        str | UnsetType | None, Meta(description="Subject of `commit`; missing without it.")
    ] = UNSET


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run comes from that a packed lab measured, on another machine."""

    pack: Annotated[str, Meta(description="Id of the packed lab.")]
    at: Annotated[str, Meta(description="When it was imported: UTC, ISO 8601.")]


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a guest's vCPUs and memory are on the host."""

    cores: Annotated[Count, Meta(description="Host CPUs that the vCPUs run on.")]
    emulator: Annotated[
        tuple[int, ...], Meta(description="Host CPUs of QEMU's other threads; empty for any.")
    ]
    host_nodes: Annotated[
        tuple[int, ...], Meta(description="Host node of each guest node's memory; empty for any.")
    ]
    overcommitted: Annotated[bool, Meta(description="Whether vCPUs share a host CPU.")]
    pinned: Annotated[
        tuple[int, ...], Meta(description="Host CPU of each vCPU; empty if none is pinned.")
    ]
    vcpus: Annotated[Count, Meta(description="vCPUs of the guest.")]
