"""The console of a guest: only the kernel writes it, the lab keeps it whole and watches it.

QEMU itself writes the log file, so that nothing is lost while nobody reads and
the file outlives labctl. `Console` follows that file; `scan` knows what a sick
kernel says.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

# A message begins its line, behind printk's time and perhaps its caller: text
# in the middle of a line is somebody quoting.
_PREFIX = r"^(?:<\d+>)?(?:\[ *\d+\.\d+\](?:\[ *[CT]\d+\])? ?)?"
_READY = re.compile(_PREFIX + r"labctl: ready boot=(?P<boot>[0-9a-f-]{36})")
_SSH_HOST_KEY = re.compile(_PREFIX + r"labctl: ssh host key (?P<key>ssh-\S+ [\w+/=]+)\s*$")

# In the order in which a line is tried: the special before the general.
_COMPLAINTS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(_PREFIX + pattern))
    for kind, pattern in (
        ("panic", r"Kernel panic - not syncing"),
        (
            "bad-page",
            r"BUG: Bad (?:page|rss-counter)|BUG: non-zero pgtables_bytes|.*bad p[gmu4]+d ",
        ),
        ("bad-page", r"pagealloc: (?:single bit error|memory corruption)"),
        ("soft-lockup", r"watchdog: BUG: soft lockup"),
        ("hard-lockup", r"(?:NMI watchdog|watchdog): .*(?:hard|HARD) (?:lockup|LOCKUP)"),
        ("hung-task", r"INFO: task .* blocked for more than"),
        ("rcu-stall", r"rcu: (?:INFO|ERROR): .*(?:stall|kthread starved)"),
        ("bug", r"kernel BUG at |(?:invalid opcode): "),
        (
            "oops",
            r"BUG: (?:kernel NULL|unable to handle)|Oops|general protection fault|double fault"
            r"|Unable to handle kernel |Internal error: ",  # arm64
        ),
        ("oom-kill", r"(?:Out of memory|Memory cgroup out of memory): Killed process"),
        ("bug", r"BUG: "),
        (
            "warning",
            r"WARNING: |INFO: possible (?:circular|recursive|irq)|INFO: trying to register"
            r"|\*\*\* DEADLOCK \*\*\*|kmemleak: \d+ new suspected memory leaks",
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Complaint:
    """One sign of a sick kernel: its kind, its line of the console (from 1), the line itself."""

    kind: str
    line_number: int
    text: str


def scan(line: str) -> str | None:
    """Return the kind of complaint that a console line is, or None."""
    return next((kind for kind, pattern in _COMPLAINTS if pattern.search(line)), None)


@dataclass(slots=True)
class Follower:
    """Yields what is written to a console log, as bytes; begins with its last `lines` lines."""

    path: Path
    lines: int
    _file: tuple[int, int] | None = None
    _offset: int = 0

    def read(self) -> bytes:
        """Return what is new; a log that was replaced, by a new boot, is read from its start."""
        try:
            with self.path.open("rb") as log:
                facts = os.fstat(log.fileno())
                file = (facts.st_dev, facts.st_ino)
                first = self._file is None
                if file != self._file or facts.st_size < self._offset:
                    self._file, self._offset = file, 0
                log.seek(self._offset)
                data = log.read()
        except FileNotFoundError:
            return b""
        self._offset += len(data)
        if first:
            data = b"".join(data.splitlines(keepends=True)[-self.lines :])
        return data.replace(b"\r", b"")


@dataclass(slots=True)
class Console:
    """Follows a growing console log; call `poll` to read what is new."""

    path: Path
    boot_id: str | None = None
    ssh_host_key: str | None = None
    complaints: list[Complaint] = field(default_factory=list)
    lines: int = 0
    _offset: int = 0
    _rest: bytes = b""

    def poll(self) -> bool:
        """Read what was written since the last call; return whether there was anything."""
        try:
            with self.path.open("rb") as log:
                log.seek(self._offset)
                data = log.read()
        except FileNotFoundError:
            return False
        self._offset += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        for raw in whole:
            self._line(raw.decode("utf-8", "replace").rstrip("\r"))
        return bool(data)

    def _line(self, line: str) -> None:
        self.lines += 1
        ready = _READY.search(line)
        if ready:
            self.boot_id = ready["boot"]
        host_key = _SSH_HOST_KEY.search(line)
        if host_key and self.boot_id is None:  # what comes later, anybody in the guest may say
            self.ssh_host_key = host_key["key"]
        kind = scan(line)
        if kind:
            self.complaints.append(Complaint(kind, self.lines, line))

    @property
    def bytes_seen(self) -> int:
        """How much of the log was read, in bytes."""
        return self._offset

    def panic(self) -> Complaint | None:
        """Return the panic, if the kernel died of one."""
        return next((c for c in self.complaints if c.kind == "panic"), None)

    def tail(self, lines: int = 100) -> list[str]:
        """Return the last `lines` lines of the log."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        text = data.decode("utf-8", "replace").replace("\r", "")
        return text.splitlines()[-lines:]
