"""Whether the host's OOM killer ended a process: its control group and the kernel's log tell."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from labctl.host import cgroup

_LOG = Path("/dev/kmsg")
_RECORD_BYTES = 8192
_MOST_RECORDS = 100_000
# The kernel's log has a clock of its own.
_SLACK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class OomWatch:
    """The OOM kills in a process's control group when it started."""

    pid: int
    began: float
    group: str  # the file that counts them, empty if there is none
    count: int

    @classmethod
    def of(cls, pid: int) -> OomWatch:
        """Begin to watch a running process."""
        # The first is the group of the process; its parents count kills of others, too.
        group, count = next(iter(cgroup.oom_kills(pid=pid).items()), ("", 0))
        return cls(pid, time.monotonic(), group, count)

    def evidence(self) -> str:
        """Return what shows that the OOM killer ended the process, an empty text if nothing."""
        if line := _logged(self.pid, self.began):
            return f"the kernel's log has: {line}"
        if self.group and cgroup.oom_count(Path(self.group)) > self.count:
            return f"{self.group} counts a new oom_kill"
        return ""


def _logged(pid: int, since: float) -> str:
    """Return the kernel's message that it killed a process for its memory."""
    try:
        log = os.open(_LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    found = ""
    try:
        for _ in range(_MOST_RECORDS):
            try:
                record = os.read(log, _RECORD_BYTES).decode("utf-8", "replace")
            except BrokenPipeError:  # overwritten by newer records meanwhile
                continue
            except OSError:  # the end, or not allowed
                break
            line = killed(record, pid, since)
            found = line or found
    finally:
        os.close(log)
    return found


def killed(record: str, pid: int, since: float) -> str:
    """Return the text of a record of /dev/kmsg if it says that the OOM killer ended `pid`.

    `since` is the time in seconds since boot before which it was another process.
    """
    head, _, text = record.partition(";")
    fields = head.split(",")
    if len(fields) < 3 or not fields[2].isdecimal():
        return ""
    if int(fields[2]) / 1e6 < since - _SLACK_SECONDS:
        return ""
    line = text.partition("\n")[0]
    return line if re.search(rf"\bKilled process {pid} \(", line) else ""
