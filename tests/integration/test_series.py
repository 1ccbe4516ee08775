"""`labctl series check` on the series of this lab."""

import re

import pytest
from conftest import ROOT

from labctl.review.steps import CHECKS

pytestmark = pytest.mark.xdist_group("building")


@pytest.mark.timeout(5400)
@pytest.mark.parametrize(
    ("kernel", "number"),
    [
        ("node-grouped-free", 1),
        pytest.param("parallel-free", 10, marks=pytest.mark.long("each step compiles four times")),
        pytest.param("parallel-unmap", 8, marks=pytest.mark.long("each step compiles four times")),
    ],
)
def test_every_step_passes_every_check(labctl, kernel, number):
    path = labctl.folder / "lab.yaml"
    others = "".join(
        f"  {name}: {{base: node-grouped-free, series: {ROOT}/patches/{name}/6.1}}\n"
        for name in ("parallel-free", "parallel-unmap")
    )
    grouped = (
        f"  node-grouped-free: {{base: stock, series: {ROOT}/patches/node-grouped-free/6.1}}\n"
    )
    path.write_text(re.sub(r"  parallel-free: .*\n", lambda _: grouped + others, path.read_text()))
    steps = labctl.json("series", "check", kernel, "--json")["series"][kernel]
    assert len(steps) == number
    assert all(set(CHECKS) <= step["checks"].keys() for step in steps)
    objections = {
        (s["number"], check): result
        for s in steps
        for check, result in s["checks"].items()
        if result
    }
    assert objections == {}
    assert all(step["passed"] for step in steps)
