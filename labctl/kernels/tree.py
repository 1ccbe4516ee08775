"""A work tree: one source, one build folder, and the series that is applied right now.

Stock and patched kernels share the tree, so that a patched image compiles only
what the patches touch. To go from one series to another only the files whose
content differs are written; make sees by their new times what to compile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import UserError
from labctl.kernels.series import Series
from labctl.kernels.sources import Source


@dataclass(frozen=True, slots=True)
class Tree:
    """A work tree in `folder`: `src/` the source, `orig/` what patches changed, `build/`."""

    folder: Path
    source: Source

    @property
    def src(self) -> Path:
        """The source as it is compiled."""
        return self.folder / "src"

    @property
    def build(self) -> Path:
        """Where make puts what it makes."""
        return self.folder / "build"

    @property
    def _orig(self) -> Path:
        return self.folder / "orig"

    @contextlib.contextmanager
    def locked(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Keep other labctls out of the tree; `waiting` is called once if one is in."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

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
        for name, content in wanted.items():
            _write(self.src / name, content)

    def check(self, series: Series) -> None:
        """Apply a series to copies only.

        Raises:
            UserError: a patch does not apply.
        """
        series.apply(self._original)

    def fill(self) -> None:
        """Bring the source in, or up to date."""
        self._refresh_originals()
        self.source.fill(self.src)

    def _refresh_originals(self) -> None:
        """Forget originals that the user's own folder knows better."""
        for name in self._changed():
            with contextlib.suppress(KeyError):
                _write(self._orig / name, self.source.original(name))
                if self.source.original(name) is None:
                    _write(self._orig / f"{name}{_ABSENT}", b"")

    def _changed(self) -> set[str]:
        if not self._orig.is_dir():
            return set()
        kept = (p for p in self._orig.rglob("*") if p.is_file() and not p.name.endswith(".tmp"))
        return {str(p.relative_to(self._orig)).removesuffix(_ABSENT) for p in kept}

    def _original(self, name: str) -> bytes | None:
        try:
            return self.source.original(name)
        except KeyError:
            pass
        if (self._orig / f"{name}{_ABSENT}").is_file():
            return None
        for folder in (self._orig, self.src):
            if (folder / name).is_file():
                return (folder / name).read_bytes()
        return None

    def _keep(self, name: str) -> None:
        target = self._orig / name
        if target.is_file() or target.with_name(target.name + _ABSENT).is_file():
            return
        content = self._original(name)
        if content is None:
            _write(target.with_name(target.name + _ABSENT), b"")
        else:
            _write(target, content)


# Marks a file that the source does not have and a series brings.
_ABSENT = ".labctl-absent"


def _write(path: Path, content: bytes | None) -> None:
    """Replace a file if its content differs; None removes it."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    if path.is_symlink() or path.is_dir():
        raise UserError(f"a patch touches {path.name}, which is not a plain file", where=str(path))
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(content)
    if path.is_file():
        temporary.chmod(path.stat().st_mode & 0o777)
    temporary.replace(path)
