"""A series from a branch, a mailbox, a folder of mails or of quilt: one series, one hash."""

import base64
import gzip
import os
import quopri
import stat
import subprocess

import faketree
import pytest

from labctl.errors import ConfigError, HostError, LabError, UserError
from labctl.kernels import patching
from labctl.kernels.treefiles import File
from labctl.lab.load import load
from labctl.series import reader

NAME = "mm/mmu_gather.c"
WHO = {"GIT_AUTHOR_NAME": "Zoë", "GIT_AUTHOR_EMAIL": "zoe@example.org"}


def git(folder, *words, stdin=None):
    settings = ["-c", "user.name=Zoë", "-c", "user.email=zoe@example.org"]
    argv = ["git", "-C", str(folder), *settings, *words]
    env = os.environ | WHO | {"GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z"}
    return subprocess.run(argv, check=True, capture_output=True, env=env, input=stdin).stdout


def commit(folder, subject, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_C", ".c")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", subject)
    return git(folder, "rev-parse", "HEAD").decode().strip()


@pytest.fixture
def tree(tmp_path):
    """Return a repository with `master`, one commit ahead, and `topic`: three commits."""
    folder = faketree.write(tmp_path / "linux")
    git(folder, "init", "-q", "-b", "master")
    commit(folder, "base")
    git(folder, "checkout", "-q", "-b", "topic")
    text = faketree.FILES[NAME]
    first = text.replace("int line2;", "int first; /* é */")
    commit(folder, "mm: first", mm__mmu_gather_C=first)
    body = "mm: second: café\n\nFrom here on\n\nFrom 0123456789 Mon Sep 17 00:00:00 2001\nit is."
    commit(folder, body, mm__mmu_gather_C=first.replace("line9", "nine"))
    git(folder, "mv", "init/main.c", "init/first.c")
    (folder / "scripts/cc.sh").chmod(0o755)
    third = first.replace("line9", "nine").replace("line28", "late")
    commit(folder, "mm: third", mm__mmu_gather_C=third, mm__new_C="int new;\n")
    git(folder, "checkout", "-q", "master")
    commit(folder, "later on master", Kbuild="# later\n")
    return folder


def ranged(tree, text="master..topic"):
    return reader.read(f"git:{tree}@{text}")


def format_patch(tree, *words, revisions="master..topic"):
    return git(tree, "format-patch", *words, revisions)


def original(tree):
    def read_it(name):
        path = tree / name
        if not path.is_file():
            return None
        return File(path.read_bytes(), bool(path.stat().st_mode & stat.S_IXUSR))

    return read_it


def mails(tree, *words):
    """Return the mails of the series, cover letter first."""
    folder = tree.parent / "sent"
    for old in folder.glob("*"):
        old.unlink()
    more = ["--cover-letter", "--thread=shallow", "-o", str(folder), *words]
    format_patch(tree, *more)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def identified(mail):
    found = [line for line in mail.split(b"\n") if line.lower().startswith(b"message-id:")]
    return found[0].split(b": ")[1]


def reply(to, text, sender=b"Rev Iewer <rev@example.org>"):
    return (
        b"From: " + sender + b"\nSubject: Re: [PATCH] answer\nMessage-ID: <r%d@x>\n"
        b"In-Reply-To: %s\n\n%s\n" % (abs(hash(text)), to, text)
    )


def mbox(path, *every):
    """Write an mbox as lore gives it (mboxrd)."""
    out = b""
    for one in every:
        lines = one.split(b"\n")
        if lines[0].startswith(b"From "):
            lines = lines[1:]
        quoted = [b">" + x if x.lstrip(b">").startswith(b"From ") else x for x in lines]
        out += b"From mboxrd@z Thu Jan  1 00:00:00 1970\n" + b"\n".join(quoted) + b"\n"
    path.write_bytes(out)
    return path


