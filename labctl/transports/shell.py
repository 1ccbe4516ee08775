"""Run a command through the POSIX shell of an SSH session, with an exact outcome. Pure.

SSH returns a command's status, but not the signal that ended it, and does not kill its
child processes or a command that exceeds its deadline. A small script around the command
needs only a shell, setsid and dd. It runs the command in a separate process group, and
prints the group, and at the end status and times, on stderr after a unique mark.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from labctl.errors import GuestLost
from labctl.transports import Outcome, Output
from labctl.transports.command import ignored, too_much

_MARK = "labctl-command"
_OWNER_DIGITS = 12
_NONCE_BYTES = 8
_LONGEST_HEADER_BYTES = 1 << 16  # with what the login shell prints before it
_END = rb" (\d{1,3}) (\d{1,12}\.\d{1,9}) (\d{1,12}\.\d{1,9})\n"
# Longer commands are sent on stdin: dropbear accepts 9000 bytes, and Linux no argument
# above 128 KiB.
_LONGEST_LINE_BYTES = 4000

# A separate process group: OpenSSH creates one, dropbear does not. Since the shell is then
# no group leader, setsid does not fork.
_LEAD = (
    "read -r pid name state parent group rest </proc/$$/stat; lead=; "
    '[ "$group" = $$ ] || lead=setsid; exec $lead /bin/sh -c "$@"'
)
# The shell's own message about a killed child must not mix with the command's stderr.
# `exec` runs the program even if the shell has a builtin of that name. At the end, the
# whole group is killed, including this script.
_RUN = """\
mark=$1; size=$2; shift 2
echo "$mark $$" >&2
exec 3>&2 2>/dev/null
[ "$size" = 0 ] || eval "set -- $(dd bs="$size" count=1 iflag=fullblock)"
read -r began rest </proc/uptime
( exec "$@" ) 2>&3 3>&-
status=$?
read -r ended rest </proc/uptime
echo "$mark $status $began $ended" >&3
kill -s KILL 0
"""
_KILL = 'kill -s KILL -- "-$1"'
# The brackets keep grep from matching its own command line.
_SWEEP = """\
for file in $(grep -l "$1" /proc/[0-9]*/cmdline); do
  pid=${file#/proc/}
  kill -s KILL -- "-${pid%/*}"
done
"""


def kill_line(group: int) -> bytes:
    """Return the shell line that kills a process group."""
    return _shell(_KILL, str(group))


def sweep_line(owner: str) -> bytes:
    """Return the shell line that kills all commands that `owner` started earlier."""
    return _shell(f"exec 2>/dev/null\n{_SWEEP}", _mark(owner).replace("-", "[-]", 1))


def _mark(owner: str) -> str:
    return f"{_MARK}-{hashlib.sha256(owner.encode()).hexdigest()[:_OWNER_DIGITS]}"


def _shell(script: str, *words: str | bytes) -> bytes:
    return b" ".join([b"exec /bin/sh -c", *map(_quoted, [script, "sh", *words])])


def _quoted(word: str | bytes) -> bytes:
    return os.fsencode(shlex.quote(os.fsdecode(word)))


@dataclass(frozen=True, slots=True)
class Request:
    """An encoded command: the shell line, and the bytes to send before its input."""

    text: str
    mark: bytes
    line: bytes
    ahead: bytes = b""

    @classmethod
    def of(cls, text: str, words: Sequence[bytes], owner: str) -> Request:
        """Return the request for a command; `owner` identifies it for `sweep_line`."""
        mark = f"{_mark(owner)}-{os.urandom(_NONCE_BYTES).hex()}"
        start = (_RUN, "sh", mark)
        line = _shell(_LEAD, *start, "0", *words)
        if len(line) <= _LONGEST_LINE_BYTES:
            return cls(text, mark.encode(), line)
        quoted = b" ".join(map(_quoted, words))
        return cls(text, mark.encode(), _shell(_LEAD, *start, str(len(quoted))), quoted)


@dataclass(slots=True)
class Reply:
    """The output received for a request so far, without the data passed to `output`."""

    request: Request
    output: Output | None = None
    group: int | None = None  # the command's process group, None until received
    most_bytes: int = 32 << 20
    where: str = ""
    _stdout: bytearray = field(default_factory=bytearray)
    _stderr: bytearray = field(default_factory=bytearray)

    def take(self, number: int, data: bytes) -> None:
        """Add received data of stdout (1) or stderr (2).

        Raises:
            BadOutput: the command printed more than is kept.
            GuestLost: the shell printed much before the command's start.
        """
        if number == 2:
            self._take_stderr(data)
        elif self.output is not None:
            self.output(1, data)
        else:
            self._stdout += data
        if len(self._stdout) + len(self._stderr) > self.most_bytes:
            raise too_much(self.request.text, self.most_bytes, self.where)

    def drop(self) -> None:
        """Keep nothing of the output from now on: the command is being killed."""
        if self.output is None:
            self._stdout.clear()
            self.output = ignored

    def _take_stderr(self, data: bytes) -> None:
        self._stderr += data
        if self.group is None:
            header = re.search(re.escape(self.request.mark) + rb" (\d{1,10})\n", self._stderr)
            if header is None:
                if len(self._stderr) > _LONGEST_HEADER_BYTES:
                    what = f"the shell does not start `{self.request.text}`"
                    raise GuestLost(f"{what}, but prints errors", where=self.where)
                return
            self.group = int(header[1])
            del self._stderr[: header.end()]
        if self.output is not None:
            kept = _mark_at(self._stderr, self.request.mark)
            self._give(bytes(self._stderr[:kept]))
            del self._stderr[:kept]

    def _give(self, data: bytes) -> bytes:
        """Pass standard error to `output` if there is one; return the rest."""
        if self.output is None:
            return data
        if data:
            self.output(2, data)
        return b""

    def outcome(self, where: str) -> Outcome:
        """Return the outcome, once the session has ended.

        Raises:
            GuestLost: the session ended before the command did.
        """
        errors = bytes(self._stderr)
        ends = list(re.finditer(re.escape(self.request.mark) + _END, errors))
        if self.group is None or not ends:
            output = errors.decode("utf-8", "replace").strip()
            why = f": {output}" if output and self.group is None else ""
            raise GuestLost(f"no exit status received from `{self.request.text}`{why}", where=where)
        end = ends[-1]
        return Outcome(
            command=self.request.text,
            status=int(end[1]),
            stdout=bytes(self._stdout),
            # A leftover process may have written after the end mark.
            stderr=self._give(errors[: end.start()] + errors[end.end() :]),
            seconds=float(end[3]) - float(end[2]),
        )


def _mark_at(data: bytes | bytearray, mark: bytes) -> int:
    """Return the index where a mark starts in data, or may start at its end."""
    found = data.find(mark)
    if found >= 0:
        return found
    begun = range(min(len(mark) - 1, len(data)), 0, -1)
    return len(data) - next((size for size in begun if data.endswith(mark[:size])), 0)
