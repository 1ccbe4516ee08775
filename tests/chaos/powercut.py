"""A disk that drops what was not synced, as a model over the recorded calls of one command.

The strictest disk that POSIX allows: of a file only what fsync(2) wrote survives, a name only
if its folder was synced afterwards. A journaling file system keeps more, in order: with a
`draw`, the calls that change names survive up to a drawn one, and of data that was not synced
nothing, all, a part or zeros.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from labctl.kernels import images

# Work trees are written by other programs too, whose calls are not recorded: see `_write_tree`.
# No guest outlives a power cut, so the records of guests need not either.
TREES = ".labctl/trees"
UNSYNCED = "unsynced"  # labctl's mark of a tree
WITHOUT_PROMISE = ("guest.json", "paused.json")


@dataclass(frozen=True)
class Call:
    """One recorded call; `number` is an offset or a size."""

    name: str
    number: int
    path: str
    second: str
    data: bytes


@dataclass(eq=False)
class File:
    """A file: what it was, and its changes (call, offset, data; None: cut off there)."""

    base: bytes = b""
    changes: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    syncs: list[int] = field(default_factory=list)

    def content(self, end, draw=None, *, is_live=False):
        """Return the content after a power cut before call `end`, or without one."""
        synced = max((each for each in self.syncs if each < end), default=-1)
        data = bytearray(self.base)
        for index, place, piece in self.changes:
            if index >= end:
                break
            if index > synced and not is_live:
                if draw is None:
                    break
                _put(data, place, _damaged(piece, draw))
            else:
                _put(data, place, piece)
        return bytes(data)


def _put(data, place, piece):
    """Write a piece to a place of the data; cut the data off there if it is None."""
    if piece is None:
        del data[place:]
    if piece != b"":
        data.extend(bytes(max(0, place - len(data))))
        data[place : place + len(piece or b"")] = piece or b""


@dataclass(eq=False)
class Folder:
    """A folder: its names before the command, now, and when it was synced."""

    base: dict[str, object] = field(default_factory=dict)
    live: dict[str, object] = field(default_factory=dict)
    syncs: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Change:
    """A call that changes names: those that go and those that come, by folder."""

    index: int
    folder: Folder
    gone: tuple[tuple[Folder, str], ...]
    come: tuple[tuple[Folder, str, object], ...]


NEW = {
    "mkdir": lambda _: Folder(),
    "create": lambda _: File(),
    "symlink": lambda call: call.second,
}


def calls(journal):
    """Return the recorded calls."""
    data, place, found = journal.read_bytes(), 0, []
    while place < len(data):
        end = data.index(b"\n", place)
        name, number, size, path, second = os.fsdecode(data[place:end]).split("\t")
        place = end + 1 + int(size)
        found.append(Call(name, int(number), path, second, data[end + 1 : place]))
    return found


class Disk:
    """What is on the disk of a lab at each call of a command that ran in it.

    `before` is a copy of the lab's folder `root` from before the command.
    """

    def __init__(self, before, root, recorded):
        self.prefix = f"{root}/"
        # What is said on a terminal counts: it shows that labctl went on.
        self.calls = [each for each in recorded if self._is_inside(each) or each.name == "said"]
        self.root = _read(before)
        self.trees = {path.name: _stored(path) for path in (Path(root) / TREES).glob("*")}
        self.changes: list[Change] = []
        self.versions: dict[str, list[tuple[int, File]]] = {}
        for index, call in enumerate(self.calls):
            if call.name != "said":
                self._apply(index, call)

    def _is_inside(self, call):
        return call.path.startswith(self.prefix) or call.path == self.prefix[:-1]

    def _apply(self, index, call):
        kind = call.name.removesuffix("at")
        if kind in ("rename", "link"):
            if node := self.node(call.path):
                moved = self._place(call.path) if kind == "rename" else (None, "")
                self._link(index, call.second, node, moved)
        elif kind in NEW:
            self._link(index, call.path, NEW[kind](call))
        elif kind in ("unlink", "rmdir"):
            folder, own = self._place(call.path)
            if folder and folder.live.pop(own, None) is not None:
                self.changes.append(Change(index, folder, ((folder, own),), ()))
        else:
            self._apply_to_content(index, call)

    def _apply_to_content(self, index, call):
        node = self.node(call.path)
        if node is None:
            return
        if call.name == "sync":
            node.syncs.append(index)
        elif call.name == "write":
            node.changes.append((index, call.number, call.data))
        elif call.name in ("cut", "truncate"):
            node.changes.append((index, call.number, None))

    def _link(self, index, path, node, moved=(None, "")):
        folder, own = self._place(path)
        if folder is None:
            return
        gone = (moved,) if moved[0] else ()
        for each, name in gone:
            each.live.pop(name, None)
        folder.live[own] = node
        self.changes.append(Change(index, folder, gone, ((folder, own, node),)))
        if isinstance(node, File):
            self.versions.setdefault(path, []).append((index, node))

    def _place(self, path):
        parent, _, own = path.rpartition("/")
        folder = self.node(parent)
        return (folder if isinstance(folder, Folder) else None), own

    def node(self, path):
        """Return the file or folder at a path at the end of the command, None if unknown."""
        node = self.root
        for name in path[len(self.prefix) :].split("/") if path != self.prefix[:-1] else ():
            if not isinstance(node, Folder) or name not in node.live:
                return None  # made by another program
            node = node.live[name]
        return node

    def names(self, end, draw=None, *, is_live=False):
        """Return the names in each folder after a power cut before call `end`."""
        earlier = [each for each in self.changes if each.index < end]
        kept = [one for one in earlier if any(one.index < s < end for s in one.folder.syncs)]
        if is_live:
            kept = earlier
        elif draw is not None:
            last = draw.randint(kept[-1].index if kept else -1, end)
            kept = [each for each in earlier if each.index <= last]
        names: dict[Folder, dict[str, object]] = {}
        for change in kept:
            for folder, name in change.gone:
                names.setdefault(folder, dict(folder.base)).pop(name, None)
            for folder, name, node in change.come:
                names.setdefault(folder, dict(folder.base))[name] = node
        return names

    def write(self, to, end, draw=None):
        """Write what is left after a power cut before call `end` to a new folder."""
        names = self.names(end, draw)

        def fill(folder, path):
            path.mkdir()
            for name, node in names.get(folder, folder.base).items():
                if isinstance(node, Folder):
                    fill(node, path / name)
                elif isinstance(node, File):
                    (path / name).write_bytes(node.content(end, draw))
                else:
                    (path / name).symlink_to(node)

        fill(self.root, to)
        # The host boots again afterwards: all files are of an earlier boot.
        earlier = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - 60
        for path in (to, *to.rglob("*")):
            os.utime(path, (earlier, earlier), follow_symlinks=False)
        shutil.rmtree(to / TREES, ignore_errors=True)
        for name, tree in self.trees.items():
            self._write_tree(to / TREES / name, tree, end, draw, earlier)

    def _write_tree(self, to, tree, end, draw, earlier):
        """Write a work tree as the command left it, if it is on the disk before call `end`.

        While it has labctl's mark, none of it was synced: it is gone, or with a `draw`, any
        file of it is gone, empty, a part or zeros, with the time of the whole one.
        """
        mark = f"{self.prefix}{TREES}/{to.name}/{UNSYNCED}"
        events = [c.name for c in self.calls[:end] if c.path == mark and c.name != "sync"]
        is_marked = bool(events) and not events[-1].startswith("unlink")
        if not events or (is_marked and draw is None):
            return
        latest = max(mtime for _, _, mtime in tree.values())
        for name, (data, mode, mtime) in tree.items():
            kind = (
                draw.choice(("all", "all", "nothing", "a part", "zeros", "gone"))
                if is_marked
                else "all"
            )
            if kind == "gone":
                continue
            path = to / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data if kind == "all" else _torn(data, kind))
            path.chmod(mode)
            time_ns = int(earlier * 1e9) - (latest - mtime)
            os.utime(path, ns=(time_ns, time_ns))
        if is_marked:
            (to / UNSYNCED).touch()
            os.utime(to / UNSYNCED, (earlier, earlier))

    def promised(self, end):
        """Return what labctl relied on before call `end`: it went on after writing it.

        By path: the versions of which a document must be one; or of a file of lines, what it
        must begin with.
        """
        documents, lines = {}, {}
        live = self.names(end, is_live=True)
        for path, versions in self.versions.items():
            relative = path[len(self.prefix) :]
            node = self._live_node(live, relative)
            if node is None or relative.startswith(TREES):
                continue
            if path.endswith(".jsonl"):
                done = [i for i, _, _ in node.changes if self._went_on(i, path, end)]
                lines[relative] = node.content(done[-1] + 1, is_live=True) if done else b""
            elif path.endswith(".json") and not path.endswith(WITHOUT_PROMISE):
                written = [(i, each) for i, each in versions if i < end]
                done = [i for i, _ in written if self._went_on(i, path.rpartition("/")[0], end)]
                if done:
                    kept = [each for i, each in written if i >= done[-1]]
                    documents[relative] = [each.content(end, is_live=True) for each in kept]
        return documents, lines

    def _live_node(self, names, relative):
        node = self.root
        for name in relative.split("/"):
            node = names.get(node, node.base).get(name) if isinstance(node, Folder) else None
        return node if isinstance(node, File) else None

    def _went_on(self, index, path, end):
        """Return whether a call before `end` follows that is not the sync of this one."""
        return any((each.name, each.path) != ("sync", path) for each in self.calls[index + 1 : end])


def _read(path):
    """Return a folder as it is on disk; large files too, a lab of fakes is small."""
    folder = Folder()
    for each in path.iterdir():
        if each.is_symlink():
            node = str(each.readlink())
        elif each.is_dir():
            node = _read(each)
        elif each.is_file():
            node = File(each.read_bytes())
        else:
            continue
        folder.base[each.name] = node
    folder.live = dict(folder.base)
    return folder


def _damaged(piece, draw):
    """Return what is left of data that was not synced."""
    kind = draw.choice(("nothing", "all", "a part", "zeros"))
    if kind == "nothing":
        return b""
    return piece if piece is None or kind == "all" else _torn(piece, kind)


def _torn(data, kind):
    part = {"nothing": b"", "a part": data[: len(data) // 2]}
    return part.get(kind, bytes(len(data)))


def _stored(folder):
    """Return content, mode and time of each file below a folder."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), info.st_mode & 0o777, info.st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and (info := path.stat())
    }


def faults(disk, folder, end):
    """Return what is missing after a power cut before call `end`, each with its samples."""
    found = []
    documents, lines = disk.promised(end)
    for name, start in lines.items():
        path = folder / name
        content = path.read_bytes() if path.exists() else b""
        if not content.startswith(start):
            pairs = zip(start.splitlines(), content.splitlines(), strict=False)
            kept = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            count = start.count(b"\n") - kept
            found.append((f"lost {count} lines of {name}", count))
    for name, versions in documents.items():
        path = folder / name
        if not path.exists() or path.read_bytes() not in versions:
            found.append((f"lost {name}, or it is an older one", 0))
    return found


def torn(folder):
    """Return the damaged documents, and the damaged files of images on record as built."""
    found = []
    for path in folder.glob(".labctl/**/*.json"):
        if path.name in WITHOUT_PROMISE or path.relative_to(folder).as_posix().startswith(TREES):
            continue
        try:
            json.loads(path.read_bytes())
        except ValueError:
            found.append(f"damaged: {path.relative_to(folder)}")
    for record in folder.glob(".labctl/images/*/image.json"):
        found += [f"damaged: {path.relative_to(folder)}" for path in images.damaged(record.parent)]
    return found
