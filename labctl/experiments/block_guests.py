"""`BlockGuests`: the guests of a block, which are booted together and paused by turns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from labctl.errors import GuestError
from labctl.experiments.guest_like import GuestLike
from labctl.experiments.plan import BootGroup
from labctl.experiments.steps import Steps

Boot = Callable[[BootGroup, int], AbstractContextManager[GuestLike]]


@dataclass(slots=True)
class BlockGuests:
    """The guests of a block, owned by `stack`.

    `failures` has why some are gone, `recorded` those whose failure is in a sample.
    """

    boot: Boot
    steps: Steps
    block: int
    deadline_seconds: float
    stack: contextlib.ExitStack
    failures: dict[BootGroup, GuestError] = field(default_factory=dict)
    recorded: set[BootGroup] = field(default_factory=set)
    _guests: dict[BootGroup, GuestLike] = field(default_factory=dict)
    _owned: dict[BootGroup, contextlib.ExitStack] = field(default_factory=dict)

    def get(self, group: BootGroup) -> GuestLike | None:
        """Return a guest, also one that failed; None if it was not booted."""
        return self._guests.get(group)

    def start(self, groups: Iterable[BootGroup]) -> None:
        """Boot guests in parallel, then pause all of them."""
        guests = {group: self._enter(group) for group in groups}
        for group, guest in guests.items():
            try:
                guest.wait_ready(self.deadline_seconds)
            except GuestError as error:
                self.give_up(group, error)
        for group, guest in guests.items():
            try:
                if group not in self.failures:
                    self.steps.set_up_boot(guest)
                    guest.pause()
            except GuestError as error:
                self.give_up(group, error)

    def _enter(self, group: BootGroup) -> GuestLike:
        self.failures.pop(group, None)
        self.recorded.discard(group)
        own = self._owned[group] = self.stack.enter_context(contextlib.ExitStack())
        guest = self._guests[group] = own.enter_context(self.boot(group, self.block))
        return guest

    def give_up(self, group: BootGroup, error: GuestError) -> None:
        """Stop a guest that is no longer reliable, so that it does not disturb the others."""
        self.failures[group] = error
        self._owned[group].close()
