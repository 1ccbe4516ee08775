"""Ways into a guest: run a command there and get its exact outcome back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Command = Sequence[str] | str
# Bytes, or a file descriptor that is read up to its end as the command takes its input.
Stdin = bytes | int
# Is given each piece of standard output (1) or standard error (2) as it comes.
Output = Callable[[int, bytes], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A command that ended in a guest.

    `status` is what a shell would report: the exit status, or 128 + the number
    of the signal that ended it. `seconds` is the guest's own measure.
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
    """A line to one guest. Not thread-safe: one owner at a time."""

    def run(
        self,
        command: Command,
        timeout_seconds: float,
        stdin: Stdin = b"",
        output: Output | None = None,
    ) -> Outcome:
        """Run an argument vector, or a string by `/bin/sh -c`, and wait for its end.

        A failing command is an `Outcome` like any other. What is given to `output`
        is not in the `Outcome`.

        Raises:
            UserError: the descriptor of its input cannot be read.
            DeadlineExceeded: it ran longer than `timeout_seconds`; it was killed.
            GuestHung: the guest fell silent.
            GuestLost: the line broke, or lied.
            GuestError: whatever the guest's watcher raises meanwhile.
        """
        ...

    def put(self, local: Path, remote: str) -> None:
        """Copy a file into the guest, whole or not at all; the executable bit is kept."""
        ...

    def get(self, remote: str) -> bytes:
        """Return the content of a file in the guest."""
        ...

    def close(self) -> None:
        """Give the line back. Safe to call twice."""
        ...
