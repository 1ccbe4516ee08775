"""Options that a guest needs, for kernels that labctl did not build. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from labctl.arch import ARM64, X86_64
from labctl.errors import UserError
from labctl.guests import virtme
from labctl.lab.entries import Defaults
from labctl.lab.models import Kernel

# The initramfs loads these modules; it needs the others itself.
MODULES = {
    "CONFIG_VIRTIO_PCI": "virtio_pci",
    "CONFIG_VIRTIO_NET": "virtio_net",
    "CONFIG_VIRTIO_BLK": "virtio_blk",
    "CONFIG_CRYPTO_CRC32C": "crc32c_generic",
    "CONFIG_EXT4_FS": "ext4",
    "CONFIG_OVERLAY_FS": "overlay",
    "CONFIG_CRYPTO_LZO": "lzo_rle",
    "CONFIG_ZRAM": "zram",
}
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
ROOTS = ("CONFIG_VIRTIO_PCI", "CONFIG_VIRTIO_BLK", "CONFIG_EXT4_FS", "CONFIG_OVERLAY_FS")
# ext4 asks for a checksum that modinfo does not report; recent kernels have no such option.
ROOT_MODULES = ("CONFIG_CRYPTO_CRC32C", *ROOTS)
_SSH = ("CONFIG_INET", "CONFIG_VIRTIO_PCI", "CONFIG_VIRTIO_NET")


def options(defaults: Defaults, arch: str, more: Sequence[str] = ()) -> list[str]:
    """Return the options that a guest of a lab needs, with `more`."""
    launcher = virtme.NEEDED if defaults.launcher == "virtme-ng" else _INITRAMFS
    transport = _SSH if defaults.transport == "ssh" else ()
    return list(dict.fromkeys((*_CONSOLE[arch], *launcher, *transport, *more)))


def check(
    kernel: Kernel,
    config: Mapping[str, str],
    where: Path,
    defaults: Defaults,
    loadable: Collection[str] = (),
    more: Sequence[str] = (),
) -> None:
    """Check the .config of a kernel that labctl did not build; `more` are options, too.

    `loadable` are the options whose modules the guest can load.

    Raises:
        UserError: options are off, or modules that cannot be loaded; names them.
    """
    wanted = options(defaults, kernel.arch, more)
    missing = [
        option
        for option in wanted
        if config.get(option) != "y" and not (config.get(option) == "m" and option in loadable)
    ]
    if missing:
        found = ", ".join(f"{option}={config.get(option, 'n')}" for option in missing)
        are_modules = any(config.get(option) == "m" for option in MODULES if option in missing)
        raise UserError(
            f"kernel {kernel.name}: options missing that guests need built in (=y): {found}",
            where=str(where),
            hint=_hint(defaults, are_modules),
        )


def _hint(defaults: Defaults, are_modules: bool) -> str:
    other = "build it from a source with this file as `config:`"
    if defaults.launcher == "virtme-ng":
        return f"use `launcher: qemu`, or {other}"
    if are_modules:
        other = f"put its modules into lib/modules/RELEASE beside boot/, or {other}"
    return f"use `transport: serial`, or {other}" if defaults.transport == "ssh" else other
