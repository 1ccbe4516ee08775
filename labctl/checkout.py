"""Somebody's git work tree: only ever looked at, not even its index is written."""

from __future__ import annotations

import os
from pathlib import Path

from labctl import git
from labctl.errors import CommandError


def look(folder: Path, *words: str) -> bytes:
    """Return what a git command says of the work tree that a folder is in, whoever owns it.

    `diff` and `describe --dirty` are not for this: both write the index, whatever
    they are told of locks. `changed` asks `status`, which does not.

    Raises:
        CommandError: git failed, took longer than 300 seconds, or there is no commit
            or work tree.
        HostError: git is not installed.
    """
    top = git.top(folder)
    if top is None:
        raise CommandError(f"{folder} is in no git work tree", status=128, output="")
    return git.run(top, *words, settings=_settings(top)).stdout


def _settings(top: Path) -> dict[str, str]:
    """Return settings that fit a work tree.

    Where each file is executable, as on a disk of Windows, git is told so when the
    repository is made. A repository says it also elsewhere, and is not believed there.
    """
    settings = git.without_filters(top)
    dot = top / ".git"
    always = dot if dot.is_file() else dot / "HEAD"  # git never makes a program of these
    if os.access(always, os.F_OK) and always.stat().st_mode & 0o100:
        told = git.run(top, "config", "--local", "--type=bool", "core.fileMode", check=False)
        settings |= {"core.fileMode": "false"} if told.text.strip() == "false" else {}
    return settings


def has_commit(folder: Path) -> bool:
    """Return whether a folder is the top of a git work tree with a commit.

    Raises:
        CommandError: git cannot read the repository.
        HostError: git is not installed.
    """
    if not os.path.lexists(folder / ".git"):
        return False
    done = git.run(folder.resolve(), "rev-parse", "--verify", "--quiet", "HEAD", check=False)
    if done.status > 1 or done.stderr:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise CommandError(f"git cannot read {folder}: {said}", status=done.status, output=said)
    return done.status == 0


def changed(folder: Path, *, unknown: bool) -> list[str]:
    """Return the files that differ from the commit; `unknown`: also those git does not know.

    Names are relative to the work tree's top. A file that is staged and then put
    back counts as changed, and so does one that git was told to take as unchanged.
    Errors are those of `look`.
    """
    asked = ["--no-renames", "--ignore-submodules=dirty"]
    asked += [f"--untracked-files={'all' if unknown else 'no'}"]
    lines = look(folder, "status", "--porcelain", "-z", *asked).split(b"\0")[:-1]
    return sorted({os.fsdecode(line[3:]) for line in lines} | _overlooked(folder))


def _overlooked(folder: Path) -> set[str]:
    """Return the changed files among those marked assume-unchanged or skip-worktree."""
    top = git.top(folder) or folder
    found, there = set(), {}
    for line in look(top, "ls-files", "-v", "-s", "-z").split(b"\0")[:-1]:
        facts, _, name = line.partition(b"\t")
        tag, _, digest, _ = facts.split(b" ")
        skipped, path = tag.upper() == b"S", top / os.fsdecode(name)
        if not skipped and not tag.islower():
            continue
        if path.is_file() and not path.is_symlink() and b"\n" not in name:
            there[name] = digest
        elif not skipped and not os.path.lexists(path):  # skipped: of a sparse work tree
            found.add(name)
    names = b"".join(name + b"\n" for name in there)
    settings = git.without_filters(top)
    done = git.run(top, "hash-object", "--stdin-paths", stdin=names, settings=settings)
    now = zip(there, done.stdout.split(), strict=True)
    return {os.fsdecode(name) for name in found | {n for n, d in now if d != there[n]}}
