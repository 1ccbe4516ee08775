"""guest/integrity, run on the host: slow processes are not taken for stuck ones."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

GUEST = Path(__file__).parent.parent.parent / "guest"


@pytest.fixture(scope="module")
def integrity(tmp_path_factory):
    """The program, compiled so that it is slow and has little patience."""
    program = tmp_path_factory.mktemp("integrity") / "integrity"
    sources = sorted((GUEST / "integrity").glob("*.c"))
    subprocess.run(["cc", "-O0", "-DEND_SECONDS=2", "-o", program, *sources], check=True)
    return program


def arguments(program, size, processes):
    words = ["exit", "--seconds", "1", "--size", size, "--processes", str(processes)]
    return [str(program), *words]


def test_a_slow_process_is_not_stuck(integrity):
    """A wave takes longer than the 2 s that a stuck process has."""
    done = subprocess.run(
        arguments(integrity, "24MiB", 64), capture_output=True, text=True, timeout=120
    )
    assert "by its deadline" not in done.stdout + done.stderr
    assert done.returncode == 0, done.stdout


def test_a_stuck_process_is_found(integrity):
    with subprocess.Popen(
        arguments(integrity, "512MiB", 1), stdout=subprocess.PIPE, text=True
    ) as started:
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
        end = time.monotonic() + 10
        while len(children.read_text().split()) < 3 and time.monotonic() < end:  # 2 neighbours
            time.sleep(0.001)
        os.kill(int(children.read_text().split()[-1]), signal.SIGSTOP)
        output, _ = started.communicate(timeout=60)
    assert started.returncode == 1
    assert "did not end by its deadline" in output
