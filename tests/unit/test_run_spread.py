"""The noise between runs: its estimate on simulated runs, and the command."""

import json
import math
import random

import pytest
import records
from click.testing import CliRunner
from golden_runs import LAB, record_of, samples_of, store
from samples import cell

from labctl.cli import labctl
from labctl.errors import UserError
from labctl.stats.compare import compare
from labctl.stats.run_spread import between_sd, spreads

EXPERIMENT = {
    "name": "e", "workload": "free", "metric": "elapsed", "set": {}, "baseline": "stock",
    "confidence": 0.95, "minimum_effect": 0.02, "better": "lower",
}  # fmt: skip


def report_of(run, draw, speedup=1.0, **changes):
    def times(factor):
        return [math.exp(draw.gauss(0, 0.01)) / factor for _ in range(12)]

    samples = [
        *cell(times(1), experiment="e"),
        *cell(times(1), control=True, experiment="e"),
        *cell(times(speedup), kernel="patched", experiment="e"),
    ]
    result = compare(samples, baseline="stock", confidence=0.95, minimum_effect=0.02, name="e")
    record = {
        "schema": 1, "run": run, "accel": "tcg", "finished": True,
        "host": {"id": "h", "qemu": "7.2"}, "experiments": [EXPERIMENT],
        "kernels": {"stock": {"image": "s"}, "patched": {"image": "p"}},
    }  # fmt: skip
    return records.report_of(record | changes, [result])


def simulated(draw, *, runs, run_sd, error):
    values = [draw.gauss(0.1, run_sd) + draw.gauss(0, error) for _ in range(runs)]
    return between_sd(values, [error] * runs)


def test_the_noise_between_runs_is_found_apart_from_that_of_the_blocks():
    draw = random.Random(7)
    found = [simulated(draw, runs=12, run_sd=0.026, error=0.01) for _ in range(400)]
    variance = sum(sd**2 for sd, _ in found) / len(found)
    assert math.sqrt(variance) == pytest.approx(0.026, rel=0.06)
    covered = sum(low <= 0.026 <= high for _, (low, high) in found) / len(found)
    assert 0.92 <= covered <= 0.98


def test_without_noise_between_runs_the_interval_contains_zero():
    draw = random.Random(8)
    found = [simulated(draw, runs=12, run_sd=0, error=0.01) for _ in range(400)]
    assert sum(low == 0 for _, (low, _) in found) / len(found) == pytest.approx(0.975, abs=0.02)
    assert sorted(sd for sd, _ in found)[200] < 0.004


def test_a_case_by_hand():
    # With equal errors the estimate is the variance of the values, less that of the error.
    sd, (low, high) = between_sd([0.0, 0.1, 0.2], [0.05, 0.05, 0.05])
    assert sd == pytest.approx(math.sqrt(0.01 - 0.0025))
    # Quantiles of chi squared with two degrees of freedom: -2 ln(1 - p).
    bounds = [0.02 / (-2 * math.log(p)) - 0.0025 for p in (0.025, 0.975)]
    assert (low, high) == pytest.approx([math.sqrt(max(b, 0)) for b in bounds])


def test_each_cell_of_the_runs_has_a_row():
    draw = random.Random(9)
    speedups = (1.0, 1.1, 1.2, 1.3)
    rows = spreads([report_of(f"r{i}", draw, speedup) for i, speedup in enumerate(speedups)])
    assert [(row.cell, row.runs) for row in rows] == [
        ("stock (A/A)", 4),
        ("patched op=free size=3221225472", 4),
    ]
    control, patched = rows
    assert control.run_sd_ci[0] == 0
    logs = [math.log(speedup) for speedup in speedups]
    wanted = math.sqrt(sum((y - sum(logs) / 4) ** 2 for y in logs) / 3)
    assert patched.run_sd == pytest.approx(wanted, rel=0.1)
    assert patched.ratio == pytest.approx(math.exp(sum(logs) / 4), rel=0.01)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"host": {"id": "x", "qemu": "7.2"}}, "hosts"),
        ({"accel": "kvm"}, "accelerators"),
        ({"kernels": {"stock": {"image": "s"}, "patched": {"image": "q"}}}, "images"),
    ],
)
def test_runs_that_are_no_repetitions_of_each_other_are_rejected(other, what):
    draw = random.Random(1)
    runs = [report_of("a", draw), report_of("b", draw), report_of("c", draw, **other)]
    with pytest.raises(UserError, match=f"runs a and c have different {what}"):
        spreads(runs)
    with pytest.raises(UserError, match="2 runs do not show"):
        spreads(runs[:2])


def test_the_command_reports_stored_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab.yaml").write_text(LAB)
    runs = [f"2026010{day}-000000-0000" for day in (1, 2, 3)]
    for seed, run in enumerate(runs):
        store(tmp_path, record_of(run), samples_of(run, seed))
    done = CliRunner().invoke(labctl, ["methodology", "run-noise", *runs, "--json"])
    assert done.exit_code == 0, done.output
    cells = json.loads(done.stdout)["cells"]
    assert cells
    assert {one["runs"] for one in cells} == {3}
    done = CliRunner().invoke(labctl, ["methodology", "run-noise", *runs])
    assert "SD between runs" in done.stdout
    twice = CliRunner().invoke(labctl, ["methodology", "run-noise", runs[0], runs[1], runs[1]])
    assert isinstance(twice.exception, UserError)
    assert "is named twice" in str(twice.exception)
