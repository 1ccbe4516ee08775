"""`source: git:PATH@REVISION`: every kind of repository is read and none is written."""

import os
import re
import subprocess
from pathlib import Path

import faketree
import pytest
from click.testing import CliRunner

from labctl.cli import labctl
from labctl.doctor import building
from labctl.doctor.host_tests import unreadable
from labctl.errors import ConfigError, UserError
from labctl.kernels.build import Builder
from labctl.kernels.sources import open_source
from labctl.kernels.treefiles import File
from labctl.lab.load import load
from labctl.lab.models import Lab
from labctl.nightly import commits
from labctl.reports import words
from labctl.runs.types import Kernel
from labctl.series import reader


def git(folder, *words, **more):
    """Run git as the user does, without the environment of the tests."""
    argv = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", *words]
    env = {"PATH": os.environ["PATH"], "HOME": "/dev/null"}
    return subprocess.run(argv, check=True, capture_output=True, env=env, **more).stdout.decode()


def commit(folder, subject, **files):
    for name, text in files.items():
        (folder / name).write_text(text)
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "-qm", subject)


def repository(folder, *options):
    """Make a repository with two commits, of branches master and topic, and a tag."""
    faketree.write(folder)
    git(folder, "init", "-q", "-b", "master", *options)
    commit(folder, "all: import")
    git(folder, "tag", "-a", "-m", "first", "v1.0")
    git(folder, "checkout", "-q", "-b", "topic")
    commit(folder, "mm: free in parallel", **{"mm/memory.c": "topic\n"})
    git(folder, "checkout", "-q", "master")
    return folder


@pytest.fixture
def state(tmp_path):
    return tmp_path / ".labctl"


@pytest.fixture
def mine(tmp_path):
    return repository(tmp_path / "mine")


@pytest.fixture
def read(tmp_path, state):
    """Return a function that writes a source to a folder and returns its files."""

    def read(text, folder=tmp_path / "tree/src"):
        source = open_source(text, state)
        assert source.fill(folder, ()) == source.hash()
        return {
            str(path.relative_to(folder)): path.read_bytes().decode()
            for path in folder.rglob("*")
            if path.is_file()
        }

    return read


def snapshot(folder):
    """Return content and times of all files and folders."""
    return {
        path: (path.lstat().st_mtime_ns, path.lstat().st_mode, path.is_file() and path.read_bytes())
        for path in [folder, *folder.rglob("*")]
    }


def branch(mine):
    return f"{mine}@topic"


def full_name(mine):
    return f"{mine}@refs/heads/topic"


def short_hash(mine):
    return f"{mine}@{git(mine, 'rev-parse', '--short', 'topic').strip()}"


def tree_id(mine):
    return f"{mine}@topic^{{tree}}"


def tag(mine):
    git(mine, "tag", "-a", "-m", "second", "v2.0", "topic")
    return f"{mine}@v2.0"


def relative(mine):
    git(mine, "checkout", "-q", "topic")
    commit(mine, "mm: again", **{"mm/memory.c": "again\n"})
    return f"{mine}@HEAD~1"


def head(mine):
    git(mine, "checkout", "-q", "topic")
    return str(mine)


def detached_head(mine):
    git(mine, "checkout", "-q", "--detach", "topic")
    return f"{mine}@@"


def of_the_reflog(mine):
    git(mine, "checkout", "-q", "topic")
    git(mine, "commit", "-q", "--amend", "-m", "mm: another subject", "--allow-empty")
    git(mine, "checkout", "-q", "-B", "topic", "master")
    return f"{mine}@topic@{{1}}"


def upstream(mine):
    git(mine, "branch", "-q", "work", "--track", "topic")
    return f"{mine}@work@{{upstream}}"


def branch_with_a_sign(mine):
    git(mine, "branch", "-q", "me@work/topic", "topic")
    return f"{mine}@me@work/topic"


def path_with_a_sign(mine):
    other = mine.rename(mine.with_name("a@b"))
    return f"{other}@topic"


def bare(mine):
    git(mine.parent, "clone", "-q", "--bare", mine, "bare.git")
    return f"{mine.parent}/bare.git@topic"


def dot_git(mine):
    return f"{mine}/.git@topic"


def linked_work_tree(mine):
    git(mine, "worktree", "add", "-q", mine.parent / "linked", "topic")
    return f"{mine.parent}/linked"


