"""`GuestLike`: the part of a guest that experiments use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from labctl.transports import Outcome


class GuestLike(Protocol):
    """The part of a guest that experiments use."""

    @property
    def boot_id(self) -> str: ...

    def wait_ready(self, deadline_seconds: float) -> None: ...

    def run(
        self, argv: Sequence[str] | str, *, timeout_seconds: float, stdin: bytes = b""
    ) -> Outcome: ...

    def exchange(self, writes: Mapping[str, str], reads: Sequence[str]) -> dict[str, str]:
        """Write files, then read files."""
        ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...
