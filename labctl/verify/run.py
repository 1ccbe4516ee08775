"""`labctl verify`: build debug images and guest programs, and run all checks of each kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

from msgspec import UNSET

from labctl.arch import X86_64
from labctl.errors import UserError
from labctl.guests.bundle import bundle
from labctl.guests.guest import Guest
from labctl.guests.limits import Limits
from labctl.guests.prepare import Prepared, prepare
from labctl.kernels.build import Builder, BuildProgress
from labctl.lab.models import Kernel, Lab, Variant
from labctl.lab.topology import Topology
from labctl.series import reader
from labctl.series.patch import Series
from labctl.verify import programs, scenarios, selftests
from labctl.verify.engine import Checking, Engine, Facts, Spread, Todo
from labctl.verify.kernel import Check, Options, beside_base, counterpart, has_failed
from labctl.verify.programs import Program
from labctl.verify.types import CheckStatus, KernelResult, Verification

__all__ = ["Events", "Options", "Verified", "verify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Callbacks for progress."""

    building: Callable[[BuildProgress], None]
    checking: Checking
    planned: Callable[[int], None]  # receives the number of checks, before the first


@dataclass(frozen=True, slots=True)
class Verified:
    """The checks of all kernels, including their bases, by the kernels' names.

    `prepared` has the guests' images by the variants' names, `hosts` the facts about workers.
    """

    lab: Lab
    prepared: Mapping[str, Prepared]
    checks: dict[str, list[Check]]
    hosts: Mapping[str, Facts] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether at least one check ran and none failed."""
        return any(self.checks.values()) and not any(map(has_failed, self.checks.values()))

    def document(self) -> Verification:
        """Return the document of `labctl verify --json`."""
        return Verification(
            host=self._any.host.as_dict(),
            hosts={name: dict(facts) for name, facts in self.hosts.items()} or UNSET,
            accel=self._any.accel,
            passed=self.passed,
            kernels={name: self._kernel(name) for name in self.checks},
        )

    @property
    def _any(self) -> Prepared:
        return next(iter(self.prepared.values()))

    def _kernel(self, name: str) -> KernelResult:
        image, base = self._any.images[name], self.lab.kernels[name].base
        beside = self.checks.get(base or "", ())
        checks = self.checks[name]
        return KernelResult(
            images={label: each.images[name].hash for label, each in self.prepared.items()},
            series=image.series_hash,
            patches=image.patch_hashes,
            release=image.release,
            base=base,
            passed=not has_failed(checks),
            checks=tuple(check.result(_status(counterpart(check, beside))) for check in checks),
        )


def verify(
    lab: Lab,
    names: Sequence[str],
    *,
    seconds: int,
    options: Options,
    with_base: bool,
    events: Events,
    engine: Engine | None = None,
) -> Verified:
    """Check kernels of the lab and, `with_base`, their bases; run each program for `seconds`.

    With an engine, other hosts run the guests.

    Raises:
        UserError: no check matches.
        BuildError: a debug image does not build.
        HostError: a tool is missing, or the host cannot run the guests.
    """
    chosen = _with_bases(lab, names) if with_base else list(names)
    _refuse_arm64(lab, chosen)
    prepared: dict[str, Prepared] = {}
    programs_of: dict[str, dict[str, list[Program]]] = {}
    for variant in lab.verify.variants:
        debug = _as_variant(lab, variant)
        selected, files = _programs(debug, chosen, variant, seconds, options, events)
        if any(selected.values()):
            programs_of[variant.name] = selected
            limits = Limits({name: [topology_of(lab)] for name in chosen})
            choose = None if engine is None else engine.choose
            more = files, limits, None, choose
            prepared[variant.name] = prepare(debug, chosen, events.building, *more)
    if not prepared:
        raise UserError("no check of these variants matches", hint="example: --check 'integrity/*'")
    todo = [
        Todo(
            kernel=lab.kernels[name],
            variant=variant,
            programs=programs_of[variant.name][name],
            options=options,
            prepared=prepared[variant.name],
        )
        for name in chosen
        for variant in lab.verify.variants
        if variant.name in prepared
    ]
    events.planned(sum(one.count() for one in todo))
    found = (engine.check if engine else _here)(todo, events.checking)
    beside = {
        name: beside_base(made, reference(lab, name, found.checks))
        for name, made in found.checks.items()
    }
    return Verified(lab, prepared, beside, found.hosts)


def _here(todo: Sequence[Todo], checking: Checking) -> Spread:
    """Run checks on this host."""
    checks: dict[str, list[Check]] = {}
    for one in todo:
        name, lab = one.kernel.name, one.prepared.lab
        own = checks.setdefault(name, [])
        if one.options.stop_at_first and has_failed(own):
            continue
        place = lab.state_folder.verify(name, one.variant.name)
        boot = booter(one.prepared, name, place)
        own += one.checker(boot, partial(checking, name)).run()
    return Spread(checks)


def reference(lab: Lab, name: str, checks: Mapping[str, Sequence[Check]]) -> Sequence[Check]:
    """Return the checks whose failures are known for a kernel: those of its base.

    Those of a kernel without a base are its own. If it is the base of no other checked
    kernel, as a built image may be, only the kernel tree's selftests count.
    """
    if base := lab.kernels[name].base:
        return checks.get(base, ())
    if any(lab.kernels[other].base == name for other in checks):
        return checks[name]
    return [check for check in checks[name] if check.name.startswith("selftests/")]


def _refuse_arm64(lab: Lab, names: Sequence[str]) -> None:
    arm64 = [name for name in names if lab.kernels[name].arch != X86_64.name]
    if arm64:
        raise UserError(
            f"`labctl verify` supports {X86_64.name} kernels only, got {', '.join(arm64)}",
            hint=f"check the series on a kernel with `arch: {X86_64.name}`",
        )


def _status(check: Check | None) -> CheckStatus | None:
    return check.verdict.status if check else None


def _programs(
    lab: Lab,
    names: Sequence[str],
    variant: Variant,
    seconds: int,
    options: Options,
    events: Events,
) -> tuple[dict[str, list[Program]], dict[str, Path]]:
    """Return the selected programs of each kernel, and the files that the guest needs."""
    files: dict[str, Path] = {}
    offered = [
        *scenarios.integrity(seconds, lab.verify, options.trials),
        *programs.stressors(seconds),
    ]
    if any(p.kind == "stress-ng" and options.takes(variant, p.check) for p in offered):
        files |= bundle("stress-ng", "stress-ng")
    if any(options.takes(variant, f"selftests/{n}") for n in selftests.NAMES):
        built = _selftests(lab, lab.kernels[names[0]], events, None)
        offered += built.programs
        files |= built.files
    todo = {name: list(offered) for name in names}
    for name in names:
        series = reader.read_all(lab.kernels[name].stack, lab.state_folder.fetched)
        if series and any(
            options.takes(variant, f"selftests/{n}") for n in selftests.added(series)
        ):
            built = _selftests(lab, lab.kernels[name], events, series)
            todo[name] += built.programs
            files |= built.files
    chosen = {
        name: [program for program in todo[name] if options.takes(variant, program.check)]
        for name in names
    }
    return chosen, files


def _selftests(lab: Lab, kernel: Kernel, events: Events, series: Series | None) -> selftests.Built:
    """Build the selftests of a kernel's tree, or those that a series adds to it."""
    if kernel.source.startswith("image:"):
        return selftests.Built()
    log = lab.state_folder.selftests_log
    with Builder(lab.state, events.building).workshop(kernel, log) as make:
        if series is None:
            return selftests.build(make, lab.state)
        return selftests.build_added(make, lab.state, series, kernel.name)


