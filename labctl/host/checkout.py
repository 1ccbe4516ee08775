"""Read-only git queries: they do not even write the index of the work tree."""

from __future__ import annotations

import os
from pathlib import Path

from labctl.errors import CommandError
from labctl.host import git


def query(folder: Path, *words: str) -> bytes:
    """Return the output of a git command on the work tree that contains a folder.

    Do not use `diff` and `describe --dirty`: both write the index, even with
    GIT_OPTIONAL_LOCKS=0. `changed` uses `status`, which does not.

    Raises:
        CommandError: git failed, took longer than 300 seconds, or there is no commit
            or no work tree.
        HostError: git is not installed.
    """
    top = git.top(folder)
    if top is None:
        raise CommandError(f"{folder} is not in a git work tree", status=128, output="")
    return git.run(top, *words, settings=_settings(top)).stdout


def _settings(top: Path) -> dict[str, str]:
    """Return settings for a work tree.

    On file systems where each file is executable, such as those of Windows, `git init`
    sets core.fileMode to false. The setting is ignored on other file systems.
    """
    settings = git.without_filters(top)
    dot = top / ".git"
    probe = dot if dot.is_file() else dot / "HEAD"  # git never makes these executable
    if os.access(probe, os.F_OK) and probe.stat().st_mode & 0o100:
        answer = git.run(top, "config", "--local", "--type=bool", "core.fileMode", check=False)
        settings |= {"core.fileMode": "false"} if answer.text.strip() == "false" else {}
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
        output = done.stderr.decode("utf-8", "replace").strip()
        raise CommandError(f"git cannot read {folder}: {output}", status=done.status, output=output)
    return done.status == 0


def changed(folder: Path, *, unknown: bool) -> list[str]:
    """Return the files that differ from HEAD; with `unknown` also untracked files.

    Names are relative to the work tree's top. A file that is staged and then restored
    counts as changed, and so does a changed file marked assume-unchanged or
    skip-worktree. Raises the errors of `query`.
    """
    options = ["--no-renames", "--ignore-submodules=dirty"]
    options += [f"--untracked-files={'all' if unknown else 'no'}"]
    lines = query(folder, "status", "--porcelain", "-z", *options).split(b"\0")[:-1]
    return sorted({os.fsdecode(line[3:]) for line in lines} | _hidden(folder))


def _hidden(folder: Path) -> set[str]:
    """Return the changed files that are marked assume-unchanged or skip-worktree."""
    top = git.top(folder) or folder
    missing, digests = set(), {}
    for line in query(top, "ls-files", "-v", "-s", "-z").split(b"\0")[:-1]:
        facts, _, name = line.partition(b"\t")
        tag, _, digest, _ = facts.split(b" ")
        skipped, path = tag.upper() == b"S", top / os.fsdecode(name)
        if not skipped and not tag.islower():
            continue
        if path.is_file() and not path.is_symlink() and b"\n" not in name:
            digests[name] = digest
        elif not skipped and not os.path.lexists(
            path
        ):  # a sparse work tree lacks its skipped files
            missing.add(name)
    names = b"".join(name + b"\n" for name in digests)
    settings = git.without_filters(top)
    done = git.run(top, "hash-object", "--stdin-paths", stdin=names, settings=settings)
    now = zip(digests, done.stdout.split(), strict=True)
    differing = {name for name, digest in now if digest != digests[name]}
    return {os.fsdecode(name) for name in missing | differing}
