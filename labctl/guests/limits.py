"""Limits of a kernel's .config on a guest's topology. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labctl.arch import ARCHITECTURES
from labctl.errors import UserError
from labctl.guests import topology_options
from labctl.lab.topology import Topology

if TYPE_CHECKING:
    from labctl.kernels.kconfig import Option

_LONGEST = 6


@dataclass(frozen=True, slots=True)
class Limit:
    """An option that is too small for the topology, and the required setting."""

    option: str
    what: str
    instead: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Checks kernels against the topologies of their guests, by kernel name."""

    topologies: Mapping[str, Sequence[Topology]]

    def check_options(self, kernel: str, options: Iterable[Option], arch: str) -> None:
        """Check the options of fragments, before there is a .config.

        Raises:
            UserError: an option is too small for a guest; names the fragment's line.
        """
        places = {option.name: option for option in options}
        values = {name: option.value for name, option in places.items()}
        for topology in self.topologies.get(kernel, ()):
            for limit in of_options(topology, values, arch):
                place = places[limit.option]
                raise UserError(
                    limit.what,
                    where=f"{place.file}:{place.line}",
                    hint=f"set {limit.instead} for kernel {kernel}, or define a smaller guest in "
                    "lab.yaml",
                )

    def check_source(self, kernel: str, may_have: Callable[[str], bool]) -> None:
        """Check nothing: a topology asks nothing of a source."""

    def check_config(self, kernel: str, config: Mapping[str, str], arch: str) -> None:
        """Check a complete .config.

        Raises:
            UserError: an option is too small for a guest; names the option.
        """
        for topology in self.topologies.get(kernel, ()):
            for limit in of_config(topology, config, arch):
                raise UserError(
                    f".config of kernel {kernel}: {limit.what}",
                    hint=f"set {limit.instead} in a kconfig fragment, or define a smaller guest in "
                    "lab.yaml",
                )


NO_LIMITS = Limits({})


def of_config(topology: Topology, config: Mapping[str, str], arch: str) -> list[Limit]:
    """Return the limits that a complete .config breaks; missing options are off."""
    return [*_limits(topology, config, arch, "n")]


def of_options(topology: Topology, options: Mapping[str, str], arch: str) -> list[Limit]:
    """Return the limits that some options break, whatever the rest of the .config is."""
    return [*_limits(topology, options, arch, None)]


def _limits(
    topology: Topology, options: Mapping[str, str], arch: str, absent: str | None
) -> Iterator[Limit]:
    nodes, vcpus = topology.node_count, topology.vcpus
    if nodes > 1:
        for option in ARCHITECTURES[arch].numa_options:
            if options.get(option, absent) == "n":
                yield Limit(
                    option, f"{option} is off, but the guest has {nodes} nodes", f"{option}=y"
                )
        shift = _number(options.get("CONFIG_NODES_SHIFT"))
        if shift is not None and nodes > 2**shift:
            what = f"CONFIG_NODES_SHIFT={shift} allows {2**shift} nodes, but the guest has {nodes}"
            enough = (nodes - 1).bit_length()
            yield Limit("CONFIG_NODES_SHIFT", what, f"CONFIG_NODES_SHIFT={enough}")
    for option in topology_options.of_guests([topology], arch):
        if options.get(option, absent) == "n":
            yield Limit(option, f"{option} is off, but the guest needs it", f"{option}=y")
    if vcpus > 1:
        if options.get("CONFIG_SMP", absent) == "n":
            yield Limit(
                "CONFIG_SMP",
                f"CONFIG_SMP is off, but the guest has {vcpus} CPUs",
                "CONFIG_SMP=y",
            )
        most = _number(options.get("CONFIG_NR_CPUS"))
        if most is not None and vcpus > most:
            what = f"CONFIG_NR_CPUS={most} allows {most} CPUs, but the guest has {vcpus}"
            yield Limit("CONFIG_NR_CPUS", what, f"CONFIG_NR_CPUS={vcpus}")


def _number(text: str | None) -> int | None:
    if text is None or not text.isdecimal() or len(text) > _LONGEST:
        return None
    return int(text)
