"""docs/tutorials/try.md as written: in a real kernel tree, with the wheel only, for hours."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from program import Labctl

SOURCE = Path("/usr/src/linux-source-6.12.tar.xz")
# In the middle of zap_pte_range(): under TCG, 640 passes made a munmap() 1.8 times as long. Of a
# plain loop of up to 16 passes the compiler would leave nothing.
PLACE = "\t\tif (need_resched())\n\t\t\tbreak;\n\n\t\tif (pte_present(ptent)) {\n\t\t\tmax_nr"
LOOP = "\t\tfor (int checks = 150; checks; checks--)\n\t\t\tOPTIMIZER_HIDE_VAR(checks);\n\n"
SLOW = "mm: check each page table entry before it is zapped"


@pytest.fixture
def tree(tmp_path):
    """A git tree with a topic branch of three commits, the second of which slows munmap()."""
    tree = tmp_path / "linux"
    tree.mkdir()
    subprocess.run(
        ["tar", "-xJf", SOURCE, "-C", tree, "--strip-components=1"], check=True, timeout=900
    )
    git(tree, "init", "-q", "-b", "master")
    git(tree, "add", "-A", "-f")
    git(tree, "commit", "-q", "-m", "linux: import")
    git(tree, "checkout", "-q", "-b", "topic")
    change(tree, "mm/mmap.c", "Address space accounting code", "Mappings", "mm: word a comment")
    change(tree, "mm/memory.c", PLACE, PLACE.replace("\t\tif (pte", LOOP + "\t\tif (pte"), SLOW)
    change(tree, "mm/mprotect.c", "Address space accounting code", "Protection", "mm: word more")
    return tree


def git(tree, *words):
    identity = ("-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgSign=false")
    argv = ["git", *identity, *words]
    done = subprocess.run(argv, cwd=tree, check=True, capture_output=True, text=True, timeout=900)
    return done.stdout.strip()


def change(tree, name, old, new, subject):
    path = tree / name
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    git(tree, "commit", "-q", "-a", "-m", subject)


def print_of(tree):
    """Everything that can be seen of a tree: names, kinds, sizes, times."""
    walk = os.walk(tree)
    entries = [Path(folder, name) for folder, *names in walk for name in (*names[0], *names[1])]
    stats = {path: path.lstat() for path in entries}
    return {p: (s.st_mode, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for p, s in stats.items()}


@pytest.mark.long("builds kernels of a whole tree")
@pytest.mark.xdist_group("measuring")
@pytest.mark.timeout(3 * 3600)
def test_a_slower_commit_of_a_branch_is_found(tree, tmp_path, python, monkeypatch):
    text = (ROOT / "docs/tutorials/try.md").read_text()
    commands = re.findall(r"^\$ labctl (try|bisect \S+)$", text, re.MULTILINE)
    assert commands == ["try", "bisect git:master..topic", "try"]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    labctl, before = Labctl(tree, python), print_of(tree)
    tried = labctl(*commands[0].split(), check=False)
    assert tried.returncode == 1, tried.stderr
    assert "try: slower: topic unmaps" in tried.stdout.partition("\n\n")[0]
    found = labctl(*commands[1].split(), check=False)
    assert SLOW in found.stdout
    assert print_of(tree) == before

    logs = set(tmp_path.glob("state/labctl/state/images/*/build.log"))
    path = tree / "mm/mprotect.c"
    path.write_text(path.read_text().replace("Protection", "Protecting"))
    git(tree, "commit", "-q", "-a", "--amend", "--no-edit")
    labctl(*commands[2].split(), check=False)
    (log,) = set(tmp_path.glob("state/labctl/state/images/*/build.log")) - logs
    compiled = re.findall(r"^  CC +(\S+)$", log.read_text(), re.MULTILINE)
    assert "mm/mprotect.o" in compiled
    # The last build was a step of the bisection: its other commits are compiled again.
    assert set(compiled) <= {
        "mm/mprotect.o", "mm/memory.o", "mm/mmap.o", "arch/x86/boot/compressed/misc.o"
    }  # fmt: skip
