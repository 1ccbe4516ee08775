"""Expand the markers of a test into cases of kernel, topology and tunables. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from labctl.arch import ArchName
from labctl.errors import UserError
from labctl.lab import command_line
from labctl.lab.entries import Defaults
from labctl.lab.models import Lab
from labctl.lab.problems import dotted, suggestion
from labctl.lab.topology import PER_NODE, Topology
from labctl.lab.topology_checks import mistakes
from labctl.units import Scalar, UnitError, scalar

Setting = Mapping[str, Any]
# Keys of a topology whose value is a list.
_LISTS = ("distances", "latency", "bandwidth", "disks", "qemu")


@dataclass(frozen=True, slots=True)
class Case:
    """One kernel, one topology and tunable values that a test runs with."""

    id: str
    kernel: str
    topology: Topology
    tunables: tuple[tuple[str, Scalar], ...] = ()

    def files(self, lab: Lab) -> dict[str, Scalar]:
        """Return the values of tunables that are files in the guest."""
        return {name: value for name, value in self.tunables if lab.tunables[name].file}

    def command_line(self, lab: Lab) -> str:
        """Return the kernel command line of the tunables that are kernel parameters."""
        parameters = ((lab.tunables[name].parameter, value) for name, value in self.tunables)
        return command_line.parameters((name, value) for name, value in parameters if name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Markers:
    """The markers of a test; a list stands for one case per value."""

    kernels: Sequence[str] = ()
    guest: str | None = None  # a guest of lab.yaml; `topology` overrides its keys
    topology: Setting = field(default_factory=dict)
    tunables: Setting = field(default_factory=dict)


def cases(lab: Lab, markers: Markers) -> list[Case]:
    """Return all combinations of kernels (default: all of the lab), topologies and tunables.

    As in an experiment, a tunable is omitted for kernels that do not have it.

    Raises:
        UserError: unknown name or invalid topology.
    """
    kernels = [known("kernel", name, lab.kernels) for name in markers.kernels or lab.kernels]
    base = lab.guests[known("guest", markers.guest or lab.defaults.guest, lab.guests)]
    for name in markers.tunables:
        known("tunable", name, lab.tunables)
    found: dict[str, Case] = {}
    defaults = lab.defaults.model_copy(update={"accel": "auto"})
    for kernel, shape in itertools.product(kernels, _points(markers.topology)):
        varied = [f"{n}={v}" for n, v in shape.items() if _is_list(n, markers.topology[n])]
        mine = {n: v for n, v in markers.tunables.items() if lab.tunables[n].applies_to(kernel)}
        for values in _points(mine):
            shaped = _topology(base, shape, lab.kernels[kernel].arch, defaults)
            case = _case(lab, kernel, shaped, varied, values)
            found.setdefault(case.id, case)
    return list(found.values())


def _case(
    lab: Lab, kernel: str, topology: Topology, varied: Iterable[str], values: Setting
) -> Case:
    words = [kernel, *varied, *(f"{name}={value}" for name, value in values.items())]
    settings = tuple((name, as_scalar(name, value)) for name, value in values.items())
    for name, value in settings:
        fault = command_line.value_fault(value) if lab.tunables[name].parameter else None
        if fault is not None:
            raise UserError(f"{name}: {fault[0]}", hint=fault[1])
    return Case("-".join(words), kernel, topology, settings)


def _is_list(name: str, value: object) -> bool:
    # Mappings are the nodes of one guest.
    if not isinstance(value, list | tuple) or name in _LISTS:
        return False
    return name != "nodes" or not any(isinstance(one, Mapping) for one in value)


def _points(values: Setting) -> Iterable[dict[str, Any]]:
    """Yield every combination of the listed values."""
    lists = [value if _is_list(name, value) else [value] for name, value in values.items()]
    for point in itertools.product(*lists):
        yield dict(zip(values, point, strict=True))


def _topology(base: Topology, shape: Setting, arch: ArchName, defaults: Defaults) -> Topology:
    given = dict(shape)
    distances = given.get("distances")
    if isinstance(distances, int):
        given["distances"] = {"remote": distances}
    elif isinstance(distances, list | tuple):
        given["distances"] = {"matrix": distances}
    inherited = base.model_dump()
    if isinstance(given.get("nodes"), list | tuple):
        inherited = {key: value for key, value in inherited.items() if key not in PER_NODE}
    try:
        topology = Topology.model_validate(inherited | given)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        hint = f"keys: {', '.join(Topology.model_fields)}, as for a guest in lab.yaml"
        raise UserError(f"invalid topology: {faults}", hint=hint) from error
    matrix, nodes = topology.distances.matrix, topology.node_count
    if matrix is not None and {len(matrix), *map(len, matrix)} != {nodes}:
        raise UserError(f"distances: expected {nodes} rows of {nodes} numbers")
    for mistake in mistakes(topology, [arch], defaults):
        where = f"topology: {dotted(mistake.path)}"
        raise UserError(mistake.what, where=where, hint=mistake.hint)
    return topology


def known(what: str, name: str, names: Iterable[str]) -> str:
    """Return `name` if it is one of `names`.

    Raises:
        UserError: the name is unknown; the hint suggests the closest one.
    """
    found = list(names)
    if name not in found:
        raise UserError(
            f"the lab has no {what} {name!r}", hint=suggestion(str(name), found, f"{what}s")
        )
    return name


def as_scalar(name: str, value: object) -> Scalar:
    """Return a tunable's or parameter's value as in lab.yaml: "64Ki" is a number.

    Raises:
        UserError: the value is neither a number nor text, or is an invalid size.
    """
    if isinstance(value, str):
        try:
            return scalar(value)
        except UnitError as error:
            raise UserError(f"{name}: {error}", hint=error.hint) from error
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise UserError(f"{name}: expected a number or text, got {value!r}")
