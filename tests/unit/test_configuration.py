"""`config:` of a kernel: a whole .config, that of the host's kernel, or a target of make."""

import gzip

import faketree
import pytest

from labctl.arch import X86_64
from labctl.errors import HostError, UserError
from labctl.host.shipped import GUEST_CONFIG, shipped
from labctl.kernels import configuration, kconfig
from labctl.kernels.build import Builder

WHOLE = """\
#
# Automatically generated file; DO NOT EDIT.
# Linux/x86 6.1.0 Kernel Configuration
#
CONFIG_CC_VERSION_TEXT="gcc (Debian 1.2) 1.2"
CONFIG_PAHOLE_VERSION=125
CONFIG_CC_HAS_SLS=y
CONFIG_OF_ANOTHER_VERSION=y
CONFIG_NUMA=y
CONFIG_NR_CPUS=8
CONFIG_VIRTIO_NET=m
# CONFIG_KALLSYMS is not set
"""


KCONFIG = """
config SWAP
\tbool "Swap"
\tdefault y
config VIRTIO_NET
\ttristate "Network card"
config CC_VERSION_TEXT
\tstring
\tdefault "$(CC_VERSION_TEXT)"
"""
FILES = {
    "Kconfig": faketree.KCONFIG + KCONFIG,
    "arch/x86/configs/x86_64_defconfig": "CONFIG_NUMA=y\nCONFIG_VIRTIO_NET=m\n",
}


@pytest.fixture
def lab(tmp_path, monkeypatch):
    return Lab(tmp_path, monkeypatch)


class Lab:
    def __init__(self, tmp_path, monkeypatch):
        self.tmp_path = tmp_path
        self.source = faketree.pack(tmp_path, monkeypatch, **FILES)
        self.whole = faketree.fragment(tmp_path / "config-6.1", WHOLE)
        self.builder = Builder(tmp_path / ".labctl", lambda _: None)

    def image(self, config, *fragments):
        paths = [
            faketree.fragment(self.tmp_path / f"{n}.config", text)
            for n, text in enumerate(fragments)
        ]
        kernel = faketree.kernel("stock", self.source, config=str(config), kconfig=tuple(paths))
        return self.builder.image(kernel)


def options(image):
    return kconfig.values(image.config.read_text())


def log(image):
    return image.bzimage.with_name("build.log").read_text()


def test_a_whole_config_is_completed_with_defaults(lab):
    found = options(lab.image(lab.whole))
    assert found == {
        "CONFIG_NUMA": "y",
        "CONFIG_NR_CPUS": "8",
        "CONFIG_VIRTIO_NET": "m",
        "CONFIG_SWAP": "y",  # by default, as the file does not name it
        "CONFIG_CC_VERSION_TEXT": '"$(CC_VERSION_TEXT)"',
    }


def test_a_fragment_is_applied_on_top_and_must_hold(lab):
    found = options(lab.image(lab.whole, "CONFIG_VIRTIO_NET=y\n", "CONFIG_SWAP=n\n"))
    assert (found["CONFIG_VIRTIO_NET"], "CONFIG_SWAP" in found) == ("y", False)
    with pytest.raises(UserError, match=r"0.config:1: CONFIG_NONE=y became n"):
        lab.image(lab.whole, "CONFIG_NONE=y\n")


def test_the_image_lists_options_changed_missing_and_left_out(lab):
    image = lab.image(lab.whole, "CONFIG_KALLSYMS=y\nCONFIG_NR_CPUS=4\nCONFIG_NUMA=y\n")
    assert image.notes == (
        "2 options set by 0.config",
        "1 option of config-6.1 missing or changed in this source",
        "1 option =m left out: modules are not built",
    )
    assert lab.image(lab.whole, "CONFIG_KALLSYMS=y\nCONFIG_NR_CPUS=4\nCONFIG_NUMA=y\n") == image
    text = log(image)
    assert "0.config:1: CONFIG_KALLSYMS=y, was n" in text
    assert "0.config:2: CONFIG_NR_CPUS=4, was 8" in text
    assert f"{lab.whole}:8: CONFIG_OF_ANOTHER_VERSION=y became n" in text
    assert "labctl: 1 option =m left out" in text
    assert "PAHOLE" not in text


