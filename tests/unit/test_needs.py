"""An image that labctl did not build is checked by the config beside it, before a boot."""

import faketree
import pytest

from labctl.errors import UserError
from labctl.guests import needs
from labctl.guests.prepare import build_images
from labctl.lab.entries import Defaults
from labctl.lab.load import load

DEBIAN = """\
CONFIG_BLK_DEV_INITRD=y
CONFIG_RD_GZIP=y
CONFIG_BINFMT_ELF=y
CONFIG_DEVTMPFS=y
CONFIG_PROC_FS=y
CONFIG_SYSFS=y
CONFIG_SERIAL_8250_CONSOLE=y
CONFIG_INET=y
CONFIG_VIRTIO_PCI=m
CONFIG_VIRTIO_NET=m
CONFIG_NET_9P_VIRTIO=m
CONFIG_9P_FS=m
# CONFIG_VIRTIO_CONSOLE is not set
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Build the lab's only kernel, a distribution's image, with some `defaults:`."""
    source = faketree.pack(tmp_path, monkeypatch)
    (tmp_path / "boot").mkdir()
    image = tmp_path / "boot" / f"vmlinuz-{faketree.RELEASE}"
    content = bytearray(0x210)
    content[0x202:0x206], content[0x20E:0x210] = b"HdrS", b"\x10\x00"
    image.write_bytes(bytes(content) + f"{faketree.RELEASE} (nobody) #1\0".encode())
    path = tmp_path / "lab.yaml"

    def run(defaults="{}", config=DEBIAN):
        if config is not None:
            (image.parent / f"config-{faketree.RELEASE}").write_text(config)
        path.write_text(
            f"defaults: {defaults}\nkernels:\n"
            f"  debian: {{source: 'image:{image}'}}\n  stock: {{source: '{source}'}}\n"
        )
        return build_images(load(path), ["debian"], lambda _: None)["debian"]

    return run


def test_a_distributions_kernel_boots_from_the_labs_initramfs(build):
    image = build()
    assert (image.release, image.config.name) == (faketree.RELEASE, f"config-{faketree.RELEASE}")


def test_an_image_without_a_config_is_not_checked(build):
    assert build("{transport: ssh}", None).config is None


@pytest.mark.parametrize(
    ("defaults", "missing", "hint"),
    [
        ("{transport: ssh}", "CONFIG_VIRTIO_PCI=m, CONFIG_VIRTIO_NET=m", "put its modules"),
        (
            "{launcher: virtme-ng}",
            "CONFIG_VIRTIO_PCI=m, CONFIG_NET_9P_VIRTIO=m, CONFIG_9P_FS=m, CONFIG_VIRTIO_CONSOLE=n",
            "`launcher: qemu`",
        ),
    ],
)
def test_options_that_are_modules_or_off_are_named(build, defaults, missing, hint):
    with pytest.raises(UserError) as caught:
        build(defaults)
    assert caught.value.what.endswith(f"need built in (=y): {missing}")
    assert caught.value.where.endswith(f"boot/config-{faketree.RELEASE}")
    assert hint in caught.value.hint


def test_modules_beside_the_image_are_enough_for_ssh(build, tmp_path):
    folder = tmp_path / "lib/modules" / faketree.RELEASE / "kernel"
    folder.mkdir(parents=True)
    (folder / "virtio_pci.ko.xz").touch()
    with pytest.raises(UserError, match=r"need built in \(=y\): CONFIG_VIRTIO_NET=m\n"):
        build("{transport: ssh}")
    (folder / "virtio-net.ko").touch()
    assert build("{transport: ssh}").release == faketree.RELEASE


def test_a_kernel_without_a_serial_console_is_an_error(build):
    with pytest.raises(UserError, match=r"need built in .*: CONFIG_SERIAL_8250_CONSOLE=n\n"):
        build(config=DEBIAN.replace("CONFIG_SERIAL_8250_CONSOLE=y\n", ""))


def test_arm64_has_another_console():
    arm, x86 = (set(needs.options(Defaults(), arch)) for arch in ("arm64", "x86_64"))
    assert "CONFIG_SERIAL_AMBA_PL011_CONSOLE" in arm - x86
