"""What a confined program may use of the host, by a real Landlock where the host has it."""

import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.errors import HostError
from labctl.guests import confine, initramfs, launchers
from labctl.guests.qemu import GuestSpec
from labctl.host import landlock
from labctl.kernels.build import Image
from labctl.lab.topology import Topology

needs_landlock = pytest.mark.skipif(not landlock.version(), reason="the host has no Landlock")
SYSTEM = [word for path in confine._READ for word in ("-r", path)]


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    return initramfs.program(tmp_path_factory.mktemp("state"), "box")


@pytest.fixture
def spec(tmp_path):
    image = Image("stock", tmp_path / "bz", "1", "0", None, (), None, "6.1", "gcc")
    return GuestSpec(
        name="stock",
        image=image,
        topology=Topology(),
        initramfs=tmp_path / "initramfs",
        accel="tcg",
        folder=tmp_path / "guest",
        box=tmp_path / "labbox",
    )


def run(box, *words):
    return subprocess.run([box, *words], capture_output=True, text=True, timeout=60)


@needs_landlock
def test_a_program_uses_the_files_of_its_rules_only(box, tmp_path):
    for name in ("own", "input"):
        (tmp_path / name).mkdir()
    (tmp_path / "input/text").write_text("text\n")
    (tmp_path / "secret").write_text("secret\n")
    words = [*SYSTEM, "-w", "/dev/null", "-r", tmp_path / "input", "-w", tmp_path / "own"]
    words += ["-r", tmp_path / "missing", "--", "sh", "-c"]
    done = run(
        box, *words, f"cd {tmp_path}; cat input/text > own/copy && cat own/copy && rm own/copy"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "text\n", "")
    for attempt in ("cat secret", "echo >> secret", "echo > new", "echo >> input/text", "ls .",
                    "mv input/text own/text", "ln secret own/secret", "rm secret", "mkdir new",
                    "truncate -s 0 secret", "mv own secret2"):  # fmt: skip
        done = run(box, *words, f"cd {tmp_path}; {attempt}")
        assert done.returncode != 0, attempt
        assert "denied" in done.stderr or "cross-device" in done.stderr, (attempt, done.stderr)
    assert (tmp_path / "secret").read_text() == "secret\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input", "own", "secret"]


@pytest.mark.skipif(landlock.version() < 4, reason="the host's Landlock has no rules of ports")
@pytest.mark.parametrize("rules", [[], ["-p", "0"]])
def test_a_program_binds_only_to_a_port_of_its_rules_and_connects_to_none(box, rules):
    program = (
        "import socket\n"
        "def tried(what):\n"
        "    try: what(); return 'done'\n"
        "    except PermissionError: return 'denied'\n"
        "a, b, c = (socket.socket() for _ in range(3))\n"
        "used = ('127.0.0.1', {port})\n"
        "print(tried(lambda: a.bind(('127.0.0.1', 0))), tried(lambda: b.bind(used)))\n"
        "print(tried(lambda: c.connect(used)))\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        python = [sys.executable, "-I", "-c", program.format(port=port)]
        done = run(box, "-r", "/", *rules, "--", *python)
    assert done.stdout.split() == ["done" if rules else "denied", "denied", "denied"], done.stderr


@pytest.mark.skipif(landlock.version() < 6, reason="the host's Landlock has no scopes")
def test_a_program_signals_no_other(box):
    with subprocess.Popen(["sleep", "60"]) as other:
        done = run(box, "-r", "/", "--", "sh", "-c", f"kill {other.pid}")
        assert (done.returncode, other.poll()) == (1, None)
        other.kill()


def test_how_a_program_ended_is_told(box):
    assert run(box, "-r", "/", "--", "sh", "-c", "exit 7").returncode == 7
    done = run(box, "-r", "/", "--", "no-such-program")
    assert (done.returncode, "no-such-program" in done.stderr) == (127, True)
    assert run(box, "-r", "/").returncode == 125
    assert run(box, "-x").returncode == 125


def test_qemu_gets_the_files_of_its_guest(spec, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/mine/lib:relative")
    qemu = shutil.which("qemu-system-x86_64")
    words = confine.confined([qemu, "-name", "x"], replace(spec, ssh_key=Path("key")))
    at = words.index("--")
    assert (words[0], words[at + 1 :]) == (str(spec.box), [qemu, "-name", "x"])
    rules = {(words[n], words[n + 1]) for n in range(1, at, 2)}
    assert {path for rule, path in rules if rule == "-w"} == {
        "/dev/null", "/dev/zero", "/dev/kvm", str(spec.folder),
    }  # fmt: skip
    read = {path for rule, path in rules if rule == "-r"}
    assert {str(spec.image.bzimage), str(spec.initramfs), "/opt/mine/lib"} < read
    assert not {"/", "/etc", "/home", "/root", "/proc", "/dev", str(spec.folder.parent)} & read
    assert ("-p", "0") in rules
    assert "-p" not in confine.confined([qemu], spec)


def test_a_qemu_that_may_need_any_file_is_not_confined(spec, tmp_path):
    assert launchers.argv(spec)[0] == str(spec.box)
    script = tmp_path / "qemu"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    with_words = replace(spec, topology=Topology(qemu=("-device", "virtio-rng-pci")))
    for argv, each in (
        (["qemu-system-x86_64"], replace(spec, box=None)),
        (["qemu-system-x86_64"], replace(spec, launcher="virtme-ng")),
        (["qemu-system-x86_64"], with_words),
        (["no-such-qemu"], spec),
        ([str(script)], spec),
    ):
        assert confine.confined(argv, each) == argv


def test_a_host_without_landlock_or_a_compiler_has_no_box(tmp_path, monkeypatch):
    monkeypatch.setattr(landlock, "version", lambda: 0)
    assert confine.program(tmp_path) is None
    monkeypatch.setattr(landlock, "version", lambda: 7)
    assert confine.program(tmp_path).exists()

    def missing(*_):
        raise HostError("gcc is not installed")

    monkeypatch.setattr(initramfs, "program", missing)
    assert confine.program(tmp_path) is None


@needs_landlock
@pytest.mark.parametrize("place", ["bin/lib", "elsewhere"])
def test_a_qemu_in_the_home_folder_opens_no_more_of_it(spec, box, tmp_path, monkeypatch, place):
    """It is confined, if its libraries are where its rules let it read them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    library, program = tmp_path / place / "libmine.so", tmp_path / "bin/qemu-system-x86_64"
    for path, text, *more in (
        (library, "int mine(void) { return 0; }", "-shared"),
        (program, "int mine(void); int main(void) { return mine(); }", library),
    ):
        path.parent.mkdir(exist_ok=True, parents=True)
        words = ["gcc", "-x", "c", "-", "-x", "none", "-o", path, *more]
        subprocess.run(words, input=text, text=True, check=True)
    words = confine.confined([str(program)], replace(spec, box=box))
    assert (words[0] == str(box)) == (place == "bin/lib")
    assert str(tmp_path) not in words


def test_a_user_without_a_home_folder_has_guests(spec, monkeypatch):
    def missing(*_):
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", missing)
    assert confine.confined(["qemu-system-x86_64"], spec)[0] == str(spec.box)
