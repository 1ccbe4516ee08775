"""Patches in git's form: links, modes, renames; nothing read or written out of the tree."""

import base64
import errno
import os
import quopri
import shutil
import subprocess

import faketree
import pytest

from labctl.errors import HostError, UserError
from labctl.kernels import patching
from labctl.kernels.build import Builder
from labctl.kernels.treefiles import File
from labctl.review import tools
from labctl.series import diff, reader

FILES = {
    "mm/a.c": File(b"".join(b"line %d\n" % n for n in range(20))),
    "scripts/go.sh": File(b"#!/bin/sh\n"),
    "scripts/link": File(b"go.sh", link=True),
    "mm/empty.c": File(b""),
}


@pytest.fixture
def tree(tmp_path):
    """Return a folder with FILES in git."""
    folder = tmp_path / "tree"
    write(folder, FILES)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all")
    return folder


def write(folder, files):
    for name, file in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path):
            path.unlink()
        if file.link:
            path.symlink_to(os.fsdecode(file.data))
        else:
            path.write_bytes(file.data)
            path.chmod(0o755 if file.executable else 0o644)


def git(folder, *words):
    argv = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(argv, check=True, capture_output=True).stdout


def mail(tree, after, *options):
    """Return what git makes of a change: of files to others, None to none."""
    for name, file in after.items():
        if file is None:
            (tree / name).unlink()
    write(tree, {name: file for name, file in after.items() if file is not None})
    git(tree, "add", "-A")
    text = git(tree, "diff", "--cached", *options)
    git(tree, "reset", "-q", "--hard")
    return b"From: A <a@example.org>\nSubject: [PATCH] x\n\n---\n" + text + b"-- \n2.39.5\n\n"


def read(tmp_path, *patches, options="", name="series"):
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    for number, content in enumerate(patches, 1):
        content = content if isinstance(content, bytes) else content.encode()
        (folder / f"{number}.patch").write_bytes(content)
    listing = "".join(f"{n}.patch {options}\n" for n in range(1, len(patches) + 1))
    (folder / "series").write_text(listing)
    return reader.read(folder)


CHANGES = {
    "a link is made": {"mm/link": File(b"../../outside", link=True)},
    "a link to an absolute path": {"mm/link": File(b"/etc/passwd", link=True)},
    "a link goes elsewhere": {"scripts/link": File(b"/nowhere", link=True)},
    "a link is removed": {"scripts/link": None},
    "a link becomes a file": {"scripts/link": File(b"text\n")},
    "a file becomes a link": {"mm/a.c": File(b"empty.c", link=True)},
    "a mode": {"scripts/go.sh": File(b"#!/bin/sh\n", executable=True)},
    "a mode and a line": {"scripts/go.sh": File(b"#!/bin/sh\ngo\n", executable=True)},
    "a program": {"scripts/new.sh": File(b"new\n", executable=True)},
    "a rename": {"mm/a.c": None, "mm/b.c": FILES["mm/a.c"]},
    "a rename and a line": {"mm/a.c": None, "mm/b.c": File(FILES["mm/a.c"].data + b"more\n")},
    "a copy": {"mm/b.c": FILES["mm/a.c"]},
    "an empty file": {"mm/b.c": File(b"")},
    "an empty file goes": {"mm/empty.c": None},
    "a file is emptied": {"mm/a.c": File(b"")},
    "a name with blanks": {"mm/b c.c": File(b"x\n")},
    "a name of other letters": {"mm/ä\t.c": File(b"x\n")},
    "a form feed": {"mm/a.c": File(b" \f\n" + FILES["mm/a.c"].data + b"-- /etc/x\n")},
    "no newline at the end": {"mm/a.c": File(b"-- x\n++ y")},
}

# What patch(1) cannot take back; it says so, or labctl does.
NOT_REVERSED = {"a link becomes a file", "a file becomes a link", "a copy", "an empty file"}


