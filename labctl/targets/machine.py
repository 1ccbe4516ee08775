"""`TargetMachine`: a target reached by SSH, and the change of its kernel."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from labctl.errors import BootFailed, GuestError, HostError, TunableRefused
from labctl.host import procfs
from labctl.host.identity import Host, host_id, read_cpu_model
from labctl.kernels.images import Image
from labctl.lab.models import Target
from labctl.targets import kexec, pack, roots
from labctl.targets.kexec import Boot
from labctl.transports import Command, Outcome, exchange

# In memory, private to root, and removed by every boot.
FOLDER = "/run/labctl"
# A command that takes longer hangs.
_COMMAND_SECONDS = 300.0
_POLL_SECONDS = 1.0
_BOOT_FILES = ("/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/osrelease", "/proc/cmdline")
_LOAD_FILES = ("/proc/stat", "/proc/loadavg")
_TICKS_A_SECOND = 100.0  # USER_HZ of /proc/stat, on all current architectures
# systemctl stops the target's services first; without systemd they are not stopped. setsid,
# because the process group of a command is killed at its end.
_LEAVE = """\
if [ -d /run/systemd/system ]; then leave="systemctl $2"; else leave="$1 $3"; fi
setsid /bin/sh -c "(sleep 1; exec $leave) </dev/null >/dev/null 2>&1 &"
"""
# File names of Debian, Fedora and openSUSE.
_OWN_INITRD = """\
for file in "/boot/initrd.img-$1" "/boot/initramfs-$1.img" "/boot/initrd-$1"; do
  [ -f "$file" ] && { echo "$file"; exit; }
