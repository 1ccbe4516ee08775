"""A patch series as every reader returns it: steps with subject, author and diff."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from labctl import files
from labctl.errors import UserError
from labctl.series import diff
from labctl.series.diff import Change, Unfit

if TYPE_CHECKING:
    from labctl.series.headers import Headers

_TAGS = re.compile(r"^(?:\[[^\]]*\] *)+")
_UNLISTED = re.compile(r"[^\w.+-]")
_HEADER = re.compile(rb"[!-9;-~]+:|From ")
# Before this line of a mail is the commit's message.
_END_OF_MESSAGE = re.compile(rb"^(?:---[ \t\r]*$|diff --git |Index: |--- \S)", re.MULTILINE)


@dataclass(frozen=True)
class Patch:
    """A patch: a step of a series.

    `name` is its file's name in the `series` file, or the commit's short hash; `place` is
    where it was read, for errors; `strip` is the number of path components to strip (`-pN`);
    `reverse` is true for `-R`. `first_line` is the line of `place` at which `content` begins,
    None if the lines of the two differ.
    """

    name: str
    place: str
    content: bytes
    strip: int = 1
    reverse: bool = False
    first_line: int | None = 1

    @property
    def options(self) -> str:
        """Its options for patch(1) in the `series` file."""
        return f"-p{self.strip}{' -R' if self.reverse else ''}"

    @cached_property
    def hash(self) -> str:
        """Hex hash of what the patch does to a tree; mail, message and file name do not count."""
        blocks = sorted((c.normal for c in self.changes()), key=lambda b: b[1] or b[0])
        digest = hashlib.sha256(b"-R\n" if self.reverse else b"")
        for block in blocks:
            text = "\n".join(block).encode("utf-8", "surrogateescape")
            digest.update(b"%d\n" % len(text) + text)
        return digest.hexdigest()

    @property
    def subject(self) -> str:
        """The mail's subject without [PATCH], or the file's name."""
        words = self._headers.text("subject")
        return _TAGS.sub("", words) or Path(self.name).name

    @property
    def author(self) -> str:
        """Name and address of the author as in the mail; empty if it has none."""
        inside = re.match(r"\s*From: (.+)\n", self.message)
        return inside[1] if inside else self._headers.text("from")

    @cached_property
    def message(self) -> str:
        """The text between the mail's header and its diff, with trailers."""
        text = self.content
        if _HEADER.match(text):
            text = re.split(rb"\r?\n\r?\n", text, maxsplit=1)[-1]
        end = _END_OF_MESSAGE.search(text)
        return (text[: end.start()] if end else text).decode("utf-8", "surrogateescape")

    @cached_property
    def _headers(self) -> Headers:
        from labctl.series.headers import Headers

        return Headers(self.content)

    def at(self, line: int | None = None) -> str:
        """Return the place of the patch, or of a line of its content, for an error."""
        if self.first_line is None or (line is None and self.first_line == 1):
            return self.place
        return f"{self.place}:{self.first_line - 1 + (line or 1)}"

    def changes(self) -> list[Change]:
        """Return the changes that the patch makes to files of a tree.

        Raises:
            UserError: the patch cannot be applied, or it touches files outside the tree.
        """
        try:
            found = diff.changes(self.content.decode("utf-8", "surrogateescape"), self.strip)
        except Unfit as error:
            raise UserError(error.what, where=self.at(error.line), hint=error.hint) from error
        if not found:
            raise UserError("patch contains no diff", where=self.at())
        for change in found:
            for name in sorted(change.names()):
                parts = name.lower().split("/")
                if name.startswith("/") or ".." in parts:
                    what = f"patch touches {shown(name)}, outside the tree"
                    raise UserError(what, where=self.at(change.line))
                if ".git" in parts:
                    what = f"patch touches {shown(name)}, reserved for git"
                    raise UserError(what, where=self.at(change.line))
        return [change.reverse() if self.reverse else change for change in found]

    def touches(self) -> set[str]:
        """Return the files that the patch reads or writes; raise as `changes` does."""
        return {name for change in self.changes() for name in change.names()}


@dataclass(frozen=True, slots=True)
class Series:
    """Patches in order; `place` is where they were read, for errors.

    `below` is the series that must be applied before them.
    """

    place: str
    patches: tuple[Patch, ...]
    below: Series | None = None

    @property
    def every(self) -> tuple[Patch, ...]:
        """All patches in their order, those of the series below first."""
        return (*(self.below.every if self.below else ()), *self.patches)

    @property
    def hash(self) -> str:
        """Hex hash of what every patch does, in their order."""
        return hashlib.sha256("\n".join(p.hash for p in self.every).encode()).hexdigest()

    def numbered(self) -> Iterator[tuple[str, Patch]]:
        """Yield every patch after words for its number in its own series."""
        if self.below is not None:
            yield from self.below.numbered()
        for number, patch in enumerate(self.patches, 1):
            yield f"patch {number} of {len(self.patches)}", patch

    def first(self, count: int) -> Series:
        """Return a series of the first `count` patches only, on the same series."""
        return replace(self, patches=self.patches[:count])

    def write(self, folder: Path) -> None:
        """Replace a folder's content by the patches, without those below, and a `series` file.

        Each patch is written to its own folder, as two may have the same name.
        """
        files.remove(folder)
        folder.mkdir(parents=True)
        lines = []
        for number, patch in enumerate(self.patches, 1):
            # A name in a `series` file cannot have blanks.
            plain = _UNLISTED.sub("-", Path(patch.name).name)
            name = f"{number:04}/{plain}"
            (folder / name).parent.mkdir()
            (folder / name).write_bytes(patch.content)
            lines.append(f"{name} {patch.options}\n")
        (folder / "series").write_text("".join(lines))

    def touches(self) -> set[str]:
        """Return the files that any of the patches touches; those below do not count."""
        return {name for patch in self.patches for name in patch.touches()}


def unix_lines(content: bytes) -> bytes:
    """Return a patch with LF lines if a mailer or a browser wrote all of it with CR LF.

    A patch of a file with CR LF lines has LF in its headers, and is returned unchanged.
    """
    heads = re.findall(rb"^(?:diff --git |--- |\+\+\+ |@@ -).*$", content, re.MULTILINE)
    is_dos = bool(heads) and all(head.endswith(b"\r") for head in heads)
    return content.replace(b"\r\n", b"\n") if is_dos else content


def slug(number: int, subject: str) -> str:
    """Return a file name for a patch, as git format-patch names it."""
    words = re.sub(r"[^A-Za-z0-9_.]+", "-", subject).strip("-.")[:52]
    return f"{number:04}-{words.rstrip('-.') or 'patch'}.patch"


def shown(name: str) -> str:
    """Return a file's name as text that can be printed."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
