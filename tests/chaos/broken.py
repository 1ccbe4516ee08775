"""A lab with fake guests, and labctl killed or failing in it at a chosen call."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent / "unit"), str(HERE.parent)]

import faketree  # noqa: E402
import in_memory  # noqa: E402

COUNT, KILL, TEAR, FULL, READ_ONLY, RECORD, CHILD, FOLDER = range(8)
SECONDS = 1800.0  # of one command, on a host as busy as can be
AFTERWARDS_SECONDS = 5.0  # until nothing of a killed command may run
NAMES = ("experiment", "block", "cell", "warmup", "repetition", "status")
CASE = "LABCTL_CHAOS_CASE"
OPTIONS = ("ACPI_NUMA", "SMP")
LAB = """\
version: 1
defaults: {accel: tcg, guest: two}
guests: {two: {nodes: 2, memory_per_node: 256MiB}}
kernels:
  stock: {source: 'image:stock/bzImage'}
  slow: {source: 'image:slow/bzImage'}
  built: {source: 'dir:tree', kconfig: [base.config]}
  patched: {base: built, series: series}
workloads: {tick: {command: freebench, parameters: {op: free, size: 1MiB}, metric: elapsed}}
experiments:
  e: {workload: tick, kernels: [stock, slow], baseline: stock}
  b: {workload: tick, kernels: [built, patched], baseline: built}
statistics: {blocks: {min: 2, max: 2}, repetitions: 2, warmup: 1, stop_at_half_width: none}
"""
TESTS = """\
import pytest

pytestmark = pytest.mark.kernels("stock", "slow")

@pytest.mark.parametrize("number", range(2))
def test_a_guest(guest, number):
    for _ in range(20):
        assert guest.run("true").status == 0

def test_a_shared_guest(shared_guest):
    assert shared_guest.run("true").status == 0
