"""git commands of labctl ignore the user's repository, settings, hooks and templates."""

import ast
import os
import shlex
import subprocess
import sys
from pathlib import Path

import faketree
import pytest

import labctl
from labctl import environment, proc
from labctl.errors import UserError
from labctl.host import checkout
from labctl.kernels.build import Builder
from labctl.kernels.sources import open_source
from labctl.kernels.treefiles import File
from labctl.nightly import commits
from labctl.review import tools
from labctl.series import reader

MAIL = faketree.changed().replace("Subject", "From: A <a@example.org>\nSubject")
ORIGINALS = {"mm/mmu_gather.c": File(faketree.FILES["mm/mmu_gather.c"].encode())}


def users_git(folder, *words):
    """Run git as the user does, without the environment of the tests."""
    argv = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", *words]
    env = {"PATH": os.environ["PATH"], "HOME": "/dev/null"}
    return subprocess.run(argv, check=True, capture_output=True, text=True, env=env).stdout


@pytest.fixture
def ran(tmp_path):
    """Return a function that returns whether the user's `program` was run."""
    return (tmp_path / "ran").exists


@pytest.fixture
def program(tmp_path):
    """Return a program that labctl must not run."""
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\necho $0 $@ >> {tmp_path}/ran\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def hooks(tmp_path, program):
    """Return a template folder with hooks."""
    folder = tmp_path / "template/hooks"
    folder.mkdir(parents=True)
    for name in ("applypatch-msg", "pre-applypatch", "post-applypatch", "pre-commit",
                 "commit-msg", "post-commit", "reference-transaction"):  # fmt: skip
        (folder / name).symlink_to(program)
    return folder


@pytest.fixture
def mine(tmp_path, hooks):
    """Return the user's kernel tree, with hooks."""
    folder = faketree.write(tmp_path / "mine")
    users_git(folder, "init", "-q")
    users_git(folder, "add", "-A")
    users_git(folder, "commit", "-qm", "all")
    users_git(folder, "config", "core.hooksPath", str(hooks))
    return folder


def of_a_hook(folder):
    dot = folder / ".git"
    return {
        "GIT_DIR": dot,
        "GIT_WORK_TREE": folder,
        "GIT_INDEX_FILE": dot / "index",
        "GIT_PREFIX": "mm/",
        "GIT_COMMON_DIR": dot,
        "GIT_OBJECT_DIRECTORY": dot / "objects",
        "GIT_AUTHOR_DATE": "no date",
        "GIT_TRACE": folder / "trace",
    }


def of_another_index(folder):
    return {"GIT_INDEX_FILE": folder.parent / "another-index"}


def of_templates(folder):
    return {"GIT_TEMPLATE_DIR": folder.parent / "template"}


def of_settings(folder):
    pairs = {
        "commit.gpgSign": "true",
        "gpg.program": "false",
        "core.hooksPath": folder.parent / "template/hooks",
        "core.worktree": folder,
    }
    numbered = {}
    for number, (key, value) in enumerate(pairs.items()):
        numbered |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return numbered | {"GIT_CONFIG_COUNT": len(pairs)}


def of_a_home(folder):
    home = folder.parent / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[commit]\ngpgSign = true\n[gpg]\nprogram = false\n"
        f"[core]\nhooksPath = {folder.parent}/template/hooks\nautocrlf = true\n"
        f"excludesFile = {home}/ignored\nfsmonitor = {folder.parent}/program\n"
        f"[init]\ntemplateDir = {folder.parent}/template\n"
    )
    (home / "ignored").write_text("*.c\n")
    return {"HOME": home, "GIT_CONFIG_GLOBAL": home / ".gitconfig"}


ENVIRONMENTS = [of_a_hook, of_another_index, of_templates, of_settings, of_a_home]


