"""List the source files of a user's kernel tree, each with the path to read it from.

A kernel has 80 000 files: paths are text, as that many `Path` objects cost seconds.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from labctl.errors import CommandError, UserError
from labctl.host import checkout
from labctl.lab.state import USUAL_NAME

# Build products in the user's tree; in a git work tree .gitignore is used instead.
_MADE_FOLDERS = {".git", USUAL_NAME, "include/config", "include/generated"}
_MADE_ENDINGS = (".o", ".cmd", ".ko", ".a", ".mod", ".order", ".symvers")
_MADE_FILES = {".git", ".config", ".config.old", ".version", "vmlinux", "System.map"}
_GENERATED = "include/generated"
# Maximum number of files in a folder outside the tree that a link leads to.
_MOST_LINKED = 20_000


class Place(NamedTuple):
    """The path that a file is read from, and its lstat(2) result."""

    path: str
    info: os.stat_result


def files(folder: Path) -> dict[str, Place]:
    """Return the source files of a tree by name, sorted.

    In a git work tree: tracked files and untracked ones that are not ignored, also in
    submodules and nested repositories. A link out of the tree is replaced by its target,
    which a copy of the tree would lack.

    Raises:
        CommandError: git failed.
        UserError: git cannot read a repository, or a link leads to too many files.
    """
    listing = _Listing(folder)
    for name, info in _names(folder):
        if not listing.is_behind_a_link(name) and not keeps_make_out(name):
            listing.add(name, info, follow=True)
    return dict(sorted(listing.found.items()))


def walk(folder: Path) -> Iterator[str]:
    """Yield the names of all files and links below a folder except build products.

    Raises:
        UserError: a folder cannot be read.
    """
    inside = [""]
    while inside:
        prefix = inside.pop()
        for entry in _entries(f"{folder}/{prefix}"):
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if name not in _MADE_FOLDERS and not name.endswith(f"/{_GENERATED}"):
                    inside.append(f"{name}/")
            elif name not in _MADE_FILES and not name.endswith(_MADE_ENDINGS):
                yield name


def _entries(place: str) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(place))
    except OSError as error:
        what = f"source folder cannot be read: {error.strerror or error}"
        raise UserError(what, where=place) from error


def _names(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the names of files and links, each with its lstat(2) result."""
    if not has_commit(folder):
        for name in walk(folder):
            if info := _info(f"{folder}/{name}"):
                yield name, info
        return
    asked = ["--cached", "--others", "--exclude-standard"]
    listed = os.fsdecode(checkout.query(folder, "ls-files", "-z", *asked)).split("\0")[:-1]
    for name in dict.fromkeys(listed):
        info = _info(f"{folder}/{name}")
        if info and stat.S_ISDIR(info.st_mode):  # a submodule or another repository
            within = name.rstrip("/")
            yield from ((f"{within}/{inner}", i) for inner, i in _names(folder / within))
        elif info:  # git also lists deleted files
            yield name, info


def _info(place: str) -> os.stat_result | None:
    try:
        return os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return None


def has_commit(folder: Path) -> bool:
    """Return whether a folder is a git work tree with a commit.

    Raises:
        UserError: git cannot read the repository.
    """
    try:
        return checkout.has_commit(folder)
    except CommandError as error:
        # A listing without git would give the same folder another address.
        raise UserError(
            f"git cannot read the source: {error.output}",
            where=str(folder),
            hint="run `git status` there, or use a copy without its .git",
        ) from error


def keeps_make_out(name: str) -> bool:
    """Return whether Kbuild treats a file as a product of a build in the source tree.

    It then rejects a build in another folder ("The source tree is not clean"). Some
    trees track their .config.
    """
    made = name.startswith(("include/config/", f"{_GENERATED}/"))
    return name == ".config" or made or (name.startswith("arch/") and f"/{_GENERATED}/" in name)


@dataclass(slots=True)
class _Listing:
    folder: Path
    found: dict[str, Place] = field(default_factory=dict)
    real: dict[str, bool] = field(default_factory=lambda: {"": True})

    def is_behind_a_link(self, name: str) -> bool:
        """Return whether a tracked file is in a folder that was replaced by a link."""
        return not self._is_real(_parent(name))

    def _is_real(self, folder: str) -> bool:
        if folder not in self.real:
            linked = (self.folder / folder).is_symlink()
            self.real[folder] = not linked and self._is_real(_parent(folder))
        return self.real[folder]

    def add(self, name: str, info: os.stat_result, *, follow: bool) -> None:
        """Add a file, or the target of a link out of the tree; a folder only with `follow`.

        Links in a folder outside are not followed: they may lead back to the tree.
        """
        if stat.S_ISREG(info.st_mode):
            self.found[name] = Place(f"{self.folder}/{name}", info)
        elif stat.S_ISLNK(info.st_mode):
            self._add_link(name, info, follow=follow)

    def _add_link(self, name: str, info: os.stat_result, *, follow: bool) -> None:
        link = self.folder / name
        real = link.resolve() if _leads_out(name, link) and link.exists() else None
        if real is None:
            self.found[name] = Place(str(link), info)
        elif real.is_file():
            self.found[name] = Place(str(real), real.lstat())
        elif follow and real.is_dir():
            self._add_folder(name, real, link)

    def _add_folder(self, name: str, real: Path, link: Path) -> None:
        within = _Listing(real)
        for number, (inner, info) in enumerate(_names(real)):
            if number == _MOST_LINKED:
                raise UserError(
                    f"link leads to a folder with more than {_MOST_LINKED} files, {real}",
                    where=str(link),
                    hint="remove the link, or add it to .git/info/exclude",
                )
            if not within.is_behind_a_link(inner):
                within.add(inner, info, follow=False)
        self.found |= {f"{name}/{inner}": place for inner, place in within.found.items()}


def _leads_out(name: str, link: Path) -> bool:
    """Return whether the link would lead to another target in a copy of the tree."""
    target = link.readlink()
    inside = os.path.normpath(f"{_parent(name) or '.'}/{target}")
    return target.is_absolute() or inside == ".." or inside.startswith("../")


def _parent(name: str) -> str:
    return name.rpartition("/")[0]
