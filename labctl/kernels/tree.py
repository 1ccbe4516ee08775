"""A work tree: one source, a build folder a kconfig, and the series that is applied right now.

Stock and patched kernels share the tree and, if they share their kconfig, the
build folder, so that a patched image compiles only what the patches touch. To
go from one series to another only the files whose content differs are written;
make sees by their new times what to compile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import HostError, UserError
from labctl.kernels import remains
from labctl.kernels.series import Series
from labctl.kernels.sources import File, Source

LOCK_SECONDS = 4 * 3600.0
_POLL_SECONDS = 0.5
# Marks a file that the source does not have and a series brings.
_ABSENT = ".labctl-absent"


@dataclass(frozen=True, slots=True)
class Tree:
    """A work tree in `folder`: `src/` the source, `orig/` what patches changed, `build-…/`.

    `configuration` names the build folder: a debug kernel beside the usual one
    costs neither of them its objects.
    """

    folder: Path
    source: Source
    configuration: str

    @property
    def src(self) -> Path:
        """The source as it is compiled."""
        return self.folder / "src"

    @property
    def build(self) -> Path:
        """Where make puts what it makes."""
        return self.folder / f"build-{self.configuration}"

    @property
    def make_lock(self) -> Path:
        """Held by make and all of its children, also when they outlive labctl."""
        return self.folder / "make.lock"

    @property
    def _orig(self) -> Path:
        return self.folder / "orig"

    @property
    def _in_work(self) -> Path:
        return self.build.with_suffix(".in-work")

    @contextlib.contextmanager
    def locked(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Keep other labctls out of the tree; `waiting` is called while one is in.

        What a killed labctl left is put in order first: its compilers are ended,
        what they had half written is removed.

        Raises:
            HostError: the other one did not leave.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + LOCK_SECONDS
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waiting()
                if time.monotonic() > deadline:
                    raise HostError(
                        f"another labctl has been building for {LOCK_SECONDS:g} s",
                        where=str(self.folder),
                    )
                time.sleep(_POLL_SECONDS)
            remains.end_orphans(self.make_lock)
            if self._in_work.exists():
                remains.remove_half_written(self.build)
                self._in_work.unlink()
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Mark the build folder as being written, unless make came to an end by itself."""
        self._in_work.touch()
        yield
        self._in_work.unlink()

    def fill(self) -> str:
        """Bring the source in, or up to date; what series changed is left to `prepare`.

        Returns the hash of what was brought in.
        """
        return self.source.fill(self.src, self._changed())

    def check(self, series: Series) -> None:
        """Apply a series to copies only.

        Raises:
            UserError: a patch does not apply.
        """
        series.apply(self._original)

    def originals(self, names: Iterable[str]) -> dict[str, File | None]:
        """Return files as they are without any series; None is no file."""
        return {name: self._original(name) for name in names}

    def prepare(self, series: Series | None) -> None:
        """Make the source what the series says, from whatever state the tree is in.

        A file's original is on the disk before the file is first changed, and a
        file is only ever replaced as a whole: a kill at any point is repaired by
        the next call.

        Raises:
            UserError: a patch does not apply.
        """
        wanted = series.apply(self._original) if series else {}
        for name in self._changed() - wanted.keys():
            wanted[name] = self._original(name)
        for name in wanted:
            self._keep(name)
        for name, file in wanted.items():
            _write(self.src / name, file)

    def _changed(self) -> set[str]:
        """Return the files that a series has ever changed."""
        if not self._orig.is_dir():
            return set()
        kept = (p for p in self._orig.rglob("*") if p.is_file() and not p.name.endswith(".tmp"))
        return {str(p.relative_to(self._orig)).removesuffix(_ABSENT) for p in kept}

    def _original(self, name: str) -> File | None:
        with contextlib.suppress(KeyError):
            return self.source.original(name)
        if (self._orig / f"{name}{_ABSENT}").is_file():
            return None
        kept = _read(self._orig / name)
        return _read(self.src / name) if kept is None else kept

    def _keep(self, name: str) -> None:
        target = self._orig / name
        absent = target.with_name(target.name + _ABSENT)
        if target.is_file() or absent.is_file():
            return
        original = self._original(name)
        if original is None:
            _write(absent, File(b""))
        else:
            _write(target, original)


def _read(path: Path) -> File | None:
    return File(path.read_bytes(), os.access(path, os.X_OK)) if path.is_file() else None


def _write(path: Path, file: File | None) -> None:
    """Replace a file if it differs; None removes it."""
    if path.is_symlink() or path.is_dir():
        raise UserError(f"a patch touches {path.name}, which is not a plain file", where=str(path))
    if file is None:
        path.unlink(missing_ok=True)
        return
    if _read(path) == file:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(file.data)
    temporary.chmod(0o755 if file.executable else 0o644)
    temporary.replace(path)