def test_one_series_from_everywhere_has_one_hash(tree, tmp_path):
    wanted = ranged(tree)
    assert [p.subject for p in wanted.patches] == ["mm: first", "mm: second: café", "mm: third"]
    assert wanted.patches[1].author == "Zoë <zoe@example.org>"
    assert "From here on\n" in wanted.patches[1].message
    plain = tmp_path / "plain"
    format_patch(tree, "-o", str(plain))
    assert not (plain / "series").exists()
    quilt = tmp_path / "quilt"
    quilt.mkdir()
    listing = "# mine\n\n"
    for number, path in enumerate(sorted(plain.iterdir())):
        words = path.read_text().replace("a/", "x/y/").replace("b/", "z/y/") if number == 1 else ""
        (quilt / f"{number}.diff").write_text(words or path.read_text())
        listing += f"{number}.diff {'-p2' if words else '-p1'} # step {number}\n"
    (quilt / "series").write_text(listing)
    old = mails(tree)
    new = mails(tree, "-v2", "--signoff")
    answers = [
        reply(identified(new[0]), b"> nice\nReviewed-by: Rev Iewer <rev@example.org>\n"),
        reply(identified(new[2]), b"> diff --git a/x b/x\n> --- a/x\n> +++ b/x\n> @@ -1 +1 @@\n"
              b"> -a\n> +b\nAcked-by: Ma Intainer <ma@example.org>\nnot mine:\n"
              b"Tested-by: Some Else <else@example.org>", b"Ma Intainer <ma@example.org>"),
    ]  # fmt: skip
    thread = mbox(tmp_path / "t.mbox", *old, answers[0], *new[::-1], *answers)
    found = {
        "sha": reader.read(
            f"git:{tree}@{git(tree, 'merge-base', 'master', 'topic').decode()[:9]}..topic"
        ),
        "folder": reader.read(plain),
        "quilt": reader.read(quilt),
        "mbox": reader.read(f"mbox:{thread}"),
        "file": reader.read(str(thread)),
        "stdout": reader.read(_written(tmp_path / "out", format_patch(tree, "--stdout"))),
    }
    assert {name: one.hash for name, one in found.items()} == dict.fromkeys(found, wanted.hash)
    want = patching.apply(wanted, original(tree))
    assert all(patching.apply(one, original(tree)) == want for one in found.values())
    result = [p.message for p in found["mbox"].patches]
    assert all("Signed-off-by: Zoë" in m and "Reviewed-by: Rev Iewer" in m for m in result)
    assert ["Acked-by: Ma" in m for m in result] == [False, True, False]
    assert not any("Some Else" in m for m in result)
    assert want["scripts/cc.sh"].executable
    assert want["init/main.c"] is None


def _written(path, content):
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize("encoding", ["quoted-printable", "base64", "latin-1", "attached", "crlf"])
def test_a_mail_is_decoded(tree, tmp_path, encoding):
    wanted = ranged(tree, "topic~3..topic~2")
    header, _, text = wanted.patches[0].content.partition(b"\n\n")
    plain = b"Subject: [PATCH] mm: first\nFrom: A <a@example.org>\nMessage-ID: <1@x>\n"
    if encoding == "crlf":
        whole = (plain + b"\n" + text).replace(b"\n", b"\r\n")
    elif encoding == "attached":
        whole = plain + (
            b'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="XX"\n\n'
            b"--XX\nContent-Type: text/plain\n\nsee below\n"
            b"--XX\nContent-Type: text/x-patch; charset=utf-8; name=a.patch\n"
            b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(text) + b"--XX--\n"
        )
    elif encoding == "latin-1":
        whole = plain + b"Content-Type: text/plain; charset=iso-8859-1\n"
        whole += b"Content-Transfer-Encoding: 8bit\n\n" + text.decode().encode("latin-1")
    else:
        coded = base64.encodebytes if encoding == "base64" else quopri.encodestring
        given = text.replace(b"\n", b"\r\n") if encoding == "base64" else text
        whole = plain + b"Content-Type: text/plain; charset=utf-8\n"
        whole += b"Content-Transfer-Encoding: %s\n\n" % encoding.encode() + coded(given)
    assert header
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "0001-x.patch").write_bytes(whole)
    assert reader.read(folder).hash == wanted.hash
    assert reader.read(f"mbox:{mbox(tmp_path / 'm', whole)}").hash == wanted.hash
    packed = tmp_path / "t.mbox.gz"
    packed.write_bytes(gzip.compress((tmp_path / "m").read_bytes()))
    (found,) = reader.read(f"mbox:{packed}").patches
    assert found.subject == "mm: first"
    assert patching.apply(reader.read(folder), original(tree))[NAME].data.count("é".encode()) == 1


