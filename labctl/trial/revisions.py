"""Which revisions `labctl try` compares: a topic and the commit that it started from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import UserError
from labctl.host import git
from labctl.host.repository import Repository
from labctl.units import counted

_SHORT_DIGITS = 12
_MAX_NAMED_FILES = 3
_HINT = "give both: `labctl try BASE..TOPIC`, for example v6.12..HEAD"


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit: its full hash, the name by which the user knows it, and its subject."""

    commit: str
    name: str
    subject: str

    def __str__(self) -> str:
        short = self.commit[:_SHORT_DIGITS]
        named = short if self.commit.startswith(self.name) else f"{self.name} ({short})"
        return f'{named} "{self.subject}"'


@dataclass(frozen=True, slots=True)
class Range:
    """A topic and its base in a git repository.

    `found_by` says where the base comes from, empty if it is the one that was given.
    """

    repository: Path
    base: Revision
    topic: Revision
    found_by: str
    commits: int
    files: tuple[str, ...]

    def changes(self) -> str:
        """Return the number of commits and the changed files, the first few by name."""
        commits = counted(self.commits, "commit")
        named = ", ".join(self.files[:_MAX_NAMED_FILES])
        more = len(self.files) - _MAX_NAMED_FILES
        return f"{commits}: {named}" + (f" and {more} more files" if more > 0 else "")


def find(folder: Path, text: str = "HEAD") -> Range:
    """Return the range that `text` names in the repository around a folder.

    `text` is BASE..TOPIC, or a topic alone, whose base is its merge base with upstream.
    With BASE..TOPIC the base is the merge base of both, so that only the commits of the
    topic count. Uncommitted changes are never part of it.

    Raises:
        UserError: there is no repository, a revision does not exist, or nothing differs.
    """
    found = Repository.find(folder)
    if found is None:
        raise UserError(
            "not in a git repository",
            where=str(folder),
            hint="change to a kernel tree, or select one with --tree",
        )
    # The whole tree, wherever in it the user is.
    top = found.git_dir.parent if found.prefix else folder.resolve()
    repository = Repository(top, found.git_dir, "")
    base_text, is_range, topic_text = text.replace("...", "..").partition("..")
    if not is_range:
        base_text, topic_text = "", text
    topic = _revision(repository, topic_text or "HEAD")
    if base_text:
        given = _revision(repository, base_text)
        merge_base = repository.merge_base(given.commit, topic.commit)
        if not merge_base:
            raise UserError(
                f"{base_text} and {topic.name} have no common ancestor",
                where=str(repository.folder),
            )
        is_given = merge_base == given.commit
        base = given if is_given else _revision(repository, merge_base)
        found_by = "" if is_given else f"merge base with {base_text}"
    else:
        base, found_by = _upstream_base(repository, topic)
    files = _lines(repository, "diff", "--name-only", "--no-renames", base.commit, topic.commit)
    if not files:
        raise UserError(
            f"{base} and {topic} do not differ",
            where=str(repository.folder),
            hint="commit your changes first" if base.commit == topic.commit else None,
        )
    count = _lines(repository, "rev-list", "--count", f"{base.commit}..{topic.commit}")[0]
    return Range(repository.folder, base, topic, found_by, int(count), tuple(files))


def _revision(repository: Repository, text: str) -> Revision:
    found = repository.resolve(text)
    if not found.commit:
        raise UserError(
            f"revision {text} is a tree: expected a commit", where=str(repository.folder)
        )
    name = text[:_SHORT_DIGITS] if text == found.commit else text
    if text == "HEAD":
        branch = _try(repository, "symbolic-ref", "--short", "--quiet", "HEAD")
        name = branch or found.commit[:_SHORT_DIGITS]
    return Revision(found.commit, name, found.subject)


def _upstream_base(repository: Repository, topic: Revision) -> tuple[Revision, str]:
    """Return the commit at which a topic left its upstream, and how it was found."""
    tried = []
    for upstream in _upstreams(repository, topic):
        commit = _try(
            repository,
            *("rev-parse", "--verify", "--quiet", "--end-of-options"),
            f"{upstream}^{{commit}}",
        )
        if not commit:
            continue
        tried.append(upstream)
        merge_base = repository.merge_base(commit, topic.commit)
        if merge_base and merge_base != topic.commit:
            return _revision(repository, merge_base), f"merge base with {upstream}"
    if tried:
        what = f"{topic.name} has no commits of its own: it is part of {', '.join(tried)}"
    else:
        what = f"upstream of {topic.name} is unknown"
    raise UserError(what, where=str(repository.folder), hint=_HINT)


def _upstreams(repository: Repository, topic: Revision) -> Iterator[str]:
    """Yield what may be the upstream of a topic, the likeliest first."""
    branch = _try(
        repository, "rev-parse", "--abbrev-ref", "--symbolic-full-name", f"{topic.name}@{{u}}"
    )
    if branch:
        yield branch
    yield from ("origin/HEAD", "origin/master", "origin/main", "master", "main")
    tag = _try(repository, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", topic.commit)
    if tag:
        yield tag


def _try(repository: Repository, *words: str) -> str:
    """Return the output of git, empty if it fails."""
    done = git.read(repository.git_dir, *words, check=False)
    return os.fsdecode(done.stdout).strip() if done.status == 0 else ""


def _lines(repository: Repository, *words: str) -> list[str]:
    return os.fsdecode(git.read(repository.git_dir, *words).stdout).splitlines()
