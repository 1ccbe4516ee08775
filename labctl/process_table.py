"""Processes of this host, read from /proc."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

from labctl.signals import STEP_SECONDS

TERMINATE_SECONDS = 3.0  # between SIGTERM and SIGKILL
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def started_ticks(pid: int) -> int | None:
    """Return the start time of a process in clock ticks since boot, None if it has ended.

    Pids are reused; a pid and its start time identify a process.
    """
    fields = _stat(pid)
    return None if not fields or fields[0] == "Z" else int(fields[19])


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped, by SIGSTOP or a debugger."""
    fields = _stat(pid)
    return bool(fields) and fields[0] in "Tt"


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and of its reaped children, 0 if it does not exist."""
    fields = _stat(pid)
    # utime, stime, cutime, cstime
    return sum(map(int, fields[11:15])) / _TICKS_PER_SECOND if fields else 0.0


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on, [] if the process does not exist."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    # The name of the program is in parentheses and may itself contain parentheses.
    return stat.rpartition(")")[2].split()


class Found:
    """A process started by an earlier labctl, identified by pid and start time."""

    def __init__(self, pid: int, ticks: int | None) -> None:
        self.pid = pid
        self._ticks = ticks

    def poll(self) -> int | None:
        """Return None while the process runs, 0 after it ended: only its parent gets its status."""
        return None if self._ticks is not None and started_ticks(self.pid) == self._ticks else 0

    def end(self) -> int:
        """Send SIGTERM, then SIGKILL. Do nothing if the process ended or its pid was reused."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return 0
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                # The descriptor refers to one process, so this check cannot become outdated.
                if self.poll() is not None:
                    return 0
                signal.pidfd_send_signal(descriptor, number)
                _await_end(descriptor, TERMINATE_SECONDS)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)
        return 0


def _await_end(descriptor: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([descriptor], [], [], min(STEP_SECONDS, left))[0]:
            return
