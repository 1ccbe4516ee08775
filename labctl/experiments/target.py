"""Experiments on a target instead of guests: select the target and boot its kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labctl.errors import UserError
from labctl.experiments.block_guests import Boot
from labctl.experiments.plan import BootGroup, Plan
from labctl.guests.prepare import Prepared
from labctl.lab.models import Lab, Target
from labctl.runs.folder import RunFolder
from labctl.runs.record import RunRecord
from labctl.targets.boot import TargetBoot
from labctl.targets.machine import TargetMachine


def with_target(lab: Lab, names: Sequence[str], target: str | None) -> Lab:
    """Return the lab with experiments moved to a target.

    Raises:
        UserError: the target does not exist.
    """
    if target is None:
        return lab
    if target not in lab.targets:
        known = ", ".join(lab.targets) or "none, define them under `targets:` in lab.yaml"
        raise UserError(
            f"target {target} not found", where=str(lab.path), hint=f"available: {known}"
        )
    return _moved(lab, dict.fromkeys(names, target))


def as_recorded(lab: Lab, record: RunRecord) -> Lab:
    """Return the lab with the experiments of a run on the targets recorded for it."""
    return _moved(lab, {each.name: each.target for each in record.experiments})


def _moved(lab: Lab, targets: Mapping[str, str | None]) -> Lab:
    moved = {
        name: one.model_copy(update={"target": targets[name]}) if name in targets else one
        for name, one in lab.experiments.items()
    }
    return lab.model_copy(update={"experiments": moved})


def target_of(lab: Lab, plans: Sequence[Plan]) -> Target | None:
    """Return the common target of these experiments, None if they run in guests.

    Raises:
        UserError: their targets differ.
    """
    names = list(dict.fromkeys(each.experiment.target for each in plans))
    if len(names) > 1:
        targets = ", ".join(name or "guests" for name in names)
        raise UserError(
            f"experiments run on different targets: {targets}",
            where=str(lab.path),
            hint="run them one by one, or on one target with --target",
        )
    if not names or names[0] is None:
        return None
    if names[0] not in lab.targets:
        raise UserError(f"target {names[0]} is no longer in the lab", where=str(lab.path))
    return lab.targets[names[0]]


def booter(prepared: Prepared, machine: TargetMachine, each: Plan, folder: RunFolder) -> Boot:
    """Return a function that boots a kernel on the target."""

    def boot(group: BootGroup, block: int) -> TargetBoot:
        own = prepared.lab.kernels[group.kernel].command_line
        name = f"{each.experiment.name}-{block:03d}-{group.name}"
        return TargetBoot(
            machine,
            prepared.images[group.kernel],
            " ".join(
                word for word in (machine.target.command_line, own, group.command_line()) if word
            ),
            folder.path / "guests" / name / "dmesg.txt",
        )

    return boot
