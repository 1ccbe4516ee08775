"""Limits of a QEMU process that labctl has started: what a hostile guest could make of it.

They are set from outside, since a limit that labctl sets for itself would be its own as well.
There is no limit of the address space: QEMU reserves far more of it than it uses.
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

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
    for what, most in limits.items():
        with contextlib.suppress(OSError):
            _, hard = resource.prlimit(pid, what)
            if hard == resource.RLIM_INFINITY or hard > most:
                resource.prlimit(pid, what, (most, most))
    score = Path(f"/proc/{pid}/oom_score_adj")
    with contextlib.suppress(OSError, ValueError):
        if int(score.read_text()) < OOM_SCORE:
            score.write_text(str(OOM_SCORE))
