"""The documents that scripts read, byte for byte: names, order and numbers stay as they are."""

from pathlib import Path

import golden_runs
import pytest


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    golden_runs.store_runs(folder)
    golden_runs.store_nights(folder / "history")
    return folder


@pytest.mark.parametrize("name", golden_runs.DOCUMENTS)
def test_a_document_is_what_it_was(lab, monkeypatch, name):
    monkeypatch.chdir(lab)
    text = golden_runs.printed(*golden_runs.DOCUMENTS[name])
    assert text == (golden_runs.GOLDEN / name).read_text()


def test_the_report_covers_what_a_report_can_say():
    text = (Path(golden_runs.GOLDEN) / "report.json").read_text()
    for word in ("faster", "slower", "same", "undecided", "baseline"):
        assert f'"verdict": "{word}"' in text
