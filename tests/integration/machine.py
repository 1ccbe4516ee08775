"""A target simulated by QEMU, with its own system, an SSH server and reboots."""

import contextlib
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from labctl import proc
from labctl.completed import ending
from labctl.guests import initramfs, qemu
from labctl.guests.bundle import bundle
from labctl.guests.topology import qemu_arguments

INIT = Path(__file__).parent / "machine-init"
_BOOT_SECONDS = 240
# After kexec, QEMU's timer is not in the state that firmware leaves it in, and the
# kernel's timer test panics.
_TIMER = "no_timer_check"


class PlayedMachine:
    """A context manager that runs the target; `boots` counts the starts by its firmware."""

    def __init__(self, folder, image, topology, accel="tcg", modules=()):
        self.folder, self.image, self.topology, self.accel = folder, image, topology, accel
        folder.mkdir(parents=True, exist_ok=True)
        self.key, host_key = _new_key(folder / "user_key"), _new_key(folder / "host_key")
        self.host_key = " ".join(_public(host_key).split()[:2])
        authorized = folder / "authorized_keys"
        authorized.write_text(_public(self.key))
        (folder / "openssh_key").write_bytes(_as_openssh(self.key))
        (folder / "openssh_key").chmod(0o600)
        files = {
            **bundle("dropbear", "dropbear-bin"),
            "/machine-init": INIT,
            "/etc/host_key": host_key,
            "/root/.ssh/authorized_keys": authorized,
            **{f"/modules/{i:02}-{path.name}": path for i, path in enumerate(modules)},
        }
        self.initrd = initramfs.build(folder, files).path
        self.console = folder / "console.log"
        self._stack = contextlib.ExitStack()
        self._starts = 0

    def command(self):
        return [
            qemu.PROGRAM, "-nodefaults", "-no-user-config", "-display", "none",
            "-machine", "pc,hpet=off",
            *qemu.accelerator(self.accel), *qemu_arguments(self.topology),
            "-kernel", str(self.image), "-initrd", str(self.initrd),
            "-append", f"console=ttyS0 rdinit=/machine-init panic=5 oops=panic {_TIMER}",
            "-chardev", f"file,id=console,path={self.console}", "-serial", "chardev:console",
            *qemu.network(), *qemu.monitor(),
        ]  # fmt: skip

    def __enter__(self):
        # QEMU before 8.2 can crash by itself under TCG, see `Guest.wait_ready`.
        while not self._started():
            self._starts += 1
            assert self._starts < 3, "QEMU crashed three times"
        with contextlib.closing(qemu.Monitor(self.folder / qemu.MONITOR_SOCKET, "box")) as monitor:
            words = {"command-line": "info usernet"}
            self.port = qemu.forwarded_port(monitor.do("human-monitor-command", words))
        return self

    def _started(self):
        """Return whether the machine is up, or QEMU crashed."""
        self.console.unlink(missing_ok=True)
        log = self.folder / "qemu.log"
        process = self._stack.enter_context(proc.spawn(self.command(), cwd=self.folder, log=log))
        deadline = time.monotonic() + _BOOT_SECONDS
        while "machine: up with" not in self.text():
            status = process.poll()
            if status == -signal.SIGSEGV:
                return False
            assert status is None, f"QEMU {ending(status)}: {log.read_text()}"
            assert time.monotonic() < deadline, f"not up: {self.text()[-2000:]!r}"
            time.sleep(0.2)
        return True

    def __exit__(self, *_):
        self._stack.close()

    def text(self):
        return self.console.read_text("utf-8", "replace") if self.console.exists() else ""

    def ups(self):
        """Return the releases of the booted kernels, in order."""
        return [
            line.rpartition(" ")[2].strip()
            for line in self.text().splitlines()
            if "machine: up with" in line
        ]

    def yaml(self, **more):
        keys = {"kind": "ssh", "host": "127.0.0.1", "port": self.port, "user": "root"}
        keys |= {"key": self.folder / "openssh_key", "initrd": self.initrd}
        keys |= {"host_key": f'"{self.host_key}"'} | more
        return "{" + ", ".join(f"{name}: {value}" for name, value in keys.items()) + "}"


def _new_key(path):
    subprocess.run(["dropbearkey", "-t", "ed25519", "-f", path], check=True, capture_output=True)
    return path


def _public(key):
    done = subprocess.run(
        ["dropbearkey", "-y", "-f", key], check=True, capture_output=True, text=True
    )
    return next(line for line in done.stdout.splitlines() if line.startswith("ssh-")) + "\n"


def _as_openssh(key):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        words = ["dropbearconvert", "dropbear", "openssh", key, path]
        subprocess.run(words, check=True, capture_output=True)
        return path.read_bytes()
