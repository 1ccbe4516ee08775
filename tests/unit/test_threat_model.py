"""Each claim of the threat model names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/explanation/threat-model.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def claims():
    """Return the rows of the tables whose last column is `test`."""
    found, is_of_tests = [], False
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            is_of_tests = False
        elif cells[-1] == "test":
            is_of_tests = True
        elif is_of_tests and set(line) - set("|-"):
            found.append((cells[0], cells[-1]))
    return found


def functions(path):
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_there_are_claims():
    assert len(claims()) > 15


@pytest.mark.parametrize(("claim", "tests"), claims(), ids=[claim for claim, _ in claims()])
def test_a_claim_names_its_test(claim, tests):
    assert TEST.findall(tests), claim


def test_the_named_tests_exist():
    named = TEST.findall(PAGE.read_text())
    assert [test for test in named if test[1] not in functions(test[0])] == []
    # All mentions of tests are in the form that is checked.
    assert PAGE.read_text().count("tests/") == len(named)
