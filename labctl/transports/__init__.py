"""Ways into a guest: run a command there and get its exact outcome back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Command = Sequence[str] | str
# Bytes, or a file descriptor that is read to its end as the command consumes its input.
Stdin = bytes | int
# Called with each piece of standard output (1) or standard error (2) while a command runs.
Output = Callable[[int, bytes], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a command in a guest.

    `status` is the exit status, or 128 + the number of the signal that killed the
    command, as in a shell. `seconds` is measured in the guest.
    """

    command: str
    status: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def text(self) -> str:
        """Standard output as text, undecodable bytes replaced."""
        return self.stdout.decode("utf-8", "replace")


class Transport(Protocol):
    """A connection to one guest. Not thread-safe: one owner at a time."""

    def run(
        self,
        command: Command,
        timeout_seconds: float,
        stdin: Stdin = b"",
        output: Output | None = None,
    ) -> Outcome:
        """Run an argument vector, or a string with `/bin/sh -c`, and wait for its end.

        A failing command returns an `Outcome` too. Output passed to `output` is not in
        the `Outcome`.

        Raises:
            UserError: the input descriptor cannot be read.
            DeadlineExceeded: the command timed out after `timeout_seconds` and was killed.
            GuestHung: the guest stopped responding.
            GuestLost: the connection broke, or its data was damaged.
            GuestError: raised by the guest's watchdog during the command.
        """
        ...

    def put(self, local: Path, remote: str) -> None:
        """Copy a file into the guest, whole or not at all; the executable bit is kept."""
        ...

    def get(self, remote: str) -> bytes:
        """Return the content of a file in the guest."""
        ...

    def get_file(self, remote: str, local: Path) -> None:
        """Copy a file out of the guest, whole or not at all, without holding it in memory."""
        ...

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        ...
