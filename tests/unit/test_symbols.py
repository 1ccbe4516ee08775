"""What is kept for gdb beside an image."""

import json

import pytest

from labctl.errors import HostError
from labctl.kernels import images, symbols


def build(folder, *options):
    (folder / "scripts/gdb/linux").mkdir(parents=True)
    (folder / ".config").write_text("\n".join(["CONFIG_A=y", *options]) + "\n")
    (folder / "source.py").write_text("the loader")
    (folder / "vmlinux-gdb.py").symlink_to(folder / "source.py")
    (folder / "vmlinux").write_text("symbols")
    (folder / "scripts/gdb/linux/constants.py").write_text("made")
    return folder


def test_symbols_are_kept_if_the_kconfig_asks_for_them(tmp_path):
    made = build(tmp_path / "build", "CONFIG_GDB_SCRIPTS=y")
    image = tmp_path / "image"
    image.mkdir()
    assert symbols.goals(made / ".config") == ["scripts_gdb"]
    symbols.keep(made, image)
    assert symbols.of(image / "bzImage") == image / "vmlinux"
    assert (image / "vmlinux-gdb.py").read_text() == "the loader"
    assert not (image / "vmlinux-gdb.py").is_symlink()
    assert (image / "scripts/gdb/linux/constants.py").read_text() == "made"


def test_and_not_otherwise(tmp_path):
    made = build(tmp_path / "build", "# CONFIG_GDB_SCRIPTS is not set")
    image = tmp_path / "image"
    image.mkdir()
    assert symbols.goals(made / ".config") == []
    symbols.keep(made, image)
    assert list(image.iterdir()) == []
    assert symbols.of(image / "bzImage") is None


def test_damaged_symbols_are_not_given_to_gdb(tmp_path):
    made = build(tmp_path / "build", "CONFIG_GDB_SCRIPTS=y")
    image = tmp_path / "image"
    image.mkdir()
    symbols.keep(made, image)
    vmlinux = symbols.of(image / "bzImage")
    images.check_symbols(vmlinux)  # of an image whose record does not have the hash
    record = images._hash_of_symbols(image / "bzImage")
    (image / "image.json").write_text(json.dumps(record))
    images.check_symbols(vmlinux)
    vmlinux.write_text("symbolz")
    with pytest.raises(HostError, match="changed since it was built") as caught:
        images.check_symbols(vmlinux)
    assert caught.value.where == str(vmlinux)
    assert f"`rm -r {image}`, then `labctl up` builds it again" in caught.value.hint