def enter(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


def test_children_inherit_no_local_variable_of_git(monkeypatch):
    names = subprocess.run(
        ["git", "rev-parse", "--local-env-vars"], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "GIT_DIR" in names
    enter(monkeypatch, dict.fromkeys(names, "x"))
    assert not set(names) & environment.of_child().keys()


@pytest.mark.parametrize(
    "name",
    ["GIT_EXEC_PATH", "GIT_TEMPLATE_DIR", "GIT_TRACE2_EVENT", "POSIXLY_CORRECT", "PATCH_GET",
     "VERSION_CONTROL", "SIMPLE_BACKUP_SUFFIX", "QUOTING_STYLE", "TAR_OPTIONS", "XZ_OPT",
     "MAKEFLAGS", "GNUMAKEFLAGS", "MAKEFILES", "CPATH", "LIBRARY_PATH", "COMPILER_PATH",
     "GCC_EXEC_PREFIX", "DEPENDENCIES_OUTPUT", "BASH_ENV", "CDPATH", "LC_MESSAGES"],
)  # fmt: skip
def test_children_inherit_no_variable_that_changes_a_tool(monkeypatch, name):
    monkeypatch.setenv(name, "x")
    assert name not in environment.of_child()


@pytest.mark.parametrize("variables", ENVIRONMENTS)
def test_git_am_does_not_change_the_users_repository(mine, tmp_path, monkeypatch, ran, variables):
    before = users_git(mine, "rev-parse", "HEAD"), users_git(mine, "status", "--short")
    enter(monkeypatch, variables(mine))
    whole = reader.read(faketree.series(tmp_path / "series", MAIL))
    assert tools.git_am(whole, ORIGINALS) == [None]
    assert (users_git(mine, "rev-parse", "HEAD"), users_git(mine, "status", "--short")) == before
    assert not ran()


def test_git_am_works_within_a_rebase_of_a_linked_work_tree(mine, tmp_path, ran):
    linked = tmp_path / "linked"
    users_git(mine, "config", "--unset", "core.hooksPath")
    users_git(mine, "worktree", "add", "-q", "-b", "topic", str(linked))
    users_git(linked, "commit", "-q", "--allow-empty", "-m", "mine")
    folder = faketree.series(tmp_path / "series", MAIL)
    (tmp_path / "check.py").write_text(
        "from labctl.series import reader\n"
        "from labctl.review import tools\n"
        "from labctl.kernels.treefiles import File\n"
        f"whole = reader.read(__import__('pathlib').Path({str(folder)!r}))\n"
        f"assert tools.git_am(whole, {ORIGINALS!r}) == [None]\n"
    )
    path = f"PYTHONPATH={Path(labctl.__file__).parent.parent}"
    check = shlex.join(["env", path, sys.executable, str(tmp_path / "check.py")])
    users_git(linked, "rebase", "-q", "-x", check, "HEAD~1")
    assert users_git(linked, "log", "--format=%s").split() == ["mine", "all"]
    assert users_git(mine, "log", "--format=%s").split() == ["all"]
    assert not ran()


@pytest.mark.parametrize("variables", ENVIRONMENTS)
def test_the_environment_does_not_change_the_hash_of_a_source(
    mine, tmp_path, monkeypatch, variables, ran
):
    (mine / "mm/new.c").write_text("new\n")
    source = open_source(f"dir:{mine}", tmp_path / "state")
    before, commit = source.hash(), commits.describe(mine)
    enter(monkeypatch, variables(mine))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert source.hash() == before
    assert commits.describe(mine) == commit
    source.fill(tmp_path / "copy", ())
    assert (tmp_path / "copy/mm/new.c").is_file()
    assert not (mine / "trace").exists()
    assert not ran()


@pytest.mark.parametrize("key", ["core.fsmonitor", "filter.x.clean", "filter.x.process"])
def test_no_program_of_the_repositorys_config_is_run(mine, tmp_path, program, ran, key):
    source = open_source(f"dir:{mine}", tmp_path / "state")
    before = source.hash()
    users_git(mine, "config", key, str(program))
    users_git(mine, "config", "filter.x.required", "true")
    (mine / ".git/info").mkdir(exist_ok=True)
    (mine / ".git/info/attributes").write_text("*.c filter=x\n")
    (mine / "mm/memory.c").touch()
    assert source.hash() == before
    commits.describe(mine)
    assert not ran()


@pytest.mark.parametrize(
    ("key", "value"),
    [("core.fileMode", "false"), ("core.trustctime", "false"), ("core.worktree", "/"),
     ("core.checkStat", "minimal"), ("core.ignoreStat", "true")],
)  # fmt: skip
def test_no_setting_of_the_repository_hides_an_edit(mine, tmp_path, key, value):
    source = open_source(f"dir:{mine}", tmp_path / "state")
    before = source.hash()
    users_git(mine, "config", key, value)
    assert source.hash() == before
    path = mine / "mm/memory.c"
    info = path.stat()
    if key == "core.fileMode":
        path.chmod(0o755)
    else:
        path.write_text(path.read_text().replace("zap", "zip"))
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert source.hash() != before


def test_an_edit_hidden_by_git_replace_changes_the_hash(mine, tmp_path):
    source = open_source(f"dir:{mine}", tmp_path / "state")
    before = source.hash()
    (mine / "mm/memory.c").write_text("replaced\n")
    tree = users_git(mine, "rev-parse", "HEAD^{tree}").strip()
    users_git(mine, "add", "-A")
    users_git(mine, "replace", tree, users_git(mine, "write-tree").strip())
    assert source.hash() != before


@pytest.mark.parametrize("broken", ["empty folder", "file", "HEAD"])
def test_a_repository_that_git_cannot_read_is_an_error(mine, tmp_path, broken):
    """Otherwise the hash would silently be that of the files or of a parent repository."""
    users_git(tmp_path, "init", "-q")
    users_git(tmp_path, "commit", "-q", "--allow-empty", "-m", "above")
    dot = mine / ".git"
    if broken == "HEAD":
        (dot / "HEAD").write_text("ref: ../no\n")
    else:
        dot.rename(tmp_path / "aside")
        dot.mkdir() if broken == "empty folder" else dot.write_text("gitdir: /nowhere\n")
    with pytest.raises(UserError, match=r"git cannot read .*not a git repository") as caught:
        open_source(f"dir:{mine}", tmp_path / "state").hash()
    assert caught.value.where == str(mine)
    assert "remove" not in str(caught.value)  # following the hint must not lose work


def test_a_repository_without_a_commit_is_hashed_as_files(tmp_path):
    folder = faketree.write(tmp_path / "mine")
    plain = open_source(f"dir:{folder}", tmp_path / "state").hash()
    users_git(folder, "init", "-q", "--separate-git-dir", str(tmp_path / "away"))
    assert (folder / ".git").is_file()
    source = open_source(f"dir:{folder}", tmp_path / "state")
    assert source.hash() == plain
    source.fill(tmp_path / "copy", ())
    assert not (tmp_path / "copy/.git").exists()  # git commands of make would write there


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the owner of files")
def test_a_tree_of_another_owner_can_be_read(mine, tmp_path):
    source = open_source(f"dir:{mine}", tmp_path / "state")
    before, commit = source.hash(), commits.describe(mine / "mm")
    for path in (mine, *mine.rglob("*")):
        os.lchown(path, 65534, 65534)
    assert source.hash() == before
    assert commits.describe(mine / "mm") == commit is not None


def test_a_linked_work_tree_can_be_read(mine, tmp_path):
    linked = tmp_path / "linked"
    users_git(mine, "worktree", "add", "-q", str(linked))
    assert checkout.changed(linked, unknown=True) == []
    (linked / "mm/memory.c").write_text("edited\n")
    assert checkout.changed(linked, unknown=True) == ["mm/memory.c"]
    assert checkout.changed(mine, unknown=True) == []


def test_checkpatch_sees_neither_a_repository_nor_the_users_settings(tmp_path, monkeypatch, mine):
    tree = tmp_path / "tree"
    script = tree / "scripts/checkpatch.pl"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\ncat >/dev/null\ngit rev-parse --git-dir && exit 1\n"
                      '[ ! -f "$HOME/.checkpatch.conf" ]\n')  # fmt: skip
    script.chmod(0o755)
    users_git(tmp_path, "init", "-q")
    home = of_a_home(mine)
    (home["HOME"] / ".checkpatch.conf").write_text("--ignore BAD\n")
    enter(monkeypatch, of_a_hook(mine) | home)
    (patch,) = reader.read(faketree.series(tmp_path / "series", MAIL)).patches
    assert tools.checkpatch(tree, patch) == []


def test_git_commands_of_make_find_no_repository(tmp_path, monkeypatch):
    """scripts/setlocalversion looks for one; the build tree is inside the user's repository."""
    users_git(tmp_path, "init", "-q")
    probe = tmp_path / "probe.mk"
    probe.write_text("all:\n\t@git rev-parse --git-dir 2>/dev/null || echo none\n")
    source = faketree.pack(tmp_path, monkeypatch)
    kernel = faketree.kernel("stock", source, kconfig=(faketree.fragment(tmp_path / "config"),))
    state = tmp_path / ".labctl"
    with Builder(state, lambda _: None).workshop(kernel, tmp_path / "log") as make:
        done = proc.run(make._argv("-s", "-f", str(probe)), timeout_seconds=60)
    assert done.text.strip() == "none"


def test_git_commands_of_the_tests_use_no_settings_of_the_user():
    names = {name for name in os.environ if name.startswith("GIT_")}
    assert names == {"GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM"}


def test_only_one_module_starts_git():
    root = Path(labctl.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.List | ast.Tuple) and node.elts:
                first = node.elts[0]
                starts = isinstance(first, ast.Constant) and first.value == "git"
                assert not starts or path.name == "git.py", f"{path}:{node.lineno}"
