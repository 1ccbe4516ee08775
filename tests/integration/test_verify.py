"""Are the series as correct as stock, and would `labctl verify` see it if they were not?"""

import pytest
from conftest import ROOT
from program import Labctl

# Builds of one tree wait for each other.
pytestmark = pytest.mark.xdist_group("building")
MUTANTS = (
    "hand-over-before-flush",
    "missing-flush-work",
    "double-free",
    "leaked-list",
    "no-inline-fallback",
    "unbounded-backlog",
    "sleeping-under-ptl",
)
LAB = "tests/mutants/lab.yaml"
# What finds most in little time; the whole of it is for the night.
SHORT = ("stale", "exit", "oom", "backlog", "failslab")


def verify(*words):
    """Return the document of a verification in the checkout, whatever came of it."""
    return Labctl(ROOT).json("verify", "--json", "--without-base", *words, check=False)


@pytest.mark.timeout(2700)
@pytest.mark.parametrize("kernel", ["parallel-free", "parallel-unmap"])
def test_the_series_are_correct_where_it_hurts_most(kernel, long):
    only = [] if long else [f"--check=integrity/{name}" for name in SHORT]
    words = ["--seconds=60"] if long else ["--seconds=5", "--check=exercised", *only]
    document = verify(*words, kernel)
    checks = document["kernels"][kernel]["checks"]
    assert {check["variant"] for check in checks} == {"poison", "debug"}
    assert [check for check in checks if check["status"] == "failed"] == []
    assert document["passed"]


@pytest.mark.timeout(2700)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_version_is_found(mutant, long):
    if not long and mutant != "no-inline-fallback":
        pytest.skip("one of seven without --long")
    document = verify("--lab", LAB, "--stop-at-first", "--seconds=20", mutant)
    failed = [c for c in document["kernels"][mutant]["checks"] if c["status"] == "failed"]
    assert len(failed) == 1
    assert not document["passed"]
