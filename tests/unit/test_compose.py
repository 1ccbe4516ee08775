"""libyaml composes only texts that PyYAML's own parser composes in the same way."""

import random
import sys
from pathlib import Path

import pytest
import yaml

from labctl.lab.document import Mark, parse

sys.path.append(str(Path(__file__).parents[1] / "fuzz"))

import mutate
import parsers

UNLIKE = [
    "%YAML\t 1.1\n---\na: b\n",
    "a: {b?=: 30}\n",
    "a: !'!str b\n",
    "a: |2# c\n\nb:\n",
    "a: >#\n  b\n",
    "a: {nodes:  , size: 1}\n",
    "a: {b: }\n",
    "a:\n\nb: c\n",
    "#\tx\nb:\t   c # e\n",
    "a: 'x\n # ? |\n'\nb: \"# !\"\n",
]
ALIKE = [
    "",
    "# x\n",
    "a: ''\nb: \"\"\n",
    "a: &x [1, 2]\nb: *x\n",
    "\ufeffa: b\n",
    "a: [b, c\n",
    "&a *a",
]


def without_libyaml(monkeypatch: pytest.MonkeyPatch, text: str) -> object:
    with monkeypatch.context() as patch:
        patch.delattr(yaml, "CBaseLoader", raising=False)
        return parse(text)


@pytest.mark.parametrize("text", UNLIKE + ALIKE)
def test_both_parsers_give_the_same_document(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert parse(text) == without_libyaml(monkeypatch, text)


def test_both_parsers_give_the_same_document_of_changed_labs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds = [data for data in parsers.seeds("lab.yaml") if len(data) < 1000]
    source = random.Random(1)
    for _ in range(300):
        text = mutate.mutated(seeds, source)[:1000].decode("utf-8", "replace")
        assert parse(text) == without_libyaml(monkeypatch, text)


def test_the_bracket_that_is_too_deep_is_named() -> None:
    [problem] = parse("a: " + "[" * 5000).problems
    assert (problem.mark, problem.what) == (Mark(1, 204), "nesting is too deep")
