"""A guest as tests use it: `run` has a deadline of its own, `output` asks for success."""

from __future__ import annotations

from collections.abc import Sequence

from labctl.errors import GuestError, GuestLost, GuestPanic
from labctl.guests.guest import Guest, GuestSpec, State
from labctl.testing.cases import Case
from labctl.testing.leases import Quiet
from labctl.transports import Outcome, Output, Stdin

_RUN_SECONDS = 60.0
_TRIP_SECONDS = 30.0


class LabGuest(Guest):
    """A guest of a test, on which `case` says what it is."""

    def __init__(self, spec: GuestSpec, case: Case, quiet: Quiet) -> None:
        super().__init__(spec)
        self.case = case
        self.quiet = quiet
        self._is_lost = False

    def __repr__(self) -> str:
        return f"<guest {self.name}: kernel {self.case.kernel}, {self.state.value}>"

    @property
    def is_well(self) -> bool:
        """Whether it still takes commands, as far as is known; a splat does not hinder it."""
        return not self._is_lost and self.state not in (State.BOOTING, State.HUNG, State.GONE)

    def check(self) -> None:
        """Raise if the guest is not well, as `Guest.check` does."""
        try:
            super().check()
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
        """Run a command, as `Guest.run` does."""
        with self.quiet.working():
            return super().run(argv, timeout_seconds=timeout_seconds, stdin=stdin, output=output)

    def output(self, argv: Sequence[str] | str, *, timeout_seconds: float = _RUN_SECONDS) -> str:
        """Return what a command prints to its standard output.

        Raises:
            AssertionError: it did not end with status 0.
            GuestError: as `run`.
        """
        outcome = self.run(argv, timeout_seconds=timeout_seconds)
        if outcome.status != 0:
            said = (outcome.stderr or outcome.stdout).decode("utf-8", "replace").strip()
            raise AssertionError(
                f"{self.name}: `{outcome.command}` ended with status {outcome.status}: {said}"
            )
        return outcome.text

    def settle(self) -> None:
        """Make a round trip, so that what the kernel has to complain of is on the console.

        Raises:
            GuestError: it complained, or is not well any more.
        """
        if self.is_well:
            self.run("true", timeout_seconds=_TRIP_SECONDS)

    def look(self) -> GuestError | None:
        """Return what is wrong on the console and was not told yet, None if nothing is."""
        if self.is_well:
            try:
                self.check()
            except GuestError as error:
                return error
        return None
