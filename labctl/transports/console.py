"""Follow the console log of a guest and find kernel complaints in it.

QEMU writes the log file, so that no output is lost and the file outlives labctl.
`splats.scan` recognises the kernel's complaints. Programs in the guest can also write to
the console; their lines have no printk time.
"""

from __future__ import annotations

import math
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from labctl import files
from labctl.transports import splats
from labctl.transports.splats import PREFIX, scan

__all__ = ["Complaint", "Console", "Follower", "scan"]

_READY = re.compile(PREFIX + r"labctl: ready boot=(?P<boot>[0-9a-f-]{36})")
_NODE = re.compile(PREFIX + r"labctl: (?P<text>(?:node \d+|cpus) .*)")
_SSH_HOST_KEY = re.compile(PREFIX + r"labctl: ssh host key (?P<key>ssh-\S+ [\w+/=]+)\s*$")
# printk writes at most 2 KiB. The end of a longer line is scanned: a program wrote the
# start, and the kernel's text is last.
LINE_BYTES = 4096
_CHUNK_BYTES = 2**20
MOST_BYTES = 2**26
_TAIL_BYTES = 2**22
# The first and the last complaints are kept.
_MOST_COMPLAINTS = 1000
_MOST_NODES = 1100  # Linux supports 1024; a line more has the packages


@dataclass(frozen=True, slots=True)
class Complaint:
    """A kernel complaint: its kind, its line number in the console log (from 1), its text."""

    kind: str
    line_number: int
    text: str


@dataclass(slots=True)
class Follower:
    """Reads new output of a console log as bytes, starting with its last `lines` lines."""

    path: Path
    lines: int
    _file: tuple[int, int] | None = None
    _offset: int = 0

    def read(self) -> bytes:
        """Return the new output; a log replaced by a new boot is read from its start."""
        try:
            with files.reading(self.path) as log:
                facts = os.fstat(log.fileno())
                file = (facts.st_dev, facts.st_ino)
                begins = self._file is None
                if file != self._file or facts.st_size < self._offset:
                    self._file, self._offset = file, 0
                if begins:
                    self._offset = max(0, facts.st_size - (self.lines + 1) * LINE_BYTES)
                log.seek(self._offset)
                data = log.read(-1 if begins else _CHUNK_BYTES)
        except FileNotFoundError:
            return b""
        self._offset += len(data)
        if begins:
            data = b"".join(data.splitlines(keepends=True)[-self.lines :] if self.lines else [])
        return data.replace(b"\r", b"")


@dataclass(slots=True)
class Console:
    """Follows a growing console log; call `poll` to read what is new.

    The first `most_bytes` are read, then the log counts as full.
    """

    path: Path
    most_bytes: int = MOST_BYTES
    boot_id: str | None = None
    ssh_host_key: str | None = None
    nodes: list[str] = field(default_factory=list)  # init's line for each NUMA node
    complaints: list[Complaint] = field(default_factory=list)
    lines: int = 0
    is_full: bool = False
    _offset: int = 0
    _rest: bytes = b""
    _is_cut: bool = False
    _has_times: bool = False

    def poll(self, most_seconds: float = math.inf) -> bool:
        """Read the output since the last call; return whether there was any.

        After `most_seconds`, the rest is left for the next call.
        """
        began, ends = self._offset, time.monotonic() + most_seconds
        try:
            with files.reading(self.path) as log:
                size = os.fstat(log.fileno()).st_size  # the log may grow during the read
                self.is_full = size >= self.most_bytes
                size = min(size, self.most_bytes)
                log.seek(began)
                while self._offset < size and (data := log.read(_CHUNK_BYTES)):
                    self._offset += len(data)
                    self._take(data)
                    if time.monotonic() >= ends:
                        break
        except FileNotFoundError:
            return False
        return self._offset > began

    def _take(self, data: bytes) -> None:
        *whole, rest = (self._rest + data).split(b"\n")
        for raw in whole:
            if b"[" not in raw and self._has_times and self.boot_id is not None:
                self.lines += 1  # a program's: a flood is read faster than it is written
                self._is_cut = False
                continue
            is_cut = self._is_cut or len(raw) > LINE_BYTES
            self._line(raw[-LINE_BYTES:].decode("utf-8", "replace").rstrip("\r"), is_cut=is_cut)
            self._is_cut = False
        self._is_cut = self._is_cut or len(rest) > LINE_BYTES
        self._rest = rest[-LINE_BYTES:]

    def _line(self, line: str, *, is_cut: bool) -> None:
        self.lines += 1
        kernels = splats.torn(line) if is_cut else splats.stamped(line)
        self._has_times = self._has_times or kernels is not None
        if kernels is not None:
            line = kernels
        elif is_cut:
            return
        # Before the kernel prints times, and with times disabled, a program's line cannot
        # be distinguished from the kernel's.
        kind = scan(line) if kernels is not None or not self._has_times else None
        if self.boot_id is None:  # later lines could be printed by any program
            self._note_init(line)
        elif kernels is not None and splats.is_banner(line):
            kind = "reboot"
        if kind:
            if len(self.complaints) >= _MOST_COMPLAINTS:
                del self.complaints[_MOST_COMPLAINTS // 2]
            self.complaints.append(Complaint(kind, self.lines, line))

    def _note_init(self, line: str) -> None:
        """Parse a line of the guest's init."""
        if ready := _READY.match(line):
            self.boot_id = ready["boot"]
        elif host_key := _SSH_HOST_KEY.match(line):
            self.ssh_host_key = host_key["key"]
        elif (node := _NODE.match(line)) and len(self.nodes) < _MOST_NODES:
            self.nodes.append(node["text"])

    @property
    def bytes_seen(self) -> int:
        """Number of bytes read from the log."""
        return self._offset

    def panic(self) -> Complaint | None:
        """Return the kernel panic, None without one."""
        return next((c for c in self.complaints if c.kind == "panic"), None)

    def tail(self, lines: int = 100) -> list[str]:
        """Return the last `lines` lines of the log, of at most 4 MiB.

        Too long lines are cut at the start.
        """
        try:
            with files.reading(self.path) as log:
                size = os.fstat(log.fileno()).st_size
                log.seek(max(0, size - min((lines + 1) * LINE_BYTES, _TAIL_BYTES)))
                data = log.read(_TAIL_BYTES)
        except FileNotFoundError:
            return []
        # Split as `poll` does; str.splitlines() also splits at other characters.
        found = data.decode("utf-8", "replace").replace("\r", "").split("\n")
        if not found[-1]:
            found.pop()
        return [_end(line) for line in found[-lines:]] if lines else []


def _end(line: str) -> str:
    return line if len(line) <= LINE_BYTES else f"… {line[-LINE_BYTES:]}"
