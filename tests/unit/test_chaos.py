"""A short form of `tox -e chaos`: labctl is killed, or its disk fails, at drawn calls."""

import dataclasses
import random
import shutil
import sys
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

    quick = [one.name for one in kills.COMMANDS if one.name not in ("bisect", "verify")]
    drawn = kills.drawn(random.Random(SEED), CASES, quick)
    results = [cases.case(command, mode) for command, mode in drawn]
    assert [str(one) for one in results if one.faults] == []
    assert sum(one.is_broken_off for one in results) >= CASES / 2


def test_the_suite_finds_what_a_killed_run_left(cases, monkeypatch):
    import kills

    monkeypatch.setattr("kills.WORK", ("status",))  # which removes nothing
    command = next(one for one in kills.COMMANDS if one.name == "nightly")
    result = cases.case(dataclasses.replace(command, after=()), "kill", at=150)
    assert any("left" in fault for fault in result.faults), result
