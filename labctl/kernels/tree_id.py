"""The id that git gives to a tree, computed from its files without writing objects. Pure.

Source: the chapter "Git Objects" of Pro Git: an object's id is the hash of its type, length and
content; a tree's content is mode, name and id of each entry, sorted as
if the names of folders ended in a slash.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping

from labctl.host.repository import Entry
from labctl.kernels.treefiles import File

_SHA1_DIGITS = 40
_FOLDER, _PLAIN, _PROGRAM, _LINK = b"40000", b"100644", b"100755", b"120000"


class _Folder(dict[bytes, "tuple[bytes, bytes] | _Folder"]):
    """A folder's entries by name: mode and binary id of a file, or another folder."""


def tree_id(files: Mapping[str, Entry], changed: Mapping[str, File | None], like: str) -> str:
    """Return the id of a tree of `files`, of which those in `changed` are replaced.

    None is no file. `like` is an id in the same object format, SHA-1 or SHA-256.
    """
    algorithm = "sha1" if len(like) == _SHA1_DIGITS else "sha256"
    top = _Folder()
    for name, entry in files.items():
        if name not in changed:
            mode = _LINK if entry.link else _PROGRAM if entry.executable else _PLAIN
            _put(top, name, (mode, bytes.fromhex(entry.object_id)))
    for name, file in changed.items():
        if file is not None:
            mode = _LINK if file.link else _PROGRAM if file.executable else _PLAIN
            _put(top, name, (mode, _object(algorithm, b"blob", file.data)))
    return _write(algorithm, top).hex()


def _put(top: _Folder, name: str, entry: tuple[bytes, bytes]) -> None:
    *folders, last = os.fsencode(name).split(b"/")
    inner = top
    for folder in folders:
        found = inner.setdefault(folder, _Folder())
        assert isinstance(found, _Folder)  # a checked tree has no file where it has a folder
        inner = found
    inner[last] = entry


def _write(algorithm: str, folder: _Folder) -> bytes:
    entries = []
    for name, entry in folder.items():
        if isinstance(entry, _Folder):
            entries.append((name + b"/", _FOLDER, name, _write(algorithm, entry)))
        else:
            entries.append((name, entry[0], name, entry[1]))
    content = b"".join(b"%s %s\0%s" % entry[1:] for entry in sorted(entries))
    return _object(algorithm, b"tree", content)


def _object(algorithm: str, kind: bytes, content: bytes) -> bytes:
    header = b"%s %d\0" % (kind, len(content))
    return hashlib.new(algorithm, header + content, usedforsecurity=False).digest()
