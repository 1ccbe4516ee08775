"""Parse the changes in a patch, as `git apply` and patch(1) do. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

PLAIN, PROGRAM, LINK = "100644", "100755", "120000"
_HUNK = re.compile(r"@@ -\d+(?:,(\d{1,18}))? \+\d+(?:,(\d{1,18}))? @@")
_GIT = "diff --git "
_MODE = re.compile(r"(old mode|new mode|new file mode|deleted file mode|index \S+) (\d{6})")
_MOVED = re.compile(r"(rename|copy) (from|to) (.+)")
_DIFFER = re.compile(r"Binary files .+ differ")
_BINARY = "GIT binary patch"
_IDS = re.compile(r"index ([0-9a-f]+\.\.[0-9a-f]+)")
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_BOTH_QUOTED = re.compile(rf'({_QUOTED})[^"]*({_QUOTED})[^"]*')
_CONTEXT = "*" * 15
# The signature line after a mail's last hunk, with or without its trailing blank.
_SIGNATURE = ("-- ", "--", "---")
_ESCAPES = dict(zip(map(bytes, zip(b"abtnvfr")), map(bytes, zip(b"\a\b\t\n\v\f\r")), strict=True))


class Unfit(Exception):
    """A patch that would be applied wrongly or partly; `line` counts from 1."""

    def __init__(self, line: int, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.line = line
        self.what = what
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one file: its name and git mode before and after.

    A name is None if there is no file, a mode is None if it is unchanged. `is_named`:
    a git header has both names; else patch(1) guesses them. `body` has the hunks, without
    what does not count: time stamps, function names, blanks of empty context lines.
    """

    line: int
    old: str | None = None
    new: str | None = None
    old_mode: str | None = None
    new_mode: str | None = None
    copied: bool = False
    is_named: bool = False
    body: tuple[str, ...] = ()

    @property
    def normal(self) -> tuple[str, ...]:
        """What the change does, as text that is the same however the patch was written."""
        before, after = self.old_mode, self.new_mode
        if self.old is None:
            before, after = None, after or PLAIN
        elif self.new is None:
            before = after = None
        elif before == after:  # distinguishes the hunks of a link from those of a text
            before, after = None, after if after == LINK else None
        names = (self.old or "", self.new or "", "copy" if self.copied else "")
        return (*names, before or "", after or "", *self.body)

    def reverse(self) -> Change:
        """Return the inverse change; that of a copy is its removal."""
        old, before, after = self.old, self.old_mode, self.new_mode
        if self.copied:
            old = before = None
        return replace(self, old=self.new, new=old, old_mode=after, new_mode=before, copied=False)

    def after(self) -> dict[str, str | None]:
        """Return the expected modes of files after the change; "" is any, None is no file."""
        wanted: dict[str, str | None] = {}
        if self.old is not None and self.old != self.new and not self.copied:
            wanted[self.old] = None
        if self.new is not None and self.is_named:
            wanted[self.new] = self.new_mode or ""
        return wanted

    def names(self) -> set[str]:
        """Return the names of the files that the change reads or writes."""
        return {name for name in (self.old, self.new) if name is not None}


def changes(text: str, strip: int) -> list[Change]:
    """Return the changes of a patch in order; `strip` is the N of -pN.

    Raises:
        Unfit: a part of the patch cannot be applied, or would silently be ignored.
    """
    found: list[Change] = []
    bodies: dict[int, list[str]] = {}
    header: _Header | None = None
    raw = text.split("\n")
    lines = [line.removesuffix("\r") for line in raw]
    for index, inside in _scanned(lines):
        number, line = index + 1, lines[index]
        if inside:
            body = bodies.setdefault(len(found) - 1, [])
            body.append(_normal(line, raw[index]))
        elif line.startswith(_GIT):
            found += [] if header is None else header.changes()
            header = _Header(number, line.removeprefix(_GIT), strip)
        elif _is_binary(line) or (line == _BINARY and header is None):
            hint = "recreate the patch with `git format-patch`, or `git diff --binary`"
            raise Unfit(number, "binary change without its data", hint)
        elif line == _BINARY and header is not None:
            found += header.changes()
            bodies[len(found) - 1] = [header.ids]
            header = None
        elif line == _CONTEXT and lines[index - 1].startswith("--- "):
            raise Unfit(number, "expected a unified diff (diff -u), got a context diff")
        elif line.startswith("--- ") and _is_header(lines, index):
            old, new = (_name(each[4:], strip, number) for each in lines[index : index + 2])
            if header is None:
                found.append(Change(number, old, new))
            else:
                found += header.changes(old, new)
                header = None
        elif header is not None:
            header.read(line, number)
    found += [] if header is None else header.changes()
    return [replace(c, body=tuple(bodies.get(i, ()))) for i, c in enumerate(found)]


def prefixes(text: str) -> int | None:
    """Return the N of -pN that the headers of git show, None if they show none.

    With `diff.noprefix`, both names of a file are written alike.
    """
    heads = [line.removesuffix("\r") for line in text.split("\n") if line.startswith(_GIT)]
    alike = [_same(head.removeprefix(_GIT), 0) is not None for head in heads]
    return None if not alike else 0 if any(alike) else 1


