"""The preview of a run: guests, command lines, order, expected time and power."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import msgspec
from msgspec import UNSET

from labctl.arch import ARCHITECTURES
from labctl.errors import UserError
from labctl.experiments.plan import Plan, Repetition, plan
from labctl.guests import accelerator, launchers
from labctl.guests.disks import Disk
from labctl.guests.guest import GuestSpec
from labctl.guests.placement import Placement, document, place
from labctl.host import identity
from labctl.host.facts import read_facts
from labctl.kernels.build import Image
from labctl.kernels.revisions import check_revisions
from labctl.lab.models import Lab
from labctl.reports import plan_types as types
from labctl.runs import types as run_types
from labctl.runs.folder import list_runs
from labctl.targets.machine import describe_start

# Defaults until something was measured: seconds on a slow host under TCG.
_GUESS_BOOT_SECONDS = 4.0
_GUESS_REPETITION_SECONDS = 7.0


def preview(lab: Lab, name: str, seed: int) -> types.PlannedExperiment:
    """Return what a run of an experiment would do; nothing is built or booted.

    Raises:
        ConfigError: a revision of a kernel from git does not exist.
    """
    planned = plan(lab, name, seed)
    check_revisions(lab, dict.fromkeys(group.kernel for group in planned.groups()))
    boot_seconds, repetition_seconds, origin = _costs(lab, planned)
    statistics = planned.statistics
    facts, guest = read_facts(), lab.guest_of(planned.experiment)
    placement = place(guest, lab.guests[guest], facts)
    _, *further = lab.all_compared(planned.experiment)
    in_guests = planned.experiment.target is None
    accel, reason = _accelerator(lab, planned) if in_guests else ("", "")
    placed = document(lab.guests[guest], placement, facts) if in_guests else None
    return types.PlannedExperiment(
        name=name,
        seed=seed,
        baseline=planned.baseline,
        metric=lab.metric_of(planned.experiment),
        better=lab.better_of(planned.experiment),
        further_metrics=tuple(one.name for one in further) or UNSET,
        cells=tuple(cell.id for cell in planned.cells),
        blocks=types.BlockRange(min=statistics.blocks.min, max=statistics.blocks.max),
        accel=accel or None,
        accel_reason=reason,
        guests=tuple(_guests(lab, planned, placement, accel)),
        placement=msgspec.convert(placed, run_types.Placement | None),
        first_block=tuple(_words(repetition) for repetition in planned.block(0)),
        expected_seconds=planned.expected_seconds(boot_seconds, repetition_seconds),
        expected_from=origin,
        power=_power(lab, planned),
    )


def _accelerator(lab: Lab, planned: Plan) -> tuple[str, str]:
    arch = ARCHITECTURES[lab.kernels[planned.baseline].arch]
    return accelerator.expected(
        lab.defaults.accel,
        host=identity.describe(arch),
        cache=lab.state_folder.accelerator,
        arch=arch,
    )


def _guests(lab: Lab, planned: Plan, placement: Placement, accel: str) -> list[types.PlannedGuest]:
    if planned.experiment.target is not None:
        target = lab.targets[planned.experiment.target]
        return [
            types.PlannedGuest(
                name=g.name,
                kernel=g.kernel,
                command=describe_start(target, f"<{g.kernel}>/bzImage"),
            )
            for g in planned.groups()
        ]
    topology = lab.guests[lab.guest_of(planned.experiment)]
    workload = lab.workloads[planned.experiment.workload]
    arch = ARCHITECTURES[lab.kernels[planned.baseline].arch]
    guests = []
    for group in planned.groups():
        image = Image(
            kernel=group.kernel,
            bzimage=Path(f"<{group.kernel}>/{arch.image.name}"),
            hash="",
            source_hash="",
            series_hash=None,
            patch_hashes=(),
            config=None,
            release="",
            compiler="",
            arch=arch.name,
        )
        own = lab.kernels[group.kernel].command_line
        spec = GuestSpec(
            name=group.name,
            image=image,
            topology=topology,
            initramfs=Path("<initramfs>"),
            accel=accel,
            folder=Path(),
            command_line=f"{own} {group.command_line()}".strip(),
            launcher=lab.defaults.launcher,
            programs=Path("<programs>"),
            placement=placement,
            transport=lab.defaults.transport,
            ssh_key=Path("<key>") if lab.defaults.transport == "ssh" else None,
            disks=(Disk(Path("<root>"), "<hash>", ""),) if workload.root is not None else (),
        )
        command = shlex.join(launchers.command(spec))
        guests.append(types.PlannedGuest(name=group.name, kernel=group.kernel, command=command))
    return guests


def _words(repetition: Repetition) -> str:
    kind = types.WARM_UP if repetition.warmup else f"repetition {repetition.number + 1}"
    return f"{repetition.cell.id} ({kind})"


def _power(lab: Lab, planned: Plan) -> types.Power | None:
    """Return the minimum detectable effect, by the spread of the last run of this workload."""
    from labctl.stats.paired import smallest_effect
    from labctl.stats.stored import spread_of
    from labctl.stats.verdict import strict

    if lab.compared(planned.experiment).scale == "difference":
        return None  # a spread in the unit of the values would need a run of the same size
    for run in list_runs(lab.state_folder.runs):
        try:
            sd = spread_of(run.read(), run.store.samples(), planned.experiment.workload)
        except UserError:  # damaged: `report` says so; use an older run
            continue
        if sd is None:
            continue
        rule = planned.statistics
        cells = sum(not c.control and c.kernel != planned.baseline for c in planned.cells)
        family = cells * len(lab.all_compared(planned.experiment))
        effects = tuple(
            types.Effect(
                blocks=blocks,
                effect=smallest_effect(
                    sd,
                    blocks,
                    confidence=strict(rule.confidence),
                    cells=family,
                    margin=math.log1p(rule.minimum_effect),
                ),
            )
            for blocks in dict.fromkeys((rule.blocks.min, rule.blocks.max))
        )
        return types.Power(origin=f"run {run.id}", sd_log=sd, smallest_effect=effects)
    return None


def _costs(lab: Lab, planned: Plan) -> tuple[float, float, str]:
    """Return seconds per boot, seconds per repetition, and the source of these figures."""
    for run in list_runs(lab.state_folder.runs):
        try:
            record = run.read()
        except UserError:
            continue
        workload = planned.experiment.workload
        means = record.mean_seconds(e.name for e in record.experiments if e.workload == workload)
        if means is not None:
            return *means, f"as in run {run.id}"
    return (
        _GUESS_BOOT_SECONDS,
        _GUESS_REPETITION_SECONDS,
        "a guess: no comparable run on this host yet",
    )
