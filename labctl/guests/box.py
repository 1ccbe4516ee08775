"""Limits of a QEMU process that labctl has started: what a hostile guest could make of it.

They are set from outside, since a limit that labctl sets for itself would be its own as well.
There is no limit of the address space: QEMU reserves far more of it than it uses.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

from labctl import proc
from labctl.guests import launchers, qemu, scratch
from labctl.guests.folder import prepare_folder
from labctl.guests.qemu import GuestSpec
from labctl.guests.watchdog import Watchdog

# Above that of the user's session, which is 0 to 200: out of memory, the kernel of the host
# kills a guest before the programs of its user.
OOM_SCORE = 500
# QEMU has about 50 files open. Of virtme-ng, the 9p server opens those that the guest uses.
OPEN_FILES = 1024


def limit(pid: int, *, serves_files: bool = False) -> None:
    """Limit a QEMU process: no core dumps, few open files, first to be killed without memory.

    A core dump would contain the memory of the guest. With `serves_files`, the number of
    open files stays. Nothing is limited if the process has ended already.
    """
    limits = {resource.RLIMIT_CORE: 0}
    if not serves_files:
        limits[resource.RLIMIT_NOFILE] = OPEN_FILES
    _lower(pid, limits)
    score = Path(f"/proc/{pid}/oom_score_adj")
    with contextlib.suppress(OSError, ValueError):
        if int(score.read_text()) < OOM_SCORE:
            score.write_text(str(OOM_SCORE))


@contextlib.contextmanager
def running(spec: GuestSpec) -> Iterator[proc.Process]:
    """Run the QEMU of a guest in its new folder during the block, with its limits."""
    prepare_folder(spec)
    argv, log = launchers.argv(spec), spec.folder / qemu.QEMU_LOG
    with proc.spawn(argv, cwd=spec.folder, log=log, is_guest=True) as machine:
        limit_guest(machine.pid, spec)
        yield machine


def limit_guest(pid: int, spec: GuestSpec, *, is_started: bool = False) -> None:
    """Limit the QEMU of a guest; again when its guest runs, and QEMU has opened all its files.

    Then no file that QEMU writes grows beyond the limit of the console, also if nobody
    watches the guest: `console.log`, `qemu.log` and those of virtme-ng. Scratch disks are
    files too, and before that memory is one if it has huge pages or with virtme-ng: these may be
    larger. With `qemu:` words, which may name more files, their size is not limited.
    """
    is_served = spec.launcher != "qemu"
    limit(pid, serves_files=is_served)
    sizes = [spec.limits.console, *(disk.size_bytes for disk in scratch.disks_of(spec.topology))]
    if not is_started and (spec.topology.hugepages or is_served):
        sizes.append(2 * spec.topology.memory_bytes)
    if not spec.topology.qemu:
        _lower(pid, {resource.RLIMIT_FSIZE: max(sizes)})


def limit_started(watchdog: Watchdog, spec: GuestSpec) -> None:
    """Limit the files of a QEMU whose guest has printed something: it has opened all by then.

    Call it before the console is read, which takes long if the guest floods it.
    """
    log = watchdog.console.path
    if watchdog.machine is not None and log.exists() and log.stat().st_size:
        limit_guest(watchdog.machine.pid, spec, is_started=True)


def _lower(pid: int, limits: dict[int, int]) -> None:
    for what, most in limits.items():
        with contextlib.suppress(OSError):
            _, hard = resource.prlimit(pid, what)
            if hard == resource.RLIM_INFINITY or hard > most:
                resource.prlimit(pid, what, (most, most))