def test_what_only_git_applies_is_applied(tree, tmp_path):
    git(tree, "checkout", "-q", "-b", "odd", "topic")
    (tree / "logo.bin").write_bytes(bytes(range(256)) * 4)
    commit(tree, "binary")
    (tree / 'mm/a "b"\té.c').write_text("odd name\n")
    (tree / "mm/link.c").symlink_to("memory.c")
    commit(tree, "names and links")
    (tree / "logo.bin").write_bytes(bytes(range(255)) * 5)
    (tree / "mm/link.c").unlink()
    (tree / "mm/link.c").symlink_to("mmu_gather.c")
    (tree / "scripts/cc.sh").chmod(0o644)
    commit(tree, "changes")
    git(tree, "config", "diff.renames", "copies")
    (tree / "mm/copy.c").write_text((tree / NAME).read_text() + "int more;\n")
    commit(tree, "a copy", mm__mmu_gather_C=(tree / NAME).read_text() + "int end;\n")
    folder = tmp_path / "folder"
    format_patch(tree, "-C", "-o", str(folder), revisions="topic..odd")
    assert "copy from" in (folder / "0004-a-copy.patch").read_text()
    git(tree, "checkout", "-q", "topic")
    for one in (reader.read(folder), ranged(tree, "topic..odd")):
        done = patching.apply(one, original(tree))
        assert done["logo.bin"].data == bytes(range(255)) * 5
        assert done['mm/a "b"\té.c'].data == b"odd name\n"
        assert done["mm/link.c"] == File(b"mmu_gather.c", link=True)
        assert done["mm/copy.c"].data.endswith(b"int more;\n")
        assert not done["scripts/cc.sh"].executable


def test_the_users_repository_and_settings_do_not_count(tree, tmp_path):
    wanted = ranged(tree).hash
    settings = {
        "diff.noprefix": "true", "diff.mnemonicPrefix": "true", "diff.context": "9",
        "diff.algorithm": "histogram", "diff.renames": "false", "format.attach": "x",
        "diff.external": "false", "color.ui": "always", "log.showSignature": "true",
        "diff.suppressBlankEmpty": "true", "format.pretty": "oneline", "core.quotePath": "false",
        "log.mailmap": "true", "i18n.logOutputEncoding": "latin1", "diff.interHunkContext": "50",
    }  # fmt: skip
    for name, value in settings.items():
        git(tree, "config", name, value)
    (tree / "order").write_text("scripts/*\n")
    git(tree, "config", "diff.orderFile", str(tree / "order"))
    before = _state(tree)
    found = ranged(tree)
    assert found.hash == wanted
    assert found.patches[1].subject == "mm: second: café"
    assert _state(tree) == before
    folder = tmp_path / "noprefix"
    git(tree, "-c", "diff.external=", "-c", "diff.renames=true", "-c", "diff.context=3",
        "-c", "diff.algorithm=myers", "-c", "format.attach=", "-c", "color.ui=never",
        "-c", "diff.mnemonicPrefix=false", "-c", "diff.interHunkContext=0",
        "format-patch", "-o", str(folder), "master..topic")  # fmt: skip
    assert "diff --git mm/mmu_gather.c mm/mmu_gather.c" in next(folder.glob("0001*")).read_text()
    assert reader.read(folder).hash == wanted


