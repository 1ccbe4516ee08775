"""Times that the original patch series reported, for comparison. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SOURCE = 'linux-mm, "[PATCH v2 0/5] mm: support parallel free of memory", March 2017'
CONDITIONS = (
    "v4.10 on 4 NUMA nodes, 72 cores, 144 threads, 512 GB; one malloc of 320 GB, touched, "
    "its free() timed, THP disabled"
)
SERIES = "parallel-free"


@dataclass(frozen=True, slots=True)
class SeedFigure:
    """One reported time; the spread is as reported, plus or minus in percent."""

    seconds: float
    spread_percent: float

    @property
    def ratio(self) -> float:
        """The stock time over this one: above 1 is faster."""
        return STOCK.seconds / self.seconds


STOCK = SeedFigure(10.8, 2.8)
DEFAULT = SeedFigure(5.795, 5.8)
MAX_ACTIVE: Mapping[int, SeedFigure] = {
    1: SeedFigure(8.9, 0.5),
    2: SeedFigure(5.65, 5.5),
    4: SeedFigure(4.84, 0.16),
    8: SeedFigure(4.77, 0.97),
    16: SeedFigure(4.85, 0.77),
    32: SeedFigure(6.21, 0.46),
}


def figure(
    kernel: str, setting: Mapping[str, object], parameters: Mapping[str, object]
) -> SeedFigure | None:
    """Return what the seed reported for such a cell, None if it did not measure it.

    The seed timed free() under its own series only, at the default setting and
    at six values of max_active.
    """
    if kernel != SERIES or parameters.get("op", "free") != "free":
        return None
    if not setting:
        return DEFAULT
    value = setting.get("max_active")
    return MAX_ACTIVE.get(value) if len(setting) == 1 and isinstance(value, int) else None
