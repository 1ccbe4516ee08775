"""Connecting to a unix socket that may never be served."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from labctl.errors import HostError

_LONGEST_PATH_BYTES = 107
_POLL_SECONDS = 0.02


def connect(
    path: Path, deadline: float, *, meanwhile: Callable[[], None], until_served: bool
) -> socket.socket:
    """Return a non-blocking socket that is connected to `path`.

    While connections that nobody accepted fill the socket's queue, connect(2) would
    block without end: it is tried again until `deadline` (monotonic), with a call of
    `meanwhile` in between. With `until_served`, so is a socket that is not there yet.

    Raises:
        HostError: the path is too long.
        OSError: there is no such socket, or it was not served before the deadline.
    """
    if len(os.fsencode(path)) > _LONGEST_PATH_BYTES:
        raise HostError(
            f"socket path too long (at most {_LONGEST_PATH_BYTES} bytes): {path}",
            hint="move the lab to a folder with a shorter path",
        )
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    line.setblocking(False)
    try:
        while True:
            try:
                line.connect(os.fspath(path))
            except OSError as error:
                patient = until_served or isinstance(error, BlockingIOError)
                if not patient or time.monotonic() >= deadline:
                    raise
            else:
                return line
            meanwhile()
            time.sleep(_POLL_SECONDS)
    except BaseException:
        line.close()
        raise
