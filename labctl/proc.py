"""The only place that starts a process.

`run` waits for a program, `spawn` owns one for the length of a `with` block,
`launch` starts one that is meant to outlive labctl (a guest of `labctl up`).
What `run` and `spawn` began dies with labctl, even by SIGKILL: every child asks
the kernel for a parent-death signal.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import select
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from labctl.errors import CommandError, HostError

Argument = str | Path
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_TERMINATE_SECONDS = 3.0
# A signal that comes right before a system call is heard when the call returns.
_STEP_SECONDS = 1.0
# What was killed gives its memory back first: a large guest's takes a while.
_REAP_SECONDS = 300.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Variables that steer the tools that labctl runs: another repository, other flags, files
# read besides. By tool: locale, git, patch, tar and xz, make, compilers, shells.
_STEERING = re.compile(
    r"LANGUAGE|LC_\w+"
    r"|GIT_\w+"
    r"|POSIXLY_CORRECT|PATCH_\w+|VERSION_CONTROL|SIMPLE_BACKUP_SUFFIX|QUOTING_STYLE"
    r"|TAR_OPTIONS|XZ_OPT|XZ_DEFAULTS"
    r"|(GNU)?MAKE(FILES|FLAGS|LEVEL|OVERRIDES)|MFLAGS"
    r"|CPATH|C_INCLUDE_PATH|LIBRARY_PATH|COMPILER_PATH|GCC_\w+|LD_RUN_PATH|SOURCE_DATE_EPOCH"
    r"|DEPENDENCIES_OUTPUT|SUNPRO_DEPENDENCIES"
    r"|BASH_ENV|ENV|CDPATH|GREP_OPTIONS"
)
_running: set[int] = set()  # what `spawn` owns now


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ended; `status` is negative for the signal that ended it."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def text(self) -> str:
        """Standard output as text, undecodable bytes replaced."""
        return self.stdout.decode("utf-8", "replace")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of every child: this process's, in the C locale, plus `extra`.

    What would change the result of a tool behind labctl's back is left out.
    """
    env = {k: v for k, v in os.environ.items() if not _STEERING.fullmatch(k)}
    return env | {"LC_ALL": "C"} | dict(extra or {})


