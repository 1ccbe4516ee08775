"""The modules that guests need of a distribution's kernel come with the initramfs, in order."""

import lzma
import shutil

import pytest

from labctl.errors import UserError
from labctl.guests import modules
from labctl.kernels.images import Image
from labctl.lab.entries import Defaults

RELEASE = "6.1.0-fake"
SSH = Defaults(transport="ssh")
# A module of these tests is a text; this is its modinfo.
MODINFO = '#!/bin/sh\ncat "$3" >/dev/null || exit 1\nsed -n "s/^depends=//p" "$3"\n'


@pytest.fixture
def image(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "modinfo"
    program.parent.mkdir()
    program.write_text(MODINFO)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    boot = tmp_path / "boot"
    boot.mkdir()
    config = boot / "config"
    config.write_text("CONFIG_INET=y\nCONFIG_VIRTIO_PCI=m\nCONFIG_VIRTIO_NET=m\n")
    return Image(
        kernel="debian",
        bzimage=boot / f"vmlinuz-{RELEASE}",
        hash="",
        source_hash="",
        series_hash=None,
        patch_hashes=(),
        config=config,
        release=RELEASE,
        compiler="",
    )


def module(tmp_path, name, depends=""):
    path = tmp_path / "lib/modules" / RELEASE / "kernel" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"depends={depends}\n")
    return path


@pytest.fixture
def virtio(tmp_path):
    module(tmp_path, "virtio.ko")
    module(tmp_path, "virtio-ring.ko", "virtio")
    module(tmp_path, "virtio_net.ko", "virtio_ring,virtio")
    return module(tmp_path, "virtio_pci.ko", "virtio_ring,virtio")


def names(found):
    return [path.rpartition("/")[2] for path in found if path.endswith(".ko")]


def test_modules_come_after_those_that_they_depend_on(tmp_path, image, virtio):
    found = modules.files(tmp_path, [image], SSH)
    assert names(found) == [
        "00-virtio.ko",
        "01-virtio_ring.ko",
        "02-virtio_pci.ko",
        "03-virtio_net.ko",
    ]
    assert found[f"/lib/modules/{RELEASE}/labctl/02-virtio_pci.ko"] == virtio
    assert "/etc/labctl/modules-start" in found


def test_guests_without_ssh_need_none(tmp_path, image, virtio):
    assert modules.files(tmp_path, [image], Defaults()) == {}


def test_options_are_loadable_if_their_module_is_there(image, virtio):
    options = ["CONFIG_INET", "CONFIG_VIRTIO_PCI", "CONFIG_VIRTIO_NET", "CONFIG_9P_FS"]
    assert modules.loadable(image, options) == {"CONFIG_VIRTIO_PCI", "CONFIG_VIRTIO_NET"}
    virtio.unlink()
    assert modules.loadable(image, options) == {"CONFIG_VIRTIO_NET"}


def test_without_a_folder_of_modules_nothing_is_loadable(image):
    assert modules.loadable(image, ["CONFIG_VIRTIO_PCI"]) == set()


def test_a_compressed_module_is_unpacked(tmp_path, image, virtio):
    text = virtio.read_bytes()
    virtio.with_name("virtio_pci.ko.xz").write_bytes(lzma.compress(text))
    virtio.unlink()
    # modinfo reads compressed modules; the one of these tests does not.
    assert modules._unpacked(tmp_path, virtio.with_name("virtio_pci.ko.xz")).read_bytes() == text


@pytest.mark.parametrize("name", ["virtio_pci.ko.xz", "virtio_pci.ko.gz", "virtio_pci.ko.zst"])
def test_a_damaged_module_is_named(tmp_path, image, virtio, name):
    if name.endswith("zst") and not shutil.which("zstd"):
        pytest.skip("zstd is not installed")
    damaged = virtio.with_name(name)
    virtio.rename(damaged)
    with pytest.raises(UserError, match="cannot be unpacked") as caught:
        modules.files(tmp_path, [image], SSH)
    assert caught.value.where == str(damaged)


def test_a_missing_dependency_is_named(tmp_path, image, virtio):
    module(tmp_path, "virtio_pci.ko", "virtio_mmio")
    with pytest.raises(UserError, match="virtio_pci depends on virtio_mmio, which is missing"):
        modules.files(tmp_path, [image], SSH)
