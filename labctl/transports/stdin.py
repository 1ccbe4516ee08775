"""The standard input of a command: bytes, or a file descriptor."""

from __future__ import annotations

import os
import select

from labctl.errors import UserError
from labctl.transports import Stdin

_READ_BYTES = 1 << 15


class Source:
    """Bytes to send; a descriptor is read only on demand, never ahead."""

    def __init__(self, before: bytes, stdin: Stdin) -> None:
        """Send `before` first; it precedes the command's input and is not part of it."""
        self._is_open = isinstance(stdin, int)
        self._descriptor = stdin if isinstance(stdin, int) else -1
        self._data = memoryview(before if isinstance(stdin, int) else before + stdin)

    @property
    def ended(self) -> bool:
        """Whether nothing is left and nothing more will come."""
        return not self._data and not self._is_open

    @property
    def waits_for(self) -> int | None:
        """The descriptor to poll, None if data is available or the end was reached."""
        return self._descriptor if self._is_open and not self._data else None

    def is_ready(self) -> bool:
        """Return whether data is available or the end was reached."""
        return bool(self._data) or not self._is_open or _is_ready(self._descriptor)

    def peek(self, most_bytes: int) -> bytes:
        """Return the next bytes, empty if none are available yet; never waits.

        Raises:
            UserError: the descriptor cannot be read.
        """
        if not self._data and self._is_open and _is_ready(self._descriptor):
            self._read()
        return bytes(self._data[:most_bytes])

    def advance(self, sent_bytes: int) -> None:
        """Skip bytes that were sent."""
        self._data = self._data[sent_bytes:]

    def drop(self) -> None:
        """Discard the rest of the input."""
        self._data = memoryview(b"")
        self._is_open = False

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise UserError(f"cannot read standard input: {error.strerror}") from error
        self._is_open = bool(data)
        self._data = memoryview(data)


def _is_ready(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
