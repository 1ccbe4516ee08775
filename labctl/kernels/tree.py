"""A work tree: one source, one build folder per kconfig, and the series applied at present.

Stock and patched kernels share the tree and, with the same kconfig, the build
folder, so that a patched image compiles only what the patches touch. A change of
series writes only the files whose content differs; make detects them by their times.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from labctl import files, flock, proc
from labctl.errors import HostError, LabError
from labctl.host import leftovers
from labctl.kernels import patching, remains, treefiles
from labctl.kernels.sources import Source
from labctl.kernels.treefiles import File
from labctl.series.patch import Series

LOCK_SECONDS = 4 * 3600.0
_POLL_SECONDS = 0.5
# Marks a file that a series adds to the source.
_ABSENT = ".labctl-absent"
# Marks of a build folder: make runs in it, or died there; when make last ended in it.
_IN_WORK, _USED = ".in-work", ".used"
# The mark of a tree with files that a crash of the host may empty or lose.
_UNSYNCED = "unsynced"
_LOCKS = ("lock", "make.lock")
_SYNC_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Tree:
    """A work tree: `src/` has the source, `orig/` originals of patched files, `build-…/` objects.

    `configuration` is part of the build folder's name, so that a debug kernel does not
    overwrite the objects of the usual one.
    """

    folder: Path
    source: Source
    configuration: str

    @property
    def src(self) -> Path:
        """The source with the applied series."""
        return self.folder / "src"

    @property
    def build(self) -> Path:
        """The folder of make's output."""
        return self.folder / f"build-{self.configuration}"

    @property
    def make_lock(self) -> Path:
        """Lock file held by make and all its children, even if they outlive labctl."""
        return self.folder / "make.lock"

    @property
    def _orig(self) -> Path:
        return self.folder / "orig"

    @property
    def _in_work(self) -> Path:
        return self.build.with_suffix(_IN_WORK)

    @contextlib.contextmanager
    def locked(
        self, waiting: Callable[[], None], rebuilding: Callable[[str], None] = lambda _: None
    ) -> Iterator[None]:
        """Lock the tree against other labctls; call `waiting` while another one holds it.

        After a killed labctl, its compilers are killed and partly written files removed.
        Objects are removed, and `rebuilding` is called with the reason, if the clock was set
        back after their build: to make, they are newer than any source that is written now.
        The whole tree is removed if the host crashed before all of it was on the disk: make
        takes an empty object for a finished one. In the end the tree is synced to disk.

        Raises:
            HostError: the other labctl did not finish in time.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + LOCK_SECONDS
        try:
            while not flock.take(descriptor, timeout_seconds=0):
                waiting()
                if time.monotonic() > deadline:
                    raise HostError(
                        f"another labctl has been building for {LOCK_SECONDS:g} s",
                        where=str(self.folder),
                    )
                time.sleep(_POLL_SECONDS)
            remains.end_orphans(self.make_lock)
            if self._remove_after_crash():
                rebuilding("the host crashed before the last build was on the disk")
            if self._in_work.exists():
                remains.remove_half_written(self.build)
                self._in_work.unlink()
            if self._remove_objects_of_future(descriptor):
                rebuilding("the host's clock was set back")
            try:
                yield
            finally:
                self._sync()
        finally:
            os.close(descriptor)

    @property
    def _unsynced(self) -> Path:
        return self.folder / _UNSYNCED

    def _will_write(self) -> None:
        """Mark the tree, on disk, before anything of it is written."""
        if not self._unsynced.exists():
            self._unsynced.touch()
            files.sync_folder(self.folder)

    def _sync(self) -> None:
        """Write all of a marked tree to disk, then remove its mark; without success, keep it."""
        if self._unsynced.exists():
            with contextlib.suppress(LabError, OSError):
                proc.run(["sync", "-f", self.folder], timeout_seconds=_SYNC_SECONDS)
                self._unsynced.unlink()

    def _remove_after_crash(self) -> bool:
        if not self._unsynced.exists() or not leftovers.is_of_earlier_boot(self._unsynced.stat()):
            return False
        for path in self.folder.iterdir():  # the mark last: this may be killed, too
            if path.name not in (*_LOCKS, _UNSYNCED):
                files.remove(path)
        self._unsynced.unlink()
        return True

    def _remove_objects_of_future(self, lock: int) -> bool:
        # Both times are of the file system, whose clock may be that of a server.
        os.utime(lock)
        now = os.fstat(lock).st_mtime_ns
        marks = (*self.folder.glob(f"build-*{_USED}"), *self.folder.glob(f"build-*{_IN_WORK}"))
        found = [mark for mark in marks if mark.stat().st_mtime_ns > now]
        for mark in found:
            files.remove(mark.with_suffix(""))
            mark.unlink()
        return bool(found)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Mark the build folder as in use; the mark stays if the block raises or labctl dies."""
        self._will_write()
        self._in_work.touch()
        try:
            yield
        finally:
            self.build.with_suffix(_USED).touch()
        self._in_work.unlink()

    def fill(self) -> str:
        """Write or update the source, and return its hash.

        Files that a series has changed are left to `prepare`.
        """
        self._will_write()
        return self.source.fill(self.src, self._changed())

    def check(self, series: Series) -> None:
        """Apply a series to copies only.

        Raises:
            UserError: a patch does not apply.
        """
        patching.apply(series, self._original)

    def originals(self, names: Iterable[str], below: Series | None) -> dict[str, File | None]:
        """Return files with only the series `below` applied; None is no file.

        Raises:
            UserError: a patch does not apply.
        """
        changed = patching.apply(below, self._original) if below else {}
        return {n: changed[n] if n in changed else self._original(n) for n in names}

    def prepare(self, series: Series | None) -> None:
        """Apply exactly this series to the source, whatever was applied before.

        A file's original is stored before the file is first changed, and files are
        replaced atomically: the next call repairs the tree after a kill at any point.

        Raises:
            UserError: a patch does not apply.
        """
        wanted = patching.apply(series, self._original) if series else {}
        self._write({n: self._original(n) for n in self._changed() - wanted.keys()})
        for name in wanted:
            self._keep(name)
        self._write(wanted)

    def _write(self, wanted: Mapping[str, File | None]) -> None:
        # Removals first: a file may take the place of another series' folder.
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
        # A name below a file or link that a series added does not exist in the source.
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
            if not (self.src / name).is_dir():  # `treefiles.write` reports a folder
                treefiles.write(self._orig, absent, File(b""))
        else:
            treefiles.write(self._orig, name, original)
