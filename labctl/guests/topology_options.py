"""Kernel options that the topology of a guest needs besides nodes and CPUs. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from labctl.arch import ARCHITECTURES
from labctl.lab.topology import Topology

_DISKS = ("CONFIG_VIRTIO_PCI", "CONFIG_VIRTIO_BLK")
# A fragment of guest/kconfig, and the option that asks for it.
_FRAGMENTS = {
    "hmat": "CONFIG_ACPI_HMAT",
    "hotplug": "CONFIG_ACPI_HOTPLUG_MEMORY",
    "disks": "CONFIG_VIRTIO_BLK",
    "swap": "CONFIG_SWAP",
}


def of_guests(guests: Iterable[Topology], arch: str) -> tuple[str, ...]:
    """Return the options that guests of an architecture need for more than nodes and CPUs."""
    found: dict[str, None] = {}
    has_acpi = ARCHITECTURES[arch].has_acpi
    for guest in guests:
        if guest.has_memory_speed and has_acpi:
            found |= dict.fromkeys(("CONFIG_ACPI_HMAT",))
        if guest.has_hotplug and has_acpi:
            found |= dict.fromkeys(("CONFIG_MEMORY_HOTPLUG", "CONFIG_ACPI_HOTPLUG_MEMORY"))
        if guest.swap:
            found |= dict.fromkeys(("CONFIG_SWAP",))
        if guest.swap and guest.swap.zram:
            found |= dict.fromkeys(("CONFIG_ZRAM",))
        if guest.disk_bytes:
            found |= dict.fromkeys(_DISKS)
    return tuple(found)


def modules_of_guests(guests: Iterable[Topology], arch: str) -> tuple[str, ...]:
    """Return the options whose modules the guests need: these, and those of the compressor.

    Before Linux 6.12, zram takes its compressor from the crypto API, which modinfo does not
    report; recent kernels have no such option.
    """
    found = of_guests(guests, arch)
    return ("CONFIG_CRYPTO_LZO", *found) if "CONFIG_ZRAM" in found else found


def fragments(guests: Iterable[Topology], arch: str) -> list[str]:
    """Return the names of the kconfig fragments that have these options."""
    wanted = of_guests(guests, arch)
    return [name for name, option in _FRAGMENTS.items() if option in wanted]
