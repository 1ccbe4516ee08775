"""The files that make up a kernel tree of the user's, each with the place where it is read.

A kernel has 80 000: places are text, since that many `Path`s cost seconds.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from labctl import checkout
from labctl.errors import CommandError, UserError

# What a build in the user's tree leaves there; with git, .gitignore says it better.
_MADE_FOLDERS = {".git", ".labctl", "include/config", "include/generated"}
_MADE_ENDINGS = (".o", ".cmd", ".ko", ".a", ".mod", ".order", ".symvers")
_MADE_FILES = {".git", ".config", ".config.old", ".version", "vmlinux", "System.map"}
_GENERATED = "include/generated"
# Of a folder outside of the tree to which a link in it leads.
_MOST_LINKED = 20_000


def files(folder: Path) -> dict[str, str]:
    """Return the source files of a tree by their names, sorted.

    With git: what it tracks and what it does not ignore, in submodules and other
    repositories inside as well. A link that leads out of the tree stands for what is
    there, since a copy of the tree would not have it.

    Raises:
        CommandError: git failed.
        UserError: git cannot read a repository, or a link leads to too much.
    """
    listing = _Listing(folder)
    for name in _names(folder):
        if not listing.is_behind_a_link(name) and not _keeps_make_out(name):
            listing.add(name, follow=True)
    return dict(sorted(listing.found.items()))


def walk(folder: Path) -> Iterator[str]:
    """Yield the names of all files and links below a folder but what a build leaves."""
    inside = [""]
    while inside:
        prefix = inside.pop()
        for entry in os.scandir(f"{folder}/{prefix}"):
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if name not in _MADE_FOLDERS and not name.endswith(f"/{_GENERATED}"):
                    inside.append(f"{name}/")
            elif name not in _MADE_FILES and not name.endswith(_MADE_ENDINGS):
                yield name


def _names(folder: Path) -> Iterator[str]:
    if not has_commit(folder):
        yield from walk(folder)
        return
    asked = ["--cached", "--others", "--exclude-standard"]
    listed = checkout.look(folder, "ls-files", "-z", *asked).split(b"\0")[:-1]
    for name in dict.fromkeys(os.fsdecode(each).rstrip("/") for each in listed):
        if stat.S_ISDIR(_mode(f"{folder}/{name}")):  # a submodule or another repository
            yield from (f"{name}/{inner}" for inner in _names(folder / name))
        else:
            yield name


def has_commit(folder: Path) -> bool:
    """Return whether a folder is a git work tree with a commit.

    Raises:
        UserError: git cannot read the repository.
    """
    try:
        return checkout.has_commit(folder)
    except CommandError as error:
        # Without git the same folder would have another address.
        raise UserError(
            f"git cannot read the source: {error.output}",
            where=str(folder),
            hint="repair the repository, or remove .git to take the files as they are",
        ) from error


def _keeps_make_out(name: str) -> bool:
    """Return whether Kbuild takes a file for the remains of a build in the source.

    It then refuses to build elsewhere ("The source tree is not clean"); some trees
    track their .config.
    """
    folder = f"{_parent(name)}/"
    made = folder.startswith(("include/config/", f"{_GENERATED}/"))
    return name == ".config" or made or (name.startswith("arch/") and f"/{_GENERATED}/" in folder)


@dataclass(slots=True)
class _Listing:
    folder: Path
    found: dict[str, str] = field(default_factory=dict)
    real: dict[str, bool] = field(default_factory=lambda: {"": True})

    def is_behind_a_link(self, name: str) -> bool:
        """Return whether a file that git tracks is in a folder that was replaced by a link."""
        return not self._is_real(_parent(name))

    def _is_real(self, folder: str) -> bool:
        if folder not in self.real:
            linked = (self.folder / folder).is_symlink()
            self.real[folder] = not linked and self._is_real(_parent(folder))
        return self.real[folder]

    def add(self, name: str, *, follow: bool) -> None:
        """Add a file; of a link that leads out what is there, but for folders only with `follow`.

        A folder outside is not left again: it may have a link back to the tree.
        """
        place = f"{self.folder}/{name}"
        mode = _mode(place)
        if stat.S_ISREG(mode):
            self.found[name] = place
        elif stat.S_ISLNK(mode):
            self._add_link(name, Path(place), follow=follow)

    def _add_link(self, name: str, link: Path, *, follow: bool) -> None:
        real = link.resolve() if _leads_out(name, link) and link.exists() else None
        if real is None:
            self.found[name] = str(link)
        elif real.is_file():
            self.found[name] = str(real)
        elif follow and real.is_dir():
            self._add_folder(name, real, link)

    def _add_folder(self, name: str, real: Path, link: Path) -> None:
        within = _Listing(real)
        for number, inner in enumerate(_names(real)):
            if number == _MOST_LINKED:
                raise UserError(
                    f"the link leads to a folder with more than {_MOST_LINKED} files, {real}",
                    where=str(link),
                    hint="remove the link, or name it in .git/info/exclude",
                )
            if not within.is_behind_a_link(inner):
                within.add(inner, follow=False)
        self.found |= {f"{name}/{inner}": place for inner, place in within.found.items()}


def _mode(place: str) -> int:
    try:
        return os.lstat(place).st_mode
    except (FileNotFoundError, NotADirectoryError):  # deleted, and git still lists it
        return 0


def _leads_out(name: str, link: Path) -> bool:
    """Return whether a copy of the tree would have the link lead to something else."""
    target = link.readlink()
    inside = os.path.normpath(f"{_parent(name) or '.'}/{target}")
    return target.is_absolute() or inside == ".." or inside.startswith("../")


def _parent(name: str) -> str:
    return name.rpartition("/")[0]
