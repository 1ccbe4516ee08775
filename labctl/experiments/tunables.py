"""Tunables in a guest: write, read back, reject a mismatch; and the series' counters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Protocol

from labctl import units
from labctl.errors import TunableRefused
from labctl.experiments.same_value import holds
from labctl.lab.models import Tunable
from labctl.units import Scalar, quote

COUNTERS = ("handovers", "pages_handed")
_COUNTER = re.compile(r"[0-9]{1,20}", re.ASCII)


class Files(Protocol):
    """The part of a guest that tunables need."""

    def exchange(self, writes: Mapping[str, str], reads: Sequence[str]) -> dict[str, str]:
        """Write files, then read some; unreadable ones are left out."""


def apply(
    guest: Files,
    tunables: Mapping[str, Tunable],
    values: Mapping[str, Scalar],
    counters: Mapping[str, str],
) -> tuple[dict[str, str], dict[str, int]]:
    """Write each value to its file; return the values read back, and the counters.

    Raises:
        TunableRefused: a file is missing, rejects the value or reads back another value.
    """
    paths = {name: str(tunables[name].file) for name in values}
    found = guest.exchange(
        {paths[name]: units.text(value) for name, value in values.items()},
        [*paths.values(), *counters.values()],
    )
    read_back = {}
    for name, value in values.items():
        text = found.get(paths[name], "").strip()
        if not holds(text, units.text(value)):
            raise TunableRefused(
                f"{name}: wrote {units.text(value)}, read back {quote(text, 80)}",
                hint=f"check the values that the kernel accepts for {paths[name]}",
            )
        read_back[name] = text
    return read_back, _numbers(found, counters)


def read_counters(guest: Files, counters: Mapping[str, str]) -> dict[str, int]:
    """Return the counters of a series, without those that the kernel lacks."""
    return _numbers(guest.exchange({}, list(counters.values())), counters) if counters else {}


def _numbers(found: Mapping[str, str], counters: Mapping[str, str]) -> dict[str, int]:
    return {
        name: int(text)
        for name, path in counters.items()
        if _COUNTER.fullmatch(text := found.get(path, "").strip())
    }


def counter_files(tunables: Mapping[str, Tunable], kernel: str) -> dict[str, str]:
    """Return the files of a series' handover counters, next to its own tunables."""
    for tunable in tunables.values():
        if tunable.file and tunable.kernels and kernel in tunable.kernels:
            folder = PurePosixPath(tunable.file).parent
            return {name: str(folder / name) for name in COUNTERS}
    return {}