def _with_bases(lab: Lab, names: Sequence[str]) -> list[str]:
    """Return the kernels, each after its base, and a base with a series after its own."""
    found: list[str] = []
    for name in names:
        chain = [name]
        while (base := lab.kernels[chain[-1]].base) is not None:
            chain.append(base)
            if lab.kernels[base].series is None:
                break
        found += reversed(chain)
    return list(dict.fromkeys(found))


def _as_variant(lab: Lab, variant: Variant) -> Lab:
    """Return the lab with each kernel replaced by its variant, under the same name.

    The launcher is qemu, as the programs of the checks are in the initramfs.
    """
    kernels = {name: _kernel_as_variant(one, variant) for name, one in lab.kernels.items()}
    defaults = lab.defaults.model_copy(update={"launcher": "qemu"})
    return lab.model_copy(update={"kernels": kernels, "defaults": defaults})


def _kernel_as_variant(kernel: Kernel, variant: Variant) -> Kernel:
    fragments = () if kernel.source.startswith("image:") else variant.fragments
    return kernel.model_copy(
        update={
            "kconfig": (*kernel.kconfig, *fragments),
            "command_line": f"{kernel.command_line} {variant.command_line}".strip(),
        }
    )


def topology_of(lab: Lab) -> Topology:
    """Return the topology of the guests that kernels are checked in."""
    return lab.guests[lab.verify.guest or lab.defaults.guest]


def booter(
    prepared: Prepared, kernel: str, place: Path
) -> Callable[[], AbstractContextManager[Guest]]:
    """Return a function that boots a guest in a new folder of `place`."""
    numbers = count()

    def boot() -> Guest:
        return Guest(
            prepared.spec(
                kernel,
                name=kernel,
                folder=place / f"boot-{next(numbers)}",
                topology=topology_of(prepared.lab),
            )
        )

    return boot
