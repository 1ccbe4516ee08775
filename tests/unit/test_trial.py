"""`labctl try`: which revisions it compares, on which guest, and the lab that it writes."""

import os
import subprocess
import sys

import pytest

from labctl import units
from labctl.errors import UserError
from labctl.lab.load import load
from labctl.trial import place, shape
from labctl.trial.lab_file import Trial
from labctl.trial.revisions import find

GIB = units.GIB


class Repository:
    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.git("init", "-q", "-b", "master")

    def git(self, *words):
        names = {f"GIT_{w}_{k}": "x@y" for w in ("AUTHOR", "COMMITTER") for k in ("NAME", "EMAIL")}
        words = ["git", "-c", "commit.gpgSign=false", *words]
        done = subprocess.run(
            words, cwd=self.folder, check=True, capture_output=True, text=True,
            env={**os.environ, **names},
        )  # fmt: skip
        return done.stdout.strip()

    def commit(self, name, text="one\n", subject=None):
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", subject or f"{name}: change")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path):
    """A tree with a tagged commit, two more on master, and a topic of two on the first."""
    one = Repository(tmp_path / "linux")
    one.first = one.commit("mm/memory.c", subject="Linux 6.12")
    one.git("tag", "-a", "v6.12", "-m", "Linux 6.12")
    one.git("checkout", "-q", "-b", "mm/faster")
    one.commit("mm/mmap.c")
    one.topic = one.commit("mm/memory.c", "two\n", "mm: free in parallel")
    one.git("checkout", "-q", "master")
    one.master = one.commit("fs/file.c")
    one.git("checkout", "-q", "mm/faster")
    return one


def test_head_is_compared_with_its_merge_base_with_upstream(repository):
    found = find(repository.folder / "mm")
    assert (found.base.commit, found.topic.commit) == (repository.first, repository.topic)
    assert found.topic.name == "mm/faster"
    assert found.topic.subject == "mm: free in parallel"
    assert found.found_by == "merge base with master"
    assert found.changes() == "2 commits: mm/memory.c, mm/mmap.c"


def test_the_upstream_of_the_branch_comes_first(repository):
    repository.git("branch", "next", "HEAD~1")
    repository.git("branch", "--set-upstream-to=next")
    found = find(repository.folder)
    assert found.base.commit == repository.git("rev-parse", "HEAD~1")
    assert found.found_by == "merge base with next"


def test_an_upstream_that_has_the_topic_already_is_passed_over(repository):
    repository.git("branch", "pushed")
    repository.git("branch", "--set-upstream-to=pushed")
    assert find(repository.folder).found_by == "merge base with master"


def test_without_upstream_the_newest_release_is_the_base(repository):
    repository.git("branch", "-D", "master")
    found = find(repository.folder)
    assert found.base.commit == repository.first
    assert found.found_by == "merge base with v6.12"


@pytest.mark.parametrize(
    ("text", "base", "topic", "found_by"),
    [
        ("v6.12..mm/faster", "first", "topic", ""),
        ("v6.12..", "first", "topic", ""),
        ("master..mm/faster", "first", "topic", "merge base with master"),
        ("master...mm/faster", "first", "topic", "merge base with master"),
        ("v6.12..master", "first", "master", ""),
        ("mm/faster", "first", "topic", "merge base with master"),
        ("HEAD", "first", "topic", "merge base with master"),
    ],
)
def test_a_range_names_base_and_topic(repository, text, base, topic, found_by):
    found = find(repository.folder, text)
    assert found.base.commit == getattr(repository, base)
    assert found.topic.commit == getattr(repository, topic)
    assert found.found_by == found_by


def test_a_detached_head_is_named_by_its_hash(repository):
    repository.git("checkout", "-q", "--detach")
    assert find(repository.folder).topic.name == repository.topic[:12]


def test_a_linked_work_tree_is_a_tree(repository, tmp_path):
    repository.git("worktree", "add", "-q", str(tmp_path / "linked"), "master")
    found = find(tmp_path / "linked", "v6.12..")
    assert found.topic.commit == repository.master


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("nope..mm/faster", "there is no revision nope"),
        ("v6.12..nope", "there is no revision nope"),
        ("v6.12", "v6.12 has no commits of its own"),
        ("v6.12..v6.12", "do not differ"),
        ("mm/faster..v6.12", "do not differ"),
        ("--output=x..HEAD", "there is no revision --output=x"),
        ("HEAD:mm", "HEAD:mm"),
    ],
)
def test_what_is_no_range_is_an_error(repository, text, what):
    with pytest.raises(UserError, match=what):
        find(repository.folder, text)


