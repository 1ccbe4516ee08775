"""Host-wide measurement lock: one measurement at a time, across all users.

Each user has a lock file, since files of others in a world-writable folder cannot be
trusted. A measurement locks the file of its user exclusively and the files of all other
users shared. Each process creates its file before it looks for the others, so of two
users at least one sees both files. All processes lock in the same order, which rules
out deadlocks.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labctl import flock
from labctl.errors import HostError
from labctl.printable import printable

_OF_ROOT = Path("/run")  # only root may write to it
_OF_ALL = (Path("/run/lock"), Path("/tmp"))  # noqa: S108 - the files are checked
_NAME = re.compile(r"labctl-measuring-(\d+)\.lock")
_POLL_SECONDS = 0.5
_DEADLINE_SECONDS = 48 * 3600.0  # longer than a weekend's run
_TEXT_BYTES = 500
_UNKNOWN = "another process"


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    descriptor: int
    own: bool

    def taken(self, seconds: float) -> bool:
        return flock.take(self.descriptor, shared=not self.own, timeout_seconds=seconds)

    def text(self) -> str:
        """Return the owner's description of its measurement, empty if there is none."""
        if flock.take(self.descriptor, shared=True, timeout_seconds=0):
            flock.give_back(self.descriptor)
            return ""
        text = os.pread(self.descriptor, _TEXT_BYTES, 0).decode("utf-8", "replace").strip()
        return printable(text)

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the text is optional, even if the disk is full
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, text.encode(), 0)


@contextlib.contextmanager
def measuring(
    purpose: str,
    *,
    waiting: Callable[[str], None],
    folder: Path | None = None,
    poll: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Hold the measurement lock; call `waiting` once with the current holder, if any.

    The kernel releases the lock when the process ends. `folder` contains the lock files,
    by default system folders. `poll` is called every half second while it waits, and may
    raise to give up.

    Raises:
        HostError: this user's lock file is not usable, or another measurement does not
            finish.
    """
    everywhere = (_OF_ROOT, *_OF_ALL) if folder is None else (folder,)
    with contextlib.ExitStack() as stack:
        mine = _own([each for each in everywhere if each != _OF_ROOT or os.geteuid() == 0])
        stack.callback(os.close, mine.descriptor)
        found = [mine]
        for other in _others(everywhere, mine.path):
            stack.callback(os.close, other.descriptor)
            found.append(other)
        _take_all(sorted(found, key=lambda file: file.path), waiting, poll)
        mine.write(f"process {os.getpid()}: {purpose}\n")
        yield


def _take_all(files: list[_File], waiting: Callable[[str], None], poll: Callable[[], None]) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    is_reported = False
    for index, file in enumerate(files):
        while not file.taken(_POLL_SECONDS if is_reported else 0.0):
            holders = [text for text in (other.text() for other in files[index:]) if text]
            if not is_reported:
                is_reported = True
                waiting(", ".join(holders) or _UNKNOWN)
            poll()
            if time.monotonic() > deadline:
                raise HostError(
                    f"another measurement does not finish: {', '.join(holders) or _UNKNOWN}",
                    where=str(file.path),
                )
        if file.own:
            file.write("")  # remove the text of a killed measurement


def _own(folders: Sequence[Path]) -> _File:
    """Open or create this user's lock file in the first writable folder."""
    folder = next((each for each in folders if os.access(each, os.W_OK)), None)
    if folder is None:
        raise HostError(
            f"no writable folder for the measurement lock: {', '.join(map(str, folders))}"
        )
    path = folder / f"labctl-measuring-{os.geteuid()}.lock"
    try:
        descriptor = _open(path, os.O_RDWR | os.O_CREAT, os.geteuid())
    except (OSError, _Refused) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise HostError(
            f"unusable measurement lock: {what}",
            where=str(path),
            hint="check it with `ls -l`, then remove it",
        ) from error
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, 0o644)  # others must be able to lock it, whatever our umask
    return _File(path, descriptor, own=True)


def _others(folders: Iterable[Path], mine: Path) -> Iterator[_File]:
    """Yield the lock files of other users; skip files that are not valid lock files."""
    for folder in folders:
        for path in folder.glob("labctl-measuring-*.lock"):
            found = _NAME.fullmatch(path.name)
            if found and path != mine:
                with contextlib.suppress(OSError, _Refused):
                    yield _File(path, _open(path, os.O_RDONLY, int(found[1])), own=False)


class _Refused(Exception):
    pass


def _open(path: Path, flags: int, owner: int) -> int:
    """Open a lock file; raise OSError, or _Refused if it is not a regular file of `owner`."""
    more = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    descriptor = os.open(path, flags | more, 0o644)
    info = os.fstat(descriptor)
    fault = (
        "not a regular file"
        if not stat.S_ISREG(info.st_mode)
        else f"it belongs to user {info.st_uid}"
        if info.st_uid != owner
        else f"it has {info.st_nlink} links"
        if info.st_nlink != 1
        else ""
    )
    if fault:
        os.close(descriptor)
        raise _Refused(fault)
    return descriptor