def _state(tree):
    return {
        path: (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [tree, *tree.rglob("*")]
    }


def test_a_range_from_bare_linked_and_shallow_repositories(tree, tmp_path):
    wanted = ranged(tree).hash
    bare, linked = tmp_path / "bare.git", tmp_path / "linked"
    git(tree, "clone", "-q", "--bare", str(tree), str(bare))
    git(tree, "worktree", "add", "-q", str(linked), "topic")
    assert reader.read(f"git:{bare}@master..topic").hash == wanted
    assert reader.read(f"git:{linked}@master..").hash == wanted
    shallow = tmp_path / "shallow"
    git(tree, "clone", "-q", "--depth=1", "--no-single-branch", f"file://{tree}", str(shallow))
    with pytest.raises(UserError, match="no common ancestor") as caught:
        reader.read(f"git:{shallow}@origin/master..origin/topic")
    assert "--unshallow" in caught.value.hint


RANGES = [
    ("master..nowhere", "nowhere", ""),
    ("topic..topic~1", "is empty", "git:topic~1..topic"),
    ("topic..topic", "both are commit", ""),
    ("master...topic", "three dots", "BASE..TOPIC"),
    ("topic", "BASE..TOPIC is missing", "git:BASE..TOPIC"),
    ("--output=x..topic", "dash", ""),
    ("..topic", "base revision is missing", ""),
    ("master..merged", "has a merge", "rebase"),
    ("master^{tree}..topic", "is a tree", ""),
    ("master..orphan", "no common ancestor", "same history"),
    ("topic..nothing", "change nothing", ""),
]


@pytest.mark.parametrize(("text", "what", "hint"), RANGES, ids=[r[0] for r in RANGES])
def test_a_wrong_range_is_an_error(tree, text, what, hint):
    git(tree, "checkout", "-q", "-b", "merged", "topic")
    git(tree, "merge", "-q", "--no-edit", "master")
    git(tree, "checkout", "-q", "-b", "nothing", "topic")
    git(tree, "commit", "-q", "--allow-empty", "-m", "nothing")
    git(tree, "checkout", "-q", "--orphan", "orphan")
    git(tree, "commit", "-q", "-m", "other")
    with pytest.raises(UserError, match=what) as caught:
        ranged(tree, text)
    assert hint in (caught.value.hint or "")
    assert not (tree / "x").exists()


def patch(subject, body=None, **header):
    lines = [f"{n.replace('_', '-')}: {v}" for n, v in header.items()]
    text = faketree.changed() if body is None else body
    diff = text[text.index("---\n") :] if "---\n" in text else text
    head = [f"Subject: {subject}", "From: A <a@example.org>", *lines]
    return "\n".join([*head, "", "why", diff]).encode()


BOXES = {
    "cover only": ([patch("[PATCH 0/2] all", "words")], "only a cover letter"),
    "replies only": ([patch("Re: [PATCH] x")], "has no patch"),
    "nothing": ([b"Subject: hello\n\nhello\n"], "has no patch"),
    "missing": ([patch("[PATCH 1/3] a"), patch("[PATCH 3/3] c")], r"patches missing: 2/3"),
    "newest incomplete": (
        [patch("[PATCH 1/1] a"), patch("[PATCH v2 0/2] n", "w"), patch("[PATCH v2 2/2] b")],
        "missing of version 2: 1/2",
    ),
    "cover of a newer version": (
        [patch("[PATCH 1/1] a"), patch("[PATCH v3 0/1] n", "w")], "missing of version 3",
    ),
    "two series": ([patch("[PATCH 1/1] a"), patch("[PATCH 1/2] b")], "several series"),
    "twice": (
        [patch("[PATCH 1/1] a"), patch("[PATCH 1/1] b", faketree.changed("int line3;"))],
        "duplicate patch 1/1",
    ),
    "broken": (
        [patch("[PATCH] a", faketree.changed() + "+lost\n", Message_ID="<bad@x>")],
        "mail bad@x: hunk is longer",
    ),
    "outside": ([patch("[PATCH] a", faketree.changed().replace(NAME, "../x"))], "outside the tree"),
    "binary": ([patch("[PATCH] a", "diff --git a/x b/x\nBinary files a/x and b/x differ\n+++ b")],
               "binary change without its data"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOXES)
def test_a_wrong_mailbox_is_an_error(tmp_path, name):
    every, what = BOXES[name]
    path = mbox(tmp_path / "box", patch("Re: unrelated", "words"), *every)
    with pytest.raises(UserError, match=what) as caught:
        reader.read(f"mbox:{path}")
    assert str(path) in caught.value.where


def test_a_broken_mail_is_named_with_the_line_of_the_mailbox(tmp_path):
    path = mbox(tmp_path / "box", patch("Re: a", "words"), *BOXES["broken"][0])
    with pytest.raises(UserError) as caught:
        reader.read(f"mbox:{path}")
    line = int(caught.value.where.rpartition(":")[2])
    assert path.read_text().splitlines()[line - 1] == "+lost"


def test_mails_in_any_order_and_twice_are_one_series(tmp_path):
    other = faketree.changed("int line25;", "int x;")
    one, two = patch("[RFC PATCH v2 1/2] a"), patch("[RFC PATCH v2 2/2] b", other)
    wanted = reader.read(f"mbox:{mbox(tmp_path / '1', one, two)}")
    assert [p.subject for p in wanted.patches] == ["a", "b"]
    assert reader.read(f"mbox:{mbox(tmp_path / '2', two, one, two)}").hash == wanted.hash
    fix = patch("[PATCH] fix on top", In_Reply_To="<1@x>")
    assert reader.read(f"mbox:{mbox(tmp_path / '3', one, two, fix)}").hash == wanted.hash


@pytest.mark.parametrize(
    ("content", "what"),
    [(None, "cannot be read"), (b"", "empty"), (b"\x1f\x8b\x08broken", "damaged"),
     (b"\0\xff" * 500, "no patch")],
)  # fmt: skip
def test_a_file_that_is_no_mailbox(tmp_path, content, what):
    path = tmp_path / "box"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=what):
        reader.read(f"mbox:{path}")


def folder_of(tmp_path, *names, cover=b"Subject: [PATCH 0/2] all\n\nwords\n"):
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, name in enumerate(names, 2):
        text = faketree.changed(f"int line{number};", f"int new{number};").encode()
        (folder / name).write_bytes(cover if "0000" in name else text)
    return folder


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["0002-b.patch", "0000-cover-letter.patch", "0001-a.patch"], "0001-a.patch 0002-b.patch"),
        (["0001-a.patch", "v2-0000-cover-letter.patch", "v2-0001-a.patch"], "v2-0001-a.patch"),
        (["v9-0001-a.patch", "v10-0001-a.patch"], "v10-0001-a.patch"),
        ([f"{n:04}-x.patch" for n in range(8, 12)], "0008-x.patch 0009-x.patch 0010-x.patch"
         " 0011-x.patch"),
        (["0001-a.patch", "README", ".0002-x.patch.swp", "0001-a.patch~"], "0001-a.patch"),
    ],
)  # fmt: skip
def test_a_folder_without_a_listing_is_in_numeric_order(tmp_path, names, taken):
    assert " ".join(p.name for p in reader.read(folder_of(tmp_path, *names)).patches) == taken


