"""The virtme-ng launcher: vng writes QEMU's command line; the guest's root is the host's.

labctl starts QEMU with that command line itself, so a guest is one process as with the
qemu launcher. labctl adds the console log, the command port, the monitor, and a folder
with the lab's programs.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from labctl import proc
from labctl.arch import FULL_CONSOLE, X86_64
from labctl.errors import CommandError, HostError
from labctl.guests import qemu
from labctl.guests.qemu import GuestSpec
from labctl.guests.topology import cpu_range, sockets
from labctl.host import sandbox
from labctl.lab import command_line
from labctl.lab.topology import Topology

PROGRAM = "vng"
# Files under the host's /tmp or /run are hidden in the guest.
PROGRAMS_FOLDER = "/run/labctl"
_LINK = "programs"
_SHARED = re.compile(r"[a-zA-Z0-9_+ /.-]+")  # characters that vng accepts in shared paths
LIMITS = (
    "the guest's root is the host's file system: guests run the host's programs, and a kernel or "
    "program in the guest can read every file that labctl's user can",
    "the root is 9p, even where virtiofsd is installed: programs start more slowly",
    "the nodes' memory is always shared with the host (memfd), whatever lab.yaml says",
    "udev and systemd-tmpfiles of the host run in the guest, if installed",
    "vng's own settings (~/.config/virtme-ng) also apply",
    "kernels need virtio, 9p and overlayfs: labctl adds guest/kconfig/virtme.config",
    "a kernel without these options exits without a message, or hangs without its root",
)
_SECONDS = 60.0
_COMMAND_LINE = f"oops=panic {FULL_CONSOLE} no_timer_check"


def command(spec: GuestSpec) -> list[str]:
    """Return vng's argument vector; sockets and logs are relative to the guest's folder."""
    words = [PROGRAM, "--run", _quoted(spec.image.bzimage), "--name", f"labctl-{spec.name}"]
    # vng uses /dev/kvm whenever it opens, even if KVM does not work.
    words += ["--disable-kvm"] if spec.accel == "tcg" else []
    # QEMU's 9p server needs no second process. The lab's kernels have no modules.
    words += ["--force-9p", "--skip-modules", "--cwd", "/", "--memory"]
    words += [f"{spec.topology.boot_memory_bytes // 2**20}M"]
    words += ["--cpus", sockets(spec.topology)]
    words += _numa(spec.topology)
    words += ["--append", _append(f"{_COMMAND_LINE} {spec.command_line}")]
    if spec.programs is not None:
        words += [f"--rodir={PROGRAMS_FOLDER}={_quoted(_share(spec.programs))}"]
    words += ["--exec", f"exec {PROGRAMS_FOLDER}/init"]
    return [*words, f"--qemu-opts={shlex.join(_more_of_qemu(spec))}"]


def argv(spec: GuestSpec) -> list[str]:
    """Ask vng for the command line of QEMU.

    Raises:
        HostError: virtme-ng is not installed or fails.
    """
    if spec.programs is not None and _share(spec.programs) != spec.programs:
        link = spec.folder / _LINK
        link.unlink(missing_ok=True)
        link.symlink_to(spec.programs)
    words = [find(), *command(spec)[1:], "--dry-run"]
    env = {
        # vng runs other programs of its package from PATH, and creates a file for the
        # exit status of its script.
        "PATH": os.pathsep.join([str(Path(words[0]).parent), os.environ.get("PATH", os.defpath)]),
        "TMPDIR": str(spec.folder),
    }
    try:
        done = proc.run(words, cwd=spec.folder, env=env, timeout_seconds=_SECONDS)
    except CommandError as error:
        last = error.output.strip().splitlines()[-1:] or ["no output"]
        raise HostError(
            f"vng failed to start {spec.name}: {last[0]}", hint=f"run: {shlex.join(words)}"
        ) from error
    lines = done.text.strip().splitlines()
    qemu_words = shlex.split(lines[-1]) if lines else []
    if not qemu_words or not Path(qemu_words[0]).name.startswith("qemu"):
        raise HostError("vng printed no QEMU command line", hint=f"run: {shlex.join(words)}")
    if "-append" in qemu_words[:-1]:
        qemu.checked(qemu_words[qemu_words.index("-append") + 1])
    return qemu_words


def find() -> str:
    """Return the path of vng: on PATH, or next to the Python that runs labctl.

    Raises:
        HostError: vng is not installed.
    """
    beside = Path(sys.executable).parent / PROGRAM
    found = shutil.which(PROGRAM) or (str(beside) if os.access(beside, os.X_OK) else None)
    if found is None:
        raise HostError(
            "vng is not installed",
            hint="run `pip install virtme-ng`, or install labctl with the extra `virtme`",
        )
    return found


def lacking(kernel_config: str) -> list[str]:
    """Return the required options of this launcher that a .config does not have as `=y`."""
    have = set(kernel_config.splitlines())
    return [option for option in NEEDED if f"{option}=y" not in have]


NEEDED = ("CONFIG_VIRTIO_PCI", "CONFIG_NET_9P_VIRTIO", "CONFIG_9P_FS", "CONFIG_VIRTIO_CONSOLE")


def _numa(topology: Topology) -> list[str]:
    words = []
    for node, cpus in zip(topology.each, topology.cpus, strict=True):
        memory = f"{node.memory // 2**20}M" if node.memory else "0"
        words += ["--numa", memory + (f",cpus={cpu_range(cpus)}" if cpus else "")]
    for source in range(topology.node_count):
        for target in range(topology.node_count):
            value = topology.distances.distance(source, target)
            words += ["--numa-distance", f"{source},{target}={value}"]
    return words


def _more_of_qemu(spec: GuestSpec) -> list[str]:
    cpu = X86_64.cpu(spec.topology.packages.threads)
    words = qemu.accelerator(spec.accel, cpu, one_thread=spec.one_thread)
    # QEMU uses the last of two -cpu options, but the first -accel; vng gives none for TCG.
    words = words if spec.one_thread else words[2:]
    # Without `-nodefaults`, QEMU adds drives and a monitor that vng does not ask for.
    words += ["-nodefaults", *sandbox.ARGUMENTS]
    # vng discards the console: ttyS0, with the chardev id `console`.
    words += ["-set", f"chardev.console.logfile={qemu.CONSOLE_LOG}"]
    words += qemu.serial("line", qemu.LINE_SOCKET)
    words += [] if spec.ssh_key is None else qemu.network()
    words += qemu.read_only(spec.disks)
    return [*words, *qemu.monitor(), *spec.topology.qemu]


def _share(programs: Path) -> Path:
    """Return a path of the folder that vng accepts: if needed, a symlink in the guest's folder."""
    return programs if _SHARED.fullmatch(str(programs)) else Path(_LINK)


def _append(line: str) -> str:
    """Return kernel parameters for `--append`: quoted for a shell.

    vng itself quotes words with blanks for the kernel.
    """
    kernel_words = (word.replace('"', "") for word in command_line.words(line))
    return shlex.join(kernel_words)


def _quoted(path: Path) -> str:
    """Quote an argument that vng passes to a shell unquoted."""
    return shlex.quote(str(path))
