"""However a command ends: one message and an exit status, the only place where both are made."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import click

from labctl import terminal
from labctl.errors import HostError, LabError, UserError
from labctl.printable import layout

_INTERRUPTED = 130
_HUNG_UP = 128 + signal.SIGHUP
_INTERNAL = 70  # EX_SOFTWARE of sysexits.h
_SHOWN = "LABCTL_TRACEBACK"
_HINTS = {
    errno.ENOSPC: "make room on the disk; `labctl clean` removes what can be built again",
    errno.EDQUOT: "make room within your quota; `labctl clean` removes what can be built again",
    errno.EACCES: "see who owns it with `ls -ld`; labctl needs no root",
    errno.EPERM: "see who owns it with `ls -ld`; labctl needs no root",
    errno.EROFS: "`state:` in lab.yaml names a folder that can be written",
    errno.EMFILE: "raise the limit of open files: `ulimit -n`",
    errno.ENFILE: "end other programs, or raise fs.file-max",
    errno.ENOMEM: "end other programs, or give the guests less memory",
}
_OTHER_HINT = f"{_SHOWN}=1 in the environment shows where it happened"


class PipeBroken(Exception):
    """A BrokenPipeError on its way through click, which would make a status 1 of it."""


@contextlib.contextmanager
def pipes_told() -> Iterator[None]:
    """Let a BrokenPipeError pass as a PipeBroken."""
    try:
        yield
    except BrokenPipeError as error:
        raise PipeBroken from error


def run(action: Callable[[], object]) -> NoReturn:
    """Run a command to whatever end it comes; turn that into a message and an exit status."""
    _open_streams()
    status = _INTERNAL
    try:
        try:
            with terminal.unwound():
                action()
            sys.stdout.flush()
            status = 0
        except PipeBroken as error:
            status = _status(error.__cause__ or error)
        except BaseException as error:
            _ignore_signals()  # it ends already
            status = _status(error)
    except OSError as error:  # there is nobody to tell it to
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        status = terminal.ended_by() or (HostError.exit_status if full else _HUNG_UP)
    _ignore_signals()
    _drop_output()
    sys.exit(status)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _status(error: BaseException) -> int:
    """Say why a command ended; return its exit status. Raises OSError if it cannot be said."""
    signalled = terminal.ended_by()
    if signalled:
        return signalled  # whatever failed on the way out
    if isinstance(error, SystemExit):
        sys.stdout.flush()
        return error.code if isinstance(error.code, int) else 0
    if isinstance(error, KeyboardInterrupt | click.Abort):
        click.echo("labctl: interrupted", err=True)
        return _INTERRUPTED
    if isinstance(error, BrokenPipeError) and _seen_enough():
        return 0
    if isinstance(error, OSError) and error.errno == errno.EIO and _terminal_gone():
        return _HUNG_UP
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if os.environ.get(_SHOWN):
        traceback.print_exception(error)
    told = _told(error)
    if told is None:
        click.echo(f"labctl: {_internal(error)}", err=True)
        return _INTERNAL
    click.echo(f"labctl: {_shown(told)}", err=True)
    return told.exit_status


def _shown(error: LabError) -> str:
    """Return a message for the terminal: it may quote a guest's console or a compiler."""
    return layout(str(error).encode("utf-8", "backslashreplace").decode())


def _told(error: BaseException) -> LabError | None:
    """Return what the host or the user has to do with it, None if it is labctl's own fault."""
    if isinstance(error, LabError):
        return error
    if isinstance(error, MemoryError):
        hint = "see how much the host has left: `free -h`, and this shell: `ulimit -v`"
        return HostError("out of memory", hint=hint)
    if isinstance(error, OSError):
        if error.errno == errno.ENOENT and not error.filename and _folder_gone():
            return UserError("the current folder was removed", hint="change to another one")
        names = [os.fsdecode(n) for n in (error.filename, error.filename2) if _is_path(n)]
        what = error.strerror or _one_line(error)
        hint = _HINTS.get(error.errno or 0, _OTHER_HINT)
        return HostError(what, where=" -> ".join(names) or None, hint=hint)
    return None


def _folder_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _is_path(name: object) -> bool:
    return isinstance(name, str | bytes | os.PathLike)


def _internal(error: BaseException) -> str:
    kept = None if os.environ.get(_SHOWN) else _keep_traceback(error)
    where = f"the traceback is in {kept}" if kept else f"{_SHOWN}=1 shows the traceback"
    return f"internal error: {_one_line(error)}\n  hint: this is a fault of labctl; {where}"


def _one_line(error: BaseException) -> str:
    text = "".join(traceback.format_exception_only(error))
    return " ".join(text.split())


def _keep_traceback(error: BaseException) -> Path | None:
    try:
        descriptor, path = tempfile.mkstemp(prefix="labctl-traceback-", suffix=".txt")
        with open(descriptor, "w", errors="backslashreplace") as file:  # noqa: PTH123
            traceback.print_exception(error, file=file)
    except OSError:
        return None
    return Path(path)


# --- the three streams ---------------------------------------------------------------------


def _open_streams() -> None:
    """Have stdin, stdout and stderr, and text that always can be written.

    A descriptor below three that is closed would be given to the next file that is
    opened, and then to the programs that labctl starts.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w" if descriptor else "r"))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _seen_enough() -> bool:
    """Return whether whoever read our output has gone."""
    poll = select.poll()
    poll.register(1, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _terminal_gone() -> bool:
    for descriptor in (0, 1, 2):
        try:
            os.ttyname(descriptor)
        except OSError as error:
            if error.errno == errno.EIO:
                return True
    return False


def _drop_output() -> None:
    """Have what cannot be written be forgotten; Python would complain of it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
