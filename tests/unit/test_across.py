"""Two stored runs: what may be compared, what may not, and what changed."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import records
from click.testing import CliRunner
from samples import cell, replace, sample

from labctl.cli import labctl
from labctl.errors import UserError
from labctl.reports import two_runs
from labctl.runs import folder
from labctl.stats.between_runs import Summary, across, difference
from labctl.stats.compare import compare
from labctl.stats.health_types import HostHealth
from labctl.stats.run_noise import RUN_SD, widened
from labctl.stats.verdict import Rule

GOLDEN = {
    case["id"]: case
    for case in json.loads((Path(__file__).parent / "golden" / "stats.json").read_text())["cases"]
}
RULE = Rule(alpha=0.05, confidence=0.95, margin=math.log(1.02))
EXPERIMENT = {
    "name": "e",
    "workload": "free",
    "metric": "elapsed",
    "set": {},
    "baseline": "stock",
    "confidence": 0.95,
    "minimum_effect": 0.02,
    "better": "lower",
}


def measured(speedup, seed=1, blocks=12, spread=0.01, control=1.0, name="e"):
    draw = np.random.default_rng(seed)

    def times(factor):
        return list(np.exp(draw.normal(0, spread, blocks)) / factor)

    return [
        *cell(times(1), experiment=name),
        *cell(times(control), control=True, experiment=name),
        *cell(times(speedup), kernel="patched", experiment=name),
    ]


def record(run="first", **changes):
    return {
        "schema": 1,
        "run": run,
        "accel": "tcg",
        "finished": True,
        "host": {"id": "h", "qemu": "7.2"},
        "kernels": {"stock": {"image": "s"}, "patched": {"image": "p"}},
        "experiments": [EXPERIMENT],
    } | changes


def report_of(speedup, run="first", experiment=EXPERIMENT, seed=1, blocks=12, spread=0.01,
              control=1.0, **changes):  # fmt: skip
    samples = measured(speedup, seed, blocks, spread, control, experiment["name"])
    result = compare(
        samples, baseline="stock", confidence=0.95, minimum_effect=0.02, name=experiment["name"]
    )
    return records.report_of(record(run, experiments=[experiment], **changes), [result])


def flat(text):
    return " ".join(text.split())


def only(content):
    (experiment,) = content.experiments
    (row,) = experiment.cells
    return row


def test_welch_agrees_with_r():
    case = GOLDEN["student_sleep"]
    x, y = (np.array(case["input"][name]) for name in "xy")
    expected = case["expected"]["welch"]
    first, second = (Summary(len(one), one.mean(), one.std(ddof=1)) for one in (y, x))
    found = difference(first, second, RULE, run_sd=0.0)
    assert found.p == pytest.approx(expected["p"], rel=1e-9)
    interval = [found.mean - found.half_width, found.mean + found.half_width]
    assert interval == pytest.approx(expected["ci"], rel=1e-9)


@pytest.mark.parametrize(
    ("speedups", "verdict"), [((1.4, 1.6), "faster"), ((1.6, 1.4), "slower"), ((1.5, 1.5), "same")]
)
def test_a_change_is_found(speedups, verdict):
    content = across(report_of(speedups[0]), report_of(speedups[1], "second", seed=2), run_sd=0.0)
    row = only(content)
    assert row.verdict == verdict
    assert row.change == pytest.approx(speedups[1] / speedups[0], rel=0.02)
    assert row.change_ci[0] < row.change < row.change_ci[1]
    assert content.notes == ()
    assert row.median_seconds[0] == pytest.approx(1 / speedups[0], rel=0.05)


def test_the_interval_of_a_change_contains_what_the_blocks_of_a_run_share():
    """Runs of the same kernels, each with its own shift that its blocks do not show."""
    draw = np.random.default_rng(4)
    noise, block_sd, blocks = 0.026, 0.042, 8

    def summary():
        d = draw.normal(draw.normal(0, noise), block_sd, blocks)
        return Summary(blocks, d.mean(), d.std(ddof=1))

    pairs = [(summary(), summary()) for _ in range(400)]
    for run_sd, low, high in ((0.0, 0.5, 0.8), (noise, 0.92, 0.98)):
        found = [difference(*pair, RULE, run_sd=run_sd) for pair in pairs]
        holds = np.mean([abs(one.mean) <= one.half_width for one in found])
        assert low < holds < high


def test_compare_assumes_noise_between_runs_unless_it_is_told():
    first, second = report_of(1.5), report_of(1.58, "second", seed=2)
    assumed, own = across(first, second), across(first, second, run_sd=0.0)
    assert assumed.run_noise == RUN_SD
    assert (only(assumed).verdict, only(own).verdict) == ("undecided", "faster")
    assert only(assumed).change_ci[0] < 1 < only(own).change_ci[0]
    assert "contains 2.6 % of noise" in flat(two_runs.render(assumed))


def test_a_widened_interval_is_as_wide_as_both_parts():
    low, high = widened((0.97, 1.03), 0.95, run_sd=0.0)
    assert (low, high) == pytest.approx((0.97, 1.03))
    low, high = widened((1.0, 1.0), 0.95, run_sd=0.026)
    assert np.log([low, high]) == pytest.approx([-0.05096, 0.05096], rel=1e-3)
    assert widened(None, 0.95) is None


def test_wide_intervals_and_few_blocks_decide_nothing():
    row = only(across(report_of(1.4, spread=0.2), report_of(1.5, "second", spread=0.2, seed=2)))
    assert (row.verdict, row.reason) == (
        "undecided",
        "difference not distinguishable from noise",
    )
    row = only(across(report_of(1.4, blocks=4), report_of(1.9, "second", seed=2)))
    assert row.verdict == "undecided"
    assert "4 blocks" in row.reason
    row = only(across(report_of(1.4, blocks=1), report_of(1.9, "second", seed=2)))
    assert row.verdict == "undecided"
    assert row.change_ci is None


def test_a_run_whose_control_differs_decides_nothing():
    row = only(across(report_of(1.4, control=1.5), report_of(1.9, "second", seed=2)))
    assert row.verdict == "undecided"
    assert "A/A" in row.reason


def test_times_of_another_host_or_baseline_are_not_set_side_by_side():
    elsewhere = report_of(1.4, "second", host={"id": "other", "qemu": "7.2"}, seed=2)
    content = across(report_of(1.4), elsewhere)
    assert only(content).median_seconds is None
    assert "times cannot" in content.notes[0]
    kernels = {"stock": {"image": "new"}, "patched": {"image": "p2"}}
    content = across(report_of(1.4), report_of(1.4, "second", kernels=kernels, seed=2))
    assert only(content).median_seconds is None
    assert [note.split(" has ")[0] for note in content.notes] == ["the baseline stock", "patched"]


def test_runs_that_cannot_be_compared_are_rejected():
    with pytest.raises(UserError, match="cannot compare run first with itself"):
        across(report_of(1.4), report_of(1.4))
    with pytest.raises(UserError, match="different accelerators: tcg and kvm"):
        across(report_of(1.4), report_of(1.4, "second", accel="kvm"))
    with pytest.raises(UserError, match="no experiment in common"):
        across(report_of(1.4), report_of(1.4, "second", experiment=EXPERIMENT | {"name": "f"}))
    with pytest.raises(UserError, match="workload free and exit"):
        across(
            report_of(1.4), report_of(1.4, "second", experiment=EXPERIMENT | {"workload": "exit"})
        )
    other = report_of(1.4, "second")
    (experiment,) = other.experiments
    cells = tuple(replace(each, parameters={"size": 12345}) for each in experiment.cells)
    other = replace(other, experiments=(replace(experiment, cells=cells),))
    with pytest.raises(UserError, match="no cell in common"):
        across(report_of(1.4), other)


def test_other_guests_are_not_compared_and_what_is_not_recorded_is_not_known_to_differ():
    def on(nodes, run):
        return report_of(1.4, run, EXPERIMENT | {"guest": "g"}, guests={"g": {"nodes": nodes}})

    with pytest.raises(UserError, match="nodes 4 and 2"):
        across(on(4, "first"), on(2, "second"))
    for first in (on(4, "first"), report_of(1.4)):
        assert only(across(first, on(4, "second"), run_sd=0.0)).verdict == "same"


def test_one_experiment_that_cannot_be_compared_does_not_affect_the_others():
    def both(run, workload):
        other = EXPERIMENT | {"name": "f", "workload": workload}
        content = report_of(1.4, run)
        return replace(
            content, experiments=content.experiments + report_of(1.4, run, other).experiments
        )

    content = across(both("first", "free"), both("second", "exit"))
    assert [bool(each.refused) for each in content.experiments] == [False, True]
    assert "f is not compared: workload free and exit" in content.notes
    assert "\nf\n" not in two_runs.render(content)


def test_on_another_host_only_ratios_are_compared():
    here = report_of(1.4)
    elsewhere = report_of(1.6, "second", seed=2, host={"id": "other", "qemu": "7.2", "cores": 144})
    content = across(here, elsewhere)
    assert content.same_host is False
    row = only(content)
    assert (row.verdict, row.median_seconds) == ("faster", None)
    assert [round(ratio, 1) for ratio in row.ratio] == [1.4, 1.6]
    for style in ("terminal", "markdown"):
        text = two_runs.render(content, style)
        assert "times cannot" in text
        assert "144 cores" in text
        assert not re.search(r"\d m?s\b", text), "a time of another host"
    newer = report_of(1.6, "second", seed=2, host={"id": "h", "qemu": "8.0"})
    assert only(across(here, newer)).median_seconds is None


def test_warnings_of_both_runs_are_reported():
    calm = report_of(1.4, "second", seed=2)
    health = HostHealth(blocks=12, disturbed={"1": "load"}, left_out=(), stays_loaded=True, seen={})
    loaded = replace(
        calm, experiments=tuple(replace(each, host_health=health) for each in calm.experiments)
    )
    content = across(replace(report_of(1.4), finished=False, notes=("a line is torn",)), loaded)
    assert content.notes[0] == "a line is torn"
    assert "first is not finished" in content.notes
    assert "in second the host was busy (e)" in content.notes


def test_markdown_is_a_table_and_a_list():
    content = across(report_of(1.4), report_of(1.6, "second", seed=2, host={"id": "o"}))
    text = two_runs.render(content, "markdown")
    assert "### e" in text
    assert re.search(r"^\| patched +\|", text, re.MULTILINE)
    assert "- different host" in text


def test_the_table_names_runs_change_and_verdict():
    text = two_runs.render(
        across(report_of(1.4), report_of(1.6, "second", seed=2, host={"id": "o"}))
    )
    assert text.startswith("first and second; TCG")
    assert "change (95 % CI)" in text
    assert "faster" in text
    assert "! different host" in text


@pytest.fixture
def stored(tmp_path, monkeypatch):
    (tmp_path / "lab.yaml").write_text(
        "version: 1\nguests: {g: {}}\nkernels: {stock: {source: 'debian:linux-source-6.1'}}\n"
    )
    monkeypatch.chdir(tmp_path)

    def store(speedup, seed, crashes=0):
        run = folder.create(tmp_path / ".labctl" / "runs")
        for one in measured(speedup, seed):
            again = one
            if one.kernel == "patched" and one.block < crashes:
                again = replace(one, attempt=1, boot_id=f"again-{one.block}")
                run.store.append(replace(one, status="panic", value=None, fault="panic"))
            run.store.append(again)
        run.write(record(run.id))
        return run.id

    return store


def test_the_command_exits_with_1_if_something_became_slower(stored):
    names = stored(1.6, 1), stored(1.4, 2)
    outcome = CliRunner().invoke(labctl, ["compare", *names, "--json"])
    assert outcome.exit_code == 1
    assert json.loads(outcome.stdout)["runs"] == list(names)
    outcome = CliRunner().invoke(labctl, ["compare", *reversed(names)])
    assert outcome.exit_code == 0, outcome.output
    assert "faster" in outcome.stdout
    outcome = CliRunner().invoke(labctl, ["compare", names[0], names[1], "--format", "markdown"])
    assert outcome.exit_code == 1
    assert outcome.stdout.count("### e") == 1
    outcome = CliRunner().invoke(labctl, ["compare", max(names)])  # the latest is itself
    assert isinstance(outcome.exception, UserError)


@pytest.mark.parametrize("style", ["terminal", "markdown"])
def test_a_kernel_that_crashes_more_often_is_a_finding_of_a_comparison(stored, style):
    names = stored(1.5, 1), stored(1.5, 2, crashes=5)
    finding = "e: CRASHES: patched crashes more often than stock: 5 of 12 boots, stock: 0 of 24"
    outcome = CliRunner().invoke(labctl, ["compare", *names, "--format", style])
    assert outcome.exit_code == 1
    assert f"{names[1]}: {finding}" in outcome.stdout
    outcome = CliRunner().invoke(labctl, ["compare", *reversed(names), "--format", style])
    assert outcome.exit_code == 0, "the newer run has no finding"
    assert f"{names[1]}: {finding}" in outcome.stdout
    found = json.loads(CliRunner().invoke(labctl, ["compare", *names, "--json"]).stdout)
    (first, second) = found["experiments"][0]["crashes"]
    assert (first, second[0]["crashed"], second[0]["more_often"]) == ([], 5, True)


def test_crashes_that_are_no_finding_do_not_change_the_exit_status(stored):
    names = stored(1.5, 1), stored(1.5, 2, crashes=1)
    outcome = CliRunner().invoke(labctl, ["compare", *names])
    assert outcome.exit_code == 0
    assert "CRASHES" not in outcome.stdout


@pytest.mark.parametrize(
    ("values", "says"),
    [((0, 0), "same"), ((0, 7), "slower"), ((7, -2), "faster")],
)
def test_the_command_compares_counts_that_are_0_or_negative(stored, tmp_path, values, says):
    names = []
    for shift in values:
        run = folder.create(tmp_path / ".labctl" / "runs")
        for kernel, control, size in (
            ("stock", False, 0),
            ("stock", True, 0),
            ("patched", False, shift),
        ):
            for block in range(8):
                own = {"kernel": kernel, "label": kernel, "cell": f"{kernel}{control}"}
                own |= {"control": control, "block": block, "boot_id": f"{kernel}{control}{block}"}
                own |= {"metric": "faults", "units": {"faults": "pages"}, "scale": "difference"}
                run.store.append(sample(value=float(size), experiment="e", run=run.id, **own))
        faults = {"metric": "faults", "better": "lower", "scale": "difference", "minimum_effect": 2}
        changed = {"name": "e", "baseline": "stock", "command": "mine", **faults}
        document = record(run.id)
        document["experiments"] = [document["experiments"][0] | changed]
        run.write(document)
        names.append(run.id)
    outcome = CliRunner().invoke(labctl, ["compare", *names, "--json"])
    assert outcome.exit_code == (1 if says == "slower" else 0), outcome.output
    (experiment,) = json.loads(outcome.stdout)["experiments"]
    (row,) = experiment["cells"]
    assert (row["verdict"], row["change"]) == (says, values[1] - values[0])
    assert (experiment["scale"], experiment["unit"]) == ("difference", "pages")
    text = CliRunner().invoke(labctl, ["compare", *names]).stdout
    shown = f"{values[1] - values[0]:+d} pages" if values[0] != values[1] else "0 pages"
    assert shown in text
    assert " s " not in text.replace("'s ", "")
