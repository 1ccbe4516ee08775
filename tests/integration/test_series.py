"""`labctl series check` on the series of this lab."""

import pytest

from labctl.review.steps import CHECKS

pytestmark = pytest.mark.xdist_group("building")


@pytest.mark.timeout(1800)
def test_every_step_passes_every_check(labctl):
    steps = labctl.json("series", "check", "parallel-free", "--json")["series"]["parallel-free"]
    assert len(steps) == 10
    assert all(set(CHECKS) <= step["checks"].keys() for step in steps)
    objections = {
        (s["number"], check): result
        for s in steps
        for check, result in s["checks"].items()
        if result
    }
    assert objections == {}
    assert all(step["passed"] for step in steps)
