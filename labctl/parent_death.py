"""Commands that the kernel kills when labctl dies, even by SIGKILL.

A parent-death signal (PR_SET_PDEATHSIG of prctl(2)) must be requested by the child itself.
`preexec_fn` of subprocess would do so in Python code between fork and exec, which can
deadlock when other threads run and rules out vfork. Instead, setpriv(1) of util-linux
requests SIGKILL and executes a shell. If labctl died before the request, the kernel
would never send the signal: the shell therefore executes the program only if its parent
is still labctl. The pid is the same from setpriv to the program. A packed lab brings a
program that does both, for machines without them.

The parent is the thread that started the program: the signal also comes when that thread
ends (unless it ends before the request: the main thread is then the parent). `proc.launch`
starts programs without it.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from labctl.errors import HostError

# Absolute, so that neither comes from a folder of the user's PATH.
_SETPRIV = shutil.which("setpriv", path="/usr/bin:/bin:/usr/sbin:/sbin") or shutil.which("setpriv")
_SHELL = "/bin/sh"
_IF_PARENT_LIVES = '[ "$PPID" = "$0" ] && exec "$@"'
_SET_SIGNAL = 1  # PR_SET_PDEATHSIG
_packed: list[Path] = []  # the program of a packed lab, at the end


def use(program: Path) -> None:
    """Start commands with guest/start, compiled to `program`, instead of setpriv and a shell."""
    _packed.append(program)


def interrupt_this() -> None:
    """Let the kernel send SIGINT to this process when its parent dies."""
    import ctypes

    ctypes.CDLL(None).prctl(_SET_SIGNAL, signal.SIGINT)


def command(words: Sequence[str]) -> list[str]:
    """Return a command that runs `words` and dies with the process that starts it.

    Raises:
        HostError: setpriv is not installed.
    """
    if _packed:
        return [str(_packed[-1]), str(os.getpid()), *words]
    if _SETPRIV is None:
        raise HostError("setpriv is not installed", hint="`sudo apt-get install util-linux`")
    shell = [_SHELL, "-c", _IF_PARENT_LIVES, str(os.getpid())]
    return [_SETPRIV, "--pdeathsig", "KILL", "--", *shell, *words]


def check(program: str, cwd: Path | None, env: Mapping[str, str]) -> None:
    """Raise the OSError of execvpe(3) for a program that cannot be executed.

    The shell of `command` would only print it and exit with status 126 or 127. Two cases are
    left to the shell: a script whose interpreter is missing ends with status 127, and a
    file of no known format runs as a shell script.
    """
    folders = [""] if "/" in program else os.get_exec_path(env)
    paths = [Path(cwd or "", folder, program) for folder in folders]
    if any(os.access(path, os.X_OK) and path.is_file() for path in paths):
        return
    number = errno.EACCES if any(map(os.path.lexists, paths)) else errno.ENOENT
    raise OSError(number, os.strerror(number), program)