done
"""
_PATH = f"PATH={FOLDER}:$PATH; export PATH"


class Line(Protocol):
    """The part of a transport that `TargetMachine` uses."""

    def run(self, command: Command, timeout_seconds: float, stdin: bytes = b"") -> Outcome:
        """Run a command; see `Transport.run`."""

    def put(self, local: Path, remote: str) -> None:
        """Copy a file to the target."""

    def close(self) -> None:
        """Close the connection."""


class Connect(Protocol):
    """Creates a transport to the target that connects at its first use."""

    def __call__(self, *, silence_seconds: float) -> Line:
        """Return a transport that reports a hang after this many seconds without a response."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Programs for the target: `kexec` changes its kernel, `programs` are measured.

    `files` are more files by their path on the target, `scripts` texts of executables,
    `roots` archives of the roots of workloads, by name.
    """

    kexec: Path
    programs: tuple[Path, ...]
    files: Mapping[str, Path] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    roots: Mapping[str, Path] = field(default_factory=dict)


class TargetMachine:
    """A target; leaving the `with` block reboots it into its own kernel."""

    def __init__(self, target: Target, connect: Connect, tools: Tools) -> None:
        self.target = target
        self.name = target.name
        self._connect = connect
        self._tools = tools
        self._line: Line | None = None
        self._changed = False
        self._own: Boot | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._changed:
                self.give_back()
        finally:
            self.hang_up()

    def hang_up(self) -> None:
        """Close the connection; the next command opens a new one."""
        if self._line is not None:
            with contextlib.suppress(GuestError, OSError):
                self._line.close()
            self._line = None

    def run(self, command: Command, *, timeout_seconds: float, stdin: bytes = b"") -> Outcome:
        """Run a command with the lab's programs on its PATH; raises as `Transport.run`."""
        if isinstance(command, str):
            argv = ["/bin/sh", "-c", f"{_PATH}\n{command}"]
        else:
            argv = ["/bin/sh", "-c", f'{_PATH}; exec "$@"', "sh", *command]
        return self._use().run(argv, timeout_seconds, stdin)

    def exchange(self, writes: Mapping[str, str], reads: Sequence[str]) -> dict[str, str]:
        """Write small files, then read some; raises `TunableRefused` as a guest does."""
        script = exchange.script(writes, reads)
        outcome = self._use().run(script, _COMMAND_SECONDS)
        return exchange.answer(outcome, self.name)

    def _use(self, silence_seconds: float = 60.0) -> Line:
        if self._line is None:
            self._line = self._connect(silence_seconds=silence_seconds)
        return self._line

    # --- what it is ----------------------------------------------------------------------------

    def boot(self) -> Boot:
        """Return the current boot."""
        found = self.exchange({}, _BOOT_FILES)
        return Boot(*(found.get(path, "").strip() for path in _BOOT_FILES))

    def describe(self) -> Host:
        """Return the target's hardware and system as a host's; `qemu` is empty.

        Raises:
            HostError: the target cannot be reached, or not as root.
        """
        files = ("/etc/machine-id", "/proc/cpuinfo", "/proc/meminfo")
        try:
            found = self.exchange({}, files)
            boot = self.boot()
            user = self.run(["id", "-u"], timeout_seconds=_COMMAND_SECONDS).text.strip()
        except GuestError as error:
            raise HostError(
                f"target {self.name} is not usable: {error.what}",
                where=self.target.host,
                hint=error.hint,
            ) from error
        if user != "0":
            raise HostError(
                f"target {self.name}: the SSH user cannot change the kernel",
                where=self.target.host,
                hint="log in as root: set `user: root`",
            )
        machine = found.get("/etc/machine-id", "").strip() or self.target.host
        cpus = found.get("/proc/cpuinfo", "")
        cpu_model = read_cpu_model(cpus)
        return Host(
            id=host_id(machine, cpu_model),
            cpu_model=cpu_model,
            cores=len(re.findall(r"^processor\s*:", cpus, re.MULTILINE)),
            memory_bytes=procfs.size_bytes(found.get("/proc/meminfo", ""), "MemTotal"),
            kernel=boot.release,
            qemu="",
            boot_id=boot.id,
        )

    def load(self) -> dict[str, float]:
        """Return the target's load counters since boot, as `host.load` does for this host.

        The share of processes other than the workload is unknown.
        """
        found = self.exchange({}, _LOAD_FILES)
        fields = [
            int(f) / _TICKS_A_SECOND for f in found["/proc/stat"].split("\n", 1)[0].split()[1:9]
        ]
        user, nice, system, _idle, _iowait, irq, softirq, steal = fields
        return {
            "busy_seconds": round(user + nice + system + irq + softirq, 2),
            "steal_seconds": round(steal, 2),
            "load_1min": float(found["/proc/loadavg"].split()[0]),
        }

    def kernel_log(self) -> list[str]:
        """Return the kernel's log buffer; the oldest messages may be lost."""
        log = self.run(["dmesg"], timeout_seconds=_COMMAND_SECONDS).text
        return log.removesuffix("\n").split("\n")

    # --- its kernel ----------------------------------------------------------------------------

    def change_kernel(self, image: Image, more: str, deadline_seconds: float) -> Boot:
        """Replace the running kernel by an image, and return the new boot.

        The boot loader is not changed: after any failure, a reset boots the target's own
        kernel.

        Raises:
            BootFailed: the target rejects the image, does not come back, or comes back
                with another kernel.
        """
        with self._booting():
            before = self.boot()
            if before.token is None:
                self._own = before
            line = kexec.command_line(before, image.hash, more)
            self._load(image, line)
            self._changed = True
            self._leave("kexec", "start")
        after = self._next_boot(before, deadline_seconds)
        wrong = kexec.fault(before, after, image.hash, image.release)
        if wrong is not None:
            raise BootFailed(f"target {wrong}", where=self.name)
        with self._booting():
            self._furnish()
        return after

    def give_back(self) -> None:
        """Reboot into the target's own kernel, unless it already runs.

        Raises:
            BootFailed: the target does not come back.
        """
        with self._booting():
            boot = self.boot()
            if boot.token is None:
                return
            self._put(self._tools.kexec)
            self._leave("reboot", "reboot")
        after = self._next_boot(boot, self.target.boot_timeout)
        if after.token is not None:
            raise BootFailed("target still runs the lab's kernel after reboot", where=self.name)
        self._changed = False

    @contextlib.contextmanager
    def _booting(self) -> Iterator[None]:
        try:
            yield
        except BootFailed:
            raise
        except GuestError as error:
            raise BootFailed(error.what, where=self.name, hint=error.hint) from error

    def _load(self, image: Image, line: str) -> None:
        for file in image.files():
            file.check()
        kernel = self._put(image.bzimage, "kernel")
        self._check(kernel, image.bzimage)
        tool = self._put(self._tools.kexec)
        initrd = ""
        if self.target.initrd is not None:
            initrd = self._put(self.target.initrd, "initrd")
            self._check(initrd, self.target.initrd)
        elif self._own is not None:
            words = ["/bin/sh", "-c", _OWN_INITRD, "sh", self._own.release]
            initrd = self._use().run(words, _COMMAND_SECONDS).text.strip()
        outcome = self._use().run([tool, "load", kernel, initrd, line], _COMMAND_SECONDS)
        if outcome.status != 0:
            why = outcome.stderr.decode("utf-8", "replace").strip()
            raise BootFailed(
                f"target rejected the image: {why}",
                where=self.name,
                hint="its kernel needs CONFIG_KEXEC_FILE, no lockdown, and no other image loaded",
            )

    def _put(self, local: Path, name: str | None = None) -> str:
        self._use().run(f"umask 077; mkdir -p {FOLDER}", _COMMAND_SECONDS)
        remote = f"{FOLDER}/{name or local.name.partition('-')[0]}"
        self._use().put(local, remote)
        return remote

    def _put_files(self) -> None:
        """Copy the files as one archive: the library of Python has hundreds."""
        files, scripts = self._tools.files, self._tools.scripts
        if not files and not scripts:
            return
        packed = f"{FOLDER}/files.tar.gz"
        with tempfile.NamedTemporaryFile() as archive:
            pack.write(archive, files, scripts)
            archive.flush()
            self._use().put(Path(archive.name), packed)
        self._checked(["/bin/sh", "-c", pack.UNPACK, "sh", packed])

    def _put_roots(self) -> None:
        for name, archive in self._tools.roots.items():
            self._checked(roots.prepare(name))
            self._use().put(archive, roots.packed(name))
            self._checked(roots.unpack(name))

    def _checked(self, words: Sequence[str], stdin: bytes = b"") -> None:
        outcome = self._use().run(words, _COMMAND_SECONDS, stdin)
        if outcome.status != 0:
            why = outcome.stderr.decode("utf-8", "replace").strip()
            raise BootFailed(f"cannot copy the files of workloads: {why}", where=self.name)

    def _check(self, remote: str, local: Path) -> None:
        digest = self._use().run(["sha256sum", remote], _COMMAND_SECONDS).text.split(" ")[0]
        if digest != hashlib.sha256(local.read_bytes()).hexdigest():
            raise BootFailed(f"{local.name}: checksum mismatch after transfer", where=self.name)

    def _leave(self, systemd: str, own: str) -> None:
        """Reboot the target one second after this command has ended."""
        words = ["/bin/sh", "-c", _LEAVE, "sh", f"{FOLDER}/kexec", systemd, own]
        self._use().run(words, _COMMAND_SECONDS)
        self.hang_up()

    def _next_boot(self, before: Boot, deadline_seconds: float) -> Boot:
        deadline = time.monotonic() + deadline_seconds
        last = "still running the old kernel"
        while time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            try:
                self._use(silence_seconds=20.0)
                boot = self.boot()
            except GuestError as error:
                last = error.what
            else:
                if boot.id != before.id:
                    self.hang_up()
                    return boot
            self.hang_up()
        raise BootFailed(
            f"target did not come back within {deadline_seconds:g} s: {last}",
            where=self.name,
            hint="reset the target: its boot loader starts its own kernel",
        )

    def _furnish(self) -> None:
        """Copy the programs to the target, and mount debugfs for tunables."""
        for program in self._tools.programs:
            self._put(program)
        self._put_files()
        self._put_roots()
        mount = "mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug"
        outcome = self._use().run(mount, _COMMAND_SECONDS)
        if outcome.status != 0:
            raise TunableRefused("cannot mount debugfs", where=self.name)


def describe_start(target: Target, image: str) -> str:
    """Return a description of how a kernel is started on the target, for a plan."""
    where = f"{target.user}@{target.host}" + (f" port {target.port}" if target.port else "")
    return f"kexec of {shlex.quote(image)} on {where}"
