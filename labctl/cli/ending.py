"""Turn the end of a command into one message and an exit status; nothing else does."""

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

from labctl.cli import terminal
from labctl.errors import HostError, LabError, UserError
from labctl.printable import layout

_INTERRUPTED = 130
_HUNG_UP = 128 + signal.SIGHUP
_INTERNAL = 70  # EX_SOFTWARE of sysexits.h
_SHOWN = "LABCTL_TRACEBACK"
_HINTS = {
    errno.ENOSPC: "free disk space, for example with `labctl clean`, which removes builds",
    errno.EDQUOT: "free space in your quota, for example with `labctl clean`, which removes builds",
    errno.EACCES: "check the owner with `ls -ld`; labctl does not need root",
    errno.EPERM: "check the owner with `ls -ld`; labctl does not need root",
    errno.EROFS: "set `state:` in lab.yaml to a writable folder",
    errno.EMFILE: "raise the limit of open files: `ulimit -n`",
    errno.ENFILE: "stop other programs, or raise fs.file-max",
    errno.ENOMEM: "stop other programs, or reduce the memory of the guests",
}
_OTHER_HINT = f"set {_SHOWN}=1 to see the traceback"


class PipeBroken(Exception):
    """Wraps a BrokenPipeError, which click would turn into exit status 1."""


@contextlib.contextmanager
def broken_pipes_wrapped() -> Iterator[None]:
    """Raise a BrokenPipeError of the block as a PipeBroken."""
    try:
        yield
    except BrokenPipeError as error:
        raise PipeBroken from error


def run(action: Callable[[], object]) -> NoReturn:
    """Run a command, print its error if it fails, and exit with its status."""
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
            _ignore_signals()  # already ending
            status = _status(error)
    except OSError as error:  # neither stdout nor stderr can be written
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        status = terminal.ended_by() or (HostError.exit_status if full else _HUNG_UP)
    _ignore_signals()
    _drop_output()
    sys.exit(status)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _status(error: BaseException) -> int:
    """Print why a command ended; return its exit status. Raises OSError if stderr fails."""
    signalled = terminal.ended_by()
    if signalled:
        return signalled  # errors after the signal are its consequence
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
    reported = _as_lab_error(error)
    if reported is None:
        click.echo(f"labctl: {_internal(error)}", err=True)
        return _INTERNAL
    click.echo(f"labctl: {_shown(reported)}", err=True)
    return reported.exit_status


def _shown(error: LabError) -> str:
    """Return a message made printable: it may quote a guest's console or a compiler."""
    return layout(str(error).encode("utf-8", "backslashreplace").decode())


def _as_lab_error(error: BaseException) -> LabError | None:
    """Return the error as a LabError, None if it is an internal error of labctl."""
    if isinstance(error, LabError):
        return error
    if isinstance(error, MemoryError):
        hint = "check the free memory with `free -h` and the shell's limit with `ulimit -v`"
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
    where = f"the traceback is in {kept}" if kept else f"set {_SHOWN}=1 to see the traceback"
    return f"internal error: {_one_line(error)}\n  hint: this is a bug in labctl; {where}"


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
    """Open closed standard streams and let them write any text.

    The next file that labctl opens would otherwise get the free descriptor, and the
    programs that labctl starts would use it as their standard stream.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w" if descriptor else "r"))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _seen_enough() -> bool:
    """Return whether the reader of stdout has closed its end."""
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
    """Discard unwritable output: Python would report it at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
