"""The lab's key, what a guest gets of it, and the words for OpenSSH's client."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from labctl.errors import HostError
from labctl.guests import login, qemu
from labctl.transports.ssh import SshAddress

ROOT = Path(__file__).parent.parent.parent
USERNET = """\
Hub -1 (net):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[ESTABLISHED]   9       127.0.0.1 40000       10.0.2.15    22     0     0
  TCP[HOST_FORWARD]   3       127.0.0.1 35885       10.0.2.15    22     0     0
  TCP[HOST_FORWARD]   4       127.0.0.1 35886       10.0.2.15   222     0     0
"""


def test_the_key_is_ours_alone_and_stays_the_same(tmp_path):
    key = login.key(tmp_path)
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    content = key.read_bytes()
    public = key.with_suffix(".pub").read_text()
    assert public.startswith("ssh-ed25519 ")
    key.with_suffix(".pub").unlink()
    assert login.key(tmp_path).read_bytes() == content
    assert key.with_suffix(".pub").read_text() == public
    assert {path.name for path in key.parent.iterdir()} == {"id_ed25519", "id_ed25519.pub"}
    assert login.key(tmp_path / "other").read_bytes() != content


def test_labctls_that_make_the_key_together_agree(tmp_path):
    program = (
        "import sys; from pathlib import Path; from labctl.guests import login; "
        "print(login.key(Path(sys.argv[1])).read_text())"
    )
    argv = [sys.executable, "-c", program, str(tmp_path)]
    together = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(3)]
    assert len({process.communicate(timeout=60)[0] for process in together}) == 1


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no OpenSSH client")
def test_openssh_takes_the_key(tmp_path):
    key = login.key(tmp_path)
    done = subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, text=True)
    assert key.with_suffix(".pub").read_text().split()[:2] == done.stdout.split()[:2]


def test_without_dropbear_its_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("labctl.guests.bundle._SBIN", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError) as caught:
        login.files(tmp_path)
    assert "dropbear-bin" in str(caught.value)


def test_the_fragment_has_a_reason_for_all_of_its_options():
    text = login.fragment().read_text()
    assert "CONFIG_VIRTIO_NET=y" in text
    for paragraph in text.strip().split("\n\n"):
        assert paragraph.startswith("#")


# --- OpenSSH's client ----------------------------------------------------------------------------


def words(tmp_path, *command, terminal=False):
    address = SshAddress("127.0.0.1", 4022, "root", tmp_path / "the key", "ssh-ed25519 AAAA")
    return login.client(address, tmp_path / "known hosts", command, terminal=terminal)


def test_a_command_is_read_as_exec_reads_it(tmp_path):
    assert words(tmp_path)[-1] == "127.0.0.1"
    assert words(tmp_path, "echo $HOME")[-2:] == ["--", "echo $HOME"]
    assert words(tmp_path, "echo", "$HOME", "a b")[-1] == "echo '$HOME' 'a b'"


def test_a_terminal_is_asked_for_where_there_is_one(tmp_path):
    assert "-t" in words(tmp_path, "top", terminal=True)
    assert "-t" not in words(tmp_path, "top")


def test_only_the_right_host_key_is_known(tmp_path):
    words(tmp_path)
    assert (tmp_path / "known hosts").read_text() == "[127.0.0.1]:4022 ssh-ed25519 AAAA\n"


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client")
def test_openssh_understands_them(tmp_path):
    place = tmp_path / "100%h d"
    place.mkdir()
    argv = words(place)
    done = subprocess.run([argv[0], "-G", *argv[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    facts = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert facts["stricthostkeychecking"] in ("yes", "true")
    assert facts["user"] == "root"
    assert facts["port"] == "4022"
    assert facts["identitiesonly"] == "yes"
    assert "known hosts" in facts["userknownhostsfile"]


# --- QEMU's network ------------------------------------------------------------------------------


def test_the_port_is_the_one_that_leads_to_ssh():
    assert qemu.forwarded_port(USERNET) == 35885
    assert qemu.forwarded_port(USERNET.replace("\n", "\r\n")) == 35885
    assert qemu.forwarded_port("Hub -1 (net):\n") is None


def spec(key):
    from labctl.guests.qemu import GuestSpec
    from labctl.kernels.build import Image
    from labctl.lab.topology import Topology

    image = Image("stock", Path("bz"), "0", "0", None, (), None, "6.1", "gcc")
    return GuestSpec("g", image, Topology(), Path("initramfs"), "tcg", Path("folder"), ssh_key=key)


def test_a_guest_has_a_network_only_for_ssh_and_no_way_out():
    without = qemu.command(spec(None))
    assert without[without.index("-nic") + 1] == "none"
    assert "-netdev" not in without
    argv = qemu.command(spec(Path("key")))
    options = argv[argv.index("-netdev") + 1].split(",")
    assert "restrict=on" in options
    assert "hostfwd=tcp:127.0.0.1:0-10.0.2.15:22" in options


@pytest.mark.parametrize("card", ["eth0", "enp0s10"])
def test_the_server_starts_on_the_card_whatever_its_name(tmp_path, card):
    # Names are those of the kernel, or of the host's udev under virtme-ng.
    (tmp_path / "net" / card / "device").mkdir(parents=True)
    (tmp_path / "net" / "lo").mkdir()
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("ifconfig", "mkdir", "mount", "mountpoint", "dropbearkey", "dropbear"):
        (tools / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (tools / name).chmod(0o755)
    script = (ROOT / "guest/ssh/start.sh").read_text()
    script = script.replace("/sys/class/net", f"{tmp_path}/net")
    script = script.replace("/dev/kmsg", f"{tmp_path}/kmsg")
    env = {"PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", script], env=env, capture_output=True, text=True, check=True, timeout=60
    )
    assert f"ifconfig {card} 10.0.2.15 netmask 255.255.255.0 up\n" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("dropbear ")
