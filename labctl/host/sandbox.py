"""The sandbox of QEMU: the system calls that its process may not use once it has started.

The filter also denies what no guest of labctl needs: to start programs, to change users, and
to change CPUs and priorities. labctl pins vCPUs from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from labctl.errors import CommandError, HostError
from labctl.host import tools

_DENIED = ("obsolete", "elevateprivileges", "spawn", "resourcecontrol")
ARGUMENTS = ("-sandbox", ",".join(("on", *(f"{each}=deny" for each in _DENIED))))
# A QEMU that has no seccomp exits at once. One that does not answer is started in the sandbox.
_SECONDS = 2.0
_ACTIONS = Path("/proc/sys/kernel/seccomp/actions_avail")


def question(program: str) -> tuple[str, ...]:
    """Return the command that fails if a QEMU has no sandbox."""
    return (program, *ARGUMENTS, "--version")


def missing(program: str, actions: Path = _ACTIONS) -> str:
    """Return why a QEMU program has no sandbox on this host, an empty text if it has one."""
    if not actions.is_file():
        return "the host's kernel has no seccomp filters"
    try:
        tools.output(question(program), wait_seconds=_SECONDS)
    except CommandError as error:
        return f"{program} was built without seccomp" if "sandbox" in error.output else ""
    except HostError:
        return ""  # the start of the guest reports it
    return ""


def kept(words: Sequence[str], actions: Path = _ACTIONS) -> list[str]:
    """Return a command line of QEMU, without the sandbox if this host has none."""
    if ARGUMENTS[0] not in words or not missing(words[0], actions):
        return [*words]
    at = words.index(ARGUMENTS[0])
    return [*words[:at], *words[at + len(ARGUMENTS) :]]