def test_a_series_whose_file_names_have_blanks_is_written_and_read_again(tmp_path):
    whole = reader.read(folder_of(tmp_path, "0001-a b #c.patch", "0002-d\te.patch"))
    whole.write(tmp_path / "step")
    assert reader.read(tmp_path / "step").hash == whole.hash


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["0001-a.patch", "0003-c.patch"], "patch 0002 is missing"),
        (["0001-a.patch", "0001-b.patch"], "several patches have the number 1"),
        (["0000-cover-letter.patch"], "only a cover letter"),
        (["fix.patch", "0001-a.patch"], "fix.patch has no number"),
        (["README"], "has no patches"),
    ],
)
def test_a_folder_whose_order_is_unknown(tmp_path, names, what):
    with pytest.raises(UserError, match=what) as caught:
        reader.read(folder_of(tmp_path, *names))
    assert str(tmp_path) in caught.value.where


def test_crlf_is_taken_off_a_mail_and_kept_in_a_file(tmp_path):
    folder = folder_of(tmp_path, "0001-a.patch")
    path = folder / "0001-a.patch"
    wanted = reader.read(folder).hash
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert reader.read(folder).hash == wanted
    dos = "".join(f"int {n};\r\n" for n in "abcdef")
    text = faketree.diff("mm/dos.c", dos, dos.replace("int c", "int z")).encode()
    path.write_bytes(text)
    done = patching.apply(reader.read(folder), lambda _: File(dos.encode()))
    assert done["mm/dos.c"].data == dos.replace("int c", "int z").encode()


def test_a_step_that_does_not_apply_is_named_with_gits_words(tree):
    whole = ranged(tree)
    text = faketree.FILES[NAME].replace("int line9;", "int other;").encode()
    with pytest.raises(UserError, match=r"patch 2 of 3 \(mm: second: café\) does not apply") as got:
        patching.apply(whole, lambda name: File(text) if name == NAME else original(tree)(name))
    assert "mm/mmu_gather.c, hunk #1 at line 6" in got.value.what
    assert "| -int line9;" in got.value.what
    assert got.value.where.endswith(f"commit {whole.patches[1].name}")
    git(tree, "checkout", "-q", "topic")
    with pytest.raises(UserError, match="patch 1 of 1") as got:
        patching.apply(whole.first(1), original(tree))
    assert "seems to contain the patch" in got.value.hint


