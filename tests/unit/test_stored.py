from pathlib import Path

import numpy as np
import pytest
from samples import cell, null_times
from synthetic import lab

from labctl.errors import UserError
from labctl.experiments.preview import preview
from labctl.reports.plan import text as plan_text
from labctl.runs import folder as run_folder
from labctl.stats.stored import results_of, spread_of

BLOCKS = 8
RECORD = {
    "schema": 1,
    "run": "r",
    "accel": "tcg",
    "experiments": [
        {
            "name": "smoke",
            "workload": "free",
            "baseline": "stock",
            "confidence": 0.95,
            "minimum_effect": 0.02,
            "better": "lower",
        }
    ],
}


def stored(folder: Path, spread=0.03):
    run = run_folder.create(folder)
    stock, control_times, patched = null_times(np.random.default_rng(7), BLOCKS, 3, spread)
    for each in (cell(stock), cell(control_times, control=True), cell(patched, kernel="patched")):
        for sample in each:
            run.store.append(sample)
    run.write(RECORD)
    return run


def spread(run, workload):
    return spread_of(run.read(), run.store.samples(), workload)


def test_a_stored_run_is_compared_by_its_own_rule(tmp_path):
    run = stored(tmp_path)
    (result,) = results_of(run.read(), run.store.samples())
    assert (result.name, result.blocks, result.confidence) == ("smoke", BLOCKS, 0.95)
    assert [c.kernel for c in result.cells] == ["stock", "patched"]


def test_the_spread_is_that_of_a_difference_of_two_boots(tmp_path):
    found = spread(stored(tmp_path, spread=0.03), "free")
    assert found == pytest.approx(0.03 * 2**0.5, rel=0.6)


def test_another_workload_says_nothing(tmp_path):
    assert spread(stored(tmp_path), "exit") is None


def test_a_run_without_samples_says_nothing(tmp_path):
    run = run_folder.create(tmp_path)
    run.write(RECORD)
    assert spread(run, "free") is None


def test_a_plan_reports_its_minimum_detectable_effect(tmp_path):
    here = lab(blocks=6).model_copy(update={"state": tmp_path / ".labctl"})
    assert preview(here, "e", 1).power is None
    run = stored(tmp_path / ".labctl" / "runs")
    found = preview(here, "e", 1)
    assert found.power.origin == f"run {run.id}"
    (effect,) = found.power.smallest_effect
    assert effect.blocks == 6
    assert 0.01 < effect.effect < 0.2
    assert "6 blocks" in plan_text(found)


def test_a_plan_counts_measurements_and_no_warm_ups():
    planned = preview(lab(blocks=6), "e", 1)
    warm_ups = [name for name in planned.first_block if name.endswith("(warm-up)")]
    assert warm_ups
    measured = len(planned.first_block) - len(warm_ups)
    assert f"6 blocks of {measured} measurements" in plan_text(planned)


@pytest.mark.parametrize(
    ("keys", "seconds"),
    [
        (["repetitions"], 2.5),
        (["visits"], 2.5),  # run.json of labctl before `repetitions`
        (["visits", "repetitions"], 2.5),  # such a run, resumed
    ],
)
def test_a_plan_estimates_by_the_times_on_record(tmp_path, keys, seconds):
    here = lab(blocks=6, repetitions=2).model_copy(update={"state": tmp_path / ".labctl"})
    run = run_folder.create(tmp_path / ".labctl" / "runs")
    times = {"boots": 6, "boot_seconds": 60.0, "workload_seconds": 150.0, "total_seconds": 220.0}
    (experiment,) = RECORD["experiments"]
    record = RECORD | {"experiments": [experiment | {"workload": here.experiments["e"].workload}]}
    run.write(record | {"timing": {"smoke": [times | {key: 60} for key in keys]}})
    found = preview(here, "e", 1)
    assert found.expected_from == f"as in run {run.id}"
    per_block = 3 * 10 + (3 + 3 * 2) * seconds  # 3 guests, each with a warm-up
    assert found.expected_seconds == pytest.approx((6 * per_block, 6 * per_block))


def test_times_without_a_number_of_repetitions_are_refused(tmp_path):
    run = run_folder.create(tmp_path)
    times = {"boots": 6, "boot_seconds": 60.0, "workload_seconds": 150.0}
    run.write(RECORD | {"timing": {"smoke": [times]}})
    with pytest.raises(UserError, match=r"`repetitions` - at `\$\.timing"):
        run.read()
