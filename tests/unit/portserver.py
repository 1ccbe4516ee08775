"""A peer on the command port of a guest that sends what a test says."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from labctl.transports import frames
from labctl.transports.frames import Frame

# What to send after a frame, piece by piece; None hangs up.
Answers = Callable[[Frame], Iterable[bytes | None]]


@contextlib.contextmanager
def serving(path: Path, answers: Answers, *, end_seconds: float) -> Iterator[None]:
    """Answer the frames of one client until it hangs up, within `end_seconds` of the block."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        client = server.accept()[0]
        reader = frames.Reader()
        with client, contextlib.suppress(OSError):
            while data := client.recv(65536):
                for frame in filter(None, reader.feed(data)):
                    for piece in answers(frame):
                        if piece is None:
                            return
                        client.sendall(piece)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join(end_seconds)
        server.close()
        assert not thread.is_alive()
