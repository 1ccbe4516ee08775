"""Every parser of labctl as a function of bytes. It may raise LabError, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import in_memory

from labctl import observers
from labctl.arch import X86_64
from labctl.errors import LabError, UserError
from labctl.experiments import output, parse, tunables
from labctl.guests import bring_up, records, shape
from labctl.host import facts, load
from labctl.kernels import kconfig, kconfig_expression, kconfig_source
from labctl.lab.load import load as load_lab
from labctl.lab.topology import Topology
from labctl.nightly import history
from labctl.nightly.history import path_of
from labctl.runs import sample
from labctl.runs.folder import RunFolder
from labctl.series import mail
from labctl.series.folder import read_folder
from labctl.series.patch import Patch
from labctl.series.thread import read_mbox
from labctl.site import folder as site_folder
from labctl.transports import Outcome, exchange, frames
from labctl.transports.console import Console, Follower
from labctl.transports.serial import _Reply
from labctl.transports.shell import Reply, Request
from labctl.verify import memory, programs

CORPUS = Path(__file__).parent / "corpus"
_MARK = b"mark"
_TOPOLOGY = Topology(nodes=2, memory_per_node=256 << 20)
_PLUGGED = Topology(nodes=[{"cpus": 1, "memory": "128MiB", "hotplug": "256MiB"}])  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Parser:
    """A parser, and units that were found to take long when repeated: before, unit, after."""

    run: Callable[[bytes], object]
    repeated: tuple[tuple[bytes, bytes, bytes], ...] = ()

    def __call__(self, data: bytes) -> None:
        """Parse; a LabError is an answer, and its text has to be one too."""
        try:
            self.run(data)
        except LabError as error:
            str(error)


@cache
def _folder() -> Path:
    return in_memory.folder("labctl-fuzz-")  # each input is a file


@cache
def _path(name: str) -> Path:
    path = _folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _file(name: str, data: bytes) -> Path:
    path = _path(name)
    with open(path, "wb", 0) as file:  # noqa: PTH123 - a third of the time of Path.write_bytes
        file.write(data)
    return path


def _outcome(data: bytes, status: int = 0) -> Outcome:
    return Outcome("program", status, data, data[-100:], 1.0)


def _lab(data: bytes) -> None:
    load_lab(_file("lab/lab.yaml", data))


def _series(data: bytes) -> None:
    read_folder(_file("series/series", data).parent)


def _patch_folder(data: bytes) -> None:
    path = _file("folder/0001-one.patch", data)
    _all_of(*read_folder(path.parent).patches)


def _mbox(data: bytes) -> None:
    _all_of(*read_mbox(_file("mbox", data)).patches)


def _mails(data: bytes) -> None:
    for one in mail.mails(data):
        _ = one.has_diff
        one.trailers()


def _diff(data: bytes) -> None:
    for strip in (0, 1):
        _all_of(Patch("p", "p", data, strip=strip, reverse=strip == 0))


def _all_of(*patches: Patch) -> None:
    for one in patches:
        _ = one.subject, one.author, one.message
        _ = one.hash
        one.touches()


def _samples(data: bytes) -> None:
    RunFolder(_file("run/samples.jsonl", data).parent).store.samples()


def _sample(data: bytes) -> None:
    with suppress(UserError):
        sample.parse(data, "samples.jsonl:1").to_json()


def _run(data: bytes) -> None:
    RunFolder(_file("run/run.json", data).parent).read()


def _guest(data: bytes) -> None:
    found = records.read(_file("guest/guest.json", data).parent)
    if found is not None and found.spec is not None:
        found.machine()
        records.write(_folder() / "guest-written", found)


def _nights(data: bytes) -> None:
    history.read(_file(f"nights/{path_of(Path()).name}", data).parent)


def _site(data: bytes) -> None:
    site_folder.check(_file(f"site/{site_folder.MANIFEST}", data).parent)


def _ktap(data: bytes) -> None:
    for kind, status in (("selftests", 1), ("integrity", 0), ("integrity", 1), ("stress-ng", 3)):
        program = programs.Program(kind, "one", ("one",), 1.0)  # type: ignore[arg-type]
        programs.verdict_of(program, _outcome(data, status))


def _console(data: bytes) -> None:
    path = _file("console.log", b"")
    console, follower = Console(path), Follower(path, 5)
    step = len(data) // 3 + 1
    with path.open("ab", 0) as file:
        for start in range(0, len(data), step):
            file.write(data[start : start + step])
            console.poll()
            follower.read()
    console.panic()
    console.tail(20)
    shape.check(_TOPOLOGY, console.nodes, kernel="stock", where="console.log")


def _topology(data: bytes) -> None:
    bring_up.check(_PLUGGED, _outcome(data), kernel="stock", where="console.log")


def _frames(data: bytes) -> None:
    reader = frames.Reader()
    received = _Reply("program", None, 1 << 20, "guest")
    for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
        for frame in reader.feed(piece):
            if frame is None:
                continue
            if frame.type is frames.FrameType.TAKEN:
                frames.taken_of(frame)
            elif received.take(frame):
                received.outcome("guest")
                return


def _framed(data: bytes) -> None:
    """Feed the bytes as the payload of valid frames."""
    for kind in (frames.FrameType.EXIT, frames.FrameType.TAKEN, frames.FrameType.STDERR):
        with suppress(LabError):
            _frames(frames.encode(kind, b"12345678", data[: frames.PAYLOAD_BYTES]))


def _shell(data: bytes) -> None:
    reply = Reply(Request("program", _MARK, b""))
    for start in range(0, len(data), len(data) // 7 + 1):
        reply.take(2, data[start : start + len(data) // 7 + 1])
    reply.outcome("guest")


def _exchange(data: bytes) -> None:
    found = exchange.answer(_outcome(data), "guest")
    tunables.read_counters(_Files(dict.fromkeys(("a", "b"), data.decode("utf-8", "replace"))),
                           {"handovers": "a"})  # fmt: skip
    assert isinstance(found, dict)


@dataclass(frozen=True, slots=True)
class _Files:
    texts: Mapping[str, str]

    def exchange(self, _: Mapping[str, str], reads: object) -> dict[str, str]:
        return dict(self.texts)


def _output(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    output.measure(text, "elapsed", took_seconds=1.0)


def _json_path(data: bytes) -> None:
    parse.parsed(data.decode("utf-8", "replace"), "rate", "$.results[0].rate")


def _pattern(data: bytes) -> None:
    parse.parsed(data.decode("utf-8", "replace"), "rate", "rate: ([0-9., ]+)", "MB/s")


def _kconfig(data: bytes) -> None:
    options = kconfig.merge([_file("a.config", data)])
    kconfig.render(options)
    kconfig.digest(options)
    for option in options:
        kconfig.holds(option.value, "0x10")


def _kconfig_source(data: bytes) -> None:
    _file("linux/Kconfig", data)
    for name, found in kconfig_source.read(_folder() / "linux", X86_64).items():
        for each in found:
            for condition in each.conditions:
                str(kconfig_expression.parse(condition).missing({name: "y"}, 2))


def _expression(data: bytes) -> None:
    found = kconfig_expression.parse(data.decode("utf-8", "replace"))
    found.level({"A": "y"})
    str(found), found.missing({"A": "m"}, 2)


_PROC = ("proc/stat", "proc/meminfo", "proc/cpuinfo", "proc/pressure/cpu")
_SYS = (
    "sys/devices/system/node/node0/cpulist",
    "sys/devices/system/node/node0/meminfo",
    "sys/devices/system/cpu/cpu0/topology/thread_siblings_list",
    "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
)


@cache
def _host() -> Path:
    """Return a root folder whose files are all the file `data`."""
    _file("data", b"")
    for name in (*_PROC, *_SYS):
        _path(f"host/{name}").symlink_to(_path("data"))
    return _path("host/proc").parent


def _proc(data: bytes) -> None:
    root = _host()
    _file("data", data)
    load.load(root)
    facts.read_facts(root, {0, 1})


def _guest_memory(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    files = _Files(dict.fromkeys(("/proc/meminfo", "/proc/zoneinfo"), text))
    memory.total_bytes(files)
    memory.unaccounted_bytes(files)


def _observer(name: str) -> Callable[[bytes], object]:
    one = observers.OBSERVERS[name]

    def run(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        texts = dict.fromkeys(one.files, text)
        one.difference(texts, texts)

    return run


_SLOW = {"lock_stat": ((b"a: ", b" ", b"x"),)}
PARSERS: dict[str, Parser] = {
    "lab.yaml": Parser(_lab, ((b"version: 1\n", b"kernels:\n\tstock:\n", b""),)),
    "series": Parser(_series),
    "patch": Parser(_patch_folder),
    "mbox": Parser(
        _mbox,
        (
            (b"From 1 Mon Sep 17 00:00:00 2001\nFrom:", b" A Pe", b" <a@example.org>\n\nx"),
            (b"Content-Transfer-Encoding: base64\nContent-Type: text/pl", b"ain; cha", b""),
        ),
    ),
    "mails": Parser(
        _mails,
        (
            (b"From x", b"00:00 ", b""),
            (b"Subject: x\n\nAcked-by: <", b"@", b""),
            (b"Subject: ", b"=?utf-8?q?b?= ", b"\n\n"),
            (b"", b"From a 00:00 2025\nA:\n", b""),
        ),
    ),
    "diff": Parser(
        _diff,
        ((b"Binary files x", b" and ", b""), (b'diff --git "', b'\\"', b"")),
    ),
    "samples": Parser(_samples),
    "sample": Parser(_sample),
    "run.json": Parser(_run),
    "guest.json": Parser(_guest),
    "nights": Parser(_nights),
    "site": Parser(_site),
    "ktap": Parser(_ktap),
    "console": Parser(_console),
    "topology": Parser(_topology),
    "frames": Parser(_frames),
    "framed": Parser(_framed),
    "shell": Parser(_shell, ((b"", b"mark 1", b""),)),
    "exchange": Parser(_exchange),
    "output": Parser(_output),
    "json-path": Parser(_json_path),
    "pattern": Parser(_pattern),
    "kconfig": Parser(_kconfig),
    "kconfig-source": Parser(_kconfig_source, ((b"", b"\thelp\n\t  Text.\nif A\n", b""),)),
    "expression": Parser(
        _expression, ((b"A", b" && A", b""), (b"", b"$(a) ", b""), (b"a ", b" ", b"a"))
    ),
    "proc": Parser(_proc),
    "guest-memory": Parser(_guest_memory),
    **{
        f"observer-{name}": Parser(_observer(name), _SLOW.get(name, ()))
        for name in observers.OBSERVERS
    },
}


def seeds(name: str) -> list[bytes]:
    """Return the inputs of a parser's corpus, by the names of their files."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
