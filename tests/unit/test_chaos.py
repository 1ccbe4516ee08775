"""A short form of `tox -e chaos`: labctl is killed, or disk or power fail, at drawn calls."""

import dataclasses
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHAOS = Path(__file__).parents[1] / "chaos"
SEED = 20170315
CASES = 10
# 20 s of CPU time; a busy host may need a multiple of it.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def suite():
    if sys.platform != "linux" or not all(map(shutil.which, ("gcc", "setpriv", "busybox"))):
        pytest.skip("needs gcc, setpriv and busybox")
    sys.path.insert(0, str(CHAOS))
    try:
        import broken

        suite = broken.Suite()
        yield suite
        suite.close()
    finally:
        sys.path.remove(str(CHAOS))


@pytest.fixture(scope="module")
def cases(suite):
    import kills

    return kills.Kills(suite, suite.template(), SEED)


def test_nothing_is_lost_doubled_or_left_behind(cases):
    import kills

    slow = ("bisect", "verify", "pytest", "pytest -n 2", "pytest beside a run")
    quick = [one.name for one in kills.COMMANDS if one.name not in slow]
    drawn = kills.drawn(random.Random(SEED), CASES, quick)
    results = [cases.case(command, mode) for command, mode in drawn]
    assert [str(one) for one in results if one.faults] == []
    assert sum(one.is_broken_off for one in results) >= CASES / 2


def test_a_killed_worker_of_a_test_session_leaves_nothing(cases):
    result = cases.case(of("pytest -n 2"), "child killed", at=31)
    assert result.faults == []


def test_the_suite_finds_what_a_killed_run_left(cases, monkeypatch):
    import kills

    monkeypatch.setattr("kills.WORK", ("status",))  # which removes nothing
    command = next(one for one in kills.COMMANDS if one.name == "nightly")
    alone = dataclasses.replace(command, after=())
    # Not each call is one at which guests run, and their number depends on locks.
    results = (cases.case(alone, "kill", at=at) for at in (200, 260, 300))
    assert any("left" in fault for result in results for fault in result.faults)


def until(condition):
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def of(name):
    import kills

    return next(one for one in kills.COMMANDS if one.name == name)


@pytest.mark.parametrize("name", ["run", "build"])
def test_what_a_command_finished_survives_a_power_cut(cases, name):
    _, disk = cases.disk(of(name))
    result = cases.case(of(name), "power cut", at=len(disk.calls))
    assert result.faults == []
    assert result.unfinished == 0


def test_the_next_command_removes_temporary_files_of_before_a_power_cut(cases):
    _, disk = cases.disk(of("run"))
    names = [call.path.rpartition(".")[2] for call in disk.calls]
    result = cases.case(of("run"), "power cut, journal", at=names.index("tmp") + 1)
    assert result.faults == []


@pytest.mark.parametrize("offset", [-1, 1], ids=["before it is synced", "afterwards"])
def test_a_build_after_a_power_cut_uses_nothing_that_is_damaged(cases, offset):
    _, disk = cases.disk(of("build"))
    marks = [call.name for call in disk.calls if call.path.endswith("/unsynced")]
    assert marks == ["create", "unlink"] * 2
    last = max(i for i, call in enumerate(disk.calls) if call.path.endswith("/unsynced"))
    assert cases.case(of("build"), "power cut, journal", at=last + offset).faults == []


@pytest.mark.parametrize("what", ["the samples", "their folder", "a folder above it"])
def test_the_model_finds_what_is_not_synced(cases, monkeypatch, tmp_path, what):
    import powercut

    _, disk = cases.disk(of("run"))
    (path,) = [path for path in disk.versions if path.endswith("/samples.jsonl")]
    runs = Path(path).parents[1]
    places = [path, str(Path(path).parent), str(runs.parent)]
    named = dict(zip(["the samples", "their folder", "a folder above it"], places, strict=True))
    monkeypatch.setattr(disk.node(named[what]), "syncs", [])
    end = len(disk.calls)
    disk.write(tmp_path / "lab", end)
    found = [fault for fault, _ in powercut.faults(disk, tmp_path / "lab", end)]
    assert any("lines of" in fault and "samples.jsonl" in fault for fault in found), found