def shallow(mine):
    git(mine.parent, "clone", "-q", "--depth=1", "-b", "topic", f"file://{mine}", "shallow")
    return f"{mine.parent}/shallow@topic"


def alternates(mine):
    git(mine.parent, "clone", "-q", "--shared", mine, "shared")
    return f"{mine.parent}/shared@origin/topic"


def packed(mine):
    git(mine, "gc", "-q")
    return f"{mine}@topic"


def sha256(mine):
    other = repository(mine.parent / "sha256", "--object-format=sha256")
    return f"{other}@topic"


def folder_in_a_repository(mine):
    other = mine.parent / "whole"
    repository(other / "linux")
    (other / "linux/.git").rename(other / ".git")
    git(other, "checkout", "-q", "-f", "-b", "moved", "master")
    for subject, text in (("all: move", "old\n"), ("mm: free", "topic\n")):
        commit(other / "linux", subject, **{"mm/memory.c": text})
        git(other, "rm", "-rq", "--cached", "--ignore-unmatch", "mm", "Kbuild", "Makefile")
    return f"{other}/linux@moved"


def missing_work_tree(mine):
    git(mine, "config", "core.worktree", "/nonexistent")
    return f"{mine}@topic"


def through_a_link(mine):
    (mine.parent / "link").symlink_to(mine)
    return f"{mine.parent}/link@topic"


GOOD = [
    branch, full_name, short_hash, tree_id, tag, relative, head, detached_head, of_the_reflog,
    upstream, branch_with_a_sign, path_with_a_sign, bare, dot_git, linked_work_tree, shallow,
    alternates, packed, sha256, folder_in_a_repository, missing_work_tree, through_a_link,
]  # fmt: skip