def _die_with_parent(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the request was in place
            os._exit(127)

    return prepare


def _start(
    argv: Sequence[Argument],
    *,
    cwd: Path | None,
    env: Mapping[str, str] | None,
    stdin: int | IO[bytes] | None,
    stdout: int | IO[bytes] | None,
    stderr: int | IO[bytes] | None,
    bound: bool,
    foreground: bool = False,
) -> subprocess.Popen[bytes]:
    words = [str(word) for word in argv]
    try:
        return subprocess.Popen(
            words,
            cwd=cwd,
            env=None if foreground else environment(env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            # A group of its own keeps the terminal's Ctrl-C and hang-up from it. A
            # session of its own would too, and cost 20 % of the time that two
            # guests need to boot: the scheduler balances sessions (autogroup).
            process_group=None if foreground else 0,
            preexec_fn=_die_with_parent(os.getpid()) if bound else None,
        )
    except FileNotFoundError as error:
        if cwd is not None and not cwd.is_dir():
            raise HostError(f"the folder {cwd} does not exist") from error
        raise HostError(
            f"{words[0]} is not installed",
            hint="`make setup` installs what the lab needs, `labctl doctor` says what is missing",
        ) from error
    except OSError as error:
        raise HostError(f"{words[0]} cannot be started: {error.strerror}") from error


@contextmanager
def _deferred_signals() -> Iterator[None]:
    """Have the handlers of signals that end labctl run after the block, not within it.

    What a handler raises while a program is being started would leave the program without
    an owner. Handlers are exchanged, since a mask would leave the signal to another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs handlers in the main thread only
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in _ENDING}
    theirs = {number: each for number, each in handlers.items() if callable(each)}
    for number in theirs:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in theirs.items():
            signal.signal(number, handler)
    for late in came:
        theirs[signal.Signals(late)](late, None)


def _kill_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # The child leads its own group, so its pid is the group's id until it is reaped.
    if process.poll() is None:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return


@contextmanager
def _owned(
    argv: Sequence[Argument],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    stdin: int | IO[bytes],
    stdout: int | IO[bytes],
    stderr: int | IO[bytes],
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program; kill what is left of it and its group, and reap it, at the block's end."""
    popen = None
    try:
        with _deferred_signals():
            popen = _start(
                argv, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr, bound=True
            )
        yield popen
    finally:
        if popen is not None:
            _kill_group(popen, signal.SIGKILL)
            _reap(popen)


def _wait(popen: subprocess.Popen[bytes], timeout_seconds: float) -> int | None:
    try:
        return popen.wait(timeout_seconds)  # which sleeps 50 ms at most at a time
    except subprocess.TimeoutExpired:
        return None


def _reap(popen: subprocess.Popen[bytes]) -> int:
    """Wait for what was killed; return its status.

    Raises:
        HostError: it is still there, in a system call that does not end.
    """
    status = _wait(popen, _REAP_SECONDS)
    if status is None:
        raise HostError(
            f"process {popen.pid} was killed and does not end",
            hint="`dmesg` may say what it awaits",
        )
    return status


def _communicate(
    popen: subprocess.Popen[bytes], stdin: bytes, timeout_seconds: float
) -> tuple[bytes, bytes]:
    """Feed a program and return its outputs, in steps; raises TimeoutExpired."""
    deadline = time.monotonic() + timeout_seconds
    given: bytes | None = stdin
    while True:
        left = max(0.0, deadline - time.monotonic())
        try:
            return popen.communicate(given, timeout=min(_STEP_SECONDS, left))
        except subprocess.TimeoutExpired:
            given = None  # it is kept for the next step
            if left <= _STEP_SECONDS:
                raise


def _outputs(popen: subprocess.Popen[bytes]) -> bytes:
    """Return what a killed program had said.

    A child of it in another session may live on and hold its outputs open.
    """
    try:
        stdout, stderr = _communicate(popen, b"", _TERMINATE_SECONDS)
    except subprocess.TimeoutExpired as error:
        return (error.output or b"") + (error.stderr or b"")
    return stdout + stderr


def run(
    argv: Sequence[Argument],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout_seconds: float,
    check: bool = True,
) -> Completed:
    """Run a program to its end and return what it printed.

    Raises:
        CommandError: it failed and `check` is set, or it outlived its deadline.
        HostError: it could not be started.
    """
    began = time.monotonic()
    with _owned(
        argv, cwd, env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as popen:
        try:
            stdout, stderr = _communicate(popen, stdin, timeout_seconds)
        except subprocess.TimeoutExpired as error:
            _kill_group(popen, signal.SIGKILL)
            raise CommandError(
                f"`{shlex.join(map(str, argv))}` did not end within {timeout_seconds:g} s",
                status=_reap(popen),
                output=_tail(_outputs(popen)),
            ) from error
    done = Completed(
        tuple(map(str, argv)), popen.returncode, stdout, stderr, time.monotonic() - began
    )
    if check and done.status != 0:
        output = _tail(done.stderr or done.stdout)
        raise CommandError(
            f"`{shlex.join(done.argv)}` {ending(done.status)}: {output}",
            status=done.status,
            output=output,
        )
    return done


def ending(status: int) -> str:
    """Return how a program ended, in words; `status` is negative for a signal, or a shell's."""
    number = -status if status < 0 else status - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"ended with status {status}"
    told = f"was killed by {name}" if status < 0 else f"ended with status {status} ({name})"
    if number == signal.SIGKILL:
        return f"{told}, perhaps by the kernel's OOM killer (`dmesg` tells)"
    return told


def _tail(data: bytes, lines: int = 20) -> str:
    return "\n".join(data.decode("utf-8", "replace").strip().splitlines()[-lines:])


class Process:
    """A running program and the right to end it."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen

    @property
    def pid(self) -> int:
        """The process id, which is also its process group."""
        return self._popen.pid

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self._popen.poll()

    def wait(self, timeout_seconds: float) -> int | None:
        """Return the exit status, or None if it still runs after `timeout_seconds`."""
        return _wait(self._popen, timeout_seconds)

    def end(self) -> int:
        """End it and all of its group: terminate, then kill. Always reaps; safe to call twice."""
        _kill_group(self._popen, signal.SIGTERM)
        if self.wait(_TERMINATE_SECONDS) is None:
            _kill_group(self._popen, signal.SIGKILL)
        return _reap(self._popen)


def started_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot: with its pid, its identity."""
    fields = _stat(pid)
    return None if not fields or fields[0] == "Z" else int(fields[19])


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on, none if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    # The program's name stands in parentheses and may itself hold some.
    return stat.rpartition(")")[2].split()


class Found:
    """A process that an earlier labctl launched, found again by pid and start time."""

    def __init__(self, pid: int, ticks: int | None) -> None:
        self.pid = pid
        self._ticks = ticks

    def poll(self) -> int | None:
        """Return None while it runs, 0 when it is gone: its status was its parent's to know."""
        return None if self._ticks is not None and started_ticks(self.pid) == self._ticks else 0

    def end(self) -> int:
        """End it: terminate, then kill. Safe if it is gone, or its pid is somebody else's now."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return 0
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                # After the descriptor is held, the pid cannot come to mean another process.
                if self.poll() is not None:
                    return 0
                signal.pidfd_send_signal(descriptor, number)
                _await_end(descriptor, _TERMINATE_SECONDS)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)
        return 0


def _await_end(descriptor: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([descriptor], [], [], min(_STEP_SECONDS, left))[0]:
            return


@contextmanager
def spawn(
    argv: Sequence[Argument],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Iterator[Process]:
    """Own a running program for the length of the block; its output is appended to `log`."""
    with (
        _output(log) as out,
        _owned(
            argv, cwd, env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        ) as popen,
    ):
        _running.add(popen.pid)
        try:
            yield Process(popen)
        finally:
            Process(popen).end()
            _running.discard(popen.pid)


def cpu_seconds() -> float:
    """Return the CPU time of this process and of all it began by `run` or `spawn`, cumulative.

    Of those that still run it counts in ticks of the kernel (10 ms); a child's own
    children count once it has waited for them.
    """
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    living = sum(_ticks_of(pid) for pid in _running) / _TICKS_PER_SECOND
    return living + sum(each.ru_utime + each.ru_stime for each in used)


def _ticks_of(pid: int) -> int:
    # utime, stime, cutime, cstime; what was reaped meanwhile is among this process's children
    fields = _stat(pid)
    return sum(map(int, fields[11:15])) if fields else 0


def foreground(argv: Sequence[Argument], *, cwd: Path | None = None) -> int:
    """Run a program that has the terminal to itself; return its status as a shell tells it.

    It runs in the user's own locale, and Ctrl-C is the program's to handle.

    Raises:
        HostError: it could not be started.
    """
    before = signal.getsignal(signal.SIGINT)
    if before != signal.SIG_IGN:
        # A handler, for the program would inherit that it is ignored.
        signal.signal(signal.SIGINT, lambda *_: None)
    try:
        popen = _start(
            argv,
            cwd=cwd,
            env=None,
            stdin=None,
            stdout=None,
            stderr=None,
            bound=True,
            foreground=True,
        )
        try:
            while (status := _wait(popen, _STEP_SECONDS)) is None:
                pass
        finally:
            if popen.poll() is None:
                popen.kill()
                _reap(popen)
    finally:
        signal.signal(signal.SIGINT, before)
    return status if status >= 0 else 128 - status


def launch(
    argv: Sequence[Argument],
    *,
    log: Path,
    record: Callable[[int], None],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Process:
    """Start a program that outlives labctl.

    `record` is given its pid, to end it later, before any signal can end labctl; if it
    fails, the program is ended at once.
    """
    with _output(log) as out, _deferred_signals():
        process = Process(
            _start(
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                bound=False,
            )
        )
        try:
            record(process.pid)
        except BaseException:
            process.end()
            raise
    return process


@contextmanager
def _output(log: Path | None) -> Iterator[int | IO[bytes]]:
    if log is None:
        yield subprocess.DEVNULL
    else:
        with log.open("ab") as file:
            yield file
