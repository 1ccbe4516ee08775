"""Scratch disks and swap of a guest, as lab.yaml states them. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from labctl import units
from labctl.lab.types import Model, size_schema

_MOST_DISKS = 16
_EXAMPLE = "example: swap: {zram: 512MiB} or swap: {disk: 1GiB}"


def _disk(value: object) -> int:
    found = units.size(value)
    if found > 0 and found % units.MIB == 0:
        return found
    is_bare = str(value).isdecimal() and found > 0
    raise units.UnitError(
        f"expected whole MiB, at least 1MiB, got {units.quote(str(value)).strip(chr(39))}",
        f"the unit is missing: did you mean {value}MiB?" if is_bare else None,
    )


def _either(value: object) -> object:
    if isinstance(value, dict) and not value:
        raise units.UnitError("expected `zram:` or `disk:`, got neither", _EXAMPLE)
    if not isinstance(value, dict | Swap):
        raise units.UnitError(f"expected `zram:` or `disk:`, got {units.kind(value)}", _EXAMPLE)
    return value


DiskSize = Annotated[int, BeforeValidator(_disk), size_schema("a size: 512MiB, 1GiB")]
Disks = Annotated[tuple[DiskSize, ...], Field(max_length=_MOST_DISKS)]


class Swap(Model):
    """Swap areas that are on when a guest is ready; with both, zram is used first."""

    zram: DiskSize | None = Field(
        None, description="Size of swap on compressed memory of the guest, before compression."
    )
    disk: DiskSize | None = Field(
        None, description="Size of swap on a virtio disk, a sparse file of the host."
    )


OptionalSwap = Annotated[Annotated[Swap, BeforeValidator(_either)] | None, Field()]
