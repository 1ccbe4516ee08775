"""The virtme-ng launcher, with a vng of a few lines on PATH."""

import dataclasses
import itertools
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from labctl.errors import HostError
from labctl.guests import launchers, virtme
from labctl.guests.qemu import GuestSpec
from labctl.kernels import kconfig
from labctl.kernels.build import Image
from labctl.lab.topology import Distances, Topology

MIB = 2**20
REAL_VNG = shutil.which("vng") or (Path(sys.executable).parent / "vng").exists()
# It says what it was asked, and answers as vng does.
FAKE = """#!/bin/sh
printf '%s\\0' "$@" >asked
echo 'some warning' >&2
echo "$FAKE_ANSWER"
exit "${FAKE_STATUS:-0}"
"""


def spec(folder, **more):
    image = Image("stock", Path("/k/a b/bzImage"), "", "", None, (), None, "6.1", "")
    topology = Topology(
        nodes=2, cpus_per_node=2, memory_per_node=512 * MIB, distances=Distances(remote=21)
    )
    return GuestSpec(
        name="stock",
        image=image,
        initramfs=Path("/unused"),
        folder=folder,
        launcher="virtme-ng",
        programs=Path("/lab/programs"),
        **{"accel": "tcg", "topology": topology, **more},
    )


def values(words, option):
    return [b for a, b in itertools.pairwise(words) if a == option]


@pytest.fixture
def vng(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "vng"
    program.parent.mkdir()
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setenv("FAKE_ANSWER", "/usr/bin/qemu-system-x86_64 -append 'a b'")
    return program


def test_cpus_that_run_by_turns_share_a_thread(tmp_path):
    words = launchers.command(spec(tmp_path, one_thread=True))
    assert values(shlex.split(words[-1].partition("=")[2]), "-accel") == ["tcg,thread=single"]
    assert "-accel" not in shlex.split(launchers.command(spec(tmp_path))[-1])


def test_nodes_memory_and_distances_are_those_of_the_topology(tmp_path):
    words = launchers.command(spec(tmp_path))
    assert words[0] == "vng"
    assert values(words, "--memory") == ["1024M"]
    assert values(words, "--cpus") == ["4,sockets=2,cores=2,threads=1"]
    assert values(words, "--numa") == ["512M,cpus=0-1", "512M,cpus=2-3"]
    assert values(words, "--numa-distance") == ["0,0=10", "0,1=21", "1,0=21", "1,1=10"]


def test_more_arguments_of_qemu(tmp_path):
    guest = Topology(qemu=("-device", "virtio-rng-pci"))
    (options,) = [
        word
        for word in launchers.command(spec(tmp_path, topology=guest))
        if word.startswith("--qemu-opts=")
    ]
    assert options.endswith(" -device virtio-rng-pci")
    direct = dataclasses.replace(spec(tmp_path, topology=guest), launcher="qemu")
    assert launchers.command(direct)[-2:] == ["-device", "virtio-rng-pci"]


def test_nodes_without_cpus_or_memory(tmp_path):
    nodes = [
        {"cpus": 2, "memory": "64MiB"},
        {"cpus": 1, "memory": 0},
        {"cpus": 0, "memory": "1GiB"},
    ]
    words = launchers.command(spec(tmp_path, topology=Topology(nodes=nodes)))
    assert values(words, "--memory") == ["1088M"]
    assert values(words, "--numa") == ["64M,cpus=0-1", "0,cpus=2", "1024M"]


def test_a_broken_kvm_is_not_touched_where_tcg_was_chosen(tmp_path):
    assert "--disable-kvm" in launchers.command(spec(tmp_path))
    assert "--disable-kvm" not in launchers.command(spec(tmp_path, accel="kvm"))


def test_console_line_and_monitor_are_where_every_guest_has_them(tmp_path):
    (more,) = [w for w in launchers.command(spec(tmp_path)) if w.startswith("--qemu-opts=")]
    words = shlex.split(more.partition("=")[2])
    assert values(words, "-set") == ["chardev.console.logfile=console.log"]
    assert values(words, "-serial") == ["chardev:line"]
    sockets = [word.split("path=")[1].split(",")[0] for word in values(words, "-chardev")]
    assert sockets == ["line.sock", "monitor.sock"]


def test_vng_is_asked_for_qemus_command_line(tmp_path, vng):
    assert launchers.argv(spec(tmp_path)) == ["/usr/bin/qemu-system-x86_64", "-append", "a b"]
    asked = (tmp_path / "asked").read_text().split("\0")
    assert "--dry-run" in asked
    # vng hands the path to a shell.
    assert "'/k/a b/bzImage'" in asked


def test_the_kernels_words_keep_their_blanks_and_backslashes(tmp_path):
    line = "dyndbg=\"file a.c +p\" a=b\\c q='z'"
    (append,) = values(launchers.command(spec(tmp_path, command_line=line)), "--append")
    # vng splits it as a shell does, and quotes what has blanks for the kernel.
    assert shlex.split(append)[-3:] == ["dyndbg=file a.c +p", "a=b\\c", "q='z'"]


def test_a_folder_that_vng_would_refuse_is_shared_by_a_link(tmp_path, vng):
    programs = tmp_path / "a,b=c"
    programs.mkdir()
    for _ in range(2):
        launchers.argv(dataclasses.replace(spec(tmp_path), programs=programs))
    assert "--rodir=/run/labctl=programs" in (tmp_path / "asked").read_text().split("\0")
    assert (tmp_path / "programs").resolve() == programs


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        ("", "0", "no QEMU command line"),
        ("hello", "0", "no QEMU command line"),
        ("", "2", "vng failed"),
    ],
)
def test_what_vng_cannot_do_is_the_hosts_fault(tmp_path, vng, monkeypatch, answer, status, message):
    monkeypatch.setenv("FAKE_ANSWER", answer)
    monkeypatch.setenv("FAKE_STATUS", status)
    with pytest.raises(HostError, match=message):
        launchers.argv(spec(tmp_path))


