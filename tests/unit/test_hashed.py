"""What a guest is made of is hashed when it is built, and again before it starts."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import synthetic

from labctl.errors import HostError, UserError
from labctl.experiments.record import check_unchanged
from labctl.guests import qemu
from labctl.guests.guest import Guest
from labctl.guests.initramfs import Initramfs
from labctl.guests.prepare import Prepared
from labctl.host import identity
from labctl.kernels.hashed import Hashed
from labctl.kernels.images import Image
from labctl.lab.topology import Topology

TINY = Topology(nodes=1, cpus_per_node=1)  # which asks nothing of the .config


@pytest.fixture
def prepared(tmp_path):
    """A lab whose image, config and initramfs are files of a few bytes."""
    files = {}
    for name in ("bzImage", "config", "initramfs", "init"):
        (tmp_path / name).write_text(f"whole {name}")
        files[name] = Hashed.of(tmp_path / name)
    lab = synthetic.lab()
    facts = ("stock", files["bzImage"].path, "0", "", None, (), files["config"].path, "6.1", "")
    image = Image(
        *facts, bzimage_sha256=files["bzImage"].sha256, config_sha256=files["config"].sha256
    )
    archive = Initramfs(
        files["initramfs"].path, files["initramfs"].sha256, tmp_path, (files["init"],)
    )
    return Prepared(
        lab=lab,
        host=identity.Host("", "", 1, 1, "", "", ""),
        accel="tcg",
        images=dict.fromkeys(lab.kernels, image),
        initramfs=archive,
    )


def guest(prepared, tmp_path):
    name = next(iter(prepared.images))
    return Guest(prepared.spec(name, name="g", folder=tmp_path / "g", topology=TINY))


@pytest.mark.parametrize("accel", ["tcg", "kvm"])
def test_a_kernel_that_rewrites_its_code_has_one_thread_under_tcg(prepared, tmp_path, accel):
    for rewrites_code in (False, True):
        spec = replace(prepared, accel=accel).spec(
            next(iter(prepared.images)), name="g", folder=tmp_path / "g", topology=TINY,
            rewrites_code=rewrites_code,
        )  # fmt: skip
        assert spec.one_thread is (rewrites_code and accel == "tcg")


def test_a_guest_that_counts_instructions_has_one_thread(prepared, tmp_path):
    counting = TINY.model_copy(update={"icount": True})
    spec = replace(prepared, accel="tcg").spec(
        next(iter(prepared.images)), name="g", folder=tmp_path / "g", topology=counting
    )
    words = qemu.argv(spec)
    assert words[words.index("-accel") + 1] == "tcg,thread=single"
    assert words[words.index("-icount") + 1] == "shift=0"
    assert "-icount" not in qemu.argv(replace(spec, topology=TINY))


@pytest.mark.parametrize("name", ["bzImage", "config", "initramfs"])
def test_damage_between_build_and_boot_is_the_hosts_and_names_the_file(prepared, tmp_path, name):
    (tmp_path / name).write_text("torn")
    with pytest.raises(HostError, match=f"{name}: file changed"), guest(prepared, tmp_path):
        pass


def test_another_launcher_reads_other_files(prepared, tmp_path):
    defaults = prepared.lab.defaults.model_copy(update={"launcher": "virtme"})
    prepared = replace(prepared, lab=prepared.lab.model_copy(update={"defaults": defaults}))
    (tmp_path / "init").write_text("torn")
    with pytest.raises(HostError, match="init: file changed"), guest(prepared, tmp_path):
        pass


def test_a_run_goes_on_only_with_the_guest_programs_that_it_began_with():
    record = dict.fromkeys(("experiments", "kernels", "accel", "guests"), "same")
    record |= {"initramfs": "before", "host": {"id": "h"}}
    folder = SimpleNamespace(id="r", path=Path("runs/r"))
    check_unchanged(folder, record, dict(record))
    with pytest.raises(UserError, match="initramfs changed since run r started"):
        check_unchanged(folder, record, record | {"initramfs": "now"})
