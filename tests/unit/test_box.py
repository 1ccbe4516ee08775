"""What a QEMU process may do, and who can reach it."""

import re
import resource
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.guests import box, launchers
from labctl.guests.qemu import GuestSpec
from labctl.kernels.build import Image
from labctl.lab.topology import Topology


@pytest.fixture
def process():
    with subprocess.Popen(["sleep", "60"]) as found:
        yield found
        found.kill()


def limits_of(pid):
    return resource.prlimit(pid, resource.RLIMIT_CORE), resource.prlimit(
        pid, resource.RLIMIT_NOFILE
    )


def test_a_process_gets_the_limits_and_labctl_keeps_its_own(process):
    before = limits_of(0)
    box.limit(process.pid)
    assert limits_of(process.pid) == ((0, 0), (box.OPEN_FILES, box.OPEN_FILES))
    assert limits_of(0) == before
    score = Path(f"/proc/{process.pid}/oom_score_adj")
    assert int(score.read_text()) == box.OOM_SCORE


def test_a_server_of_files_may_open_many(process):
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    box.limit(process.pid, serves_files=True)
    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == before
    assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (0, 0)


def test_lower_limits_stay(process):
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (100, 100))
    Path(f"/proc/{process.pid}/oom_score_adj").write_text("900")
    box.limit(process.pid)
    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (100, 100)
    assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "900"


def test_a_process_that_has_ended_is_no_error(process):
    process.kill()
    process.wait(10)
    box.limit(process.pid)


@pytest.mark.parametrize("transport", ["serial", "ssh"])
def test_a_guest_listens_on_the_loopback_alone(tmp_path, transport):
    image = Image("stock", Path("bz"), "1", "0", None, (), Path("config"), "6.1", "gcc")
    spec = GuestSpec("stock", image, Topology(), tmp_path / "initrd", "tcg", tmp_path)
    if transport == "ssh":
        spec = replace(spec, transport="ssh", ssh_key=tmp_path / "key")
    words = launchers.command(spec)
    text = " ".join(words)
    assert "-nodefaults" in words
    addresses = re.findall(r"(?:tcp|udp|vnc|telnet):([^:]*):", text)
    assert addresses == (["127.0.0.1"] if transport == "ssh" else [])
    assert all("path=" in word for word in words if word.startswith("socket,"))
    assert not {"-vnc", "-spice", "-gdb", "-s", "-qmp"} & set(words)
    assert transport == "serial" or "restrict=on" in text