def test_a_missing_vng_is_reported_with_a_hint(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(HostError, match="vng is not installed") as caught:
        launchers.check("virtme-ng")
    assert "pip install" in caught.value.hint


def test_the_fragment_has_what_a_kernel_may_lack():
    (fragment,) = launchers.fragments("virtme-ng")
    options = kconfig.render(kconfig.merge([fragment]))
    assert virtme.lacking(options) == []
    assert virtme.lacking(options.replace("CONFIG_9P_FS=y", "")) == ["CONFIG_9P_FS"]
    assert launchers.fragments("qemu") == ()


def test_with_an_ssh_key_there_is_a_network_card_for_the_server(tmp_path):
    (more,) = [
        w
        for w in launchers.command(spec(tmp_path, ssh_key=Path("/key")))
        if w.startswith("--qemu-opts=")
    ]
    words = shlex.split(more.partition("=")[2])
    assert "restrict=on" in values(words, "-netdev")[0]
    assert values(words, "-device")[0].startswith("virtio-net")


@pytest.mark.skipif(not REAL_VNG, reason="no virtme-ng")
def test_what_the_guest_sees_of_the_host_is_read_only(tmp_path, monkeypatch):
    bzimage = tmp_path / "bzImage"
    bzimage.touch()
    image = dataclasses.replace(spec(tmp_path).image, bzimage=bzimage)
    programs = tmp_path / "programs"
    programs.mkdir()
    guest = dataclasses.replace(spec(tmp_path), image=image, programs=programs)
    words = launchers.argv(guest)
    shared = values(words, "-fsdev")
    assert [each for each in shared if f"path={programs}" in each]
    assert [each for each in shared if "path=/," in each]
    assert all("readonly=on" in each.split(",") for each in shared), shared
    assert not {"-virtfs", "virtiofs"} & {*words}
    assert not any("vhost-user" in word for word in words)