@pytest.mark.parametrize("options", ["-p1", "-p0"])
@pytest.mark.parametrize("what", CHANGES)
def test_what_git_writes_is_applied_whole_and_taken_back(tree, tmp_path, what, options):
    after = CHANGES[what]
    how = ["-C", "--find-copies-harder", *(["--no-prefix"] if options == "-p0" else [])]
    patch = mail(tree, after, *how)
    result = patching.apply(read(tmp_path, patch, options=options), FILES.get)
    assert {name: result[name] for name in after} == after
    back = read(tmp_path, patch, options=f"{options} -R", name="back")
    behind = {**FILES, **after}
    if what in NOT_REVERSED:
        with pytest.raises(UserError, match=r"does not apply|`patch` left a (plain file|link)"):
            patching.apply(back, behind.get)
        return
    result = patching.apply(back, behind.get)
    assert {name: result[name] for name in after} == {n: FILES.get(n) for n in after}


@pytest.mark.parametrize("what", CHANGES)
def test_git_am_agrees(tree, tmp_path, what):
    whole = read(tmp_path, mail(tree, CHANGES[what], "-C", "--find-copies-harder"))
    originals = {name: FILES.get(name) for name in whole.touches()}
    assert tools.git_am(whole, originals) == [None]


def test_a_patch_in_reverse_has_another_address_and_no_git_am(tree, tmp_path):
    patch = mail(tree, CHANGES["a mode and a line"])
    ahead, back = read(tmp_path, patch), read(tmp_path, patch, options="-R", name="back")
    assert ahead.hash != back.hash
    (result,) = tools.git_am(back, {"scripts/go.sh": CHANGES["a mode and a line"]["scripts/go.sh"]})
    assert "-R" in result
    back.write(tmp_path / "copy")
    assert reader.read(tmp_path / "copy").hash == back.hash


def new_link(name, target):
    return (
        f"diff --git a/{name} b/{name}\nnew file mode 120000\nindex 0000000..1234567\n"
        f"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+{target}\n\\ No newline at end of file\n"
    )


def new_file(name, text="pwned"):
    return f"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+{text}\n"


@pytest.mark.parametrize("split", [True, False])
def test_a_patch_does_not_write_through_a_link_that_it_makes(tmp_path, split):
    outside = tmp_path / "outside"
    outside.mkdir()
    parts = [new_link("mm/way", outside), new_file("mm/way/x.c")]
    whole = read(tmp_path, *(parts if split else ["".join(parts)]))
    with pytest.raises(UserError, match="mm/way"):
        patching.apply(whole, FILES.get)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", [".git/config", "mm/.GIT/hooks/x", "../x", "mm/../../x"])
def test_a_patch_touches_nothing_that_is_not_source(tmp_path, name):
    whole = read(tmp_path, new_file(name))
    with pytest.raises(UserError, match=r"outside the tree|reserved for git") as caught:
        patching.apply(whole, FILES.get)
    assert caught.value.where.endswith("1.patch:1")


@pytest.fixture
def prepared(tmp_path):
    """Return a function that prepares a tree of the user's with a series, and the tree."""
    mine = faketree.write(tmp_path / "mine")
    kernel = faketree.kernel(
        "patched", f"dir:{mine}", kconfig=(faketree.fragment(tmp_path / "config"),)
    )
    builder = Builder(tmp_path / ".labctl", lambda _: None)

    def prepare(*patches):
        whole = read(tmp_path, *patches) if patches else None
        with builder.workshop(kernel, tmp_path / "log") as make:
            make.tree.prepare(whole)
            return make.tree.src

    return mine, prepare