"""


class Counter(ctypes.Structure):
    _fields_ = (
        ("calls", ctypes.c_uint64),
        ("failed", ctypes.c_uint64),
        ("what", ctypes.c_char * 240),
    )


@dataclass(frozen=True)
class Done:
    """What became of one command; `what` is the call before which the fault came."""

    status: int | str
    out: str
    err: str
    calls: int
    failed: int
    what: str


def image(folder, word):
    """Write an image of a kernel that labctl accepts."""
    folder.mkdir()
    header = bytes(514) + b"HdrS" + bytes(8) + b"\x10\0"
    (folder / "bzImage").write_bytes(header + b"6.1.0-fake (nobody) #1\0" + word.encode())


class Suite:
    """A folder with a lab to copy, fake tools, and a process that runs labctl in copies."""

    def __init__(self, folder=None):
        # In memory: what a disk keeps is the matter of another test, and fsync(2) may be slow.
        self.folder = Path(folder) if folder else in_memory.folder("labctl-chaos-")
        self.number = 0
        tools = self.folder / "tools"
        tools.mkdir()
        (self.folder / "locks").mkdir()
        (self.folder / "tmp").mkdir()
        program = (HERE / "fake_qemu.py").read_text()
        (tools / "qemu-system-x86_64").write_text(f"#!{sys.executable} -IS\n{program}")
        (tools / "qemu-system-x86_64").chmod(0o755)
        library = self.folder / "fault.so"
        flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(["gcc", *flags, "-o", library, HERE / "fault.c"], check=True)
        env = os.environ | {
            "LD_PRELOAD": str(library),
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(self.folder / "tmp"),
            "HOME": str(self.folder),
        }
        self.zygote = subprocess.Popen(
            [sys.executable, HERE / "zygote.py", self.folder / "locks"],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert json.loads(self.zygote.stdout.readline()) == "ready"

    def close(self):
        """End the process, and remove the folder."""
        self.zygote.stdin.close()
        self.zygote.wait(60)
        self.zygote.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def template(self):
        """Make the lab that the cases copy, with its guest programs built."""
        folder = self.folder / "template"
        folder.mkdir()
        (folder / "lab.yaml").write_text(LAB)
        (folder / "test_guests.py").write_text(TESTS)
        for name in ("stock", "slow"):
            image(folder / name, name)
        faketree.write(folder / "tree")
        with (folder / "tree" / "Kconfig").open("a") as kconfig:
            kconfig.writelines(f'config {name}\n\tbool "{name}"\n' for name in OPTIONS)
        fragment = "".join(f"CONFIG_{name}=y\n" for name in ("NUMA", *OPTIONS))
        faketree.fragment(folder / "base.config", fragment)
        patches = [faketree.changed(new=f"int {word};", old=f"int line{number};")
                   for number, word in ((5, "first"), (15, "slow"), (25, "last"))]  # fmt: skip
        faketree.series(folder / "series", *patches)
        lab = Lab(self, folder)
        for words in (["up", "stock", "slow"], ["down"]):
            done = lab.labctl(*words)
            assert done.status == 0, done
        return lab

    def copy(self, template):
        """Return a copy of a lab; large files are shared, since labctl replaces files."""
        self.number += 1
        folder = self.folder / f"case{self.number}"
        shutil.copytree(template.folder, folder, copy_function=os.link, symlinks=True)
        for path in (*folder.glob(".labctl/*"), *folder.glob(".labctl/*/*.lock")):
            if path.is_file():  # locks, and what is written in place
                content = path.read_bytes()
                path.unlink()
                path.write_bytes(content)
        return Lab(self, folder)

    def ask(self, **request):
        """Send a request to the process that forks, and return its answer."""
        self.zygote.stdin.write(json.dumps(request) + "\n")
        self.zygote.stdin.flush()
        return json.loads(self.zygote.stdout.readline())


class Lab:
    """One lab on disk."""

    def __init__(self, suite, folder):
        self.suite = suite
        self.folder = folder
        self.state = folder / ".labctl"
        self.started = 0

    def start(self, *argv, mode=COUNT, at=0, log="", **more):
        """Start a command, and return what `finish` takes."""
        self.started += 1
        stem = f"{self.folder.name}-{self.started}"  # not on the disk that is full
        files = {name: self.suite.folder / f"{stem}-{name}" for name in ("out", "err", "counter")}
        request = {
            "do": "run", "argv": argv, "folder": str(self.folder), "root": str(self.folder),
            "mode": mode, "at": at, "log": str(log), "env": {CASE: str(self.folder)},
            **{name: str(path) for name, path in files.items()}, **more,
        }  # fmt: skip
        return self.suite.ask(**request), files

    def finish(self, started):
        pid, files = started
        status = self.suite.ask(do="wait", pid=pid, seconds=SECONDS)
        data = files["counter"].read_bytes() if files["counter"].exists() else b""
        data = data.ljust(ctypes.sizeof(Counter), b"\0")
        counter = Counter.from_buffer_copy(data)
        out, err = (files[name].read_text(errors="replace") for name in ("out", "err"))
        for path in files.values():
            path.unlink(missing_ok=True)
        return Done(
            status, out, err, counter.calls, counter.failed, counter.what.decode(errors="replace")
        )

    def labctl(self, *argv, **more):
        """Run a command to its end."""
        return self.finish(self.start(*argv, **more))

    def processes(self):
        """Return the command lines of the processes that commands in this lab left."""
        mark = f"{CASE}={self.folder}\0".encode()
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes():
                    words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if words:  # none: it has ended
                        found[int(process.name)] = words
            except OSError:
                continue
        return found

    def orphans(self, seconds=AFTERWARDS_SECONDS):
        """Return the processes that still run after some seconds, but guests of `up`."""
        deadline = time.monotonic() + seconds
        while True:
            found = {pid: words for pid, words in self.processes().items() if not self.is_kept(pid)}
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.02)

    def is_kept(self, pid):
        """Return whether a process is a guest that `up` keeps."""
        try:
            return b"LABCTL_GUEST=" in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return True

    def end_all(self):
        """Kill what is left, so that one failed case does not disturb others."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def leftovers(self):
        """Return temporary files, sockets, partial folders below the lab and in TMPDIR."""
        found = []
        for path in (*self.folder.rglob("*"), *(self.suite.folder / "tmp").iterdir()):
            name = path.name
            if self.state / "trees" in path.parents:  # the next build in a tree cleans it
                continue
            temporary = name.endswith((".tmp", ".removed", ".new", ".part", ".partial"))
            if temporary or path.is_socket() or path.suffix[1:].isdecimal():
                found.append(str(path.relative_to(self.suite.folder)))
        return found

    def samples(self, run):
        """Return the keys and statuses of a run's samples in order, without a torn line."""
        path = self.state / "runs" / run / "samples.jsonl"
        found = []
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
            if line.endswith(b"\n"):
                each = json.loads(line)
                found.append(tuple(each[name] for name in NAMES))
        return found

    def is_finished(self, run):
        """Return whether a run has measured all that it should."""
        record = json.loads((self.state / "runs" / run / "run.json").read_text())
        return bool(record.get("finished"))

    def runs(self):
        """Return the ids of the runs that began."""
        return sorted(path.parent.name for path in self.state.glob("runs/*/run.json"))

    def remove(self):
        """Remove the lab, once nothing runs in it."""
        self.end_all()
        shutil.rmtree(self.folder)
