"""Whether the host's kernel has Landlock(7), by which a process limits its own access to files."""

from __future__ import annotations

_CREATE_RULESET = 444  # of landlock_create_ruleset(2), the same on all architectures
_ASK_VERSION = 1


def version() -> int:
    """Return the version of the kernel's interface, 0 without Landlock."""
    import ctypes

    return max(0, int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)))
