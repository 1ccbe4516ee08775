"""How one repetition of a workload ended (`SampleStatus`), and why a guest failed. Pure."""

from __future__ import annotations

from enum import StrEnum


class SampleStatus(StrEnum):
    """The status of a sample; a failure of a guest has the status of its sample."""

    OK = "ok"
    BOOT_FAILED = "boot-failed"
    PANIC = "panic"
    SPLAT = "splat"
    HUNG = "hung"
    DEADLINE = "deadline"
    LOST = "lost"
    BAD_OUTPUT = "bad-output"
    TUNABLE_REFUSED = "knob-refused"  # as stored runs have it
    NOT_EXERCISED = "not-exercised"
    EXERCISED = "exercised"
    SKIPPED = "skipped"


# The guest is lost: later measurements in it are not reliable.
CRASHES = frozenset(
    {
        SampleStatus.BOOT_FAILED,
        SampleStatus.PANIC,
        SampleStatus.SPLAT,
        SampleStatus.HUNG,
        SampleStatus.LOST,
    }
)


class GuestFault(StrEnum):
    """Why a guest failed: the fault that its sample names."""

    BOOT_TIMEOUT = "boot-timeout"
    PANIC = "panic"
    OOPS = "oops"
    BUG = "bug"
    WARNING = "warning"
    SOFT_LOCKUP = "soft-lockup"
    HARD_LOCKUP = "hard-lockup"
    HUNG_TASK = "hung-task"
    RCU_STALL = "rcu-stall"
    OOM_KILL = "oom-kill"
    BAD_PAGE = "bad-page"
    KASAN = "kasan"
    KMSAN = "kmsan"
    KCSAN = "kcsan"
    KFENCE = "kfence"
    UBSAN = "ubsan"
    NO_RESPONSE = "no-response"
    GUEST_PAUSED = "guest-paused"
    GUEST_RESET = "guest-reset"
    GUEST_SHUTDOWN = "guest-shutdown"
    REBOOTED = "rebooted"
    CONSOLE_FLOOD = "console-flood"
    CLOCK_JUMP = "clock-jump"
    LINE_LOST = "line-lost"
    QEMU_STOPPED = "qemu-stopped"
    QEMU_KILLED = "qemu-killed"
    QEMU_CRASHED = "qemu-crashed"
    QEMU_EXITED = "qemu-exited"
    HOST_OOM = "host-oom"
    HOST_SUSPENDED = "host-suspended"


# Faults of the host. They say nothing of the kernel.
HOST_FAULTS = frozenset(
    {
        GuestFault.GUEST_PAUSED,
        GuestFault.QEMU_STOPPED,
        GuestFault.QEMU_KILLED,
        GuestFault.QEMU_CRASHED,
        GuestFault.HOST_OOM,
        GuestFault.HOST_SUSPENDED,
    }
)
