"""The only place that starts a process.

`run` runs a program to its end, `spawn` runs one during a `with` block, `foreground` gives
one the terminal, `launch` starts one that outlives labctl (a guest of `labctl up`). The
kernel kills all but the last when labctl dies or the thread that started them ends: see
`parent_death`.
"""

from __future__ import annotations

import os
import resource
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from labctl import command_log, environment, parent_death, process_table, signals
from labctl.completed import Completed, cannot_start, ending, tail
from labctl.errors import CommandError, HostError
from labctl.process_table import TERMINATE_SECONDS
from labctl.signals import STEP_SECONDS

Argument = str | Path
# A killed process first frees its memory, which takes long for a large guest.
_REAP_SECONDS = 300.0
_running: set[int] = set()  # pids of the programs of `spawn`


class _Guest(subprocess.Popen[bytes]):
    """A guest. One that still runs when its object is freed needs no ResourceWarning."""

    def __del__(self) -> None:
        super().__del__(_warn=lambda *_, **__: None)  # type: ignore[call-arg]  # not in typeshed


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
    popen: type[subprocess.Popen[bytes]] = subprocess.Popen,
) -> subprocess.Popen[bytes]:
    words = [str(word) for word in argv]
    variables = None if foreground else environment.of_child(env)
    log = None if stdout is None or isinstance(stdout, int) else Path(stdout.name)
    command_log.command(words, cwd, log)
    try:
        if bound:
            parent_death.check(words[0], cwd, os.environ if variables is None else variables)
        return popen(
            parent_death.command(words) if bound else words,
            cwd=cwd,
            env=variables,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            # SIGXFSZ, which Python ignores, ends no guest whose log is at the limit of files.
            restore_signals=popen is not _Guest,
            # In its own process group, the program does not receive Ctrl-C and the hang-up
            # of the terminal. A session would also do, but the boot of two guests then
            # takes 20 % longer: the scheduler balances sessions (autogroup).
            # With preexec_fn, user or group, subprocess would use fork instead of vfork.
            process_group=None if foreground else 0,
        )
    except FileNotFoundError as error:
        if cwd is not None and not cwd.is_dir():
            raise HostError(f"the folder {cwd} does not exist") from error
        raise HostError(
            f"{words[0]} is not installed",
            hint="`make setup` installs what the lab needs, `labctl doctor` says what is missing",
        ) from error
    except OSError as error:
        raise cannot_start(words[0], error) from error


def _kill_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # The child's pid is its group's id, and is not reused before the child is reaped.
    if process.poll() is None:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return