def test_a_link_is_in_the_tree_and_goes_with_its_series(prepared, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("int secret;\n")
    _, prepare = prepared
    src = prepare(new_link("mm/extra.c", secret))
    assert (src / "mm/extra.c").readlink() == secret
    assert prepare(new_link("mm/extra.c", secret)) == src
    for path in (tmp_path / ".labctl").rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert b"int secret" not in path.read_bytes(), path
    prepare()
    assert not os.path.lexists(src / "mm/extra.c")
    assert secret.read_text() == "int secret;\n"


def test_a_link_of_the_source_is_changed_and_comes_back(prepared):
    mine, prepare = prepared
    (mine / "include/link.h").symlink_to("tlb.h")
    patch = new_link("include/link.h", "../mm/memory.c").replace("new file mode 120000\n", "")
    patch = patch.replace("0000000..1234567", "1234567..89abcde 120000").replace(
        "/dev/null", "a/include/link.h"
    )
    patch = patch.replace("@@ -0,0 +1 @@\n", "@@ -1 +1 @@\n-tlb.h\n\\ No newline at end of file\n")
    src = prepare(patch)
    assert str((src / "include/link.h").readlink()) == "../mm/memory.c"
    prepare()
    assert str((src / "include/link.h").readlink()) == "tlb.h"
    assert (src / "mm/memory.c").read_text() == faketree.FILES["mm/memory.c"]


def test_a_patch_does_not_write_through_a_link_of_the_source(prepared, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "there.c").write_text("int there;\n")
    mine, prepare = prepared
    (mine / "mm/extern").symlink_to(outside)
    (mine / "mm/include").symlink_to("../include")
    src = prepare(new_file("mm/extern/x.c"))  # what a link outside leads to is copied
    assert (src / "mm/extern/x.c").read_text() == "pwned\n"
    assert [path.name for path in outside.iterdir()] == ["there.c"]
    with pytest.raises(UserError, match=r"parent of mm/include/x\.h is not a folder") as caught:
        prepare(new_file("mm/include/x.h"))
    assert caught.value.where.endswith("1.patch")
    assert [path.name for path in (mine / "include").iterdir()] == ["tlb.h"]


@pytest.mark.parametrize("name", ["mm", "mm/memory.c/x.c"])
def test_files_and_folders_are_not_taken_for_each_other(prepared, name):
    _, prepare = prepared
    with pytest.raises(UserError, match=r"folder|file"):
        prepare(new_file(name))
    assert (prepare() / "mm/memory.c").read_text() == faketree.FILES["mm/memory.c"]


def test_one_series_has_a_file_where_another_has_a_folder(prepared, tmp_path):
    _, prepare = prepared
    src = prepare(new_file("lib/new/x.c", "deep"))
    prepare(new_file("lib/new", "flat"))
    assert (src / "lib/new").read_text() == "flat\n"
    prepare(new_link("lib/new", tmp_path))
    prepare(new_file("lib/new/x.c", "deep"))
    assert (src / "lib/new/x.c").read_text() == "deep\n"
    assert not (tmp_path / "x.c").exists()
    prepare()
    assert not (src / "lib").exists()


@pytest.mark.parametrize(
    ("patch", "line", "words"),
    [
        ("diff --git a/x b/x\nnew file mode 100644\nBinary files /dev/null and b/x differ\n", 3,
         "binary"),
        ("diff --git a/x b/x\nnew file mode 160000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n"
         "+Subproject commit 0123\n", 2, "submodule"),
        ("*** mm/a.c\n--- mm/a.c\n***************\n*** 1 ****\n! a\n--- 1 ----\n! b\n", 3,
         "context diff"),
        ("--- a/mm/a.c\n+++ b/mm/a.c\n@@ -1,2 +1,3 @@\n line 0\n+new\n line 1\n+lost\n", 7,
         "hunk is longer"),
        ("--- x.c\n+++ x.c\n@@ -1 +1 @@\n-a\n+b\n", 1, "too few components for -p1"),
    ],
)  # fmt: skip
def test_what_patch_would_leave_out_is_refused_with_its_line(tmp_path, patch, line, words):
    with pytest.raises(UserError, match=words) as caught:
        patching.apply(read(tmp_path, patch), FILES.get)
    assert caught.value.where.endswith(f"1.patch:{line}")


def test_a_damaged_binary_patch_is_reported_in_the_words_of_git(tmp_path):
    patch = (
        "diff --git a/x b/x\nnew file mode 100644\nindex 0000000..1234567\n"
        "GIT binary patch\nliteral 3\nKcmZ?\n"
    )
    with pytest.raises(UserError, match="corrupt binary patch at line 6") as caught:
        patching.apply(read(tmp_path, patch), FILES.get)
    assert caught.value.where.endswith("1.patch")


def test_words_in_a_message_are_no_change(tmp_path):
    words = "Subject: x\n\nBinary files are left\n--- of them\nrename to /etc\n**************\n\n"
    whole = read(tmp_path, words + faketree.changed())
    assert whole.touches() == {"mm/mmu_gather.c"}


def test_a_malformed_patch_is_reported_in_the_words_of_patch(tmp_path):
    patch = "--- a/mm/a.c\n+++ b/mm/a.c\n@@ -1,3 +1,4 @@\n line 0\n+new\n*line 1\n line 2\n"
    with pytest.raises(UserError, match="malformed patch at line 6") as caught:
        patching.apply(read(tmp_path, patch), FILES.get)
    assert caught.value.where.endswith("1.patch:6")


def test_a_patch_that_ends_within_a_hunk_is_reported(tmp_path):
    patch = "--- a/mm/a.c\n+++ b/mm/a.c\n@@ -1,9 +1,10 @@\n line 0\n+new\n"
    with pytest.raises(UserError, match=r"unexpected|malformed"):
        patching.apply(read(tmp_path, patch), FILES.get)


@pytest.mark.parametrize("tool", ["patch", "git"])
def test_a_full_scratch_folder_is_the_hosts_fault(tmp_path, monkeypatch, tool):
    fake = tmp_path / "bin" / tool
    fake.parent.mkdir()
    real = shutil.which("git")
    fake.write_text(
        '#!/bin/sh\ncase "$*" in *--fuzz*|*" am "*) ;; *) exec '
        f'{real} "$@";; esac\n'
        f"echo '{tool}: **** write error : No space left on device' >&2\nexit 2\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    whole = read(tmp_path, faketree.changed())
    originals = {"mm/mmu_gather.c": File(faketree.FILES["mm/mmu_gather.c"].encode())}
    call = (
        (lambda: patching.apply(whole, originals.get))
        if tool == "patch"
        else (lambda: tools.git_am(whole, originals))
    )
    with pytest.raises(HostError, match="No space left") as caught:
        call()
    assert "labctl-" in caught.value.where
    assert "TMPDIR" in caught.value.hint


def test_a_full_disk_is_found_where_git_says_nothing_of_it(tmp_path, monkeypatch):
    def probe(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    monkeypatch.setattr("labctl.kernels.treefiles.probe", probe)
    fake = tmp_path / "bin/git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'failed to write new configuration file' >&2\nexit 128\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    whole = read(tmp_path, faketree.changed())
    with pytest.raises(HostError, match="temporary folder cannot be written: No space left"):
        tools.git_am(whole, {})


def test_a_scratch_folder_that_cannot_be_made_is_the_hosts_fault(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(HostError, match="temporary folder cannot be written: No such file"):
        patching.apply(read(tmp_path, faketree.changed()), FILES.get)


def test_a_mode_is_set_without_patch(tmp_path, monkeypatch):
    """An older patch(1) knows nothing of git's headers."""
    fake = tmp_path / "bin/patch"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    patch = "diff --git a/scripts/go.sh b/scripts/go.sh\nold mode 100644\nnew mode 100755\n"
    result = patching.apply(read(tmp_path, patch), FILES.get)
    assert result == {"scripts/go.sh": CHANGES["a mode"]["scripts/go.sh"]}


@pytest.mark.parametrize("listing", ["mm/x.patch\nnet/x.patch\n", "net/x.patch -p1\nmm/x.patch\n"])
def test_patches_of_one_name_in_two_folders_stay_two(tmp_path, listing):
    folder = tmp_path / "s"
    for part, line in (("mm", 2), ("net", 25)):
        (folder / part).mkdir(parents=True)
        changed = faketree.changed(f"int line{line};", f"int {part};")
        (folder / part / "x.patch").write_text(changed)
    (folder / "series").write_text(listing)
    whole = reader.read(folder)
    assert [p.name for p in whole.patches] == [line.split()[0] for line in listing.splitlines()]
    whole.write(tmp_path / "copy")
    again = reader.read(tmp_path / "copy")
    assert again.hash == whole.hash
    original = {"mm/mmu_gather.c": File(faketree.FILES["mm/mmu_gather.c"].encode())}
    text = patching.apply(again, original.get)["mm/mmu_gather.c"].data
    assert b"int mm;" in text
    assert b"int net;" in text
    whole.first(1).write(tmp_path / "copy")
    assert len(list((tmp_path / "copy").rglob("*.patch"))) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: os.mkfifo(path), "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda path: path.symlink_to("nowhere"), "cannot be read: No such file"),
    ],
    ids=["folder", "pipe", "device", "dangling symlink"],
)
def test_an_invalid_patch_is_reported_with_its_line_of_the_series(tmp_path, make, words):
    make(tmp_path / "x.patch")
    (tmp_path / "series").write_text("# one\n\nx.patch\n")
    with pytest.raises(UserError, match=words) as caught:
        reader.read(tmp_path)
    assert caught.value.where == f"{tmp_path}/series:3"


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"\x1f\x8b\x08", "compressed"), (b"BZh9", "bunzip2")],
)
def test_a_patch_without_text_is_reported(tmp_path, content, words):
    with pytest.raises(UserError, match=words):
        read(tmp_path, content)