@pytest.mark.parametrize("place", GOOD)
def test_a_revision_is_read_and_the_repository_is_unchanged(mine, tmp_path, read, place):
    text = place(mine)
    expected = faketree.FILES | {"mm/memory.c": "topic\n"}
    before = snapshot(tmp_path)
    found = read(f"git:{text}", tmp_path / ".labctl/tree/src")
    assert {n: t for n, t in found.items() if n in expected} == expected
    after = {p: each for p, each in snapshot(tmp_path).items() if ".labctl" not in p.parts}
    assert {p: each for p, each in after.items() if p != tmp_path} == {
        p: each for p, each in before.items() if p != tmp_path
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_a_repository_of_another_owner_is_read(mine, read):
    for path in [mine, *mine.rglob("*")]:
        os.lchown(path, 65534, 65534)
    assert read(f"git:{mine}@topic")["mm/memory.c"] == "topic\n"


def test_uncommitted_edits_are_not_read(mine, read):
    (mine / "mm/memory.c").write_text("edited\n")
    (mine / "mm/new.c").write_text("new\n")
    git(mine, "add", "mm/new.c")
    assert read(f"git:{mine}") == faketree.FILES


def test_attributes_settings_and_filters_change_nothing(mine, tmp_path, read):
    ran = tmp_path / "ran"
    git(mine, "config", "core.autocrlf", "true")
    git(mine, "config", "filter.mine.smudge", f"touch {ran}; cat")
    attributes = "*.c filter=mine ident eol=crlf\nKbuild export-ignore\nKconfig export-subst\n"
    (mine / ".git/info/attributes").write_text(attributes)
    text = "$Id$ $Format:%H$\n"
    commit(mine, "odd", **{".gitattributes": attributes, "Kconfig": text, "mm/odd.c": text})
    blob = git(mine, "cat-file", "blob", "HEAD:mm/odd.c")
    found = read(f"git:{mine}")
    assert (found["Kconfig"], found["mm/odd.c"]) == (text, blob)
    assert "Kbuild" in found
    assert found["mm/memory.c"] == faketree.FILES["mm/memory.c"]
    assert not ran.exists()


def test_the_environment_of_a_hook_changes_nothing(mine, tmp_path, read, monkeypatch):
    other = repository(tmp_path / "other")
    commit(other, "other", **{"mm/memory.c": "other\n"})
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other / ".git/objects"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    assert read(f"git:{mine}@topic")["mm/memory.c"] == "topic\n"


def test_replaced_objects_are_not_read(mine, read):
    git(mine, "replace", "topic", "master")
    assert read(f"git:{mine}@topic")["mm/memory.c"] == "topic\n"


def test_a_tracked_config_does_not_keep_make_out(mine, read):
    commit(mine, "config", **{".config": "made\n"})
    assert read(f"git:{mine}") == faketree.FILES


def test_kinds_of_files_are_kept(mine, state, read, tmp_path):
    (mine / "scripts/cc.sh").chmod(0o755)
    (mine / "link").symlink_to("mm/memory.c")
    commit(mine, "kinds")
    read(f"git:{mine}")
    assert os.access(tmp_path / "tree/src/scripts/cc.sh", os.X_OK)
    assert (tmp_path / "tree/src/link").readlink() == Path("mm/memory.c")
    source = open_source(f"git:{mine}", state)
    assert source.original("scripts/cc.sh") == File(faketree.FILES["scripts/cc.sh"].encode(), True)
    assert source.original("link") == File(b"mm/memory.c", link=True)
    assert source.original("no/such") is None
    with pytest.raises(UserError, match="parent of link/x is not a folder"):
        source.original("link/x")


def test_a_name_that_is_not_utf_8_is_written(mine, tmp_path, read):
    name = os.fsdecode(b"mm/odd\xe9 \n.c")
    commit(mine, "odd", **{name: "odd\n"})
    assert read(f"git:{mine}")[name] == "odd\n"
    read(f"git:{mine}@topic")
    assert not (tmp_path / "tree/src" / name).exists()


def test_another_revision_writes_only_what_differs(mine, tmp_path, read):
    read(f"git:{mine}")
    commit(mine, "a folder becomes a file", **{"mm/new.c": "new\n"})
    git(mine, "rm", "-rq", "init")
    commit(mine, "and init", init="file\n")
    tree = tmp_path / "tree/src"
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*") if path.is_file()}
    read(f"git:{mine}@v1.0")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    found = read(f"git:{mine}")
    assert found == {n: t for n, t in faketree.FILES.items() if n != "init/main.c"} | {
        "mm/new.c": "new\n",
        "init": "file\n",
    }
    changed = {p for p, t in before.items() if not p.is_file() or p.stat().st_mtime_ns != t}
    assert changed == {tree / "init/main.c"}
    found = read(f"git:{mine}@topic")
    assert found == faketree.FILES | {"mm/memory.c": "topic\n"}
    changed = {p for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert changed == {tree / "init/main.c", tree / "mm/memory.c"}


def test_an_edited_copy_is_put_right(mine, tmp_path, read):
    read(f"git:{mine}")
    (tmp_path / "tree/src/mm/memory.c").write_text("debugging\n")
    (tmp_path / "tree/src/mm/stray.c").write_text("stray\n")
    assert read(f"git:{mine}") == faketree.FILES


def kernels(mine, tmp_path, *revisions, **more):
    fragment = faketree.fragment(tmp_path / "base.config")
    return [
        faketree.kernel(name, f"git:{mine}@{name}", kconfig=(fragment,), **more)
        for name in revisions
    ]


def test_revisions_of_one_repository_share_a_tree(mine, tmp_path, state):
    git(mine, "worktree", "add", "-q", tmp_path / "linked", "topic")
    images = Builder(state, lambda _: None).images(kernels(mine, tmp_path, "master", "topic"))
    assert len(faketree.compiled(images["master"])) == 3
    assert faketree.compiled(images["topic"]) == ["mm/memory.o"]
    assert len(list((state / "trees").iterdir())) == 1
    linked = open_source(f"git:{tmp_path}/linked", state)
    assert linked.key == open_source(f"git:{mine}", state).key
    assert images["topic"].subject == "mm: free in parallel"
    assert images["topic"].commit == git(mine, "rev-parse", "topic").strip()


def test_a_commit_with_the_same_tree_builds_nothing(mine, tmp_path, state):
    (kernel,) = kernels(mine, tmp_path, "topic")
    first = Builder(state, lambda _: None).image(kernel)
    git(mine, "checkout", "-q", "topic")
    git(mine, "commit", "-q", "--amend", "-m", "mm: a better subject")
    made = first.bzimage.stat().st_mtime_ns
    again = Builder(state, lambda _: None).image(kernel)
    assert (again.hash, again.bzimage.stat().st_mtime_ns) == (first.hash, made)
    assert again.subject == "mm: a better subject"
    assert again.commit != first.commit


def test_a_series_applies_to_each_revision(mine, tmp_path, state):
    git(mine, "checkout", "-q", "topic")
    changed = {"mm/mmu_gather.c": faketree.FILES["mm/mmu_gather.c"].replace("line1;", "first;")}
    commit(mine, "mm: change a patched file", **changed)
    series = faketree.series(tmp_path / "series", faketree.changed())
    plain = kernels(mine, tmp_path, "topic")
    patched = [
        each.model_copy(update={"name": f"patched-{each.name}", "series": str(series)})
        for each in kernels(mine, tmp_path, "master", "topic")
    ]
    builder = Builder(state, lambda _: None)
    images = builder.images([*patched, *plain])
    texts = {name: image.bzimage.read_bytes().decode("latin-1") for name, image in images.items()}
    assert "handovers" in texts["patched-master"]
    assert "first" not in texts["patched-master"]
    assert "handovers" in texts["patched-topic"]
    assert "first" in texts["patched-topic"]
    assert "handovers" not in texts["topic"]


def test_a_series_is_checked_without_writing_another_revision(mine, tmp_path, state):
    series = faketree.series(tmp_path / "series", faketree.diff("Kbuild", "other\n", "x\n"))
    builder = Builder(state, lambda _: None)
    builder.images(kernels(mine, tmp_path, "master"))
    (tree,) = (state / "trees").iterdir()
    before = snapshot(tree / "src")
    with pytest.raises(UserError, match="does not apply"):
        builder.images(kernels(mine, tmp_path, "topic", series=str(series)))
    assert snapshot(tree / "src") == before


@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_a_revision_with_a_series_has_the_id_of_the_tree_that_git_makes(tmp_path, state, form):
    mine = repository(tmp_path / "mine", f"--object-format={form}")
    git(mine, "checkout", "-q", "topic")
    git(mine, "mv", "init/main.c", "init/main-a.c")
    (mine / "init/main").mkdir()
    (mine / "init/main/main.c").write_text("int inner;\n")
    (mine / "init/main.c").symlink_to("main-a.c")
    (mine / "scripts/cc.sh").chmod(0o755)
    commit(mine, "init: a link, a folder and a mode", **{"init/main/é.h": "\n"})
    git(mine, "rm", "-q", "include/tlb.h")
    git(mine, "commit", "-qm", "tlb: go, with the folder")
    commit(mine, "tlb: come again", **{"mm/other.h": "int other;\n"})
    series = reader.read(f"git:{mine}@master..topic")
    source = open_source(f"git:{mine}@master", state)
    assert source.hash_with(series) == git(mine, "rev-parse", "topic^{tree}").strip()


def test_a_branch_and_its_commits_as_a_series_have_one_image(mine, tmp_path, state):
    git(mine, "format-patch", "-q", "-o", tmp_path / "plain", "master..topic")
    branch, stock = kernels(mine, tmp_path, "topic", "master")
    places = {"range": f"git:{mine}@master..topic", "mails": str(tmp_path / "plain")}
    patched = [stock.model_copy(update={"name": n, "series": s}) for n, s in places.items()]
    builder = Builder(state, lambda _: None)
    images = builder.images([*patched, branch, stock])
    assert len(list((state / "images").iterdir())) == 2
    assert {images[name].bzimage for name in places} == {images["topic"].bzimage}
    assert images["range"].series_hash == images["mails"].series_hash
    assert images["range"].source_hash == images["master"].source_hash
    assert (images["topic"].series_hash, images["topic"].patch_hashes) == (None, ())
    assert images["topic"].source_hash == git(mine, "rev-parse", "topic^{tree}").strip()


def submodule(mine):
    git(mine, "-c", "protocol.file.allow=always", "submodule", "add", "-q", mine, "drivers")
    commit(mine, "submodule")
    return f"{mine}"


def partial(mine):
    for name in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
        git(mine, "config", name, "true")
    git(mine.parent, "clone", "-q", "--filter=blob:none", f"file://{mine}", "partial")
    git(mine.parent / "partial", "config", "protocol.file.allow", "always")
    return f"{mine.parent}/partial@origin/topic"


def treeless(mine):
    git(mine, "config", "uploadpack.allowFilter", "true")
    git(mine.parent, "clone", "-q", "--bare", "--filter=tree:0", f"file://{mine}", "treeless")
    return f"{mine.parent}/treeless@topic"


def damaged(mine):
    blob = git(mine, "rev-parse", "HEAD:mm/memory.c").strip()
    (mine / f".git/objects/{blob[:2]}/{blob[2:]}").unlink()
    return str(mine)


def empty(mine):
    git(mine.parent, "init", "-q", "empty")
    return f"{mine.parent}/empty"


def no_repository(mine):
    return str(faketree.write(mine.parent / "plain"))


def no_kernel(mine):
    git(mine, "rm", "-q", "Kbuild")
    commit(mine, "no kernel")
    return str(mine)


def file_in_place_of_the_folder(mine):
    (mine / "sub").mkdir()
    git(mine, "checkout", "-q", "--orphan", "file")
    return f"{mine}/sub@topic"


def before_the_shallow_one(mine):
    return f"{shallow(mine)}~3"


def hostile(mine, entries):
    tree = git(mine, "mktree", "--missing", input=entries.encode()).strip()
    name = git(mine, "commit-tree", "-m", "hostile", tree).strip()
    return f"{mine}@{name}"


def _entries(mine, *more):
    return "".join([*git(mine, "ls-tree", "HEAD").splitlines(keepends=True), *more])


def name_that_leads_out(mine):
    inner = git(mine, "rev-parse", "HEAD:mm").strip()
    return hostile(mine, _entries(mine, f"040000 tree {inner}\t..\n"))


def name_of_git(mine):
    inner = git(mine, "rev-parse", "HEAD:mm").strip()
    return hostile(mine, _entries(mine, f"040000 tree {inner}\t.GIT\n"))


BAD = [
    (lambda mine: f"{mine}@topci", r"no revision topci\n  hint: did you mean topic\?"),
    (lambda mine: f"{mine}@v1", r"no revision v1\n  hint: did you mean v1.0\?"),
    (lambda mine: f"{mine}@refs", "no revision refs"),
    (lambda mine: f"{mine}@--all", "no revision --all"),
    (lambda mine: f"{mine}@topic@{{99}}", "no revision|cannot read"),
    (lambda mine: f"{mine}@HEAD:Makefile", "no revision HEAD:Makefile"),
    (lambda mine: f"{mine}@master..topic", "expected a revision, got a range"),
    (lambda mine: f"{mine}@topic\nmaster", "no revision"),
    (before_the_shallow_one, r"no revision topic~3\n  hint: the clone is shallow: .*--unshallow"),
    (lambda mine: f"{shallow(mine)}x", "no revision topicx"),
    (lambda mine: alternates(mine).replace("origin/", ""), "did you mean origin/topic"),
    (submodule, r"submodule drivers cannot be read.*\n  hint: use `dir:`"),
    (partial, r"partial clone leaves them out\n  hint: fetch them: .*--refetch --no-filter"),
    (treeless, "partial clone leaves them out"),
    (damaged, "cannot read the repository: .*missing"),
    (empty, "no revision HEAD\n  hint: the repository has no branch with a commit"),
    (no_repository, "is not in a git repository\n  hint: use `dir:`"),
    (no_kernel, "revision HEAD is not a kernel source: expected Kbuild and Makefile"),
    (file_in_place_of_the_folder, "revision topic has no folder sub"),
    (name_that_leads_out, "invalid name '../memory.c'|invalid name '..'"),
    (name_of_git, "invalid name '.GIT"),
]


@pytest.mark.parametrize(("place", "message"), BAD)
def test_what_cannot_be_read_is_explained(mine, tmp_path, state, place, message):
    text = place(mine)
    before = snapshot(tmp_path)
    with pytest.raises(UserError) as caught:
        open_source(f"git:{text}", state).fill(state / "tree/src", ())
    assert re.search(message, str(caught.value)), str(caught.value)
    after = {p: each for p, each in snapshot(tmp_path).items() if ".labctl" not in p.parts}
    assert {p: e for p, e in after.items() if p != tmp_path} == {
        p: e for p, e in before.items() if p != tmp_path
    }


def test_a_short_hash_of_two_commits_is_ambiguous(mine, state):
    stream = "".join(
        f"commit refs/heads/many\ncommitter a <a@b> {n} +0000\ndata 0\nM 100644 inline f\n"
        f"data 0\n\n"
        for n in range(1500)
    )
    git(mine, "fast-import", "--quiet", input=stream.encode())
    seen, short = set(), None
    for each in git(mine, "rev-list", "many").split():
        short = each[:4] if each[:4] in seen else short
        seen.add(each[:4])
    with pytest.raises(UserError, match=f"short hash {short} is ambiguous"):
        open_source(f"git:{mine}@{short}", state)


def test_the_hint_for_a_partial_clone_helps(mine, tmp_path, read):
    text = partial(mine)
    folder = text.partition("@")[0]
    with pytest.raises(UserError) as caught:
        read(f"git:{text}")
    (command,) = re.findall(f"`git -C {folder} (.*)`", str(caught.value))
    git(Path(folder), *command.split())
    assert read(f"git:{text}")["mm/memory.c"] == "topic\n"


def lab_of(tmp_path, source):
    path = tmp_path / "lab.yaml"
    path.write_text(
        f"version: 1\nkernels: {{stock: {{source: '{source}'}}}}\n"
        "workloads: {w: {command: freebench}}\n"
        "experiments: {e: {workload: w, kernels: [stock]}}\n"
    )
    return path


@pytest.mark.parametrize(
    ("source", "resolved"),
    [
        ("git:mine@topic", "{}/mine@topic"),
        ("git:mine", "{}/mine@HEAD"),
        ("git:./mine/@topic", "{}/mine@topic"),
        ("git:mine@me@work", "{}/mine@me@work"),
        ("git:mine@topic@{{1}}", "{}/mine@topic@{{1}}"),
        ("git:both@x", "{}/both@x@HEAD"),
        ("git:both@x@y", "{}/both@x@y"),
        ("git:both/@x", "{}/both/@x"),
    ],
)
def test_paths_are_relative_to_the_lab(mine, tmp_path, source, resolved):
    (tmp_path / "both").mkdir()
    (tmp_path / "both@x").mkdir()
    lab: Lab = load(lab_of(tmp_path, source.format()))
    assert lab.kernels["stock"].source == f"git:{resolved.format(tmp_path)}"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("git:", "path is missing (expected git:PATH@REVISION)"),
        ("git:@topic", "path is missing (expected git:PATH@REVISION)"),
        ("git:mine@", "revision is missing (expected git:PATH@REVISION; git:mine is its HEAD)"),
        ("git:nmie@topic", "folder 'nmie' does not exist"),
        ("git:a@b/nmie@topic@{1}", "folder 'a@b/nmie' does not exist"),
        ("tar:mine", "expected a file, got the folder 'mine' (use dir:mine)"),
        ("tar:nix.tar.xz", "file 'nix.tar.xz' does not exist"),
        ("gti:mine", "'gti:mine' is not a source (did you mean git? known sources: git:PATH@REV"),
    ],
)
def test_a_wrong_source_is_an_error_of_the_lab_file(mine, tmp_path, source, message):
    with pytest.raises(ConfigError) as caught:
        load(lab_of(tmp_path, source))
    assert message in str(caught.value)


