"""Hotplugged memory of a node, as lab.yaml states it. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from labctl import units
from labctl.lab.types import Model, size_schema

# Linux on x86 adds memory in blocks of 128 MiB, in guests of less than 64 GiB.
BLOCK_BYTES = 128 * units.MIB
States = Literal["online", "online_kernel", "online_movable", "offline"]


def _blocks(value: object) -> int:
    found = units.size(value)
    if found > 0 and found % BLOCK_BYTES == 0:
        return found
    block = units.format_size(BLOCK_BYTES)
    given = units.quote(str(value)).strip("'")
    up = units.format_size(max(1, -(-found // BLOCK_BYTES)) * BLOCK_BYTES)
    hint = f"Linux adds memory in blocks of {block}: did you mean {up}?"
    raise units.UnitError(f"expected a multiple of {block}, got {given}", hint)


_SIZE = size_schema("a multiple of 128MiB")


class Hotplug(Model):
    """Hotplugged memory of a node; a size alone is `memory`."""

    memory: Annotated[int, BeforeValidator(_blocks), _SIZE] = Field(
        description="Size of the DIMM, a multiple of 128MiB."
    )
    state: States = Field(
        "online",
        description="State of its blocks once the guest is ready: online, online_kernel,"
        " online_movable or offline.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_size(cls, value: object) -> object:
        return value if isinstance(value, dict | Hotplug) else {"memory": value}


def or_size(schema: dict[str, Any]) -> None:
    """Allow a size in the JSON Schema of an optional `Hotplug`."""
    schema["anyOf"] = [*(_SIZE.json_schema or {})["anyOf"], *schema["anyOf"]]
