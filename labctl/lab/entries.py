"""lab.yaml as its author writes it: frozen models whose attribute names are the YAML keys. Pure.

`LabFile` is the whole file; the JSON Schema is generated from it. What names and paths
resolve to is in `lab_models`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from labctl import units
from labctl.arch import X86_64, ArchName
from labctl.lab import source_kinds
from labctl.lab.config import Config
from labctl.lab.limits import GuestLimits
from labctl.lab.make_variables import Compiler, LocalVersion, Make
from labctl.lab.metric_entry import SCALE
from labctl.lab.metrics import Better, Scale
from labctl.lab.state import USUAL_NAME
from labctl.lab.statistics import Statistics, StatisticsOverride
from labctl.lab.topology import Topology
from labctl.lab.types import (
    SCHEDULER_PATTERN,
    Bytes,
    Count,
    Model,
    Name,
    ObserverName,
    Reference,
    Seconds,
    Value,
    Version,
    Word,
)
from labctl.lab.workload_entry import BETTER, WorkloadEntry

_Values = Annotated[tuple[Value, ...], Field(min_length=1)]


class Defaults(Model):
    """The `defaults:` section."""

    launcher: Literal["qemu", "virtme-ng"] = Field(
        "qemu", description="Program that starts guests: qemu or virtme-ng."
    )
    transport: Literal["serial", "ssh"] = Field(
        "serial",
        description="How commands reach a guest: serial or ssh. With ssh, the guest has a network"
        " card and an SSH server, and kernels are built with the options for them.",
    )
    accel: Literal["auto", "kvm", "tcg"] = Field(
        "auto",
        description="QEMU accelerator: kvm, tcg (emulation), or auto for KVM if a probe guest"
        " boots with it and TCG otherwise.",
    )
    arch: ArchName = Field(X86_64.name, description="Architecture of kernels and guests.")
    guest: Reference = Field(
        "numa4",
        description="Name of a guest under `guests:`, used where no other guest is named. If"
        " omitted and there is only one guest, that guest.",
    )
    observe: tuple[ObserverName, ...] = Field(
        (), description="Observers of the experiments that set none. See `observe` there."
    )
    limits: GuestLimits = Field(
        GuestLimits(), description="Limits of what a guest may make labctl store."
    )


class KernelEntry(Model):
    """A kernel as written: a source, or a base and what differs from it."""

    source: str | None = Field(
        None,
        description=f"Kernel source: {source_kinds.description()}. Conflicts with `base`.",
    )
    base: Reference | None = Field(
        None,
        description="Name of another kernel. Its source, series, kconfig fragments and architecture"
        " are used, and unless set here its configuration, compiler, local version and command"
        " line. Conflicts with `source`.",
    )
    series: str | None = Field(
        None,
        description="Patches, applied in order after those of the base: a folder of `git"
        " format-patch` output or with a quilt `series` file, `git:BASE..TOPIC` (commits of the"
        " source), `git:PATH@BASE..TOPIC`, `mbox:FILE` (a thread; its newest version), or"
        " `lore:MESSAGE-ID` (fetched once by b4).",
    )
    kconfig: tuple[str, ...] = Field(
        (),
        description="Paths of kconfig fragments, applied after those of the base. If neither this"
        " kernel nor its bases have any or a `config`, labctl's own base fragment is used.",
    )
    config: Config = None
    compiler: Compiler = None
    make: Make = Field({})
    localversion: LocalVersion = None
    command_line: str | None = Field(
        None,
        description="Parameters appended to the kernel's command line, in place of those of the"
        " base. Example: page_poison=1.",
    )
    arch: ArchName | None = Field(
        None,
        description="Architecture: x86_64 or arm64. If omitted, that of `defaults:`. Conflicts"
        " with `base`.",
    )


class TargetEntry(Model):
    """A target, to measure on instead of guests; its kernel is changed by kexec."""

    kind: Literal["ssh"] = Field(description="Connection to the target: ssh.")
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:%-]+$")] = Field(
        description="Host name or address of the target."
    )
    port: Annotated[Count, Field(ge=1, le=65535)] | None = Field(
        None, description="Port of the target's SSH server. If omitted, the default SSH port."
    )
    user: str = Field("root", description="User to log in as.")
    key: str | None = Field(
        None,
        description="Path of a private key. If omitted, the user's SSH agent and default keys"
        " are tried.",
    )
    host_key: str | None = Field(
        None,
        description="Host key of the target as `ssh-keyscan` prints it, without the host name:"
        " ssh-ed25519 AAAA.... If omitted, the key in ~/.ssh/known_hosts.",
    )
    initrd: str | None = Field(
        None,
        description="Path of an initrd on this host that the measured kernels boot with. If"
        " omitted, the target's own initrd.",
    )
    command_line: str = Field(
        "", description="Parameters appended to the target's own kernel command line."
    )
    boot_timeout: Seconds = Field(
        300.0, description="Time limit for a boot of the target. Default: 5min."
    )


class TunableEntry(Model):
    """A setting of the kernel: a file in the guest, or a kernel parameter."""

    file: Annotated[str, Field(pattern=r"^/[^\s]+$")] | None = Field(
        None,
        description="Absolute path of a file in the guest that values are written to and read"
        " back from. Example: /sys/kernel/mm/transparent_hugepage/enabled.",
    )
    parameter: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] | None = Field(
        None,
        description="Name of a kernel command line parameter. A change of its value reboots the"
        " guest. Conflicts with `file`.",
    )
    kernels: tuple[Reference, ...] | None = Field(
        None,
        min_length=1,
        description="Names of the kernels that have the tunable. If omitted, all kernels.",
    )

    def applies_to(self, kernel: str) -> bool:
        """Return whether the named kernel has this tunable."""
        return self.kernels is None or kernel in self.kernels


class ExperimentEntry(Model):
    """A workload on kernels over a matrix of settings, against a baseline."""

    workload: Reference = Field(description="Name of a workload under `workloads:`.")
    kernels: Annotated[tuple[Reference, ...], Field(min_length=1)] = Field(
        description="Names of the kernels to measure. Example: [stock, parallel-free]."
    )
    baseline: Reference | None = Field(
        None,
        description="Name of the kernel that the others are compared with; it need not be in"
        " `kernels`. If omitted, the first of `kernels`.",
    )
    set: dict[str, Value] = Field(
        {},
        description="Tunables and workload parameters with one value each, the same in every"
        " cell. Example: {thp: never}.",
    )
    matrix: dict[str, _Values] = Field(
        {},
        description="Tunables and workload parameters with a list of values each; every"
        " combination is a cell. Example: {max_active: [1, 2, 4]}.",
    )
    guest: Reference | None = Field(
        None,
        description="Name of a guest under `guests:`. If omitted, the guest of `defaults:`.",
    )
    target: Reference | None = Field(
        None, description="Name of a target under `targets:`, to measure on instead of guests."
    )
    metric: Word | None = Field(
        None,
        description="Field of the workload's output that is compared. If omitted, the metric of"
        " the workload.",
    )
    metrics: Annotated[tuple[Word, ...], Field(min_length=1, max_length=20)] | None = Field(
        None,
        description="Metrics that are compared, from the same repetitions. The first one decides:"
        " when a cell stops, and the exit status. Direction, scale and minimum effect of each are"
        " under `metrics:` of the workload. Conflicts with `metric`, `better` and `scale`."
        " Example: [elapsed, faults].",
    )
    better: Better | None = BETTER
    scale: Scale | None = SCALE
    handovers: Literal["required", "none"] = Field(
        "required",
        description="Whether patched code must run. required: a cell whose handovers do not"
        " increase is not exercised. none: a handover is a failure, as for sizes below the"
        " series' threshold.",
    )
    observe: tuple[ObserverName, ...] | None = Field(
        None,
        description="Observers: counters of the kernel that are read before and after a"
        " repetition, for `labctl explain`. If omitted, those of `defaults:`."
        " Example: [vmstat, interrupts].",
    )
    statistics: StatisticsOverride = Field(
        StatisticsOverride(),
        description="Keys of the lab's `statistics:` to change for this experiment."
        " Example: {blocks: {max: 12}}.",
    )


class VariantEntry(Model):
    """A way to build and boot a kernel for `labctl verify`."""

    kconfig: tuple[str, ...] = Field(
        (), description="Paths of kconfig fragments, applied after those of the kernel."
    )
    command_line: str = Field(
        "", description="Parameters appended to the kernel's own command line."
    )
    checks: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        ("*",),
        description="Patterns of the checks to run on this variant."
        " Example: [integrity/*, stress-ng/vm]. Default: all checks.",
    )


class VerifyEntry(Model):
    """What `labctl verify` and `labctl series check` build, boot and check."""

    guest: Reference | None = Field(
        None,
        description="Name of a guest under `guests:`. If omitted, the guest of `defaults:`.",
    )
    variants: dict[Name, VariantEntry] = Field(
        {},
        description="Builds of each kernel, by name. If omitted, each kernel is checked as it is.",
    )
    set: dict[str, Value] = Field(
        {}, description="Tunables with one value each, the same in all checks."
    )
    matrix: dict[str, _Values] = Field(
        {},
        description="Tunables with a list of values each. With the first values of the tunables"
        " of all kernels, every combination of those with `kernels:` is checked; with other"
        " values, the last one. Besides, each kernel is checked at its defaults, without"
        " the tunables with `kernels:`.",
    )
    compile: dict[Name, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(
        {},
        description="Configurations, by name, in which every patch of a series must compile in"
        " `labctl series check`: lists of kconfig fragments, used in place of the kernel's.",
    )
    held_back: Bytes = Field(
        256 * units.MIB,
        description="Memory that may be unmapped but not yet free during the checks."
        " Default: 256MiB.",
    )
    held_back_defaults: Bytes | None = Field(
        None,
        description="The same at the defaults, where lists are longer. Default: `held_back`.",
    )


class LabFile(Model):
    """The whole of lab.yaml as written."""

    version: Version = Field(1, description="Version of the file format: 1.")
    state: str = Field(
        USUAL_NAME,
        description=f"Path of the folder for builds, guests and runs. Default: {USUAL_NAME}.",
    )
    defaults: Defaults = Field(
        Defaults(), description="Values for guests and kernels that do not set their own."
    )
    guests: dict[Name, Topology] = Field(
        {"numa4": Topology()},
        min_length=1,
        description="Guests by name, each a NUMA topology. If omitted, `numa4` with 4 nodes of"
        " 1 vCPU and 1536MiB.",
    )
    targets: dict[Name, TargetEntry] = Field(
        {}, description="Targets by name, reached by SSH, to measure on instead of guests."
    )
    kernels: dict[Name, KernelEntry] = Field(
        min_length=1, description="Kernels by name, each with a source or a base."
    )
    tunables: dict[Name, TunableEntry] = Field(
        {}, description="Settings of the kernel by name, for `set` and `matrix`."
    )
    workloads: dict[Name, WorkloadEntry] = Field(
        {}, description="Commands that run in the guest, by name."
    )
    experiments: dict[Name, ExperimentEntry] = Field(
        {}, description="Comparisons of kernels and settings, by name."
    )
    statistics: Statistics = Field(
        Statistics(), description="How much is measured, and how certain a verdict must be."
    )
    scheduler: Annotated[str, Field(pattern=SCHEDULER_PATTERN)] | None = Field(
        None,
        description="Dask scheduler whose workers measure: tls://HOST:PORT, tcp://HOST:PORT on"
        " loopback, or the path of a scheduler file (*.json). If omitted, this host measures.",
    )
    verify: VerifyEntry = Field(
        VerifyEntry(), description="What `labctl verify` and `labctl series check` do."
    )