@contextmanager
def _owned(start: Callable[[], subprocess.Popen[bytes]]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program; at the block's end, kill its process group and reap it."""
    popen = None
    try:
        with signals.deferred():
            popen = start()
        yield popen
    finally:
        if popen is not None:
            _kill_group(popen, signal.SIGKILL)
            for pipe in (popen.stdin, popen.stdout, popen.stderr):
                if pipe is not None:
                    pipe.close()
            _reap(popen)


def _wait(popen: subprocess.Popen[bytes], timeout_seconds: float) -> int | None:
    try:
        return popen.wait(timeout_seconds)  # sleeps at most 50 ms at a time
    except subprocess.TimeoutExpired:
        return None


def _reap(popen: subprocess.Popen[bytes]) -> int:
    """Wait for a killed program and return its status.

    Raises:
        HostError: it does not end: it hangs in a system call.
    """
    status = _wait(popen, _REAP_SECONDS)
    if status is None:
        raise HostError(
            f"process {popen.pid} was killed and does not exit",
            hint="`dmesg` may show the system call it hangs in",
        )
    return status


def _communicate(
    popen: subprocess.Popen[bytes], stdin: bytes, timeout_seconds: float
) -> tuple[bytes, bytes]:
    """Write stdin to a program and return stdout and stderr; raise TimeoutExpired.

    Waits in steps, so that signals are handled in time.
    """
    deadline = time.monotonic() + timeout_seconds
    given: bytes | None = stdin
    while True:
        left = max(0.0, deadline - time.monotonic())
        try:
            return popen.communicate(given, timeout=min(STEP_SECONDS, left))
        except subprocess.TimeoutExpired:
            given = None  # `communicate` keeps its input for the next call
            if left <= STEP_SECONDS:
                raise


def _outputs(popen: subprocess.Popen[bytes]) -> bytes:
    """Return stdout and stderr of a killed program.

    A child of it in another session may still run and keep both open.
    """
    try:
        stdout, stderr = _communicate(popen, b"", TERMINATE_SECONDS)
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
    is_output_logged: bool = True,
) -> Completed:
    """Run a program to its end and return its output.

    Raises:
        CommandError: its status is not 0 and `check` is set, or the deadline expired.
        HostError: it cannot be started.
    """
    began = time.monotonic()
    pipe = subprocess.PIPE
    start = partial(_start, argv, stdin=pipe, stdout=pipe, stderr=pipe, bound=True)
    with _owned(partial(start, cwd=cwd, env=env)) as popen:
        try:
            stdout, stderr = _communicate(popen, stdin, timeout_seconds)
        except subprocess.TimeoutExpired as error:
            _kill_group(popen, signal.SIGKILL)
            raise CommandError(
                f"`{shlex.join(map(str, argv))}` did not exit within {timeout_seconds:g} s",
                status=_reap(popen),
                output=tail(_outputs(popen)),
            ) from error
    command_log.output(stdout if is_output_logged else b"", stderr)
    done = Completed(
        tuple(map(str, argv)), popen.returncode, stdout, stderr, time.monotonic() - began
    )
    if check and done.status != 0:
        output = tail(done.stderr or done.stdout)
        raise CommandError(
            f"`{shlex.join(done.argv)}` {ending(done.status)}: {output}",
            status=done.status,
            output=output,
        )
    return done


class Process:
    """A running program that the caller may end."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen

    @property
    def pid(self) -> int:
        """The process id, also the id of its process group."""
        return self._popen.pid

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        return self._popen.poll()

    def wait(self, timeout_seconds: float) -> int | None:
        """Return the exit status, None if it still runs after `timeout_seconds`."""
        return _wait(self._popen, timeout_seconds)

    def end(self) -> int:
        """Send its process group SIGTERM, then SIGKILL; reap it. May be called again."""
        _kill_group(self._popen, signal.SIGTERM)
        if self.wait(TERMINATE_SECONDS) is None:
            _kill_group(self._popen, signal.SIGKILL)
        return _reap(self._popen)


@contextmanager
def spawn(
    argv: Sequence[Argument],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    is_guest: bool = False,
) -> Iterator[Process]:
    """Run a program, such as a guest, during the block; append its output to `log`.

    The program is killed when the thread that started it ends.
    """
    with (
        command_log.appending(log) as file,
        _owned(
            partial(
                _start,
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file or subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                bound=True,
                popen=_Guest if is_guest else subprocess.Popen,
            )
        ) as popen,
    ):
        _running.add(popen.pid)
        try:
            yield Process(popen)
        finally:
            Process(popen).end()
            _running.discard(popen.pid)


def cpu_seconds() -> float:
    """Return the total CPU time of this process and of all programs of `run` and `spawn`.

    The resolution for running programs is one tick of the kernel (10 ms). The children of
    a program count after it has waited for them.
    """
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    living = sum(map(process_table.cpu_seconds, _running))
    return living + sum(each.ru_utime + each.ru_stime for each in used)


def foreground(argv: Sequence[Argument], *, cwd: Path | None = None) -> int:
    """Run a program that uses the terminal; return its status as a shell does: 128 + signal.

    It runs in the user's locale and handles Ctrl-C itself.

    Raises:
        HostError: it cannot be started.
    """
    before = signal.getsignal(signal.SIGINT)
    if before != signal.SIG_IGN:
        # A handler that does nothing: the program would inherit SIG_IGN.
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
            while (status := _wait(popen, STEP_SECONDS)) is None:
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

    `record` stores the pid. No signal ends labctl before it returns; if it fails, the
    program is ended.
    """
    with command_log.appending(log) as file, signals.deferred():
        process = Process(
            _start(
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                bound=False,
                popen=_Guest,
            )
        )
        try:
            record(process.pid)
        except BaseException:
            process.end()
            raise
    return process
