"""Programs that ended: their status and output."""

from __future__ import annotations

import errno
import signal
from dataclasses import dataclass

from labctl.errors import HostError


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ended; `status` is -N if signal N killed it."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def text(self) -> str:
        """Standard output as text, undecodable bytes replaced."""
        return self.stdout.decode("utf-8", "replace")


def ending(status: int) -> str:
    """Return how a program ended, in words.

    `status` is -N for signal N, or 128 + N if a shell reported it.
    """
    number = -status if status < 0 else status - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"exited with status {status}"
    text = f"was killed by {name}" if status < 0 else f"exited with status {status} ({name})"
    if number == signal.SIGKILL:
        return f"{text}, perhaps by the kernel's OOM killer (see `dmesg`)"
    return text


def cannot_start(program: str, error: OSError) -> HostError:
    """Return the error of a program that the host does not start."""
    hint = None
    if error.errno == errno.EAGAIN:
        hint = "the limit of processes is reached: see `limits` of `labctl doctor`, and `ulimit -u`"
    elif error.errno == errno.ENOMEM:
        hint = "the host is out of memory: end other programs"
    return HostError(f"{program} cannot be started: {error.strerror}", hint=hint)


def tail(data: bytes, lines: int = 20) -> str:
    """Return the last lines of an output as text."""
    return "\n".join(data.decode("utf-8", "replace").strip().splitlines()[-lines:])
