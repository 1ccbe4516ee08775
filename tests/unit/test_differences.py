"""Metrics that are zero, negative or counts: compared by differences in their unit."""

import csv
import io
import json
import math
import random
from statistics import NormalDist
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import synthetic
import yaml
from click.testing import CliRunner
from records import report_of
from samples import as_json, cell, replace, sample
from test_reports import RUN, flat
from test_runner import runner

from labctl.bisect.metric import Bisect
from labctl.bisect.search import Search
from labctl.cli import labctl
from labctl.errors import BadOutput, ConfigError, UserError
from labctl.experiments.repetition import value_of
from labctl.lab.load import load
from labctl.lab.metrics import MetricKind
from labctl.lab.models import Workload
from labctl.nightly.night import Nightly
from labctl.reports import cover_letter, export, html, kcidb, sentence, table, two_runs, words
from labctl.reports.report import found_a_problem
from labctl.runs.record import RunRecord
from labctl.runs.sample import parse
from labctl.stats import stopping
from labctl.stats.between_runs import across
from labctl.stats.compare import compare
from labctl.stats.stored import results_of
from labctl.transports import Outcome

FAULTS = MetricKind("faults", "lower", "mine", "difference")
BALANCE = MetricKind("balance", "higher", "mine", "difference")
# Blocks of a count that is 0 in most of them, and of one that may be negative.
ZEROS = [0.0, 0.0, -0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
COUNTS = [3.0, 0.0, 5.0, 2.0, 4.0, 1.0, 6.0, 3.0]
# Numbers in an order in which neighbours are not alike: such blocks would count less.
NO_TREND = [0, 4, 1, 5, 2, 6, 3, 7]
SIGNED = [-4.0, 1.0, 0.0, -2.0, 3.0, -1.0, 2.0, 1.0]


def judge(base, new, kind=FAULTS, effect=1.0, aa=None, confidence=0.95):
    samples = cell(base, scale="difference", metric=kind.name)
    samples += cell(new, kernel="patched", scale="difference", metric=kind.name)
    if aa is not None:
        samples += cell(aa, control=True, scale="difference", metric=kind.name)
    rule = {"baseline": "stock", "confidence": confidence, "minimum_effect": effect}
    return compare(samples, better=kind.better, metric=kind, **rule)


def only(result):
    (row,) = [row for row in result.cells if row.kernel == "patched"]
    return row


# The statistics.


def test_the_difference_is_students_paired_one():
    """The sleep data of Student (Biometrika 6, 1908), as in R's t.test(paired = TRUE)."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    # The tests of 95 % are those of a promise of 93.3 %.
    row = only(judge(first, second, BALANCE, confidence=1 - 0.05 / 0.75))
    assert row.difference == pytest.approx(1.58)
    assert row.ci == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert row.p == pytest.approx(0.002833, abs=1e-6)
    assert (row.ratio, row.sd_log, row.spread_percent) == (None, None, None)
    assert row.median_seconds == pytest.approx(2.33)
    assert only(judge(first, second, FAULTS)).difference == pytest.approx(1.58)


@pytest.mark.parametrize(
    ("base", "new", "effect", "verdict"),
    [
        (ZEROS, ZEROS, 1.0, "same"),
        (ZEROS, [1e-9] * 8, 1.0, "same"),
        (ZEROS, [3.0] * 8, 1.0, "slower"),
        ([3.0] * 8, ZEROS, 1.0, "faster"),
        (ZEROS, COUNTS, 1.0, "slower"),
        (ZEROS, COUNTS, 3.0, "undecided"),
        (SIGNED, [v + 0.01 * i for i, v in zip(NO_TREND, SIGNED, strict=True)], 1.0, "same"),
        (SIGNED, [v - 5 - 0.1 * i for i, v in zip(NO_TREND, SIGNED, strict=True)], 1.0, "faster"),
        ([1e15] * 8, [1e15 + 64.0 + i for i in NO_TREND], 8.0, "slower"),
        ([1e59] * 8, [-1e59 + i * 1e58 for i in NO_TREND], 1.0, "faster"),
        (ZEROS, [5e-324 * i for i in NO_TREND], 1.0, "same"),
    ],
)
def test_zero_negative_and_huge_values_have_a_verdict(base, new, effect, verdict):
    result = judge(base, new, effect=effect)
    row = only(result)
    assert row.verdict == verdict
    assert not row.failed
    for value in (row.difference, row.spread, row.sd_difference, row.p, row.smallest_effect):
        assert math.isfinite(value)
    content = report_of(RUN, [result])
    text = as_json(content)  # raises for NaN
    assert json.loads(text)["experiments"][0]["scale"] == "difference"
    assert "-0 " not in table.render(content).replace("-0 to", "-0 ")


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e61, -1e61])
def test_a_value_that_is_no_number_is_bad_output(value):
    assert only(judge(ZEROS, [value, *ZEROS[1:]])).failed == {"bad-output": 1}


def test_a_block_of_rare_events_counts_all_of_them():
    """The median of 0, 0 and 3 is 0, so that a block is the mean of its repetitions."""
    samples = []
    for kernel, counts in (("stock", (0, 0, 0)), ("patched", (0, 0, 3))):
        for block in range(8):
            for repetition, value in enumerate(counts):
                own = {"block": block, "repetition": repetition, "boot_id": f"{kernel}{block}"}
                own |= {"kernel": kernel, "label": kernel, "cell": kernel, "scale": "difference"}
                samples.append(sample(value=float(value), **own))
    rule = {"baseline": "stock", "confidence": 0.95, "minimum_effect": 0.5}
    row = only(compare(samples, better="lower", metric=FAULTS, **rule))
    assert (row.difference, row.verdict) == (1.0, "slower")


def test_the_unit_of_a_metric_changes_no_test():
    draw = np.random.default_rng(1)
    base, shift = draw.normal(0, 1, 12), draw.normal(0.6, 1, 12)
    rows = [
        only(judge(list(base * k), list((base + shift) * k), effect=0.1 * k))
        for k in (1.0, 2.0**-60, 2.0**60)
    ]
    for row in rows[1:]:
        for name in ("p", "p_corrected", "p_beyond", "p_same", "p_sign_flip", "p_wilcoxon"):
            assert getattr(row, name) == pytest.approx(getattr(rows[0], name), rel=1e-9)
        assert row.blocks_needed == rows[0].blocks_needed


def test_the_interval_of_a_difference_keeps_its_promise():
    """Counts of a Poisson process with and without 2 more events: 95 % contain the 2."""
    draw = np.random.default_rng(7)
    hits = 0
    for _ in range(150):
        base, new = draw.poisson(3, 10), draw.poisson(5, 10)
        low, high = only(judge(list(map(float, base)), list(map(float, new)))).ci
        hits += low <= 2 <= high
    assert 134 <= hits <= 150  # 142.5 expected, with a standard deviation of 2.7


def test_a_control_that_differs_makes_all_verdicts_invalid():
    result = judge(ZEROS, [9.0] * 8, aa=[4.0] * 8)
    assert only(result).verdict == "undecided"
    assert "difference 4, interval 4 to 4" in result.warnings[0]
    assert "would be worse" in only(result).reason


def test_a_cell_stops_at_an_absolute_half_width():
    samples = cell(SIGNED, scale="difference")
    samples += cell([v + w for v, w in zip(SIGNED, COUNTS, strict=True)], kernel="patched")
    samples = [replace(s, scale="difference") for s in samples]
    rule = {"baseline": "stock", "confidence": 0.95, "scale": "difference"}
    assert stopping.ended(samples, half_width=2.0, **rule) == {"patched"}
    assert stopping.ended(samples, half_width=1.0, **rule) == frozenset()


# The samples and records.


def test_a_sample_of_a_difference_may_be_zero_or_negative():
    for value in (0.0, -0.0, -3.0):
        one = sample(value=value, scale="difference")
        assert parse(one.to_json().encode(), "x:1") == one
        with pytest.raises(UserError, match="above 0"):
            parse(one.to_json().replace(',"scale":"difference"', "").encode(), "x:1")
    assert "scale" not in json.loads(sample().to_json())


def test_a_record_has_an_absolute_effect_only_for_differences():
    experiment = {"name": "e", "workload": "w", "baseline": "stock", "confidence": 0.95}
    record = {"run": "r", "accel": "tcg"}
    for scale, effect, says in (
        ("ratio", 0.02, None),
        ("ratio", 1.0, "expected less than 1"),
        ("difference", 100.0, None),
        ("difference", 0.0, "> 0"),
        ("relative", 0.02, "relative"),
    ):
        whole = record | {"experiments": [experiment | {"scale": scale, "minimum_effect": effect}]}
        if says is None:
            assert RunRecord.of(whole).experiment("e").kind.scale == scale
            continue
        with pytest.raises(msgspec.ValidationError, match=says):
            RunRecord.of(whole)
    old = RunRecord.of(record | {"experiments": [experiment | {"minimum_effect": 0.02}]})
    assert old.experiment("e").kind.scale == "ratio"


# lab.yaml.


@pytest.fixture
def lab(tmp_path):
    """Return a function that loads a lab with one workload and one experiment."""

    def write(workload, experiment=None, statistics=None):
        content = {
            "guests": {"numa": {"nodes": 2, "cpus_per_node": 1, "memory_per_node": "512MiB"}},
            "kernels": {"stock": {"source": "debian:linux-source-6.1"}},
            "workloads": {"mine": {"command": "mybench", **workload}},
            "experiments": {
                "one": {"workload": "mine", "kernels": ["stock"], **(experiment or {})}
            },
            **({"statistics": statistics} if statistics else {}),
        }
        path = tmp_path / "lab.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return load(path)

    return write


def least(value):
    return {"statistics": {"minimum_effect": value}}


COUNT = {"metric": "faults", "better": "lower", "scale": "difference"}
TIME = {"metric": "elapsed", "scale": "difference"}


@pytest.mark.parametrize(
    ("workload", "experiment", "effect"),
    [
        (COUNT, least(100), 100.0),
        (COUNT, least("100 pages"), 100.0),
        (COUNT, least("2 kfaults"), 2000.0),
        (COUNT, least(0.5), 0.5),
        (COUNT, least("1e6"), 1e6),
        (TIME, least("2ms"), 0.002),
        (TIME, least("500 us"), 0.0005),
        ({"metrics": {"rate": {"parse": "(.*)", "unit": "KiB/s", "better": "higher",
                               "scale": "difference", "minimum_effect": 1000}}}, {}, 1.024),
        ({"metrics": {"faults": {"better": "lower", "scale": "difference",
                                 "minimum_effect": "5 pages"}}}, least(7), 7.0),
        ({"metrics": {"faults": {"better": "lower", "minimum_effect": "5%"}}}, {}, 0.05),
        ({"metrics": {"faults": {"better": "lower", "scale": "difference"}}},
         {"metric": "loss", "better": "lower"}, 0.02),
        ({"metric": "faults", "better": "lower"}, {"scale": "difference", **least(3)}, 3.0),
        (COUNT, {"scale": "ratio"}, 0.02),
        (COUNT, {"metric": "elapsed"}, 0.02),
    ],
)  # fmt: skip
def test_the_minimum_effect_is_in_the_unit_of_the_values(lab, workload, experiment, effect):
    found = lab(workload, experiment)
    assert found.compared("one").minimum_effect == pytest.approx(effect)
    assert found.resolve_statistics("one").minimum_effect == pytest.approx(effect)


def test_a_cell_stops_in_proportion_to_the_effect(lab):
    stop = {"minimum_effect": 10, "stop_at_half_width": "none"}
    assert lab(COUNT, least(100)).resolve_statistics("one").stop_at_half_width == 150
    assert lab(COUNT, {"statistics": stop}).resolve_statistics("one").stop_at_half_width is None
    stop["stop_at_half_width"] = 12
    assert lab(COUNT, {"statistics": stop}).resolve_statistics("one").stop_at_half_width == 12
    every = lab(COUNT, least(1), {"stop_at_half_width": "none"})
    assert every.resolve_statistics("one").stop_at_half_width is None


@pytest.mark.parametrize(
    ("workload", "experiment", "key", "says", "hint"),
    [
        (COUNT, least("2%"), "experiments.one.statistics.minimum_effect",
         "expected an absolute value, as faults has `scale: difference`, got 2%", "example: 100"),
        (TIME, least("2%"), "experiments.one.statistics.minimum_effect", "absolute", "2ms"),
        (TIME, least(2), "experiments.one.statistics.minimum_effect", "unit is missing", "2ms or"),
        (TIME, least("2 pages"), "experiments.one.statistics.minimum_effect", "the unit of elapsed",
         "elapsed is a time"),
        (COUNT, least("2ms"), "experiments.one.statistics.minimum_effect", "the unit of faults",
         "faults is not a time"),
        (COUNT, least("2 parsecs"), "experiments.one.statistics.minimum_effect", "unknown unit",
         "known: "),
        (COUNT, least(0), "experiments.one.statistics.minimum_effect", "more than 0", ""),
        (COUNT, least("-3"), "experiments.one.statistics.minimum_effect", "more than 0", ""),
        (COUNT, least("1e400"), "experiments.one.statistics.minimum_effect", "at most 1e+60", ""),
        (COUNT, least(".nan"), "experiments.one.statistics.minimum_effect", "expected an effect",
         "2%"),
        (COUNT, least([2]), "experiments.one.statistics.minimum_effect", "got a list", ""),
        (COUNT, {}, "experiments.one", "minimum_effect is missing: faults",
         "statistics: {minimum_effect: 100}"),
        (COUNT, {"statistics": {"minimum_effect": 5, "stop_at_half_width": "3%"}},
         "experiments.one.statistics.stop_at_half_width", "expected an absolute value", "100"),
        ({}, least("2ms"), "experiments.one.statistics.minimum_effect", "expected a share",
         "scale: difference"),
        ({}, least(3), "experiments.one.statistics.minimum_effect", "expected less than 1",
         "scale: difference"),
        ({**COUNT, "scale": "log"}, {}, "workloads.mine.scale", "expected ratio or difference", ""),
        ({"metrics": {"faults": {"better": "lower", "scale": "difference",
                                 "minimum_effect": "2%"}}}, {},
         "workloads.mine.metrics.faults.minimum_effect", "absolute value", "example: 100"),
        ({"metrics": {"faults": {"better": "lower", "unit": "pages"}}}, {},
         "workloads.mine.metrics.faults.unit", "requires `parse`", "add `parse:`"),
    ],
)  # fmt: skip
def test_an_effect_that_does_not_fit_is_named(lab, workload, experiment, key, says, hint):
    with pytest.raises(ConfigError) as caught:
        lab(workload, experiment)
    (problem,) = caught.value.problems
    assert problem.key == key
    assert problem.line > 1
    assert says in problem.what
    assert hint in (problem.hint or "")


def test_the_labs_own_effect_is_a_share(lab):
    with pytest.raises(ConfigError, match=r"statistics\.minimum_effect: expected a share"):
        lab(COUNT, least(1), {"minimum_effect": "5 pages"})


# The output of a workload.


@pytest.mark.parametrize(
    ("text", "value"),
    [("faults: 0", 0.0), ("faults: -3", -3.0), ("faults: -0.0", 0.0), ('{"faults": 0}', 0.0),
     ('{"faults": -12.5}', -12.5), ("faults: 1e59", 1e59)],
)  # fmt: skip
def test_an_output_may_be_zero_or_negative(text, value):
    out = Outcome("", 0, f"{text}\n".encode(), b"", 1.0)
    mine = Workload(name="mine", command="mine")
    assert value_of(out, mine, "faults", scale="difference")[0] == value
    if value <= 0:
        with pytest.raises(BadOutput, match=r"above 0, got .*needs `scale: difference`"):
            value_of(out, mine, "faults")


@pytest.mark.parametrize("text", ["faults: nan", '{"faults": NaN}', "faults: inf", "faults: 1e61",
                                  "faults: -1e400", '{"faults": null}', "faults:"])  # fmt: skip
@pytest.mark.parametrize("scale", ["ratio", "difference"])
def test_an_output_that_is_no_number_is_refused(text, scale):
    out = Outcome("", 0, f"{text}\n".encode(), b"", 1.0)
    with pytest.raises(BadOutput):
        value_of(out, Workload(name="mine", command="mine"), "faults", scale=scale)


def test_a_metric_without_a_pattern_is_read_as_one_that_is_not_listed():
    mine = Workload(name="m", command="m", metrics={"faults": {"scale": "difference"}})
    out = Outcome("", 0, b'{"faults": 0}\n', b"", 1.0)
    assert value_of(out, mine, "faults", scale="difference")[0] == 0


# A whole run.


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """Return the record and samples of a run whose patched kernel has 4 faults more."""
    draw = random.Random(3)
    whole = synthetic.Guest.run

    def run(guest, argv, **more):
        out = whole(guest, argv, **more)
        faults = draw.randrange(3) + (4 if guest.group.kernel == "patched" else 0)
        return replace(out, stdout=json.dumps({"faults": faults}).encode() + b"\n")

    monkeypatch.setattr(synthetic.Guest, "run", run)
    own = {"metric": "faults", "better": "lower", "scale": "difference", **least(1)}
    the_lab = synthetic.lab(blocks=8, **own)
    one = runner(tmp_path, synthetic.World(), the_lab)
    one.run()
    compared = the_lab.compared("e")
    experiment = {
        "name": "e", "workload": "free", "baseline": "stock", "confidence": 0.95,
        "metric": "faults", "better": compared.better, "scale": compared.scale,
        "minimum_effect": compared.minimum_effect, "command": "mine", "blocks_min": 8,
    }  # fmt: skip
    record = {"run": "r", "accel": "tcg", "finished": True, "experiments": [experiment],
              "kernels": {"stock": {}, "patched": {}}, "host": {"id": "h"}}  # fmt: skip
    return record, one.store.samples()


def test_every_report_shows_a_difference(counted):
    record, samples = counted
    assert {s.status for s in samples} == {"ok"}
    assert 0.0 in {s.value for s in samples}
    content = report_of(record, results_of(RunRecord.of(record), samples))
    (experiment,) = content.experiments
    _, patched = experiment.cells
    assert patched.verdict == "slower"
    assert 3 < patched.difference < 5
    assert found_a_problem(content)
    said = sentence.sentence(experiment)
    shown = f"+{patched.difference:.4g}"
    assert said.startswith(f"patched is worse than stock in faults: difference {shown} (95 % CI ")
    for text in (
        table.render(content),
        table.render(content, format="markdown"),
        cover_letter.render(content),
        html.render(content, samples),
        export.junit(content, samples),
        kcidb.kcidb(content, samples),
    ):
        words = flat(text)
        assert shown in words
        assert "nan" not in words.lower()
        assert "ratio" not in words.lower().replace("operation", "").replace(
            "ratios only", ""
        ).replace("only ratios mean", "")
    text = flat(table.render(content))
    assert "faults ± SD" in text
    for note in (
        "A difference is the cell's mean minus that of the baseline and its A/A control.",
        "Better and worse: shown to be beyond 1 (faults); same: shown to be within.",
    ):
        assert note in text
    assert "Difference: faults minus faults of stock." in flat(cover_letter.render(content))
    assert "left is better" in html.render(content, samples)
    (verdict,) = [t for t in json.loads(kcidb.kcidb(content, samples))["tests"]
                  if t["path"].endswith("against_baseline")]  # fmt: skip
    assert verdict["number"] == {"value": patched.difference, "unit": "faults"}
    assert verdict["status"] == "FAIL"


def test_exports_of_other_tools_have_means_or_say_what_they_leave_out(counted):
    record, samples = counted
    content = report_of(record, results_of(RunRecord.of(record), samples))
    lines = export.benchfmt(content, samples).splitlines()
    assert "Unit faults better=lower assume=nothing" in lines
    assert sum(line.startswith("BenchmarkE ") for line in lines) == 8 * 3
    assert json.loads(export.pyperf(content, samples))["benchmarks"] == []
    assert "left out, since pyperf only takes values above 0" in export.notes("pyperf", content)[0]
    rows = list(csv.DictReader(io.StringIO(export.to_csv(content, samples))))
    assert {row["scale"] for row in rows} == {"difference"}


def test_a_matrix_of_differences_has_colours_and_a_best_cell():
    samples = cell(COUNTS, scale="difference")
    for one in (1, 2):
        for two in (1, 2):
            own = {"setting": {"a": one, "b": two}, "cell": f"patched/{one}/{two}"}
            shift = 3 * one * two - 8
            values = [v + shift + 0.1 * i for i, v in zip(NO_TREND, COUNTS, strict=True)]
            samples += cell(values, kernel="patched", scale="difference", **own)
    rule = {"baseline": "stock", "confidence": 0.95, "minimum_effect": 1.0}
    result = compare(samples, better="lower", metric=FAULTS, **rule)
    record = RUN | {"experiments": [{"name": "smoke", "metric": "faults", "command": "mine"}]}
    content = report_of(record, [result])
    assert "patched a=1 b=1 is better than stock in faults" in flat(table.render(content))
    page = html.render(content, samples)
    assert "Difference to stock and verdict" in page
    assert 'class="better-4 is-faster"' in page
    assert 'class="worse-' in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(20100.5, "20100"), (20143.2, "20143"), (-43.25, "-43.25"), (0.0, "0"), (-0.0, "0"),
     (1234.56, "1235"), (1.5e13, "1.5e+13"), (1e-7, "1e-07")],
)  # fmt: skip
def test_counts_are_whole_numbers(value, text):
    assert words.value(value, FAULTS) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 s"), (-0.002, "-2.00 ms"), (-2e-9, "-2 ns"), (1e59, "1e+59 s")],
)
def test_a_time_may_be_zero_or_negative(value, text):
    assert words.value(value, replace(FAULTS, name="elapsed")) == text


# Other commands.


def two(shift, seed=1):
    draw = np.random.default_rng(seed)
    base = draw.poisson(3, 12) - 2.0
    return judge(list(base), list(base + shift + draw.normal(0, 0.2, 12)))


def report(result, run, **changes):
    experiment = {"name": "smoke", "workload": "w", "metric": "faults", "command": "mine"}
    return report_of(RUN | {"run": run, "experiments": [experiment]} | changes, [result])


def test_two_runs_are_compared_by_the_change_of_the_difference():
    content = across(report(two(2.0), "first"), report(two(5.0, 2), "second"))
    (experiment,) = content.experiments
    (row,) = experiment.cells
    assert row.change == pytest.approx(3.0, abs=0.3)
    assert row.change_ci[0] < row.change < row.change_ci[1]
    assert (row.verdict, row.ratio) == ("slower", (None, None))
    assert row.difference == pytest.approx((2.0, 5.0), abs=0.3)
    text = flat(two_runs.render(content))
    assert f"+{row.change:.4g} (" in text
    assert "the second run's difference minus the first run's" in text
    assert "ratio over" not in text
    same = across(report(two(2.0), "first"), report(two(2.0, 3), "second"))
    assert same.experiments[0].cells[0].verdict == "same"


@pytest.mark.parametrize(
    ("second", "effect", "verdict"), [(0.0, 1.0, "same"), (5.0, 1.0, "slower"), (5.0, 9.0, "same")]
)
def test_runs_with_counts_that_never_vary_are_compared(second, effect, verdict):
    runs = [
        report(judge(ZEROS, [value] * 8, effect=effect), name)
        for name, value in (("first", 0.0), ("second", second))
    ]
    ((row,),) = (each.cells for each in across(*runs).experiments)
    assert (row.change, row.change_ci, row.verdict) == (second, (second, second), verdict)


def test_a_spread_of_the_run_alone_is_known():
    """A normal quantile: the level is the 96.25 % that keep 95 %."""
    runs = [report(judge([100.0] * 8, [v] * 8), n) for n, v in (("a", 100.0), ("b", 130.0))]
    ((row,),) = (each.cells for each in across(*runs, run_sd=0.02).experiments)
    half = NormalDist().inv_cdf(1 - 0.0375 / 2) * 2**0.5 * 0.02 * 100
    assert row.change_ci == pytest.approx((30 - half, 30 + half), rel=1e-6)


def test_a_ratio_is_not_compared_with_a_difference():
    other = judge(COUNTS, COUNTS, replace(FAULTS, scale="ratio"), effect=0.02)
    with pytest.raises(UserError, match="scale difference and ratio"):
        across(report(two(2.0), "first"), report(other, "second"))


def test_commands_that_know_only_ratios_refuse_differences(lab, tmp_path):
    found = lab(COUNT, least(1))
    nightly = Nightly(lab=found, experiments=["one"], budget_seconds=60, history=tmp_path,
                      open_run=None, image_of=None)  # fmt: skip
    with pytest.raises(ConfigError, match="nightly compares ratios, but faults has `scale:"):
        nightly.run()

    class Answer:
        search = Search(0, 1, 0.05)

    with pytest.raises(ConfigError, match="bisect compares ratios, but faults has `scale:"):
        Bisect(lab=found, experiment="one", setting={}, answer=Answer(), open_run=None).run()


PLACES = {
    "experiments.one.scale": ({"metric": "faults", "better": "lower"},
                              {"scale": "difference", **least(1)}),
    "workloads.mine.scale": (COUNT, least(1)),
    "workloads.mine.metrics.faults.scale": (
        {"metrics": {"faults": {"better": "lower", "scale": "difference", "minimum_effect": 1}}},
        {"metrics": ["faults", "elapsed"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("command", [["nightly", "one"], ["bisect", "stock", "one"]])
@pytest.mark.parametrize("key", PLACES)
def test_a_difference_is_rejected_at_its_key_before_anything_runs(
    lab, tmp_path, monkeypatch, key, command
):
    lab(*PLACES[key])
    path = tmp_path / "lab.yaml"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("labctl.cli.bisect._begin", lambda *_, **__: SimpleNamespace(search=None))
    for name in ("labctl.guests.prepare.build_images", "labctl.nightly.commits.commits_of"):
        monkeypatch.setattr(name, None)
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(labctl, [command[0], "--lab", str(path), *command[1:]],
                           catch_exceptions=False, standalone_mode=False)  # fmt: skip
    (problem,) = caught.value.problems
    assert (problem.file, problem.key) == (str(path), key)
    line = path.read_text().splitlines()[problem.line - 1]
    assert line.lstrip() == "scale: difference"
    assert line[problem.column - 1 :] == "difference"
    assert problem.what.startswith(f"{command[0]} compares ratios, but faults has `scale: diff")


def test_nightly_leaves_experiments_with_differences_out(lab, tmp_path, monkeypatch):
    lab(COUNT, least(1))
    path = tmp_path / "lab.yaml"
    content = yaml.safe_load(path.read_text())
    content["experiments"]["two"] = {"workload": "mine", "kernels": ["stock"], "metric": "elapsed"}
    path.write_text(yaml.safe_dump(content))
    names = []
    monkeypatch.setattr("labctl.cli.nightly._measure", lambda _, chosen, *__: names.extend(chosen))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(labctl, ["nightly", "--lab", str(path)])
    assert names == ["two"]
    assert "left out, as they compare differences: one" in done.output
