"""`labctl verify` passes the series, and detects broken versions of them."""

import re

import pytest
from conftest import KCONFIG, ROOT
from program import Labctl

# Builds of one tree wait for each other.
pytestmark = pytest.mark.xdist_group("building")
# The check that should find a mutant, and what it says; "" is anything.
MUTANTS = {
    "leaked-list": ("*", "were not freed"),
    "hand-over-before-flush": ("stale", "freed page"),
    "missing-flush-work": ("*", ""),
    "double-free": ("*", ""),
    "no-inline-fallback": ("backlog", "were unmapped but not free"),
    "unbounded-backlog": ("backlog", "were unmapped but not free"),
    "sleeping-under-ptl": ("*", "sleeping function called from invalid context"),
    "slot-leak": ("*", "handovers unchanged"),
    "never-tight": ("tight", "were unmapped but not free"),
    "huge-as-one": ("huge", "counted as"),
    "oldest-taken-back": ("order", "taken back oldest first"),
    "swap-cache-kept": ("swap", "swap cache"),
    "lower-neighbour": ("edge", "wrong page content"),
    "not-notified": ("notifier", "wrong page content"),
    "lost-nodes": ("*", "were not freed"),
    "lost-references": ("split", "were not freed"),
}
LAB, MUTANTS_LAB = ROOT / "lab.yaml", ROOT / "tests/mutants/lab.yaml"
LAB_7_3 = ROOT / "patches/lab-7.3.yaml"
# The checks that find most in little time; nightly runs do all of them. The debug variant
# has to be built from nothing and boots in minutes under emulation.
SHORT = ("stale", "exit", "edge", "oom", "backlog", "failslab", "margin")
VARIANTS = {"poison", "debug"}


@pytest.fixture
def verify(tmp_path, long):
    """Return the document of `labctl verify` about a lab, whether it passed or not.

    Without --long, its kernels have the configuration of the other tests, which contains
    poison.config: nothing but the series is built.
    """

    def verified(lab, *words):
        if not long:
            text = re.sub(r"kconfig: \[\S*/base\.config\]", f"kconfig: {KCONFIG}", lab.read_text())
            text = re.sub(r"(?<=[ \[])(\.\./\.\./)?(?=(guest|patches)/)", f"{ROOT}/", text)
            text = re.sub(r"(?<=series: )(?=[\w-]+\})", f"{lab.parent}/", text)
            text = re.sub(r"(?m)^state: .*\n", "", text)
            lab = tmp_path / "lab.yaml"
            lab.write_text(f"{text}state: {ROOT}/.labctl\n")
        words = ("--json", "--without-base", "--lab", lab, *words)
        return Labctl(ROOT).json("verify", *words, check=False)

    return verified


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("lab", [LAB, LAB_7_3], ids=["6.1", "7.3"])
@pytest.mark.parametrize("kernel", ["node-grouped-free", "parallel-free", "parallel-unmap"])
def test_the_series_are_correct_where_it_hurts_most(verify, lab, kernel, long):
    if not long and (lab != LAB or kernel == "node-grouped-free"):
        pytest.skip("only with --long")
    only = [f"--check={name}" for name in ("exercised", *(f"integrity/{one}" for one in SHORT))]
    short = ["--seconds=5", "--quick", "--variant=poison", *only]
    words = ["--seconds=30"] if long else short
    document = verify(lab, *words, kernel)
    checks = document["kernels"][kernel]["checks"]
    assert {c["variant"] for c in checks} == (VARIANTS if long else {"poison"})
    assert [check for check in checks if check["status"] == "failed"] == []
    # At the settings of `verify:`, and at the defaults; that one has no tunables.
    settings = {tuple(sorted(c["setting"])) for c in checks}
    assert ("thp",) in settings
    assert (len(settings) > 1) == (kernel != "node-grouped-free")
    assert document["passed"]


@pytest.mark.timeout(2700)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_version_is_found(verify, mutant, long):
    if not long and mutant != next(iter(MUTANTS)):
        pytest.skip(f"one of {len(MUTANTS)} without --long")
    scenario, why = MUTANTS[mutant]
    short = ["--quick", "--variant=poison"]
    words = [
        "--stop-at-first",
        "--seconds=20",
        f"--check=integrity/{scenario}",
        *([] if long else short),
    ]
    document = verify(MUTANTS_LAB, *words, mutant)
    failed = [c for c in document["kernels"][mutant]["checks"] if c["status"] == "failed"]
    assert len(failed) == 1
    assert why in failed[0]["why"]
    assert not document["passed"]
