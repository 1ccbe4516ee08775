"""Parse `series:` of lab.yaml: where a series is. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

FORMS = "git:BASE..TOPIC, git:PATH@BASE..TOPIC, mbox:FILE, lore:MESSAGE-ID, or a folder"
_KINDS = {"git", "mbox", "lore"}
# A revision has `@` only before `{`: the path ends at the last other `@`.
_REPOSITORY = re.compile(r"(?P<path>.+)@(?!\{)(?P<revision>.*)")
_ARCHIVE = re.compile(r"https?://[^/\s]+/(?:[^/@\s]+/)*(?P<id>[^/\s]+@[^/\s]+)(?:/.*)?")
_MESSAGE = re.compile(r"[^\s<>/@]+@[^\s<>/@]+")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a series is: `kind` is folder, git, mbox or lore.

    `path` is a folder, a file or a repository; empty for the kernel's own source, and for
    lore. `base` and `topic` are revisions. `id` is a message's.
    """

    kind: str
    path: str = ""
    base: str = ""
    topic: str = ""
    id: str = ""

    def __str__(self) -> str:
        if self.kind == "git":
            at = f"{self.path}@" if self.path else ""
            return f"git:{at}{self.base}..{self.topic}"
        return self.path if self.kind == "folder" else f"{self.kind}:{self.path or self.id}"


class InvalidPlace(ValueError):
    """A text that is no place; `hint` says what is expected."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


def parse(text: str) -> Place:
    """Return the place of a series.

    Raises:
        InvalidPlace: a range, a file or a message id is missing or malformed.
    """
    kind, colon, rest = text.partition(":")
    if not colon or kind not in _KINDS:
        return Place("folder", path=text)
    if kind == "git":
        return _range(rest)
    if kind == "mbox":
        if not rest:
            raise InvalidPlace("file is missing", "expected mbox:FILE")
        return Place("mbox", path=rest)
    found = _ARCHIVE.fullmatch(rest)
    name = (found["id"] if found else rest).removeprefix("<").removesuffix(">")
    if not _MESSAGE.fullmatch(name) or name.startswith("-"):
        raise InvalidPlace(f"{name!r} is not a message id", "expected lore:MESSAGE-ID")
    return Place("lore", id=name)


def _range(text: str) -> Place:
    hint = "expected git:BASE..TOPIC or git:PATH@BASE..TOPIC"
    before, dots, topic = text.rpartition("..")
    if not dots or topic.startswith("/"):  # the dots of a path ../linux
        raise InvalidPlace(f"range BASE..TOPIC is missing in {text!r}", hint)
    if before.endswith(".") or topic.startswith("."):
        raise InvalidPlace("range has three dots", hint)
    found = _REPOSITORY.fullmatch(before)
    path, base = (found["path"], found["revision"]) if found else ("", before)
    if base.startswith("-") or topic.startswith("-"):
        raise InvalidPlace("revision begins with a dash", hint)
    if not base:
        raise InvalidPlace("base revision is missing", hint)
    return Place("git", path=path, base=base, topic=topic or "HEAD")
