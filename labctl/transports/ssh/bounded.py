"""An SSH connection whose server cannot make this process take memory without limit.

Paramiko reads packets of any length, banners without an end, and data beyond a channel's window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import paramiko
from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA
from paramiko.packet import Packetizer

PACKET_BYTES = 256 << 10  # as OpenSSH's PACKET_MAX_SIZE
BANNER_BYTES = 64 << 10  # with the lines before it


class BoundedTransport(paramiko.Transport):
    """A transport that ends at the first packet, banner or data that is too large."""

    _channel_handler_table: ClassVar[dict[int, Callable[..., None]]] = {
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]  # not in the stubs
        MSG_CHANNEL_DATA: lambda channel, message: _feed(channel, message, channel._feed),
        MSG_CHANNEL_EXTENDED_DATA: lambda channel, message: _feed(
            channel, message, channel._feed_extended
        ),
    }

    def __init__(self, sock: Any, **more: Any) -> None:  # noqa: ANN401 - a socket or a channel
        super().__init__(sock, packetizer_class=_Packetizer, **more)


class _Packetizer(Packetizer):
    _banner_bytes = 0

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if n > PACKET_BYTES:
            raise paramiko.SSHException(f"packet of {n} bytes, expected at most {PACKET_BYTES}")
        return super().read_all(n, check_rekey)

    def _read_timeout(self, timeout: float) -> bytes:
        """Read a part of a banner, for which alone paramiko calls this."""
        data: bytes = super()._read_timeout(timeout)  # type: ignore[misc]  # not in the stubs
        self._banner_bytes += len(data)
        if self._banner_bytes > BANNER_BYTES:
            raise paramiko.SSHException(f": it is longer than {BANNER_BYTES} bytes")
        return data


def _feed(
    channel: paramiko.Channel, message: paramiko.Message, feed: Callable[[Any], None]
) -> None:
    feed(message)
    waiting = len(channel.in_buffer) + len(channel.in_stderr_buffer)
    if waiting > 2 * channel.in_window_size:
        raise paramiko.SSHException("data beyond the window of its channel")
