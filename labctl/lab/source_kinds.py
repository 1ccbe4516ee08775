"""The kinds of `source:`, each with its form and its meaning. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SourceKind:
    """A kind of source: how it is written, and what it is."""

    form: str
    meaning: str


IMAGE = "image"
KINDS = {
    "git": SourceKind(
        "git:PATH@REVISION",
        "a revision of a git repository, without uncommitted edits; `git:PATH` is HEAD",
    ),
    "dir": SourceKind("dir:PATH", "a source tree with its uncommitted edits"),
    "tar": SourceKind("tar:PATH", "a tarball as from kernel.org: .tar, .tar.xz, .tar.gz, .tar.zst"),
    "debian": SourceKind("debian:NAME", "a Debian source package, like debian:linux-source-6.1"),
    IMAGE: SourceKind("image:PATH", "a built image"),
}


def forms(*, built: bool = False) -> str:
    """Return how sources are written, as a list; with `built` only those to build from."""
    *most, last = [each.form for kind, each in KINDS.items() if not (built and kind == IMAGE)]
    return f"{', '.join(most)} or {last}"


def description() -> str:
    """Return the kinds with their meanings, as one clause of a sentence."""
    *most, last = [f"{each.form} ({each.meaning})" for each in KINDS.values()]
    return f"{', '.join(most)} or {last}"
