"""Nightly runs and bisections on real guests: two tiny runs; --long: the seven-step series."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.xdist_group("measuring")
NIGHT = ("nightly", "tiny", "--budget", "15min", "--json")


def test_two_nightly_runs_make_a_history(labctl):
    labctl(*NIGHT)
    content = json.loads(labctl(*NIGHT, "--output", "out").stdout)
    assert content["nights"] == 2
    assert content["findings"] == []  # two nightly runs are too few for a finding
    (cell,) = content["cells"]
    assert cell["kernel"] == "parallel-free"
    assert all(night["blocks"] >= 2 for night in cell["nights"])
    assert len({night["image"] for night in cell["nights"]}) == 1
    assert len(cell["segments"]) == 1
    assert labctl.guests_running() == []
    kept = {path.name for path in (labctl.folder / ".labctl/nightly/images").iterdir()}
    images = {name for name in kept if len(name) == 64}
    assert len(images) == 2
    assert kept - images == {f"{name}.sha256" for name in images}
    assert "<svg" in (labctl.folder / "out/index.html").read_text()
    replayed = labctl.json("nightly", "--replay", "--json")
    assert replayed["cells"] == content["cells"]


@pytest.mark.long("builds five kernels and measures for an hour")
@pytest.mark.timeout(4 * 3600)
def test_the_bad_step_of_seven_is_found(labctl):
    lab = ROOT / "tests/bisect/lab.yaml"
    answer = labctl.json("bisect", "--lab", str(lab), "slow-exit", "exit", "--json")
    assert answer["step"] == 5, answer
    assert answer["risk_spent"] <= 0.05
