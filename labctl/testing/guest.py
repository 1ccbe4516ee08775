"""A guest for tests: `run` has a default deadline, `output` asserts success."""

from __future__ import annotations

import math
from collections.abc import Sequence

from labctl.errors import GuestError, GuestLost, GuestPanic
from labctl.guests.guest import Guest, GuestSpec, State
from labctl.testing.cases import Case
from labctl.testing.leases import Quiet
from labctl.transports import Outcome, Output, Stdin

_RUN_SECONDS = 60.0
_TRIP_SECONDS = 30.0


class LabGuest(Guest):
    """A guest of a test; `case` has its kernel, topology and tunables."""

    def __init__(self, spec: GuestSpec, case: Case, quiet: Quiet) -> None:
        super().__init__(spec)
        self.case = case
        self.quiet = quiet
        self._is_lost = False

    def __repr__(self) -> str:
        return f"<guest {self.name}: kernel {self.case.kernel}, {self.state.value}>"

    @property
    def is_well(self) -> bool:
        """Whether the guest accepts commands, as far as known; true also after a splat."""
        return not self._is_lost and self.state not in (State.BOOTING, State.HUNG, State.GONE)

    def check(self, most_seconds: float = math.inf) -> None:
        """Raise if the guest failed, like `Guest.check`."""
        try:
            super().check(most_seconds)
        except (GuestPanic, GuestLost):
            self._is_lost = True
            raise

    def run(
        self,
        argv: Sequence[str] | str,
        *,
        timeout_seconds: float = _RUN_SECONDS,
        stdin: Stdin = b"",
        output: Output | None = None,
    ) -> Outcome:
        """Run a command, like `Guest.run`; wait while a process measures."""
        with self.quiet.working():
            return super().run(argv, timeout_seconds=timeout_seconds, stdin=stdin, output=output)

    def output(self, argv: Sequence[str] | str, *, timeout_seconds: float = _RUN_SECONDS) -> str:
        """Return the standard output of a command.

        Raises:
            AssertionError: its exit status is not 0.
            GuestError: as for `run`.
        """
        outcome = self.run(argv, timeout_seconds=timeout_seconds)
        if outcome.status != 0:
            output = (outcome.stderr or outcome.stdout).decode("utf-8", "replace").strip()
            raise AssertionError(
                f"{self.name}: `{outcome.command}` exited with status {outcome.status}: {output}"
            )
        return outcome.text

    def settle(self) -> None:
        """Run `true`, so that pending kernel messages reach the console.

        Raises:
            GuestError: the kernel reported a problem, or the guest failed.
        """
        if self.is_well:
            self.run("true", timeout_seconds=_TRIP_SECONDS)

    def look(self) -> GuestError | None:
        """Return the next unreported error of the console, None if there is none."""
        if self.is_well:
            try:
                self.check()
            except GuestError as error:
                return error
        return None
