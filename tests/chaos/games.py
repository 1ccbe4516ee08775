"""Whole commands of labctl against a hostile guest: its memory, its disk, and how they end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import broken
import hostile_qemu
import in_memory
import reliability
from tabulate import tabulate

from labctl.lab.limits import GuestLimits
from labctl.units import MIB

HERE = Path(__file__).parent
MEMORY_BYTES = 300 * MIB
RECORD_BYTES = MIB  # what labctl itself writes in a run: its description, host, other samples
END_SECONDS = 300.0  # of a command; deadlines of labctl are fractions of it
POLL_SECONDS = 0.005
ESCAPE = re.compile(r"[\x1b\x9b\x07]")
GAMES = hostile_qemu.GAMES
LAB = """\
version: 1
defaults: {{accel: tcg, guest: one, transport: {transport}}}
guests: {{one: {{nodes: 1, memory_per_node: 256MiB}}}}
kernels:
  hostile: {{source: 'image:hostile/bzImage', command_line: game={number}}}
workloads:
  game:
    {{command: freebench, parameters: {{op: free, size: 1MiB}}, metric: elapsed, timeout: 1s}}
experiments: {{e: {{workload: game, kernels: [hostile], baseline: hostile}}}}
statistics: {{blocks: {{min: 2, max: 2}}, repetitions: 1, warmup: 0, stop_at_half_width: none}}
"""
QEMU = """\
#!/bin/sh
case " $*" in *" --version"*) echo "QEMU emulator version 7.2.0 (a fake)"; exit;; esac
case " $*" in *" -kernel "*) exec {python} {program} "$@";; esac
exit 1
"""
TEXT = """\
## Hostile guests

A guest that sends anything, for ever: each game is one command of labctl with the default
`limits:`, against a QEMU whose guest plays it. Written by `tox -e chaos -- --games --write`; do not
edit.

"""
TAIL = """
- **held**: the command ended by itself, without a traceback; it left no process, socket or
  temporary file, wrote nothing outside of its state folder and no escape sequence to its output,
  and took less than 300 MiB of memory and no more disk than the limit.
- **memory**: peak (VmHWM) of the process that runs labctl.
- **disk**: most bytes that the command had in its state folder at one time; the limit is `console:`
  for each boot, `output:` for each repetition, `file:` for a copy, and 1 MiB.