def test_a_disk_keeps_what_was_synced_and_a_journal_more(tmp_path, suite):
    import powercut
    from powercut import Call

    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "old").write_text("old")
    recorded = [
        Call("create", 0, "/lab/new.tmp", "", b""),
        Call("write", 0, "/lab/new.tmp", "", b"new"),
        Call("sync", 0, "/lab/new.tmp", "", b""),
        Call("rename", 0, "/lab/new.tmp", "/lab/old", b""),
        Call("sync", 0, "/lab", "", b""),
        Call("write", 3, "/lab/old", "", b"er"),
        Call("unlink", 0, "/lab/old", "", b""),
    ]
    disk = powercut.Disk(tmp_path / "before", "/lab", recorded)

    def after(end, draw=None):
        folder = tmp_path / f"{end} {draw and draw.random()}"
        disk.write(folder, end, draw)
        return {path.name: path.read_text() for path in folder.iterdir()}

    assert [after(end) for end in (0, 4)] == [{"old": "old"}] * 2
    assert [after(end) for end in (5, 6, 7)] == [{"old": "new"}] * 3
    kept = [after(4, random.Random(seed)) for seed in range(30)]
    assert {tuple(sorted(each.items())) for each in kept} == {
        (("old", "old"),),
        (("new.tmp", "new"), ("old", "old")),
        (("old", "new"),),
    }
    kept = [after(7, random.Random(seed)) for seed in range(60)]
    contents = {each.get("old", "gone") for each in kept}
    assert contents == {"gone", "new", "newer", "newe", "new\0\0"}


def test_a_section_of_the_page_is_replaced_alone(suite, monkeypatch, tmp_path):
    import reliability

    monkeypatch.setattr(reliability, "PAGE", tmp_path / "page.md")
    reliability.PAGE.write_text("# Page\n")
    for name, text in (("a", "one\n"), ("b", "two\n"), ("a", "three\n")):
        reliability.put(name, text)
    assert (reliability.section("a"), reliability.section("b")) == ("three\n", "two\n")
    assert reliability.PAGE.read_text().startswith("# Page\n\n<!-- a: ")
    assert reliability.section("c") == ""


def test_the_page_does_not_name_folders_of_one_host():
    import reliability

    words = ["--inputs", "9", "--found", "/tmp/x", "--found=/tmp/y", "--write"]
    assert reliability.command("tests/fuzz", words) == "python tests/fuzz --inputs 9 --write"


def test_a_folder_in_memory_is_removed_when_its_process_is_killed():
    words = "import in_memory, sys; print(in_memory.folder('labctl-test-'), flush=True)"
    argv = [sys.executable, "-c", f"{words}; sys.stdin.read()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(argv, cwd=CHAOS.parent, text=True, **pipes)
    with process:
        folder = Path(process.stdout.readline().strip())
        assert folder.is_dir()
        process.kill()
    until(lambda: not folder.exists())


def test_the_page_has_all_findings(suite):
    import figures
    import kills

    quiet = kills.Result("run", "kill", 1, samples=7, unfinished=1, resumed=1, is_broken_off=True)
    bad = kills.Result("up", "power cut", 2, faults=["left: a"], orphans=1, is_broken_off=True)
    played = figures.Played([quiet, bad, quiet], 5, 61.0, "python tests/chaos --seed 5")
    assert "3 broken off, 14 samples, 0 lost, 0 doubled, 1 left behind" in figures.summary(played)
    text = " ".join(figures.page(played).split())
    assert "| up | 1 | 1 | 0 | 0 | 0 | 1 | 0 | 0 | 1 |" in text
    assert "| **all** | 3 | 3 | 14 | 0 | 0 | 1 | 2 | 2 | 1 |" in text
    assert "`python tests/chaos --seed 5`, 61 s on " in text
    assert "Not among these cases: run --resume, " in text


def test_the_page_is_as_the_suite_wrote_it(suite):
    import figures
    import reliability

    text = reliability.section("chaos")
    assert text.startswith(figures.HEAD)
    assert text.endswith(figures.TAIL)
    tables = re.findall(r"^\| \w+ +\| +cases .*\n.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert len(tables) == 2
    for table in tables:
        rows = [[int(each) for each in re.findall(r"\| +(\d+)", row)] for row in table.splitlines()]
        *parts, whole = rows
        assert [sum(column) for column in zip(*parts, strict=True)] == whole