def test_options_that_a_fragment_changes_are_reported(lab):
    image = lab.image("defconfig", "CONFIG_VIRTIO_NET=y\nCONFIG_NUMA=y\n")
    assert image.notes == ("1 option set by 0.config",)
    assert "0.config:1: CONFIG_VIRTIO_NET=y, was m" in log(image)
    assert "warning:" not in log(image)


def test_the_notes_of_an_image_are_kept_with_it(lab):
    built = lab.image(lab.whole)
    assert lab.image(lab.whole).notes == built.notes != ()


def test_the_address_has_the_options_but_not_those_of_the_tools(lab):
    first = lab.image(lab.whole)
    faketree.fragment(lab.whole, WHOLE.replace("1.2", "1.3").replace("=125", "=126"))
    assert lab.image(lab.whole).hash == first.hash
    faketree.fragment(lab.whole, WHOLE.replace("CPUS=8", "CPUS=9"))
    assert lab.image(lab.whole).hash != first.hash


def test_the_same_file_as_a_fragment_is_another_image(lab):
    text = "CONFIG_NUMA=y\n"
    whole = faketree.fragment(lab.tmp_path / "whole", text)
    kernel = faketree.kernel("stock", lab.source, kconfig=(whole,))
    fragment = lab.builder.image(kernel)
    assert "CONFIG_SWAP" not in options(fragment)
    assert "CONFIG_SWAP" in options(lab.image(whole))
    assert lab.builder.image(kernel).hash == fragment.hash


@pytest.mark.parametrize("target", ["defconfig", "x86_64_defconfig"])
def test_a_target_of_make_starts_the_config(lab, target):
    image = lab.image(target, "CONFIG_NR_CPUS=4\n")
    assert options(image)["CONFIG_NR_CPUS"] == "4"
    assert options(image)["CONFIG_VIRTIO_NET"] == "m"
    assert "CONFIG_SWAP" in options(image)


def test_both_names_of_the_architectures_defconfig_are_one_image(lab):
    assert lab.image("defconfig").hash == lab.image("x86_64_defconfig").hash


def test_a_defconfig_that_the_source_lacks_is_an_error_with_those_it_has(lab):
    with pytest.raises(UserError, match="my_defconfig is not a configuration") as caught:
        lab.image("my_defconfig")
    assert caught.value.hint == "known configurations: x86_64_defconfig"


def test_the_configuration_of_the_running_kernel(lab, monkeypatch):
    packed = lab.tmp_path / "config.gz"
    monkeypatch.setattr(configuration, "_PROC_CONFIG", packed)
    monkeypatch.setattr(configuration, "_BOOT", lab.tmp_path)
    with pytest.raises(HostError, match=r"config.gz nor .*/config-"):
        lab.image("running")
    packed.write_bytes(gzip.compress(WHOLE.encode()))
    assert options(lab.image("running"))["CONFIG_NR_CPUS"] == "8"
    assert lab.image("running").hash == lab.image(lab.whole).hash


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08\x00", b"\x1f\x8bno gzip"])
def test_a_damaged_archive_is_an_error(lab, content):
    lab.whole.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        lab.image(lab.whole)


def test_a_configuration_of_another_architecture_is_an_error(lab):
    faketree.fragment(lab.whole, "CONFIG_NUMA=y\nCONFIG_ARM64=y\n")
    with pytest.raises(UserError, match=r"config-6.1:2: configuration is for arm64"):
        lab.image(lab.whole)


@pytest.mark.parametrize("name", ["guest.config", "guest.arm64.config"])
def test_what_a_guest_needs_is_part_of_the_smallest_kernel(name):
    def of(one):
        path = shipped(GUEST_CONFIG).with_name(one)
        return {(o.name, o.value) for o in kconfig.merge([path]) if o.value != '""'}

    assert of(name) <= of(name.replace("guest", "base"))
    assert X86_64.numa_options[0] in {option for option, _ in of(name)}