@pytest.mark.parametrize("command", ["plan", "build"])
def test_a_wrong_revision_is_reported_before_a_build_with_its_line(mine, tmp_path, command):
    path = lab_of(tmp_path, "git:mine@topci")
    path.write_text(path.read_text().replace("topci'}", "topci'}, mine: {base: stock}"))
    done = CliRunner().invoke(labctl, [command, "--lab", str(path)])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == (
        f"{path}:2:27: kernels.stock.source: there is no revision topci ({mine}) "
        "(did you mean topic?)\n1 error in the lab file"
    )


def test_a_nightly_run_names_the_commit(mine, tmp_path):
    lab = load(lab_of(tmp_path, "git:mine@topic"))
    found = commits.commits_of(lab)["stock"]
    assert found.startswith("v1.0-1-g")
    assert commits.commits_of(load(lab_of(tmp_path, "git:mine@gone"))).get("stock") is None


@pytest.mark.parametrize("source", ["git:mine@gone", "tar:linux.tar"])
def test_doctor_finds_a_source_that_cannot_be_read(mine, tmp_path, source):
    (tmp_path / "linux.tar").write_text("")
    lab = load(lab_of(tmp_path, source))
    (tmp_path / "linux.tar").unlink()
    found = building.sources((), 1, unreadable([lab.kernels["stock"].source], tmp_path))
    assert found.status == "fail"
    assert "no revision gone" in found.what or "tarball not found" in found.what


def test_a_report_names_commit_and_subject():
    kernel = Kernel(commit="0123456789abcdef", subject="mm: free " + "x" * 100)
    assert words.commit(kernel).startswith('commit 0123456789ab "mm: free xxx')
    assert len(words.commit(kernel)) < 100
    assert words.commit(Kernel()) == ""
