import faketree
import pytest

from labctl.errors import UserError
from labctl.kernels import patching
from labctl.kernels.treefiles import File
from labctl.series import reader


def original(name):
    text = faketree.FILES.get(name)
    return None if text is None else File(text.encode())


def read(tmp_path, *patches):
    return reader.read(faketree.series(tmp_path / "series", *patches))


def test_a_series_is_read_as_quilt_reads_it(tmp_path):
    folder = faketree.series(tmp_path / "s", "one", "two", "three")
    (folder / "series").write_text(
        "# first comes\n0002-change.patch  # a remark\n\n  0001-change.patch -p0\n"
    )
    found = reader.read(folder)
    assert [(p.name, p.strip) for p in found.patches] == [
        ("0002-change.patch", 1),
        ("0001-change.patch", 0),
    ]


@pytest.mark.parametrize(
    ("listing", "message"),
    [(None, "has no patches"), ("# nothing\n", "names no patch"), ("x\nno.patch\n", "series:1")],
)
def test_a_faulty_listing_is_reported(tmp_path, listing, message):
    if listing is not None:
        (tmp_path / "series").write_text(listing)
    with pytest.raises(UserError, match=message):
        reader.read(tmp_path)


def test_the_hash_follows_what_patches_do_their_order_and_strip(tmp_path):
    one, two = faketree.changed("int line1;", "int a;"), faketree.changed("int line30;", "int b;")
    hashes = [
        read(tmp_path / "1", one, two).hash,
        read(tmp_path / "2", two, one).hash,
        read(tmp_path / "3", one).hash,
    ]
    folder = faketree.series(tmp_path / "5", one, two)
    listing = (folder / "series").read_text()
    (folder / "series").write_text(listing.replace("0002-change.patch", "0002-change.patch -p2"))
    hashes.append(reader.read(folder).hash)
    assert len(set(hashes)) == 4
    result = two.replace("a change", "another subject") + "-- \n2.39.5\n"
    assert read(tmp_path / "6", one, result).hash == hashes[0]


def test_comments_and_file_names_do_not_count(tmp_path):
    folder = faketree.series(tmp_path / "s", faketree.changed())
    before = reader.read(folder).hash
    (folder / "0001-change.patch").rename(folder / "renamed.patch")
    (folder / "series").write_text("renamed.patch\n# done\n")
    assert reader.read(folder).hash == before


@pytest.mark.parametrize(
    ("header", "subject"),
    [
        ("Subject: [PATCH v2 2/5] mm: own workqueue\n", "mm: own workqueue"),
        ("Subject: [PATCH 2/5] mm: give the free workers\n a workqueue\n", None),
        ("Subject: =?UTF-8?q?mm:_caf=C3=A9?=\n", "mm: café"),
        ("Date: today\n", "0001-change.patch"),
    ],
)
def test_the_subject(tmp_path, header, subject):
    patch = f"From 01234 Mon Sep 17 00:00:00 2001\n{header}\n---\n"
    (found,) = read(tmp_path, patch).patches
    assert found.subject == (subject or "mm: give the free workers a workqueue")


def test_patches_are_applied_in_their_order(tmp_path):
    first = faketree.changed()
    text = faketree.FILES["mm/mmu_gather.c"].replace("int line15;", "int handovers;")
    second = faketree.diff("mm/mmu_gather.c", text, text.replace("int handovers;", "int both;"))
    result = patching.apply(read(tmp_path, first, second), original)
    assert b"int both;" in result["mm/mmu_gather.c"].data
    assert result.keys() == {"mm/mmu_gather.c"}


def test_files_are_added_and_removed(tmp_path):
    added = faketree.diff("mm/new.c", None, "int brought;\n")
    removed = faketree.diff("init/main.c", faketree.FILES["init/main.c"], None)
    result = patching.apply(read(tmp_path, added, removed), original)
    assert result == {"mm/new.c": File(b"int brought;\n"), "init/main.c": None}


def test_git_renames_and_modes_are_kept(tmp_path):
    patch = (
        "Subject: [PATCH] x\n\ndiff --git a/init/main.c b/init/first.c\n"
        "similarity index 100%\nrename from init/main.c\nrename to init/first.c\n"
        "diff --git a/scripts/go.sh b/scripts/go.sh\nnew file mode 100755\n"
        "--- /dev/null\n+++ b/scripts/go.sh\n@@ -0,0 +1 @@\n+go\n"
    )
    result = patching.apply(read(tmp_path, patch), original)
    assert result["init/main.c"] is None
    assert result["init/first.c"].data == faketree.FILES["init/main.c"].encode()
    assert result["scripts/go.sh"] == File(b"go\n", executable=True)


def test_a_removed_line_that_looks_like_a_header_is_none(tmp_path):
    old = "-- /etc/passwd\nint a;\n"
    patch = faketree.diff("mm/odd.c", old, "int a;\n")
    assert "--- /etc/passwd" in patch
    (found,) = read(tmp_path, patch).patches
    assert found.touches() == {"mm/odd.c"}


@pytest.mark.parametrize("name", ["../outside.c", "/etc/outside.c", "mm/../../outside.c"])
def test_a_patch_stays_in_the_tree(tmp_path, name):
    patch = f"--- a/{name}\n+++ b/{name}\n@@ -0,0 +1 @@\n+x\n"
    with pytest.raises(UserError, match="outside the tree"):
        patching.apply(read(tmp_path, patch), original)


@pytest.mark.parametrize(
    ("patch", "message"),
    [("just words\n", "contains no diff"), ("Binary files a/x and b/x differ\n", "binary")],
)
def test_a_patch_that_patch_cannot_apply_is_reported(tmp_path, patch, message):
    with pytest.raises(UserError, match=message):
        patching.apply(read(tmp_path, patch), original)


def test_a_patch_that_does_not_apply_is_reported_with_file_hunk_and_reject(tmp_path):
    good = faketree.changed("int line2;", "int good;")
    bad = faketree.changed("int line25;", "int bad;").replace("-int line25;", "-int line99;")
    with pytest.raises(UserError) as caught:
        patching.apply(read(tmp_path, good, bad), original)
    message = str(caught.value)
    assert caught.value.where.endswith("0002-change.patch")
    assert "patch 2 of 2 (a change) does not apply: mm/mmu_gather.c, hunk #1 at line 22" in message
    assert "rejected for mm/mmu_gather.c:" in message
    assert "| -int line99;" in message
    assert "good" not in message


def test_fuzz_is_refused_and_an_offset_is_not(tmp_path):
    patch = faketree.changed()
    fuzzy = patch.replace(" int line12;", " int another;")
    with pytest.raises(UserError, match="does not apply"):
        patching.apply(read(tmp_path / "1", fuzzy), original)
    shifted = {"mm/mmu_gather.c": "/* longer */\n" * 9 + faketree.FILES["mm/mmu_gather.c"]}
    result = patching.apply(read(tmp_path / "2", patch), lambda name: File(shifted[name].encode()))
    assert b"int handovers;" in result["mm/mmu_gather.c"].data


@pytest.mark.parametrize(
    ("patches", "words"),
    [
        (2, "previously applied"),
        (1, "No file to patch"),
    ],
)
def test_other_failures_carry_the_words_of_patch(tmp_path, patches, words):
    name = "mm/mmu_gather.c" if patches == 2 else "mm/missing.c"
    patch = faketree.changed().replace("mm/mmu_gather.c", name)
    with pytest.raises(UserError, match=words):
        patching.apply(read(tmp_path, *[patch] * patches), original)
