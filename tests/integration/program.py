"""Run the labctl program as users do."""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

BOOT_SECONDS = 180
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def _prepare():
    """Make labctl die with the test runner, and receive Ctrl-C."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # A shell without job control makes its background processes ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Labctl:
    """The labctl program in a lab's folder."""

    def __init__(self, folder, python=sys.executable):
        self.folder = folder
        self.python = python
        self.started = []

    def argv(self, *words):
        return [self.python, "-m", "labctl", *words]

    def __call__(self, *words, check=True, stdin=subprocess.DEVNULL):
        done = subprocess.run(
            self.argv(*words),
            cwd=self.folder,
            capture_output=True,
            text=True,
            stdin=stdin,
            preexec_fn=_prepare,
        )
        assert "Traceback" not in done.stderr
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def json(self, *words, check=True):
        return json.loads(self(*words, check=check).stdout)

    def start(self, *words):
        process = subprocess.Popen(
            self.argv(*words),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_prepare,
        )
        self.started.append(process)
        return process

    def end(self):
        """Stop the processes that a failed test left."""
        for process in self.started:
            process.kill()
            process.wait(60)
        for pid in self.guests_running():
            os.kill(pid, signal.SIGKILL)

    def samples(self):
        files = sorted((self.folder / ".labctl/runs").glob("*/samples.jsonl"))
        return files[-1].read_bytes().splitlines() if files else []

    def guests_running(self):
        """Return the pids of the QEMU processes of this lab's folder."""
        pids = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    if re.match(r"qemu-system", (entry / "comm").read_text()) and Path(
                        (entry / "cwd").readlink()
                    ).is_relative_to(self.folder):
                        pids.append(int(entry.name))
                except OSError:
                    continue
        return pids


def wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.1)
