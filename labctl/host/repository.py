"""Read revisions of a user's git repository: trees, contents, commits. Nothing is written.

Only commands that run no program of the repository are used, so that a repository of
another owner can be read: safe.directory does not apply. Contents are those of the
objects; attributes and settings that convert files (autocrlf, filters, export-subst)
do not apply.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from labctl.errors import UserError
from labctl.host import git

_RESERVED = {"", ".", "..", ".git"}
_LINK, _PROGRAM, _SUBMODULE = b"120000", b"100755", b"160000"
# Objects per git process: a process costs 5 ms, and their contents are held in memory.
_OBJECTS = 1000
_NEAR = 3
# Where a revision goes on from another one: topic~3, topic^2, topic:mm, topic@{1}.
_DERIVED = re.compile(r"[~^:]|@\{")
_PARTIAL = r"^(remote\..*\.promisor|extensions\.partialclone)$"


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision as the user wrote it; `tree` and `commit` are full object ids.

    `commit` and `subject` are empty if the revision is a tree.
    """

    text: str
    tree: str
    commit: str
    subject: str


class Entry(NamedTuple):
    """A file of a tree: the object id of its content, and its kind."""

    object_id: str
    executable: bool
    link: bool


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository, and a folder in its trees: `prefix` is empty for the top folder."""

    folder: Path
    git_dir: Path
    prefix: str

    @classmethod
    def find(cls, folder: Path) -> Repository | None:
        """Return the repository of a folder: bare, a work tree or a folder in one; or None."""
        physical = folder.resolve()
        if is_git_dir(physical):
            return cls(folder, physical, "")
        top = git.top(physical)
        if top is None:
            return None
        prefix = "" if physical == top else str(physical.relative_to(top))
        return cls(folder, top / ".git", prefix)

    def common_dir(self) -> Path:
        """Return the folder that all work trees of the repository share.

        Raises:
            UserError: git cannot read the repository.
        """
        path = self.read("rev-parse", "--git-common-dir").rstrip(b"\n")
        return (self.git_dir.parent / os.fsdecode(path)).resolve()

    def resolve(self, revision: str) -> Revision:
        """Return the tree and the commit of a revision, written as gitrevisions(7) describes.

        Raises:
            UserError: there is no such revision or folder, or an object is missing.
        """
        commit, tree = self._ids(f"{revision}^{{commit}}", f"{revision}^{{tree}}")
        if tree is None:
            raise self._unknown(revision)
        if self.prefix:
            (inside,) = self._ids(f"{tree}:{self.prefix}")
            (folder,) = self._ids(f"{inside}^{{tree}}")  # else a file
            if folder is None:
                what = f"revision {revision} has no folder {self.prefix}"
                raise UserError(what, where=str(self.folder))
            tree = folder
        subject = self._subject(commit) if commit else ""
        return Revision(revision, tree, commit or "", subject)

    def has(self, tree: str, *names: str) -> bool:
        """Return whether a tree has all these names; raise as `resolve` does."""
        return None not in self._ids(*(f"{tree}:{name}" for name in names))

    def describe(self, commit: str) -> str:
        """Return the name that `git describe` gives to a commit; raise as `resolve` does."""
        name = self.read("describe", "--always", "--tags", "--abbrev=12", commit)
        return name.decode("utf-8", "replace").strip()

    def merge_base(self, one: str, other: str) -> str:
        """Return the commit from which two commits descend, empty if there is none."""
        done = git.read(self.git_dir, "merge-base", one, other, check=False)
        return done.text.strip()

    def matches(self, tree: str, wanted: str, names: Sequence[str]) -> bool:
        """Return whether a file of a tree matches an extended regular expression.

        `names` are pathspecs. Raises as `resolve` does.
        """
        words = ("grep", "-qE", "-e", wanted, tree, "--", *names)
        done = git.read(self.git_dir, *words, check=False)
        if done.status not in (0, 1):
            self._fail(done.stderr)
        return done.status == 0

    def check_complete(self, tree: str) -> None:
        """Check that a partial clone has all objects of a tree.

        Raises:
            UserError: objects are missing.
        """
        if self._is_partial():
            words = ("rev-list", "--objects", "--missing=print", "--no-object-names", tree)
            if any(line.startswith(b"?") for line in self.read(*words).splitlines()):
                self._fail(b"")

    def entries(self, tree: str) -> dict[str, Entry]:
        """Return the files of a tree by name, sorted.

        Raises:
            UserError: the tree has a submodule or an invalid name, or an object is missing.
        """
        found: dict[str, Entry] = {}
        for line in self.read("ls-tree", "-r", "-z", "--full-tree", tree).split(b"\0")[:-1]:
            facts, _, raw = line.partition(b"\t")
            mode, _, object_id = facts.split(b" ")
            name = os.fsdecode(raw)
            if mode == _SUBMODULE:
                raise UserError(
                    f"submodule {name} cannot be read: its content is in another repository",
                    where=str(self.folder),
                    hint="use `dir:` with a work tree that has the submodule checked out",
                )
            if name in found:
                raise self._invalid(name)
            found[name] = Entry(object_id.decode(), mode == _PROGRAM, mode == _LINK)
        self._check_names(found)
        return dict(sorted(found.items()))

    def _check_names(self, files: Collection[str]) -> None:
        """Raise if a file would be written outside the folder that the tree is written to."""
        folders: set[str] = set()
        for name in files:
            folder, slash, last = name.rpartition("/")
            if last.lower() in _RESERVED:
                raise self._invalid(name)
            while slash and folder not in folders:
                folders.add(folder)
                folder, slash, last = folder.rpartition("/")
                if last.lower() in _RESERVED:
                    raise self._invalid(name)
        for folder in folders.intersection(files):  # a link, and files below it
            raise self._invalid(folder)

    def contents(self, object_ids: Sequence[str]) -> Iterator[bytes]:
        """Yield the contents of files in the given order.

        Raises:
            UserError: an object is missing.
        """
        for start in range(0, len(object_ids), _OBJECTS):
            part = object_ids[start : start + _OBJECTS]
            data, at = self._batch("--batch", part), 0
            for object_id in part:
                end = data.index(b"\n", at)
                header = data[at:end].split(b" ")
                if header[:2] != [object_id.encode(), b"blob"]:
                    self._fail(data[at:end])
                at = end + 1 + int(header[2]) + 1
                yield data[end + 1 : at - 1]

    def _ids(self, *names: str) -> list[str | None]:
        """Return the object ids of names, None for each that does not exist."""
        if any("\n" in name or "\0" in name for name in names):
            return [None] * len(names)
        found: list[str | None] = []
        for name, line in zip(names, self._batch("--batch-check", names).splitlines(), strict=True):
            object_id, *_, last = line.split(b" ")
            if last == b"ambiguous":
                what = f"short hash {name} is ambiguous"
                raise UserError(what, where=str(self.folder), hint="use more digits")
            found.append(object_id.decode() if last.isdigit() else None)
        return found

    def _batch(self, how: str, names: Sequence[str]) -> bytes:
        asked = b"".join(os.fsencode(name) + b"\n" for name in names)
        return self.read("cat-file", how, stdin=asked)

    def _subject(self, commit: str) -> str:
        answer = self.read("rev-list", "--max-count=1", "--format=%s", commit)
        return answer.partition(b"\n")[2].decode("utf-8", "replace").strip()

    def read(self, *words: str, stdin: bytes = b"") -> bytes:
        """Return what a git command prints that only reads.

        Raises:
            UserError: it failed: an object is damaged or missing.
        """
        done = git.read(self.git_dir, *words, stdin=stdin, check=False)
        if done.status != 0:
            self._fail(done.stderr)
        return done.stdout

    def _fail(self, stderr: bytes) -> NoReturn:
        """Raise for a command that failed."""
        where, place = str(self.folder), shlex.quote(str(self.folder))
        if self._is_partial():
            raise UserError(
                "objects of the revision are missing: the partial clone leaves them out",
                where=where,
                hint=f"fetch them: `git -C {place} fetch --refetch --no-filter`",
            )
        lines = stderr.decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1].removeprefix("fatal: ") if lines else "unknown error"
        hint = f"`git -C {place} fsck` shows what is damaged"
        raise UserError(f"git cannot read the repository: {reason}", where=where, hint=hint)

    def _is_partial(self) -> bool:
        words = ("config", "--name-only", "--get-regexp", _PARTIAL)
        return git.read(self.git_dir, *words, check=False).status == 0

    def is_shallow(self) -> bool:
        """Return whether the repository lacks older commits."""
        done = git.read(self.git_dir, "rev-parse", "--is-shallow-repository", check=False)
        return done.text.strip() == "true"

    def _unknown(self, revision: str) -> UserError:
        where, place = str(self.folder), shlex.quote(str(self.folder))
        if ".." in revision:
            hint = "use one revision; a range A..B is a series"
            return UserError(f"expected a revision, got a range {revision}", where=where, hint=hint)
        base = _DERIVED.split(revision)[0]
        is_base_known = self._ids(base) != [None] and base != revision  # or it is ambiguous
        names = self.read("for-each-ref", "--format=%(refname:short)")
        refs = names.decode("utf-8", "replace").splitlines()
        near = [name for name in refs if name.endswith(f"/{revision}")]
        near += difflib.get_close_matches(revision, refs)
        if not refs:
            hint = "the repository has no branch with a commit"
        elif near and not is_base_known:
            hint = f"did you mean {' or '.join(dict.fromkeys(near[:_NEAR]))}?"
        elif self.is_shallow():
            hint = f"the clone is shallow: `git -C {place} fetch --unshallow` adds older commits"
        elif is_base_known:
            hint = f"{base} exists: `git -C {place} log {shlex.quote(base)}` lists its commits"
        else:
            hint = f"`git -C {place} branch --all` and `git -C {place} tag` list names"
        return UserError(f"there is no revision {revision}", where=where, hint=hint)

    def _invalid(self, name: str) -> UserError:
        hint = "`git fsck` shows what is wrong"
        return UserError(f"tree has an invalid name {name!r}", where=str(self.folder), hint=hint)


def is_git_dir(folder: Path) -> bool:
    """Return whether a folder is a bare repository, or the .git of a work tree."""
    head = folder / "HEAD"
    is_head = head.is_symlink() or head.is_file()
    return is_head and (folder / "objects").is_dir() and (folder / "refs").is_dir()
