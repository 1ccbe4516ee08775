"""Limits of what a guest may make labctl store, as lab.yaml states them. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from labctl import units
from labctl.lab.types import Model, size_schema

_Limit = Annotated[
    int,
    BeforeValidator(units.size),
    Field(ge=units.MIB, le=16 * units.GIB),
    size_schema("a size: 64MiB, 1GiB"),
]


class GuestLimits(Model):
    """The `limits:` of `defaults:`."""

    console: _Limit = Field(
        64 * units.MIB,
        description="Largest console log of a boot. A guest that prints more is ended.",
    )
    output: _Limit = Field(
        32 * units.MIB,
        description="Most output of a command in a guest. A command that prints more is killed.",
    )
    file: _Limit = Field(
        64 * units.MIB,
        description="Largest file that is copied out of a guest, decompressed.",
    )
