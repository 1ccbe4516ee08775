"""Scratch and swap disks: sparse files of the guest's folder, gone with the guest."""

from dataclasses import replace
from pathlib import Path

import pytest

from labctl.errors import ConfigError, HostError
from labctl.guests import prepare, qemu, scratch, topology_options
from labctl.guests.disks import Disk
from labctl.guests.guest import Guest, GuestSpec
from labctl.kernels.build import Image
from labctl.lab.load import load
from labctl.lab.topology import Topology

MIB = 2**20
DISKS = Topology(nodes=1, disks=["1GiB", "64MiB"], swap={"disk": "128MiB"})
LAB = """\
guests:
  g: {nodes: 1, disks: [1GiB], swap: {disk: 2GiB}}
kernels:
  stock: {source: debian:linux-source-6.1}
"""


@pytest.fixture
def spec(tmp_path: Path) -> GuestSpec:
    image = Image("k", tmp_path / "bzImage", "0" * 32, "0", None, (), None, "6.1", "")
    return GuestSpec("k", image, DISKS, tmp_path / "initramfs", "tcg", tmp_path / "guest")


@pytest.mark.parametrize("accel", ["tcg", "kvm"])
def test_scratch_disks_come_first_and_in_order(spec: GuestSpec, accel: str) -> None:
    root = Disk(Path("/root.img"), "0" * 64, "")
    words = qemu.command(replace(spec, accel=accel, disks=(root,)))
    devices = [word for word in words if word.startswith("virtio-blk-pci")]
    assert [word.partition("drive=")[2].partition(",")[0] for word in devices] == [
        "scratch0", "scratch1", "swap", "root0",
    ]  # fmt: skip
    assert [disk.device for disk in scratch.disks_of(DISKS)] == ["/dev/vda", "/dev/vdb", "/dev/vdc"]


def test_the_files_exist_from_the_start_of_qemu_to_its_end(
    spec: GuestSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "qemu-system-x86_64"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\ncase "$*" in *--version*) exit;; esac\nexec sleep 60\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    for _ in range(2):
        with Guest(spec):
            files = sorted(spec.folder.glob("*.disk"))
            assert [file.stat().st_size // MIB for file in files] == [1024, 64, 128]
            assert all(file.stat().st_blocks == 0 for file in files)
            assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)
        assert not [*spec.folder.glob("*.disk")]


def test_a_disk_that_the_host_cannot_create_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="disk of 1 GiB cannot be created") as caught:
        scratch.create(tmp_path / "nowhere", DISKS)
    assert "scratch0.disk" in str(caught.value)


def test_disks_larger_than_the_hosts_free_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab.yaml").write_text(LAB)
    lab = load(tmp_path / "lab.yaml")
    guest = lab.guests["g"]
    monkeypatch.setattr("labctl.files.free_bytes", lambda _: 6 << 30)
    scratch.check_space(lab, guest, 2)
    with pytest.raises(ConfigError) as caught:
        scratch.check_space(lab, guest, 3)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.key) == (2, 38, "guests.g.swap")
    assert problem.what == "disks of 3 guests need 9 GiB, but only 6 GiB are free"


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ("{nodes: 2}", []),
        ("{nodes: 2, latency: [1ns, 2ns]}", ["hmat"]),
        ("{nodes: 2, bandwidth: [1GiB/s, 2GiB/s]}", ["hmat"]),
        ("{nodes: [{cpus: 1, memory: 1GiB, hotplug: 1GiB}]}", ["hotplug"]),
        ("{disks: [1GiB]}", ["disks"]),
        ("{swap: {zram: 1GiB}}", ["swap"]),
        ("{swap: {disk: 1GiB}}", ["disks", "swap"]),
    ],
)
def test_kernels_get_options_only_for_guests_that_need_them(
    tmp_path: Path, keys: str, names: list[str]
) -> None:
    (tmp_path / "lab.yaml").write_text(
        f"guests: {{g: {keys}}}\nkernels: {{stock: {{source: debian:linux-source-6.1}}}}\n"
    )
    lab = load(tmp_path / "lab.yaml")
    found = prepare._asked_for(lab, "x86_64")
    assert [path.name for path in found] == [f"{name}.config" for name in names]
    options = {line.partition("=")[0] for path in found for line in path.read_text().splitlines()}
    assert options >= set(topology_options.of_guests(lab.guests.values(), "x86_64"))
    acpi = {"hmat", "hotplug"}
    assert topology_options.fragments(lab.guests.values(), "arm64") == [
        n for n in names if n not in acpi
    ]


def test_a_fragment_that_changes_nothing_does_not_change_the_kernel(tmp_path: Path) -> None:
    """Another order of the same options would be another image."""
    own = ["hotplug", "hmat"]
    files = ", ".join(f"{prepare.initramfs.source_folder()}/kconfig/{name}.config" for name in own)
    (tmp_path / "less.config").write_text("CONFIG_ACPI_HMAT=n\n")
    (tmp_path / "lab.yaml").write_text(
        "guests: {g: {nodes: [{cpus: 1, memory: 1GiB, hotplug: 1GiB}], swap: {zram: 1GiB},"
        " latency: [90ns]}}\nkernels:\n"
        f"  whole: {{source: debian:linux-source-6.1, kconfig: [{files}]}}\n"
        f"  less: {{source: debian:linux-source-6.1, kconfig: [{files}, less.config]}}\n"
    )
    lab = load(tmp_path / "lab.yaml")
    asked = prepare._asked_for(lab, "x86_64")
    added = {
        name: [
            Path(path).stem for path in prepare._with(kernel, asked).kconfig[len(kernel.kconfig) :]
        ]
        for name, kernel in lab.kernels.items()
    }
    assert added == {"whole": ["swap"], "less": ["hmat", "swap"]}
