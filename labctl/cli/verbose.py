"""`labctl -v`: commands that labctl starts, on stderr; `-vv`: also their output."""

from __future__ import annotations

import contextlib
import logging
import sys

from labctl import command_log


class _Stderr(logging.Handler):
    """Writes to the present sys.stderr, which a live progress line replaces by its own.

    The line then stays below the messages. logging.StreamHandler would keep the stream
    of its creation.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        sys.stderr.write(f"{self.format(record)}\n")
        sys.stderr.flush()


def shown(verbosity: int) -> contextlib.AbstractContextManager[None]:
    """Print commands during the block, with their output if `verbosity` is above 1."""
    level = logging.DEBUG if verbosity > 1 else logging.INFO
    return command_log.handled_by(_Stderr(), level)
