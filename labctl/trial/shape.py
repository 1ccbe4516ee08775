"""The guest of `labctl try`: as asked for (`2x2,4GiB`), or by what the host has. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from labctl import units
from labctl.errors import UserError
from labctl.units import quote

_ASKED = re.compile(r"\s*(\d{1,4})\s*x\s*(\d{1,4})\s*,\s*(\S.*?)\s*", re.ASCII | re.IGNORECASE)
_NODES = 2
_MAX_CPUS_PER_NODE = 4
_MAX_BYTES, _MIN_BYTES = 4 * units.GIB, units.GIB
_STEP = 64 * units.MIB
# Two guests of the baseline, one of the topic, and room for the host.
_SHARES = 5


@dataclass(frozen=True, slots=True)
class Shape:
    """A guest of equal NUMA nodes."""

    nodes: int
    cpus_per_node: int
    memory_bytes: int

    @property
    def memory_per_node(self) -> int:
        return self.memory_bytes // self.nodes

    def __str__(self) -> str:
        nodes, cpus = units.counted(self.nodes, "node"), units.counted(self.cpus_per_node, "CPU")
        return f"{nodes} with {cpus} each, {units.rough_size(self.memory_bytes)} of memory"


def parse(text: str) -> Shape:
    """Return the shape that NODESxCPUS,MEMORY names; the memory is that of the whole guest.

    Raises:
        UserError: the text is no shape, or the nodes do not get whole MiB.
    """
    what = f"--guest: expected NODESxCPUS,MEMORY, got {quote(text)}"
    hint = "for example 2x2,4GiB: two nodes with two CPUs each, 4 GiB in all"
    found = _ASKED.fullmatch(text)
    if found is None:
        raise UserError(what, hint=hint)
    try:
        shape = Shape(int(found[1]), int(found[2]), units.size(found[3]))
    except units.UnitError as error:
        raise UserError(what, hint=hint) from error
    if min(shape.nodes, shape.cpus_per_node, shape.memory_bytes) <= 0:
        raise UserError(what, hint=hint)
    if shape.memory_bytes % (shape.nodes * units.MIB):
        raise UserError(
            f"--guest: expected whole MiB for each of {shape.nodes} nodes, "
            f"got {units.format_size(shape.memory_bytes)} in all"
        )
    return shape


def suggested(cores: int, available_bytes: int) -> Shape:
    """Return a guest of two nodes, three of which fit into the host at the same time."""
    step = _NODES * _STEP
    memory = min(_MAX_BYTES, max(_MIN_BYTES, available_bytes // _SHARES // step * step))
    return Shape(_NODES, min(_MAX_CPUS_PER_NODE, max(1, cores // _NODES)), memory)
