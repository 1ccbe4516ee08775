"""The documents of `labctl bisect --json` and `labctl series check --json`, byte for byte."""

import json
from pathlib import Path

import jsonschema
import pytest
from golden_runs import GOLDEN, printed

from labctl.bisect.metric import Answer
from labctl.bisect.search import Search
from labctl.bisect.steps import Patches
from labctl.bisect.types import Decision
from labctl.review import steps
from labctl.series.patch import Patch, Series

LAB = Path(__file__).parent.parent.parent / "lab.yaml"


def bisected(*_, **__):
    """Return a search that ends before a step is found, with each kind of decision."""
    mail = b"Subject: [PATCH] mm: a step\n"
    patches = tuple(Patch(name, name, mail) for name in ("1.patch", "2.patch", "3.patch"))
    return Answer(
        kernel="patched",
        what="exit",
        search=Search(good=1, bad=3, risk=0.05, skipped={2}, spent=0.0125),
        steps=Patches(None, None, Series("patches", patches)),
        problem="the steps between cannot be tested",
        decisions=[
            Decision(step=0, verdict="good", blocks=8, ratio=1.01, risk=0.0125, run="20261124-r"),
            Decision(step=2, verdict="skipped", why="does not build", reason="make failed"),
            Decision(step=3, verdict="bad", blocks=8, ratio=0.5, run="20261124-s"),
        ],
    )


def checked(_, name, __):
    """Return two steps: one passed, one with objections and a check that was not reached."""
    passed = steps.Step(1, "0001-a.patch", f"mm: {name}")
    for each in steps.CHECKS:
        passed.note(each, ())
    failed = steps.Step(2, "0002-b.patch", "mm: é", (*steps.CHECKS, "no-smp"))
    failed.note("applies", ())
    failed.note("W=1", ["mm/memory.c:1: warning: é", "second line"])
    return [passed, failed]


@pytest.fixture
def commands(monkeypatch):
    monkeypatch.setattr("labctl.cli.bisect._begin", bisected)
    monkeypatch.setattr("labctl.cli.bisect._of_metric", lambda *_: None)
    monkeypatch.setattr(steps, "check", checked)
    lab = ("--lab", str(LAB), "--json")
    return {
        "bisect": ("bisect", *lab, "parallel-free", "exit"),
        "series-check": ("series", "check", *lab, "parallel-free"),
    }


@pytest.mark.parametrize("name", ["bisect", "series-check"])
def test_the_document_is_unchanged_and_fits_its_schema(commands, name):
    text = printed(*commands[name])
    assert text == (GOLDEN / f"{name}.json").read_text()
    schema = json.loads(printed("schema", f"--{name}"))
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(text)
    jsonschema.validate(document, schema)
    document["schema"] = 2
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)