def test_unrelated_histories_and_folders_without_git_are_errors(repository, tmp_path):
    repository.git("checkout", "-q", "--orphan", "alien")
    repository.commit("other.c")
    with pytest.raises(UserError, match="no common ancestor"):
        find(repository.folder, "v6.12..alien")
    with pytest.raises(UserError, match="not in a git repository"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2x2,4GiB", (2, 2, 4 * GIB)),
        ("1X8, 512MiB", (1, 8, GIB // 2)),
        (" 4 x 1 , 6GiB ", (4, 1, 6 * GIB)),
    ],
)
def test_a_guest_is_nodes_cpus_and_memory(text, expected):
    found = shape.parse(text)
    assert (found.nodes, found.cpus_per_node, found.memory_bytes) == expected


@pytest.mark.parametrize(
    "text", ["", "2x2", "2,4GiB", "2x2,4", "0x2,4GiB", "2x0,4GiB", "2x2,-1GiB", "3x1,1GiB", "x,GiB"]
)
def test_what_is_no_guest_is_an_error(text):
    with pytest.raises(UserError, match="--guest"):
        shape.parse(text)


@pytest.mark.parametrize(
    ("cores", "available", "expected"),
    [(2, 22 * GIB, (2, 1, 4 * GIB)), (64, 500 * GIB, (2, 4, 4 * GIB)), (1, GIB, (2, 1, GIB))],
)
def test_the_suggested_guest_fits_the_host(cores, available, expected):
    found = shape.suggested(cores, available)
    assert (found.nodes, found.cpus_per_node, found.memory_bytes) == expected


def trial(repository, text="HEAD", **more):
    return Trial(revisions=find(repository.folder, text), shape=shape.parse("2x1,2GiB"), **more)


def test_kernels_are_named_like_their_revisions(repository):
    assert trial(repository, "v6.12..mm/faster").kernels() == ("v6.12", "mm-faster")
    assert trial(repository).kernels() == ("base", "mm-faster")
    repository.git("branch", "same", "v6.12")
    repository.git("branch", "-f", "same-", "HEAD")
    assert trial(repository, "same..same-").kernels() == ("base", "topic")


def test_the_lab_that_is_written_is_valid_and_names_the_commits(repository, tmp_path):
    for name in ("Kbuild", "Makefile"):
        repository.commit(name)
    program = tmp_path / "my bench"
    program.write_text("#!/bin/sh\necho 1\n")
    program.chmod(0o755)
    config = tmp_path / "config"
    config.write_text("CONFIG_SMP=y\n")
    for more in (
        {},
        {"operation": "exit"},
        {"operation": "time-unmap"},
        {"command": (str(program), "--size", "1 GiB"), "config": config},
        {"command": ("sh", "-c", "true"), "metric": "rate", "better": "higher"},
    ):
        one = trial(repository, "v6.12..HEAD", **more)
        path = tmp_path / "labs" / "lab.yaml"
        place.write(path, one.text(tmp_path / "state", "labctl try\x1b[31m"))
        lab = load(path)
        base, topic = one.kernels()
        assert lab.kernels[base].source.endswith(f"@{repository.first}")
        assert lab.kernels[topic].source.endswith(f"@{one.revisions.topic.commit}")
        assert lab.experiments["try"].baseline == base
        assert lab.state == tmp_path / "state"
        command = more.get("command")
        if command:
            assert lab.workloads[one.workload()].argv()[: len(command)] == list(command)
        assert lab.metric_of("try") == more.get("metric", "wall_time" if command else "elapsed")


def test_a_workload_whose_size_is_chosen_is_short_and_often_repeated(repository, tmp_path):
    def repetitions(**more):
        document = trial(repository, **more).document(tmp_path)
        return document["experiments"]["try"]["statistics"]["repetitions"]

    document = trial(repository).document(tmp_path)
    assert units.size(document["workloads"]["munmap"]["parameters"]["size"]) == GIB // 4
    assert repetitions() > repetitions(operation="time-unmap")
    assert repetitions() > repetitions(command=("sh", "-c", "true"))


def test_files_are_kept_below_the_users_state_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert place.state_folder() == tmp_path / "labctl" / "state"
    one, other = (place.lab_path(tmp_path / name / "linux") for name in "ab")
    assert one != other
    assert one.is_relative_to(tmp_path / "labctl")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert place.home() == tmp_path / "home" / ".local" / "state" / "labctl"


def run(repository, *words, home):
    return subprocess.run(
        [sys.executable, "-m", "labctl", "try", *words],
        cwd=repository.folder, capture_output=True, text=True, timeout=60,
        env={**os.environ, "XDG_STATE_HOME": str(home)},
    )  # fmt: skip


def test_a_dry_run_lists_its_steps_and_writes_nothing(repository, tmp_path):
    done = run(repository, "--dry-run", "--minutes", "5", home=tmp_path / "xdg")
    assert done.returncode == 0, done.stderr
    assert "base:     " in done.stderr
    assert "merge base with master" in done.stderr
    assert "at most 5 min 00 s of measuring" in done.stderr
    assert not (tmp_path / "xdg").exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--"], "no command after --"),
        (["--metric", "x"], "require -- COMMAND"),
        (["--guest", "2"], "--guest"),
        (["nope"], "there is no revision nope"),
        (["--minutes", "0"], "--minutes"),
        (["--workload", "nope"], "--workload"),
        (["--config", "nope"], "--config"),
    ],
)
def test_wrong_arguments_are_errors(repository, tmp_path, words, what):
    done = run(repository, *words, home=tmp_path / "xdg")
    assert done.returncode == 2, done.stderr
    assert what in done.stderr
    assert "Traceback" not in done.stderr
