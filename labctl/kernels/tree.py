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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import HostError
from labctl.kernels import remains, treefiles
from labctl.kernels.series import Series
from labctl.kernels.sources import Source
from labctl.kernels.treefiles import File

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
        self._write({n: self._original(n) for n in self._changed() - wanted.keys()})
        for name in wanted:
            self._keep(name)
        self._write(wanted)

    def _write(self, wanted: Mapping[str, File | None]) -> None:
        # What goes first makes room: a file for the folder that another series had there.
        for name, file in sorted(wanted.items(), key=lambda each: each[1] is not None):
            treefiles.write(self.src, name, file)

    def _changed(self) -> set[str]:
        """Return the files that a series has ever changed."""
        if not self._orig.is_dir():
            return set()
        every = (p for p in self._orig.rglob("*") if p.is_symlink() or p.is_file())
        kept = (p for p in every if not p.name.endswith(".tmp"))
        return {str(p.relative_to(self._orig)).removesuffix(_ABSENT) for p in kept}

    def _original(self, name: str) -> File | None:
        with contextlib.suppress(KeyError):
            return self.source.original(name)
        # A folder that another series has put a file or a link in the place of is none.
        for each in (Path(name), *Path(name).parents):
            if (self._orig / f"{each}{_ABSENT}").is_file():
                return None
        kept = treefiles.read(self._orig, name)
        return treefiles.read(self.src, name) if kept is None else kept

    def _keep(self, name: str) -> None:
        absent = f"{name}{_ABSENT}"
        if any(treefiles.read(self._orig, kept) is not None for kept in (name, absent)):
            return
        original = self._original(name)
        if original is None:
            if not (self.src / name).is_dir():  # else `treefiles.write` says so
                treefiles.write(self._orig, absent, File(b""))
        else:
            treefiles.write(self._orig, name, original)
