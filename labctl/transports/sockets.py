"""Connections to unix sockets, with a deadline."""

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
    path: Path, deadline: float, *, check: Callable[[], None], until_served: bool
) -> socket.socket:
    """Return a non-blocking socket that is connected to `path`.

    A blocking connect(2) could wait forever while the socket's backlog is full. It is
    retried until `deadline` (monotonic); `check` is called after each failed attempt. With
    `until_served`, a socket that does not exist yet is retried too.

    Raises:
        HostError: the path is too long.
        OSError: the socket does not exist, or did not accept before the deadline.
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
            check()
            time.sleep(_POLL_SECONDS)
    except BaseException:
        line.close()
        raise
