"""Run a workload in a guest: the command, and the scripts of `setup:` and `teardown:`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from labctl.completed import ending
from labctl.errors import BadOutput, DeadlineExceeded
from labctl.experiments.guest_like import GuestLike
from labctl.lab.models import Workload
from labctl.transports import Outcome
from labctl.units import Scalar
from labctl.workloads.supply import NOTHING, Supply


@dataclass(frozen=True, slots=True)
class Steps:
    """A workload with the files that it brought into the guest."""

    workload: Workload
    supply: Supply = NOTHING

    def command(self, guest: GuestLike, parameters: Mapping[str, Scalar]) -> Outcome:
        """Run the command once."""
        argv = self.supply.argv(self.workload.argv(parameters), self.workload.env)
        return guest.run(argv, timeout_seconds=self.workload.timeout)

    @property
    def has_repetition_setup(self) -> bool:
        """Whether a script runs before each repetition."""
        return self.workload.setup.repetition is not None

    def set_up_boot(self, guest: GuestLike) -> None:
        """Run the script for a boot; raise BadOutput if it fails."""
        self._run(guest, self.workload.setup.boot, "setup: boot:")

    def tear_down_boot(self, guest: GuestLike) -> None:
        """Run the script after the last repetition of a boot; raise BadOutput if it fails."""
        self._run(guest, self.workload.teardown.boot, "teardown: boot:")

    @contextlib.contextmanager
    def repetition(self, guest: GuestLike) -> Iterator[None]:
        """Run the scripts of a repetition before and after the block.

        The teardown also runs after a failed setup and a command that timed out; the first
        failure is raised.

        Raises:
            BadOutput: a script failed.
        """
        try:
            self._run(guest, self.workload.setup.repetition, "setup: repetition:")
            yield
        except (BadOutput, DeadlineExceeded):
            with contextlib.suppress(BadOutput, DeadlineExceeded):
                self._run(guest, self.workload.teardown.repetition, "teardown: repetition:")
            raise
        self._run(guest, self.workload.teardown.repetition, "teardown: repetition:")

    def _run(self, guest: GuestLike, script: str | None, key: str) -> None:
        if script is None:
            return
        argv = self.supply.script(script, self.workload.env)
        outcome = guest.run(argv, timeout_seconds=self.workload.timeout)
        if outcome.status != 0:
            raise BadOutput(f"{key} {failed(outcome)}")


def failed(outcome: Outcome) -> str:
    """Return how a program ended, with the end of its output."""
    output = (outcome.stderr or outcome.stdout).decode("utf-8", "replace").strip()[-500:]
    return f"{ending(outcome.status)}: {output or 'it printed nothing'}"
