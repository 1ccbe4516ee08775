"""Noise estimated from samples: what was put in comes out."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from click.testing import CliRunner
from samples import sample
from test_stats import GOLDEN

from labctl.cli import labctl
from labctl.methodology.noise import Noise, _Series, _within, best_repetitions, estimate, times
from labctl.runs import folder as run_folder

BEGAN = datetime(2026, 11, 24, tzinfo=UTC)


def made_up(noise, *, blocks=300, repetitions=3, cells=4, seed=1):
    shape = (1, blocks, repetitions, cells)
    logs, order = times(noise, np.random.default_rng(seed), shape)
    samples = []
    for block, repetition, number in np.ndindex(shape[1:]):
        at = (block * repetitions + repetition) * cells + int(order[0, block, repetition, number])
        samples.append(
            sample(
                block=block,
                repetition=repetition,
                kernel=f"k{number}",
                cell=f"k{number}",
                label=f"k{number}",
                boot_id=f"{block}-{number}",
                value=float(2.0 * np.exp(logs[0, block, repetition, number])),
                started_at=(BEGAN + timedelta(seconds=at)).isoformat(),
            )
        )
    return samples


def test_variance_of_repetitions_and_boots_is_separate():
    found = estimate(made_up(Noise(name="x", boot_sd=0.03, repetition_sd=0.05)), name="x")
    assert found.boot_sd == pytest.approx(0.03, rel=0.1)
    assert found.repetition_sd == pytest.approx(0.05, rel=0.05)
    assert abs(found.first_repetition) < 0.01
    assert found.drift_sd < 0.015
    assert found.outliers < 0.002


def test_the_drift_of_the_host_is_found():
    noise = Noise(name="x", boot_sd=0.02, repetition_sd=0.03, drift_sd=0.1, drift_memory=0.95)
    found = estimate(made_up(noise), name="x")
    assert found.drift_sd == pytest.approx(0.1, rel=0.15)
    assert found.drift_memory == pytest.approx(0.95, abs=0.03)
    assert found.repetition_sd == pytest.approx(0.03, rel=0.35)


def test_the_first_repetition_and_outliers_are_found():
    noise = Noise(name="x", first_repetition=0.15, outliers=0.04, outlier_factor=1.8)
    found = estimate(made_up(noise), name="x")
    assert found.first_repetition == pytest.approx(0.15, abs=0.02)
    assert found.outliers == pytest.approx(0.04, abs=0.01)
    assert found.outlier_factor == pytest.approx(1.8, rel=0.1)
    assert found.repetition_sd == pytest.approx(0.04, rel=0.1)


def test_one_cell_or_one_repetition_reports_nothing():
    noise = Noise(name="x")
    assert estimate([], name="x") is None
    assert estimate(made_up(noise, blocks=5, cells=1), name="x") is None
    assert estimate(made_up(noise, blocks=5, repetitions=1), name="x") is None


def test_repetitions_are_worth_their_time_by_the_variances():
    """By hand: sqrt(20 / 5) * 2 = 4 repetitions; where boots do not differ no number is best."""
    noise = Noise(name="x", boot_sd=0.02, repetition_sd=0.04)
    assert best_repetitions(noise, boot_seconds=20, repetition_seconds=5) == 4
    assert best_repetitions(noise, boot_seconds=20, repetition_seconds=5, warmups=5) == 6
    assert best_repetitions(noise, boot_seconds=1e-6, repetition_seconds=5) == 1
    assert (
        best_repetitions(Noise(name="x", boot_sd=0), boot_seconds=20, repetition_seconds=5) is None
    )


def test_the_variance_within_batches_is_the_textbooks():
    """Davies' dyestuff: six batches of five, as a cell's blocks; nothing else varies."""
    case = GOLDEN["dyestuff_variance_components"]
    logs = np.array(list(case["input"]["groups"].values()))
    # no effect of the first repetition is left in, and no time is so far out
    series = _Series(
        rest=(logs - logs.mean()).flatten(),
        blocks=np.repeat(np.arange(6), 5),
        numbers=np.tile(np.arange(5), 6),
        boots=np.repeat(np.arange(6), 5),
        seconds=np.arange(30.0),
    )
    within, repetitions = _within([series])
    assert within == pytest.approx(case["expected"]["ms_within"], rel=1e-9)
    assert repetitions == pytest.approx(5)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    run = run_folder.create(tmp_path / ".labctl" / "runs")
    for each in made_up(Noise(name="x", boot_sd=0.03), blocks=6):
        run.store.append(each)
    rule = {"baseline": "stock", "confidence": 0.95, "minimum_effect": 0.02}
    experiment = {"name": "smoke", "workload": "free", "repetitions": 3, **rule}
    timing = {"boots": 6, "repetitions": 60, "boot_seconds": 60.0, "workload_seconds": 150.0}
    record = {"schema": 1, "run": run.id, "accel": "tcg", "experiments": [experiment]}
    run.write(record | {"timing": {"smoke": [timing]}})
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(labctl, ["init"]).exit_code == 0
    return run


def test_the_command_reports_the_noise_of_a_run_and_a_simulation_uses_it(folder):
    text = CliRunner().invoke(labctl, ["methodology", "noise"]).stdout
    assert "smoke" in text
    assert "best" in text
    outcome = CliRunner().invoke(labctl, ["methodology", "noise", "--json"])
    (found,) = json.loads(outcome.stdout)["experiments"]
    assert 0.01 < found["noise"]["repetition_sd"] < 0.08
    assert found["best_repetitions"] >= 1
    arguments = ["methodology", "simulate", "--runs=2", "--json", "--noise=latest"]
    kinds = json.loads(CliRunner().invoke(labctl, arguments).stdout)["kinds"]
    assert {kind["noise"] for kind in kinds} == {"smoke"}


def test_a_run_without_a_direction_takes_the_users(folder):
    (folder.path / "samples.jsonl").write_text("")
    outcome = CliRunner().invoke(labctl, ["methodology", "noise"])
    assert outcome.exit_code != 0
    assert "too few samples" in str(outcome.exception) + outcome.output