`labctl run` plays the games, those of gzip `Guest.get` and `Guest.get_file`. Deadlines are
shortened. There are none over 9p, which QEMU serves: labctl reads nothing of it.
"""


@dataclass
class Played:
    """One game: how the command ended, and what it used."""

    way: str
    name: str
    ending: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0
    disk_bytes: int = 0
    limit_bytes: int = 0
    faults: list[str] = field(default_factory=list)


class Table:
    """A lab whose only kernel is hostile, and the QEMU that plays its games."""

    def __init__(self) -> None:
        self.folder = in_memory.folder("labctl-games-")
        self.lab = self.folder / "lab"
        self.temporary = self.folder / "tmp"
        tools = self.folder / "tools"
        for each in (self.lab, self.temporary, tools, self.folder / "locks"):
            each.mkdir()
        broken.image(self.lab / "hostile", "hostile")
        qemu = tools / "qemu-system-x86_64"
        qemu.write_text(QEMU.format(python=sys.executable, program=HERE / "hostile_qemu.py"))
        qemu.chmod(0o755)
        paths = [broken.ROOT, HERE.parent]
        self.env = os.environ | {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(self.temporary),
            "HOME": str(self.folder),
        }
        self.boots = self.lab / "hostile" / "boots"
        self._write(0, "ssh")
        self._command("labctl", "up", "hostile")  # builds what the guests boot from
        self._command("labctl", "down")

    def play(self, number: int) -> Played:
        """Play a game, and return what came of it."""
        way, name = GAMES[number]
        played = Played(way, name)
        self._write(number, "ssh" if way == "SSH" else "serial")
        self.boots.unlink(missing_ok=True)
        before = self._size(), set(self._outside())
        words = ["labctl", "run", "--json", "e"]
        if way == "gzip":
            words = ["copy"]
        began = time.monotonic()
        process = self._start(*words)
        while process.poll() is None:
            played.disk_bytes = max(played.disk_bytes, self._size() - before[0])
            if time.monotonic() - began > END_SECONDS:
                process.kill()
                played.faults.append(f"still running after {END_SECONDS:g} s")
            time.sleep(POLL_SECONDS)
        out, err = process.communicate()
        played.seconds = time.monotonic() - began
        played.peak_bytes = int((self.folder / "peak").read_text())
        played.limit_bytes = self._limit(way)
        self._judge(played, process.returncode, out, err)
        if more := set(self._outside()) - before[1]:
            played.faults.append(f"files outside of the state folder: {sorted(more)}")
        subprocess.run(
            ["rm", "-rf", self.lab / ".labctl/runs", self.lab / ".labctl/copy"], check=True
        )
        return played

    def _judge(self, played: Played, status: int, out: str, err: str) -> None:
        samples = [
            json.loads(line)
            for path in self.lab.glob(".labctl/runs/*/samples.jsonl")
            for line in path.read_text().splitlines()
        ]
        faults = sorted({one.get("fault") or one["status"] for one in samples})
        if played.way == "gzip":
            faults = sorted(set(out.splitlines()))
            played.faults += [] if status == 0 else ["a copy did not fail, or left a part"]
        played.ending = ", ".join(faults) or f"exit status {status}"
        if status not in (0, 1, 2) or "Traceback" in err:
            played.faults.append(f"status {status}: {err[-400:]}")
        if ESCAPE.search(out + err):
            played.faults.append("an escape sequence was printed")
        if played.peak_bytes >= MEMORY_BYTES:
            played.faults.append(f"{played.peak_bytes >> 20} MiB of memory")
        if played.disk_bytes > played.limit_bytes:
            played.faults.append(f"{played.disk_bytes >> 20} MiB of disk")
        for path in self.lab.rglob("*"):
            if path.is_socket() or path.suffix in (".tmp", ".part", ".partial"):
                played.faults.append(f"left: {path.relative_to(self.lab)}")
        if left := self._processes():
            played.faults.append(f"still running: {left}")

    def _limit(self, way: str) -> int:
        limits = GuestLimits()
        boots = self.boots.stat().st_size if self.boots.exists() else 0
        data = limits.file if way == "gzip" else boots * limits.output
        return boots * limits.console + data + RECORD_BYTES

    def _write(self, number: int, transport: str) -> None:
        (self.lab / "lab.yaml").write_text(LAB.format(number=number, transport=transport))

    def _start(self, *words: str) -> subprocess.Popen[str]:
        argv = [sys.executable, HERE / "played.py", self.folder, *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            argv, cwd=self.lab, env=self.env, text=True, errors="replace", **pipes
        )  # type: ignore[call-overload, no-any-return]

    def _command(self, *words: str) -> None:
        process = self._start(*words)
        out, err = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{' '.join(words)}: {out}{err}")

    def _size(self) -> int:
        total = 0
        for folder, _, names in os.walk(self.lab / ".labctl"):
            for name in names:
                try:
                    total += os.lstat(f"{folder}/{name}").st_size
                except OSError:  # it was renamed or removed
                    continue
        return total

    def _outside(self) -> list[Path]:
        """Return all files that are not in the state folder."""
        inside = self.lab / ".labctl"
        places = (self.lab, self.temporary)
        known = {self.lab / "lab.yaml", inside, self.boots}
        return [
            path
            for place in places
            for path in place.rglob("*")
            if inside not in path.parents and path not in known
        ]

    def _processes(self) -> list[str]:
        """Return the command lines of QEMUs that still run in the lab."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cwd").readlink().is_relative_to(self.lab):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found


def play(only: str, minutes: float) -> tuple[list[Played], float]:
    """Play the games whose way or name has a text, within a time limit; return also the seconds."""
    began = time.monotonic()
    table = Table()
    played = []
    for number in _in_turns():
        way, name = GAMES[number]
        if only in f"{way}: {name}" and time.monotonic() < began + 60 * minutes:
            played.append(table.play(number))
            one = played[-1]
            print(f"{way}: {name}: {one.ending}; {one.seconds:.1f} s, {one.peak_bytes >> 20} MiB; "
                  f"{'; '.join(one.faults) or 'held'}", flush=True)  # fmt: skip
    return played, time.monotonic() - began


def _in_turns() -> list[int]:
    """Return the numbers of the games, those of each way by turns."""
    ways = [way for way, _ in GAMES]
    places = {number: ways[:number].count(way) for number, way in enumerate(ways)}
    return sorted(places, key=lambda number: (places[number], number))


def page(played: list[Played], seconds: float, command: str) -> str:
    """Return the section of the page."""
    rows = [
        [one.way, one.name, one.ending, "no" if one.faults else "yes", _mib(one.peak_bytes),
         f"{_mib(one.disk_bytes)} of {_mib(one.limit_bytes)}"]
        for one in sorted(played, key=lambda one: GAMES.index((one.way, one.name)))
    ]  # fmt: skip
    held = sum(not one.faults for one in played)
    heads = ["over", "game", "the samples say", "held", "memory", "disk"]
    most = max((one.peak_bytes for one in played), default=0)
    summary = f"{held} of {len(played)} games held, with at most {_mib(most)} of memory."
    if len(played) < len(GAMES):
        summary += f" There are {len(GAMES)}: the others were left out."
    where = reliability.where(command, seconds)
    return f"{TEXT}{where}\n\n{summary}\n\n{tabulate(rows, heads, 'github')}\n{TAIL}"


def write(played: list[Played], seconds: float, command: str) -> None:
    """Write the section of the page."""
    reliability.put("games", page(played, seconds, command))


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.1f} MiB" if size_bytes < 10 * MIB else f"{size_bytes >> 20} MiB"