def _is_binary(line: str) -> bool:
    return _DIFFER.fullmatch(line) is not None and " and " in line[14:-8]


def _normal(line: str, raw: str) -> str:
    if hunk := _HUNK.match(line):
        return hunk[0].replace(",1 ", " ")
    return " " if not line else "\\" if line.startswith("\\") else raw


@dataclass(slots=True)
class _Header:
    """The lines after `diff --git`, up to the first hunk."""

    line: int
    both: str
    strip: int
    modes: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    copied: bool = False
    ids: str = ""

    def read(self, line: str, number: int) -> None:
        if ids := _IDS.match(line):
            self.ids = ids[1]
        if mode := _MODE.fullmatch(line):
            if mode[2] not in {PLAIN, PROGRAM, LINK} and not mode[2].startswith("100"):
                what = "a submodule" if mode[2] == "160000" else f"a file of mode {mode[2]}"
                raise Unfit(number, f"unsupported change of {what}")
            self.modes[mode[1].split(" ")[0] if mode[1][:5] == "index" else mode[1]] = mode[2]
        elif moved := _MOVED.fullmatch(line):
            # Without the prefix a/ or b/, which is the first component to strip.
            self.moved[moved[2]] = _stripped(_unquoted(moved[3]), max(0, self.strip - 1))
            self.copied = moved[1] == "copy"

    def changes(self, old: str | None = None, new: str | None = None) -> list[Change]:
        """Return the change; `old` and `new` are the names in `---` and `+++` lines, if any."""
        if self.moved:
            old, new = self.moved.get("from"), self.moved.get("to")
        elif old is None and new is None:
            old = new = _same(self.both, self.strip)
            if old is None:
                return []
        kept = self.modes.get("index")
        kept = kept if kept == LINK else None  # the tree's executable bit is kept
        before = self.modes.get("deleted file mode", self.modes.get("old mode", kept))
        after = self.modes.get("new file mode", self.modes.get("new mode", kept))
        old = None if "new file mode" in self.modes else old
        new = None if "deleted file mode" in self.modes else new
        return [Change(self.line, old, new, before, after, self.copied, is_named=True)]


def _scanned(lines: list[str]) -> Iterator[tuple[int, bool]]:
    """Yield the indices of lines, and whether they are in a hunk.

    In a hunk, a removed line may look like a header.
    """
    old = new = 0
    began = 0
    for index, line in enumerate(lines):
        if old > 0 or new > 0:
            sign = line[:1]
            if sign in {"-", "+", " ", "", "\t"}:
                old -= sign != "+"
                new -= sign != "-"
            elif sign != "\\":
                old = new = 0  # malformed: patch(1) will report it
            began = index
            yield index, True
        elif hunk := _HUNK.match(line):
            old, new = (1 if count is None else int(count) for count in hunk.groups())
            yield index, True
        elif began and began == index - 1 and line.startswith("\\"):
            began = index
            yield index, True
        else:
            if began and began == index - 1 and _is_lost(lines, index):
                raise Unfit(index + 1, "hunk is longer than the line counts in its @@ line")
            yield index, False


def _is_lost(lines: list[str], index: int) -> bool:
    """Return whether patch(1) would ignore a line as garbage, though it looks like a hunk's."""
    line = lines[index]
    return line[:1] in {"+", "-"} and line not in _SIGNATURE and not _is_header(lines, index)


def _is_header(lines: list[str], index: int) -> bool:
    """Return whether `---`, `+++` and `@@` lines follow; a message may contain the first two."""
    starts = zip(("--- ", "+++ ", "@@"), lines[index : index + 3], strict=False)
    return index + 2 < len(lines) and all(line.startswith(start) for start, line in starts)


def _name(text: str, strip: int, line: int) -> str | None:
    name = _unquoted(text)
    if name == "/dev/null":
        return None
    short = _stripped(name, strip)
    if not short:
        raise Unfit(line, f"file name {name} has too few components for -p{strip}")
    return short


def _stripped(name: str, strip: int) -> str:
    return "/".join(name.split("/")[strip:])


def _same(both: str, strip: int) -> str | None:
    """Return the file name in `a/NAME b/NAME`, None if the two differ."""
    if both.startswith('"'):
        quoted = _BOTH_QUOTED.fullmatch(both)
        one, other = quoted.groups() if quoted else ("", "")
    else:
        one, other = both[: len(both) // 2], both[len(both) // 2 + 1 :]
    names = {_stripped(_unquoted(name), strip) for name in (one, other)}
    return names.pop() or None if len(names) == 1 else None


def _unquoted(text: str) -> str:
    """Return a name without a time stamp, or without git's quotes and escapes."""
    if not text.startswith('"'):
        return text.partition("\t")[0].strip()
    inner = re.match(r'"((?:[^"\\]|\\.)*)"', text)
    if inner is None:
        return text
    octets = re.sub(rb"\\([0-7]{3}|.)", _unescaped, inner[1].encode("utf-8", "surrogateescape"))
    return octets.decode("utf-8", "surrogateescape")


def _unescaped(found: re.Match[bytes]) -> bytes:
    what = found[1]
    return bytes([int(what, 8) & 255]) if len(what) == 3 else _ESCAPES.get(what, what)
