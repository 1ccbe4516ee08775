"""Observe a repetition: read the counters of a guest before and after it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from labctl.errors import GuestError
from labctl.experiments.guest_like import GuestLike
from labctl.observers.observer import Observer
from labctl.transports import exchange

# The profiles of all CPUs take long to read in an emulated guest.
_SCRIPT_SECONDS = 120.0


def observers_in(
    observers: Sequence[Observer], *, block: int, repetition: int, repetitions: int
) -> tuple[Observer, ...]:
    """Return the observers of a repetition: all of them, or none in one of each block.

    The repetition without observers shows what observing costs. Its place differs from
    block to block. A single repetition is always observed.
    """
    is_without = repetitions > 1 and repetition == block % repetitions
    return () if is_without else tuple(observers)


@dataclass(slots=True)
class Observing:
    """The observers of one repetition; use `begin`, then `end` or `abandon`."""

    observers: Sequence[Observer]
    _before: Mapping[str, str] = field(default_factory=dict)

    def begin(self, guest: GuestLike) -> None:
        """Read the counters in one round trip, then start the observers that have to be.

        Raises:
            TunableRefused: the guest's kernel cannot start an observer.
        """
        files = [path for one in self.observers if not one.disturbs for path in one.files]
        self._before = self._read(guest, "", files, "".join(one.start for one in self.observers))

    def end(self, guest: GuestLike) -> dict[str, int]:
        """Stop the observers, and return how much each counter rose since `begin`."""
        files = [path for one in self.observers for path in one.files]
        after = self._read(guest, "".join(one.stop for one in self.observers), files, "")
        found: dict[str, int] = {}
        for one in self.observers:
            own = {path: after[path] for path in one.files if path in after}
            first = {path: self._before[path] for path in one.files if path in self._before}
            found |= one.difference(first, own)
        return found

    def abandon(self, guest: GuestLike) -> None:
        """Stop the observers after a failure."""
        with contextlib.suppress(GuestError):
            self._read(guest, "".join(one.stop for one in self.observers), [], "")

    def _read(
        self, guest: GuestLike, ahead: str, files: Sequence[str], behind: str
    ) -> Mapping[str, str]:
        if not ahead and not behind:
            return guest.exchange({}, files) if files else {}
        text = f"{ahead}{exchange.script({}, files)}\n{behind}true"
        outcome = guest.run(text, timeout_seconds=_SCRIPT_SECONDS)
        return exchange.answer(outcome, "observe")