@pytest.mark.parametrize("line", ["1.patch -F3", "1.patch -p1 -E", "1.patch\n1.patch"])
def test_an_option_is_never_dropped(tmp_path, line):
    read(tmp_path, faketree.changed())
    (tmp_path / "series/series").write_text(f"# one\n{line}\n")
    with pytest.raises(UserError) as caught:
        reader.read(tmp_path / "series")
    assert caught.value.where == f"{tmp_path}/series/series:{1 + len(line.splitlines())}"


def test_a_patch_with_carriage_returns_names_the_same_files():
    text = faketree.changed().replace("\n", "\r\n")
    assert [change.names() for change in diff.changes(text, 1)] == [{"mm/mmu_gather.c"}]


ENCODINGS = {"quoted-printable": quopri.encodestring, "base64": base64.encodebytes}


def encoded(tree, encoding, line):
    """Return a mail that adds a line, encoded."""
    head, _, body = mail(tree, {"mm/b.c": File(line)}).partition(b"\n\n")
    encode = ENCODINGS.get(encoding, bytes)
    body = body.removesuffix(b"-- \n2.39.5\n\n")  # its blank would be encoded
    return head + f"\nContent-Transfer-Encoding: {encoding}\n\n".encode() + encode(body)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_mail_whose_diff_is_encoded_is_decoded(tree, tmp_path, encoding):
    line = b"x = 1;\n"
    files = patching.apply(read(tmp_path, encoded(tree, encoding, line)), FILES.get)
    assert files["mm/b.c"] == File(line)


@pytest.mark.parametrize("encoding", ["7bit", "8bit", "quoted-printable"])
def test_a_mail_whose_diff_is_readable_is_applied(tree, tmp_path, encoding):
    line = b"x;\n" if encoding in ENCODINGS else b"x = 1;\n"
    files = patching.apply(read(tmp_path, encoded(tree, encoding, line)), FILES.get)
    assert files["mm/b.c"] == File(line)


def test_lines_of_a_message_that_look_like_a_header_are_none(tree, tmp_path):
    patch = mail(tree, {"mm/a.c": File(b"x\n")}).replace(b"---\n", b"--- old\n+++ new\n\n---\n", 1)
    assert patching.apply(read(tmp_path, patch), FILES.get) == {"mm/a.c": File(b"x\n")}
