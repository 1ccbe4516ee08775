"""Options that a guest needs, for kernels that labctl did not build. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from labctl.arch import ARM64, X86_64
from labctl.errors import UserError
from labctl.guests import virtme
from labctl.lab.entries import Defaults
from labctl.lab.models import Kernel

# The initramfs loads these modules; it needs the others itself.
MODULES = {"CONFIG_VIRTIO_PCI": "virtio_pci", "CONFIG_VIRTIO_NET": "virtio_net"}
_INITRAMFS = (
    "CONFIG_BLK_DEV_INITRD",
    "CONFIG_RD_GZIP",
    "CONFIG_BINFMT_ELF",
    "CONFIG_DEVTMPFS",
    "CONFIG_PROC_FS",
    "CONFIG_SYSFS",
)
_CONSOLE: dict[str, tuple[str, ...]] = {
    X86_64.name: ("CONFIG_SERIAL_8250_CONSOLE",),
    ARM64.name: ("CONFIG_SERIAL_AMBA_PL011_CONSOLE", "CONFIG_SERIAL_8250_PCI"),
}
_SSH = ("CONFIG_INET", "CONFIG_VIRTIO_PCI", "CONFIG_VIRTIO_NET")


def options(defaults: Defaults, arch: str) -> list[str]:
    """Return the options that a guest of a lab needs."""
    launcher = virtme.NEEDED if defaults.launcher == "virtme-ng" else _INITRAMFS
    transport = _SSH if defaults.transport == "ssh" else ()
    return list(dict.fromkeys((*_CONSOLE[arch], *launcher, *transport)))


def check(
    kernel: Kernel,
    config: Mapping[str, str],
    where: Path,
    defaults: Defaults,
    loadable: Collection[str] = (),
) -> None:
    """Check the .config of a kernel that labctl did not build.

    `loadable` are the options whose modules the guest can load.

    Raises:
        UserError: options are off, or modules that cannot be loaded; names them.
    """
    missing = [
        f"{option}={config.get(option, 'n')}"
        for option in options(defaults, kernel.arch)
        if config.get(option) != "y" and not (config.get(option) == "m" and option in loadable)
    ]
    if missing:
        raise UserError(
            f"kernel {kernel.name} lacks options that its guests need built in (=y): "
            f"{', '.join(missing)}",
            where=str(where),
            hint=_hint(defaults, any(config.get(option) == "m" for option in MODULES)),
        )


def _hint(defaults: Defaults, has_modules: bool) -> str:
    other = "build it from a source with this file as `config:`"
    if defaults.launcher == "virtme-ng":
        return f"use `launcher: qemu`, or {other}"
    if defaults.transport != "ssh":
        return other
    if has_modules:
        other = f"put its modules into lib/modules/RELEASE beside boot/, or {other}"
    return f"use `transport: serial`, or {other}"
