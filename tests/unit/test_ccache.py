"""A damaged cache of the compiler: what ccache checks, and what the doctor says if it does not."""

import shutil
import subprocess

import pytest

from labctl.doctor import building, trials

pytestmark = pytest.mark.skipif(
    not (shutil.which("ccache") and shutil.which("gcc")), reason="needs ccache and gcc"
)


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """Return a function that compiles through a cache of its own and returns the object."""
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "a.c").write_text("int f(int a) { return a + 4711; }\n")

    def give():
        (tmp_path / "a.o").unlink(missing_ok=True)
        argv = ["ccache", "gcc", "-c", "a.c", "-o", "a.o"]
        subprocess.run(argv, cwd=tmp_path, check=True, timeout=60)
        return (tmp_path / "a.o").read_bytes()

    return give


def damage(folder, *, at):
    """Flip a bit of each entry, at a share of its length, or truncate them; return their number."""
    # Others are statistics.
    entries = [p for p in folder.rglob("*[RM]") if p.is_file() and len(p.name) > 20]
    for path in entries:
        path.chmod(0o600)
        content = bytearray(path.read_bytes())
        if at is None:
            content = content[: len(content) // 2]
        else:
            content[int(at * (len(content) - 1))] ^= 0x10
        path.write_bytes(content)
    return len(entries)


@pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 1.0, None])
def test_a_damaged_entry_of_ccache_is_compiled_again(compiled, tmp_path, at):
    good = compiled()
    assert damage(tmp_path / "cache", at=at) >= 2
    assert compiled() == good


def test_the_doctor_warns_of_a_cache_that_checks_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path))
    assert trials.unverified_ccache() == []
    monkeypatch.setenv("CCACHE_HARDLINK", "1")
    assert trials.unverified_ccache() == ["hard_link"]
    found = building.ccache("ccache 4.7", used=True, unverified=trials.unverified_ccache())
    assert found.status == "warn"
    assert "hard_link: a damaged object in the cache gets into kernels unseen" in found.what
    assert found.mend == "ccache --set-config hard_link=false; ccache --clear"


def test_the_doctor_without_ccache_asks_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert trials.unverified_ccache() == []
