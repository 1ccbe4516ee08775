"""Workers in network namespaces, of which one is cut off: no packet says that it is gone."""

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass

import pytest
from scheduler_cluster import Cluster, Run

NAMES = ("near", "far", "cut")


@dataclass(frozen=True)
class Place:
    """A network namespace, whose only link is a veth pair that ends in `link` here."""

    name: str
    link: str
    port: int
    number: int

    @property
    def address(self):
        return f"tls://10.213.{self.number}.1:{self.port}"

    @property
    def start(self):
        return ("ip", "netns", "exec", self.name)


def ip(*words, check=True):
    return subprocess.run(("ip", *words), capture_output=True, text=True, check=check, timeout=60)


@contextlib.contextmanager
def namespace(number, port):
    """Add a namespace with a link to this one; remove both."""
    name = f"labctl-{os.getpid()}-{number}"
    here, there = f"lab{os.getpid()}h{number}", f"lab{os.getpid()}n{number}"
    ip("netns", "add", name)
    try:
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        ip("addr", "add", f"10.213.{number}.1/24", "dev", here)
        ip("link", "set", here, "up")
        for words in (
            ("addr", "add", f"10.213.{number}.2/24", "dev", there),
            ("link", "set", there, "up"),
            ("link", "set", "lo", "up"),
        ):
            ip("-n", name, *words)
        yield Place(name, here, port, number)
    finally:
        ip("link", "delete", here, check=False)
        ip("netns", "delete", name, check=False)


def why_not():
    """Return why this host cannot add network namespaces; empty if it can."""
    if os.geteuid():
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "no ip, of the package iproute2"
    with contextlib.suppress(subprocess.SubprocessError), namespace(0, 0):
        return ""
    return "this host cannot add a network namespace with a veth pair"


@pytest.fixture
def cluster(tmp_path):
    why = why_not()
    if why:
        pytest.skip(why)
    with contextlib.ExitStack() as stack:
        cluster = Cluster(tmp_path, stack, "tls", listens="0.0.0.0")
        port = int(cluster.address.rpartition(":")[2])
        cluster.address = f"tls://127.0.0.1:{port}"
        cluster.places = {}
        for number, name in enumerate(NAMES, start=1):
            place = stack.enter_context(namespace(number, port))
            cluster.places[name] = place
            cluster.start(name, place=place)
        cluster.wait_for(*NAMES)
        stack.callback(cluster.end)
        yield cluster


def test_a_worker_whose_link_is_cut_loses_its_open_block_only(cluster, tmp_path):
    run = Run(tmp_path / "run", blocks=8, wait=0.1)
    done = []

    def cut(progress):
        if progress.host == "cut" and progress.repetition > 2 and not done:
            done.append(progress)
            ip("link", "set", cluster.places["cut"].link, "down")

    run.on_progress = cut
    samples = run.on(cluster, patience_seconds=4.0)
    assert done, "the worker measured"
    assert cluster.workers["cut"].poll() is None, "it is cut off, not dead"
    local = Run(tmp_path / "local", blocks=8).locally()
    assert sorted(one.key for one in samples) == sorted(one.key for one in local)
    of_block = {}
    for one in samples:
        of_block.setdefault(one.block, set()).add(one.host_name)
    assert all(len(names) == 1 for names in of_block.values())
    lost = [warning for warning in run.warnings if warning.startswith("worker cut: ")]
    assert lost, run.warnings
    assert all(one.endswith(" goes to another worker") for one in lost)
