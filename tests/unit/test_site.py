"""`labctl site`: pages of all runs, only what is new, and never a foreign file."""

import re
import shutil
from pathlib import Path

import pytest
import site_of
from click.testing import CliRunner
from golden_runs import LAB

from labctl.cli import labctl
from labctl.errors import HostError, UserError
from labctl.site import build, folder, index
from labctl.site.types import Manifest, RunEntry

FILES = ["index.html", "nightly.html", "runs"]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab.yaml").write_text(LAB)
    site_of.store_run(tmp_path, 1)
    site_of.store_run(tmp_path, 2, status="panic")
    site_of.store_nights(tmp_path / ".labctl" / "nightly", 4)
    return tmp_path


def site(*words):
    return CliRunner().invoke(labctl, ["site", "public", *words])


def content(of):
    found = sorted(path for path in of.rglob("*") if path.is_file())
    return {str(path.relative_to(of)): path.read_bytes() for path in found}


def shown():
    return sorted(path.name for path in Path("public").iterdir() if path.name[0] != ".")


def test_runs_and_nights_are_listed_and_linked(lab):
    done = site()
    assert done.exit_code == 0, done.output
    assert "3 pages made, 0 kept, 0 removed" in done.stderr
    assert shown() == FILES
    index = Path("public/index.html").read_text()
    links = {link for link in re.findall(r'href="([^"]+)"', index) if link != "data:,"}
    assert links == {f"runs/{site_of.run_id(n)}.html" for n in (1, 2)} | {"nightly.html"}
    assert all((lab / "public" / link).is_file() for link in links)
    for word in ("series-v1", "mm: step 2", "000000000001", "1.40 times as fast", "2026-10-03"):
        assert word in index
    page = Path(f"public/runs/{site_of.run_id(1)}.html").read_text()
    assert "1.40 times as fast" in page


def test_a_row_of_the_index_is_short_and_the_latest_run_is_listed_whole():
    results = tuple(f"experiment{number}: no difference" for number in range(9))
    text = index.render(
        Manifest(runs=(RunEntry(run="20261101-000000-abcd", key="", results=results),))
    )
    row = re.search(r"<tbody>.*</tbody>", text, re.DOTALL)[0]
    assert "experiment0: no difference; experiment1: no difference; 7 more" in row
    assert [f"<li>{result}</li>" in text for result in results] == [True] * 9


def test_only_what_is_new_is_made_and_the_result_is_the_same(lab):
    assert site().exit_code == 0
    before = content(lab / "public")
    assert "0 pages made, 3 kept, 0 removed" in site().stderr
    assert content(lab / "public") == before
    other = CliRunner().invoke(labctl, ["site", "other"])
    assert other.exit_code == 0
    assert content(lab / "other") == before
    site_of.store_run(lab, 3)
    assert "1 pages made, 3 kept, 0 removed" in site().stderr


def test_a_page_is_made_again_once_its_run_has_a_pass(lab):
    site()
    run = lab / ".labctl/runs" / site_of.run_id(1)
    shutil.copytree(lab / ".labctl/runs" / site_of.run_id(2), run / "functions")
    assert "1 pages made, 2 kept, 0 removed" in site().stderr


def test_pages_of_removed_runs_are_removed_and_missing_ones_made(lab):
    site()
    first, second = (site_of.run_id(number) for number in (1, 2))
    shutil.rmtree(lab / ".labctl/runs" / first)
    Path(f"public/runs/{second}.html").unlink()
    assert "1 pages made, 1 kept, 1 removed" in site().stderr
    assert [path.name for path in Path("public/runs").iterdir()] == [f"{second}.html"]


def test_a_folder_with_foreign_files_is_rejected_and_unchanged(lab):
    for name in ("thesis.tex", "runs/mine.html"):
        file = lab / "public" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
        before = content(lab / "public")
        done = site()
        assert isinstance(done.exception, UserError)
        assert Path(name).name in str(done.exception)
        assert content(lab / "public") == before
        file.unlink()
    (lab / "public/.git").mkdir()
    (lab / "public/.git/config").write_text("mine")
    assert site().exit_code == 0
    assert (lab / "public/.git/config").read_text() == "mine"
    (lab / "public/runs/link").symlink_to(lab)
    assert isinstance(site().exception, UserError)


def test_a_site_that_was_interrupted_is_continued(lab, monkeypatch):
    write = folder.write

    def full(where, name, text):
        if name.endswith(f"{site_of.run_id(2)}.html"):
            raise HostError("cannot write the site: no space left on device")
        write(where, name, text)

    monkeypatch.setattr(folder, "write", full)
    assert isinstance(site().exception, HostError)
    (lab / f"public/runs/{site_of.run_id(2)}.html.{'0' * 32}.tmp").write_text("half")
    monkeypatch.undo()
    monkeypatch.chdir(lab)
    assert site().exit_code == 0
    assert content(lab / "public").keys() == {
        folder.MANIFEST, "index.html", "nightly.html",
        *(f"runs/{site_of.run_id(number)}.html" for number in (1, 2)),
    }  # fmt: skip


def test_a_damaged_run_is_listed_with_its_fault(lab):
    (lab / ".labctl/runs" / site_of.run_id(1) / "samples.jsonl").write_text("{}\n")
    done = site()
    assert done.exit_code == 0, done.output
    assert f"no page of {site_of.run_id(1)}: cannot be read" in done.stderr
    assert "cannot be read" in Path("public/index.html").read_text()
    assert not Path(f"public/runs/{site_of.run_id(1)}.html").exists()


def test_a_lab_without_runs_has_an_index(tmp_path):
    done = build.build(tmp_path / "site", tmp_path / "runs", tmp_path / "nightly")
    assert "No run yet" in done.index.read_text()


def test_nightly_publishes_the_site(lab):
    done = CliRunner().invoke(labctl, ["nightly", "--replay", "--site", "public"])
    assert done.exit_code == 0, done.output
    assert "3 pages made" in done.stderr
    assert shown() == FILES
    (lab / "other").mkdir()
    (lab / "other/mine").write_text("mine")
    done = CliRunner().invoke(labctl, ["nightly", "--site", "other"])
    assert isinstance(done.exception, UserError)  # before anything is measured
