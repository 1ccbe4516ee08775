"""An unsupported property of a guest. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from labctl.lab.document import KeyPath


@dataclass(frozen=True, slots=True)
class Mistake:
    """An unsupported property of a topology; `path` is relative to the guest."""

    path: KeyPath
    what: str
    hint: str
    at_key: bool = False
