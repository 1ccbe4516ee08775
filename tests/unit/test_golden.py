"""The documents that scripts read, byte for byte: names, order and numbers stay as they are."""

import json
from pathlib import Path

import golden_runs
import jsonschema
import pytest

from labctl.cli.schemas import DOCUMENTS
from labctl.reports import report
from labctl.runs.store import Store


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    golden_runs.store_runs(folder)
    golden_runs.store_nights(folder / "history")
    return folder


@pytest.mark.parametrize("name", golden_runs.DOCUMENTS)
def test_a_document_is_unchanged(lab, monkeypatch, name):
    monkeypatch.chdir(lab)
    text = golden_runs.printed(*golden_runs.DOCUMENTS[name])
    assert text == (golden_runs.GOLDEN / name).read_text()


def test_the_report_covers_what_a_report_can_say():
    text = (Path(golden_runs.GOLDEN) / "report.json").read_text()
    for word in ("faster", "slower", "same", "undecided", "baseline"):
        assert f'"verdict": "{word}"' in text


SCHEMAS = {
    "report.json": "report", "report-old.json": "report", "compare.json": "compare",
    "nightly.json": "nightly",
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_document_fits_its_schema(name):
    schema = json.loads(golden_runs.printed("schema", f"--{SCHEMAS[name]}"))
    document = json.loads((golden_runs.GOLDEN / name).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)
    document["schema"] = 2
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_property_of_a_schema_is_described(name):
    schema = json.loads(golden_runs.printed("schema", f"--{name}"))
    for struct, definition in schema["$defs"].items():
        for field, found in definition.get("properties", {}).items():
            assert found.get("description"), f"{struct}.{field}"


@pytest.mark.parametrize("style", report.FORMATS)
def test_a_report_reads_the_samples_once(tmp_path, monkeypatch, style):
    # A million samples take seconds.
    golden_runs.store_runs(tmp_path)
    read, samples = [], Store.samples
    monkeypatch.setattr(Store, "samples", lambda self: read.append(self) or samples(self))
    report.report_of(tmp_path / ".labctl" / "runs", golden_runs.FIRST, style)
    assert len(read) == 1
