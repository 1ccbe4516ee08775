"""Options that a guest needs built in: for kernels that labctl did not build. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from labctl.arch import ARM64, X86_64
from labctl.errors import UserError
from labctl.guests import virtme
from labctl.lab.entries import Defaults
from labctl.lab.models import Kernel

# The root is labctl's initramfs, which loads no modules; without a console there is nothing.
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
    """Return the options that a guest of a lab needs built in."""
    launcher = virtme.NEEDED if defaults.launcher == "virtme-ng" else _INITRAMFS
    transport = _SSH if defaults.transport == "ssh" else ()
    return list(dict.fromkeys((*_CONSOLE[arch], *launcher, *transport)))


def check(kernel: Kernel, config: Mapping[str, str], where: Path, defaults: Defaults) -> None:
    """Check the .config of a kernel that labctl did not build.

    Raises:
        UserError: options are off or modules; names them.
    """
    missing = [
        f"{option}={config.get(option, 'n')}"
        for option in options(defaults, kernel.arch)
        if config.get(option) != "y"
    ]
    if missing:
        raise UserError(
            f"kernel {kernel.name} lacks options that its guests need built in (=y): "
            f"{', '.join(missing)}",
            where=str(where),
            hint=_hint(defaults),
        )


def _hint(defaults: Defaults) -> str:
    other = "build it from a source with this file as `config:`; modules are not used"
    if defaults.launcher == "virtme-ng":
        return f"use `launcher: qemu`, or {other}"
    return f"use `transport: serial`, or {other}" if defaults.transport == "ssh" else other