@pytest.fixture
def b4(tmp_path, monkeypatch):
    """Put a fake b4 on PATH that writes what the test says, and return its folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "b4").write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/asked\n[ ! -f {folder}/fails ] || '
        f"{{ echo 'no network' >&2; exit 1; }}\ncat {folder}/answer\n"
    )
    (folder / "b4").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_a_series_is_fetched_once_by_b4(tree, tmp_path, b4):
    mbox(b4 / "answer", *mails(tree)[1:])
    kept = tmp_path / "fetched"
    wanted = ranged(tree).hash
    assert reader.read("lore:2024-a.b@example.org", kept).hash == wanted
    assert reader.read("lore:<2024-a.b@example.org>", kept).hash == wanted
    url = "lore:https://lore.kernel.org/linux-mm/2024-a.b@example.org/T/#u"
    assert reader.read(url, kept).hash == wanted
    assert (b4 / "asked").read_text() == "am -o - -- 2024-a.b@example.org\n"


@pytest.mark.parametrize("text", ["lore:", "lore:x", "lore:-o@x", "lore:a@b c", "mbox:"])
def test_no_message_id_no_fetch(tmp_path, text):
    with pytest.raises(UserError, match=r"message id|missing"):
        reader.read(text, tmp_path)


def test_b4_fails_or_is_missing(tmp_path, b4, monkeypatch):
    (b4 / "answer").write_text("")
    with pytest.raises(UserError, match="b4 finds no patches"):
        reader.read("lore:a@b", tmp_path / "kept")
    (b4 / "fails").touch()
    with pytest.raises(HostError, match="no network") as caught:
        reader.read("lore:a@b", tmp_path / "kept")
    assert "https://lore.kernel.org/all/a@b/t.mbox.gz" in caught.value.hint
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="b4 is not installed") as caught:
        reader.read("lore:a@b", tmp_path / "kept")
    assert "pip install b4" in caught.value.hint
    assert not list((tmp_path / "kept").iterdir())


def test_every_error_is_one_of_labctl(tmp_path):
    for text in ("git:x..y", "git:/nowhere@a..b", str(tmp_path / "none"), "mbox:/dev/null"):
        with pytest.raises(LabError):
            reader.read(text)


LAB = """\
version: 1
guests: {{one: {{nodes: 1, memory_per_node: 64MiB}}}}
kernels:
  stock: {{source: "{source}"}}
  mine:
    base: stock
    series: "{series}"
workloads: {{w: {{command: "true", metric: elapsed}}}}
experiments: {{e: {{workload: w, kernels: [stock, mine]}}}}
"""


def lab_of(tree, series, source=None):
    path = tree.parent / "lab.yaml"
    path.write_text(LAB.format(source=source or f"dir:{tree.name}", series=series))
    return load(path)


@pytest.mark.parametrize("series", ["git:master..topic", "git:linux@master..topic"])
def test_a_range_in_lab_yaml_is_of_the_kernels_source(tree, series):
    kernel = lab_of(tree, series).kernels["mine"]
    assert kernel.series == f"git:{tree}@master..topic"
    assert reader.read(kernel.series).hash == ranged(tree).hash


@pytest.mark.parametrize(
    ("series", "source", "what"),
    [
        ("git:master..nowhere", None, "no revision nowhere"),
        ("git:topic..master~1", None, "is empty"),
        ("git:master", None, "BASE..TOPIC is missing"),
        ("git:master..topic", "debian:linux-source-6.1", "not a git repository"),
        ("git:nowhere@a..b", None, "no git repository"),
        ("mbox:none", None, "none: mailbox cannot be read"),
        ("mbox:", None, "file is missing"),
        ("lore:x", None, "not a message id"),
        ("linux/mm", None, "has no patches"),
    ],
)
def test_a_wrong_series_is_an_error_with_its_line_in_lab_yaml(tree, series, source, what):
    with pytest.raises(ConfigError) as caught:
        lab_of(tree, series, source)
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (7, "kernels.mine.series")
    assert what in problem.what


def test_a_series_of_lore_needs_no_network_until_it_is_built(tree):
    assert lab_of(tree, "lore:<a@b>").kernels["mine"].series == "lore:a@b"
