import os

import faketree
import pytest

from labctl import proc
from labctl.arch import X86_64
from labctl.errors import HostError, UserError
from labctl.kernels.build import Builder
from labctl.kernels.treefiles import File
from labctl.review import tools
from labctl.series import reader

GCC = "/a/lab/.labctl/trees/1/src/mm/memory.c:12:3: warning: unused variable 'x' [-Wunused]\n"


def read(tmp_path, *patches):
    return reader.read(faketree.series(tmp_path / "series", *patches))


def mail(patch):
    return patch.replace("Subject", "From: A <a@example.org>\nSubject")


def originals(*names):
    return {name: File(faketree.FILES[name].encode()) for name in names}


def test_a_warning_that_only_moved_is_not_new():
    before = tools.complaints(GCC)
    after = tools.complaints("  CC      mm/memory.o\n" + GCC.replace(":12:3:", ":40:9:"))
    assert tools.new_complaints(before, after) == []


def test_a_warning_more_often_than_before_is_new():
    before = tools.complaints(GCC)
    second = GCC.replace(":12:3:", ":40:9:")
    (new,) = tools.new_complaints(before, tools.complaints(GCC + second))
    assert new.line == second.strip()


def test_the_same_words_about_another_file_are_new():
    other = GCC.replace("memory.c", "mmap.c")
    before, after = map(tools.complaints, (GCC, GCC + other))
    assert [new.line for new in tools.new_complaints(before, after)] == [other.strip()]


@pytest.mark.parametrize("root", ["/a/src/", "../", "../../", ""])
def test_a_file_is_known_however_it_is_reached(root):
    (complaint,) = tools.complaints(f"{root}mm/memory.c:1:2: warning: no")
    assert complaint.key == "mm/memory.c: warning: no"


def test_sparse_errors_count_and_notes_do_not():
    result = "mm/memory.c:1:2: error: bad\nmm/memory.c:1:2: note: see\nmm/memory.c: at top\n"
    assert [c.line for c in tools.complaints(result)] == ["mm/memory.c:1:2: error: bad"]


@pytest.mark.parametrize("name", ["tools/testing/selftests/mm/a.c", "scripts/kconfig/a.c"])
def test_programs_are_not_compiled_as_a_part_of_the_kernel(tmp_path, name):
    new = f"Subject: a\n---\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+int a;\n"
    whole = read(tmp_path, faketree.changed(), new)
    assert set(whole.touches()) == {"mm/mmu_gather.c", name}
    assert tools.compiled_files(whole) == ["mm/mmu_gather.c"]


def test_git_am_takes_a_mail(tmp_path):
    assert tools.git_am(read(tmp_path, mail(faketree.changed())), originals("mm/mmu_gather.c")) == [
        None
    ]


def test_git_am_reports_its_complaint_and_stops_there(tmp_path):
    bad = faketree.diff("mm/memory.c", "int other;\n", "int another;\n")
    whole = read(
        tmp_path, mail(faketree.changed()), mail(bad), faketree.changed("int line20;", "int no;")
    )
    first, second = tools.git_am(whole, originals("mm/mmu_gather.c", "mm/memory.c"))
    assert first is None
    assert "mm/memory.c" in second


def test_git_am_makes_a_file_that_was_not_there(tmp_path):
    new = faketree.diff("mm/new.c", None, "int new;\n")
    assert tools.git_am(read(tmp_path, mail(new)), {"mm/new.c": None}) == [None]


@pytest.fixture
def tree(tmp_path):
    """A source whose checkpatch objects to the word BAD."""
    script = tmp_path / "scripts" / "checkpatch.pl"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\nif grep -n BAD; then exit 1; fi\n")
    script.chmod(0o755)
    return tmp_path


def test_checkpatch_is_silent_about_a_clean_patch(tree, tmp_path):
    (patch,) = read(tmp_path, faketree.changed()).patches
    assert tools.checkpatch(tree, patch) == []


def test_complaints_of_checkpatch_are_listed(tree, tmp_path):
    (patch,) = read(tmp_path, faketree.changed(new="int BAD;")).patches
    assert tools.checkpatch(tree, patch)[0].endswith("+int BAD;")


def test_a_source_without_checkpatch_is_reported(tmp_path):
    (patch,) = read(tmp_path, faketree.changed()).patches
    with pytest.raises(HostError, match="checkpatch"):
        tools.checkpatch(tmp_path, patch)


def test_w1_compiles_the_files_of_this_step_only(tmp_path, monkeypatch):
    """A file that a later step brings is not there yet, and a warning is found."""
    source = faketree.pack(tmp_path, monkeypatch, **{"mm/memory.c": "#warning old\n"})
    kernel = faketree.kernel("stock", source, kconfig=(faketree.fragment(tmp_path / "config"),))
    with Builder(tmp_path / ".labctl", lambda _: None).workshop(kernel, tmp_path / "log") as make:
        found = tools.extra_warnings(make, ["mm/memory.c", "mm/later.c"])
    assert [c.key for c in found] == ["mm/memory.c: warning: old"]


# What make of Linux 7.3 tries before it calls sparse, in its scripts/checker-valid.sh, which
# reports an error of sparse 0.6.4 if sparse is called without options.
PROBE = """\
cat > probe.c << 'EOF'
static inline int u(const int *q)
{
	__typeof_unqual__(*q) v = *q;
	return v;
}
EOF
if $CHECK probe.c 2>&1 | grep -q error; then
	echo "Makefile:1: C=2 specified, but sparse is not available or not up to date"
else
	echo "mm/memory.c:1:2: warning: of sparse"
fi
"""


class Checking:
    """A work tree in which make calls sparse as Linux 7.3 does."""

    def __init__(self, folder):
        (folder / "mm").mkdir()
        (folder / "mm/memory.c").touch()
        (folder / ".config").touch()
        self.src = self.build = folder
        self.tree, self.arch = self, X86_64

    def compile(self, objects, *options):
        assert objects == ["mm/memory.o"]
        named = dict(option.split("=", 1) for option in options)
        env = os.environ | named
        return proc.run(["sh", "-c", PROBE], cwd=self.src, env=env, timeout_seconds=60).text


def test_make_of_a_new_source_accepts_an_old_sparse(tmp_path):
    """Without the option make left sparse out, and the check passed without one."""
    assert len(tools.sparse(Checking(tmp_path), ["mm/memory.c"])) == 1


def test_a_sparse_that_make_leaves_out_is_reported(tmp_path, monkeypatch):
    program = tmp_path / "bin/sparse"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho error 0.1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    with pytest.raises(HostError, match=r"sparse error 0\.1 is too old for this source"):
        tools.sparse(Checking(tmp_path), ["mm/memory.c"])


def test_a_ready_image_has_no_workshop(tmp_path):
    image = tmp_path / "bzImage"
    image.write_bytes(bytes(514) + b"HdrS" + bytes(8) + b"\x10\0" + b"6.1.0 x\0")
    kernel = faketree.kernel("given", f"image:{image}")
    builder = Builder(tmp_path / ".labctl", lambda _: None)
    with pytest.raises(UserError, match="built image"), builder.workshop(kernel, tmp_path / "log"):
        pass
