"""Pin QEMU's threads to the CPUs of a placement, and verify it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from labctl.errors import HostError
from labctl.guests.placement import Placement


def pin(threads: Mapping[int, int], placement: Placement, name: str) -> None:
    """Pin the vCPU threads of a running QEMU, and move its other threads to other CPUs.

    Raises:
        HostError: a thread cannot be pinned, or runs on other CPUs afterwards.
    """
    if not placement.vcpus or not threads:
        return
    try:
        for vcpu, thread in threads.items():
            _put(thread, {placement.vcpus[vcpu]})
        if placement.emulator:
            for thread in _others(threads.values()):
                _put(thread, set(placement.emulator))
    except OSError as error:
        raise HostError(
            f"cannot pin vCPUs: {error.strerror or error}",
            where=name,
            hint="set `pin: none` for the guest in lab.yaml to leave vCPUs to the scheduler",
        ) from error


def _put(thread: int, cpus: Collection[int]) -> None:
    try:
        os.sched_setaffinity(thread, cpus)
        found = os.sched_getaffinity(thread)
    except ProcessLookupError:
        return  # QEMU's workers come and go
    if found != set(cpus):
        raise OSError(f"thread {thread}: expected CPUs {sorted(cpus)}, got {sorted(found)}")


def _others(vcpu_threads: Collection[int]) -> list[int]:
    """Return the threads of the same process that are no vCPU's."""
    status = Path(f"/proc/{next(iter(vcpu_threads))}/status").read_text()
    found = re.search(r"^Tgid:\s*(\d+)", status, re.MULTILINE)
    assert found, "no Tgid in /proc/PID/status"
    everyone = {int(path.name) for path in Path(f"/proc/{found[1]}/task").iterdir()}
    return sorted(everyone - set(vcpu_threads))
