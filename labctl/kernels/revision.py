"""A revision of a user's git repository as a source; the repository is only read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labctl.errors import UserError
from labctl.host.repository import Entry, Repository, Revision
from labctl.kernels import listing, mentions, mirror, patching
from labctl.kernels.tree_id import tree_id
from labctl.kernels.treefiles import File
from labctl.series.patch import Series


@dataclass(frozen=True, slots=True)
class Committed:
    """A tree of a git repository, without uncommitted edits."""

    repository: Repository
    revision: Revision
    has_originals = True
    _entries: dict[str, Entry] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def open(cls, folder: Path, revision: str) -> Committed:
        """Return the tree of a revision.

        Raises:
            UserError: the folder is not in a repository, there is no such revision, it is
                not a kernel source, or objects are missing.
        """
        repository = Repository.find(folder)
        if repository is None:
            hint = "use `dir:` for a source without git"
            raise UserError(f"{folder} is not in a git repository", hint=hint)
        found = repository.resolve(revision)
        if not repository.has(found.tree, "Kbuild", "Makefile"):
            raise UserError(
                f"revision {revision} is not a kernel source: expected Kbuild and Makefile in it",
                where=str(folder),
            )
        repository.check_complete(found.tree)
        return cls(repository, found)

    @property
    def key(self) -> str:
        """A name derived from the repository's path, so that all its revisions share a tree."""
        place = f"{self.repository.common_dir()}\0{self.repository.prefix}"
        return "git-" + hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:12]

    @property
    def commit(self) -> Revision:
        """The revision, with its commit and subject."""
        return self.revision

    def hash(self) -> str:
        """Return the id of the tree; its length is that of SHA-1 or SHA-256."""
        return self.revision.tree

    def fill(self, folder: Path, leave: Collection[str]) -> str:
        """Write files that differ, remove others, skip those in `leave`; return the hash.

        Raises:
            UserError: the tree has a submodule or an invalid name, or an object is missing.
        """
        mirror.update(folder, self._wanted(), leave, self._files)
        return self.revision.tree

    def hash_with(self, series: Series) -> str:
        """Return the id of the tree that a series makes of this one.

        Raises:
            UserError: a patch does not apply, or as `fill`.
            HostError: no space for copies of the files.
        """
        self._wanted()
        changed = patching.apply(series, self.original)
        return tree_id(self._entries, changed, self.revision.tree)

    def original(self, name: str) -> File | None:
        """Return a file of the tree, None if there is none; raise as `fill` does."""
        wanted = self._wanted()
        mirror.check_parents(name, wanted, self.repository.folder)
        return next((file for _, file in self._files([name])), None) if name in wanted else None

    def mentions(self, wanted: str, filled: Callable[[], Path]) -> bool:
        """Return whether a file of the tree matches; raise as `fill` does."""
        del filled
        endings = [f"*.{ending}" for ending in mentions.ENDINGS]
        likely = [f"{folder}/{one}" for folder in mentions.LIKELY for one in endings]
        tree = self.revision.tree
        return any(self.repository.matches(tree, wanted, each) for each in (likely, endings))

    def _wanted(self) -> dict[str, str]:
        if not self._entries:
            self._entries.update(self.repository.entries(self.revision.tree))
        return {
            name: f"{each.object_id} {each.executable:d} {each.link:d}"
            for name, each in self._entries.items()
            if not listing.keeps_make_out(name)
        }

    def _files(self, names: Sequence[str]) -> Iterator[tuple[str, File]]:
        entries = [self._entries[name] for name in names]
        contents: Iterable[bytes] = self.repository.contents([each.object_id for each in entries])
        for name, each, data in zip(names, entries, contents, strict=True):
            yield name, File(data, each.executable, each.link)
