"""docs/reference/faults.md: its tests exist, and it has each fault that a sample can name."""

import ast
import re
from pathlib import Path

import pytest

from labctl.status import HOST_FAULTS, GuestFault

TESTS = Path(__file__).parent.parent
PAGE = (TESTS.parent / "docs/reference/faults.md").read_text()
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| (?!fault |-)", line)]
NAMED = sorted(set(re.findall(r"`((?:unit|integration|chaos)/[\w./]+)::(\w+)`", PAGE)))
# Kinds of report that the kernel prints only in debug builds, and lines that end: reported alike.
ALIKE = {
    *("bad-page", "kasan", "kmsan", "kcsan", "kfence", "ubsan"),
    *("line-lost", "qemu-exited"),
}


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_exists(file, name):
    tree = ast.parse((TESTS / file).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS)
def test_each_fault_has_words_and_a_test(row):
    _, fault, seen, tests, _ = (cell.strip() for cell in row.split("|"))
    assert fault
    assert seen
    assert re.fullmatch(r"(?:`[\w/]+\.py::\w+`\s?)+", tests)


@pytest.mark.parametrize("fault", sorted(set(GuestFault) - ALIKE))
def test_each_fault_that_a_sample_names_is_on_the_page(fault):
    part = PAGE.partition("## Of a guest")[0 if fault in HOST_FAULTS - {"guest-paused"} else 2]
    assert f"`{fault}`" in part


def test_the_faults_that_are_reported_alike_exist():
    assert set(GuestFault) >= ALIKE
