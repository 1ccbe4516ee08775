"""How the guests of an experiment are booted, and where their console logs are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from labctl.experiments.plan import BootGroup, Plan
from labctl.guests.guest import Guest
from labctl.guests.prepare import Prepared
from labctl.runs.folder import RunFolder
from labctl.targets.boot import TargetBoot


def log_of(guest: object, folder: RunFolder) -> str:
    """Return the path of a guest's console log in the run's folder, empty without one."""
    log = guest.log if isinstance(guest, Guest | TargetBoot) else None
    return "" if log is None else str(log.relative_to(folder.path))


def booter(
    prepared: Prepared, each: Plan, folder: RunFolder
) -> Callable[[BootGroup, int], AbstractContextManager[Guest]]:
    """Return a function that boots a guest of a block, with its logs in the run's folder."""
    topology = prepared.lab.guests[prepared.lab.guest_of(each.experiment)]
    rewrites_code = any(one.rewrites_code for one in each.observers)

    def boot(group: BootGroup, block: int) -> Guest:
        place = folder.path / "guests" / f"{each.experiment.name}-{block:03d}-{group.name}"
        attempt = 1
        while place.exists():  # an interrupted block is booted again; its console is kept
            attempt += 1
            place = place.with_name(f"{place.name.split('~')[0]}~{attempt}")
        return Guest(
            prepared.spec(
                group.kernel,
                name=group.name,
                folder=place,
                topology=topology,
                command_line=group.command_line(),
                pinned=True,
                rewrites_code=rewrites_code,
            )
        )

    return boot
