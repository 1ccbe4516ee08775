"""Read a range of commits as a series."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import UserError
from labctl.host.repository import Repository
from labctl.series.patch import Patch, Series

MOST = 2000
_DIGITS = 12
# As git format-patch writes a patch without anyone's settings.
_DIFF = (
    "--pretty=email", "--encoding=UTF-8", "--patch-with-stat", "--binary", "--full-index",
    "--find-renames=50%", "-l1000", "--unified=3", "--inter-hunk-context=0",
    "--diff-algorithm=myers", "--indent-heuristic", "--src-prefix=a/", "--dst-prefix=b/",
    "--no-color", "--no-ext-diff", "--no-textconv", "--ignore-submodules=none",
    "--no-notes", "--no-show-signature", "-O/dev/null", "--root", "--always",
)  # fmt: skip
_SETTINGS = ("-c", "diff.suppressBlankEmpty=false", "-c", "log.mailmap=false")


@dataclass(frozen=True, slots=True)
class Range:
    """Commits after `base`, the merge base, up to `topic`, oldest first: full object ids."""

    repository: Repository
    text: str
    base: str
    topic: str
    commits: tuple[str, ...]


def find_range(repository: Path, base: str, topic: str) -> Range:
    """Return the commits of `base..topic`, with the merge base found.

    Raises:
        UserError: there is no repository or no such revision, the range is empty, the two
            have no common ancestor, or a commit of the range is a merge.
    """
    where, text = str(repository), f"{base}..{topic}"
    opened, (old, new), ancestor = _ends(repository, base, topic)
    listed = opened.read("rev-list", "--reverse", "--topo-order", "--parents", f"{old}..{new}")
    lines = [line.split() for line in listed.decode().splitlines()]
    merges = [ids[0] for ids in lines if len(ids) > 2]
    if merges:
        what = f"range {text} has a merge, {merges[0][:_DIGITS]}: a series has no merges"
        hint = f"rebase the topic onto {base}, or use {topic} as the kernel's source"
        raise UserError(what, where=where, hint=hint)
    commits = tuple(ids[0] for ids in lines)
    _check_count(commits, text, where, old, new)
    return Range(opened, text, ancestor, new, commits)


def first_parents(repository: Path, base: str, topic: str) -> Range:
    """Return the chain of first parents from the merge base up to `topic`, for a bisection.

    A merge is one step. Raises the errors of `find_range` but for merges.
    """
    opened, (_, new), ancestor = _ends(repository, base, topic)
    words = ("rev-list", "--reverse", "--first-parent", f"{ancestor}..{new}")
    commits = tuple(opened.read(*words).decode().split())
    if not commits:
        raise _empty(f"{base}..{topic}", str(repository), ancestor, new)
    return Range(opened, f"{base}..{topic}", ancestor, new, commits)


def read_range(repository: Path, base: str, topic: str) -> Series:
    """Return the commits of `base..topic` as a series; raise as `find_range` does."""
    found = find_range(repository, base, topic)
    place = f"git:{repository}@{found.text}"
    mails = _mails(found)
    patches = [
        Patch(name=commit[:_DIGITS], place=f"{place}: commit {commit[:_DIGITS]}",
              content=mail, first_line=None)
        for commit, mail in zip(found.commits, mails, strict=True)
        if b"\ndiff --git " in mail
    ]  # fmt: skip
    if not patches:
        raise UserError("commits of the range change nothing", where=place)
    return Series(place, tuple(patches))


def subjects(found: Range) -> list[str]:
    """Return the subjects of a range's commits in order."""
    ids = "".join(f"{commit}\n" for commit in found.commits).encode()
    words = ("log", "--stdin", "--no-walk=unsorted", "--format=%s", "-z", "--encoding=UTF-8")
    answer = found.repository.read(*words, stdin=ids)
    return answer.decode("utf-8", "replace").removesuffix("\0").split("\0")


def _ends(repository: Path, base: str, topic: str) -> tuple[Repository, tuple[str, str], str]:
    """Return the repository, both ends' commits and their merge base."""
    opened = Repository.find(repository) if repository.is_dir() else None
    where = str(repository)
    if opened is None:
        hint = "expected the folder of a git repository in git:PATH@BASE..TOPIC"
        raise UserError("no git repository", where=where, hint=hint)
    ends = []
    for name in (base, topic):
        commit = opened.resolve(name).commit
        if not commit:
            raise UserError(f"revision {name} is a tree: expected a commit", where=where)
        ends.append(commit)
    old, new = ends
    ancestor = opened.merge_base(old, new)
    if not ancestor:
        fetch = f"`git -C {shlex.quote(where)} fetch --unshallow` adds older commits"
        hint = fetch if opened.is_shallow() else "use revisions of the same history"
        raise UserError(f"{base} and {topic} have no common ancestor", where=where, hint=hint)
    return opened, (old, new), ancestor


def _check_count(commits: tuple[str, ...], text: str, where: str, old: str, new: str) -> None:
    if not commits:
        raise _empty(text, where, old, new)
    if len(commits) > MOST:
        what = f"range {text} has {len(commits)} commits: a series has at most {MOST}"
        hint = "use the topic as the kernel's source, or a base closer to it"
        raise UserError(what, where=where, hint=hint)


def _empty(text: str, where: str, old: str, new: str) -> UserError:
    what = f"range {text} is empty: {new[:_DIGITS]} is in the history of {old[:_DIGITS]}"
    if old == new:
        what = f"range {text} is empty: both are commit {old[:_DIGITS]}"
    base, _, topic = text.rpartition("..")
    return UserError(what, where=where, hint=f"perhaps git:{topic}..{base}" if old != new else None)


def _mails(found: Range) -> list[bytes]:
    ids = "".join(f"{commit}\n" for commit in found.commits).encode()
    prefix = found.repository.prefix
    within = f"--relative={prefix}/" if prefix else "--no-relative"
    words = (*_SETTINGS, "diff-tree", "--stdin", *_DIFF, within)
    answer = found.repository.read(*words, stdin=ids)
    mails = []
    for commit, following in zip(found.commits, [*found.commits[1:], ""], strict=True):
        # The next mail begins at its own commit's line: a message may contain other such lines.
        mark = f"\nFrom {following} ".encode()
        end = answer.find(mark) + 1 if following else len(answer)
        if not answer.startswith(f"From {commit} ".encode()) or not end:
            what = f"git wrote no mail of commit {commit[:_DIGITS]}"
            raise UserError(what, where=str(found.repository.folder))
        mails.append(answer[:end])
        answer = answer[end:]
    return mails
