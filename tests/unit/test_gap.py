"""A signal in the gap between Python's look for signals and a call that waits.

Its handler runs when the call returns, so that nothing may wait long in one call.
"""

import ast
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import labctl

TESTS = Path(__file__).parents[1]
SOURCE = Path(__file__).with_name("gap.c")
SLEEP = "['sleep', '1000']"
START = """
import ctypes, fcntl, os, signal, sys; from pathlib import Path
from labctl import cli, proc
signal.signal(signal.SIGTERM, signal.SIG_DFL)
def arm():
    ctypes.c_int.in_dll(ctypes.CDLL(None), "gap_armed").value = 1
"""
WAITS = {
    "a program's end": f"arm(); proc.run({SLEEP}, timeout_seconds=900)",
    "a program beside": f"with proc.spawn({SLEEP}) as sleep: arm(); sleep.wait(900)",
    "a program in the foreground": f"arm(); proc.foreground({SLEEP})",
    "a file of records": (
        "from labctl.runs import jsonl; path = Path(sys.argv[1], 'records')\n"
        "held = path.open('w'); fcntl.flock(held, fcntl.LOCK_EX)\n"
        "arm(); jsonl.append(path, b'{}')"
    ),
    "the other tests": (
        "from labctl.testing.leases import Quiet; path = Path(sys.argv[1])\n"
        "held = (path / 'door.lock').open('w'); fcntl.flock(held, fcntl.LOCK_EX)\n"
        "arm()\n"
        "with Quiet(path).working(): pass"
    ),
}


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")
    library = tmp_path_factory.mktemp("gap") / "gap.so"
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, "-o", library, SOURCE], check=True)
    return library


@pytest.mark.parametrize("wait", WAITS)
def test_a_signal_right_before_a_wait_ends_it_all_the_same(preloaded, tmp_path, wait):
    body = "\n".join(f"    {line}" for line in WAITS[wait].splitlines())
    program = f"{START}def action():\n{body}\ncli._quietly(action)\n"
    owner = subprocess.Popen(
        ["env", f"LD_PRELOAD={preloaded}", sys.executable, "-c", program, tmp_path],
        stderr=subprocess.PIPE,
    )
    try:
        _, result = owner.communicate(timeout=40)
    finally:
        owner.kill()
    assert (owner.returncode, result) == (128 + signal.SIGTERM, b"")


@pytest.mark.parametrize("folder", [labctl.__path__[0], TESTS], ids=["labctl", "tests"])
def test_nothing_sleeps_long_in_one_call(folder):
    long = []
    for path in Path(folder).rglob("*.py"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            slept = re.findall(r"time\.sleep\(([0-9.]+)\)", line)
            if any(float(seconds) > 1 for seconds in slept) or "signal.pause" + "(" in line:
                long.append(f"{path}:{number}: {line.strip()}")
    assert not long


def test_no_wait_of_labctl_is_without_an_end():
    endless = []
    for path in Path(labctl.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called, text = node.func.attr, ast.unparse(node)
                bare = called in {"wait", "communicate"} and not node.args + node.keywords
                blocks = called in {"flock", "lockf"} and not re.search("LOCK_(NB|UN)", text)
                if bare or blocks:
                    endless.append(f"{path}:{node.lineno}: {text}")
    assert [place for place in endless if "labctl/flock.py:" not in place] == []
