"""What a site remembers of its pages, as frozen structs. Pure."""

from __future__ import annotations

import msgspec


class RunEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A run in the index. `key` is the hash of what its page is made from."""

    run: str
    key: str
    begun: str = ""
    kernels: tuple[str, ...] = ()
    host: str = ""
    results: tuple[str, ...] = ()
    is_bad: bool = False
    fault: str = ""

    @property
    def page(self) -> str:
        """The path of its page in the site."""
        return f"runs/{self.run}.html"


class NightEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A nightly run in the index."""

    night: str
    run: str
    kernels: tuple[str, ...]
    findings: tuple[str, ...]


class Nights(msgspec.Struct, frozen=True, kw_only=True):
    """All nightly runs. `key` is the hash of their history."""

    key: str = ""
    subject: str = ""
    is_bad: bool = False
    entries: tuple[NightEntry, ...] = ()
    fault: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a site, and what its index lists."""

    schema: int = 1
    files: tuple[str, ...] = ()
    runs: tuple[RunEntry, ...] = ()
    nights: Nights = Nights()
