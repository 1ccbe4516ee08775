"""Several metrics of one experiment: one measurement, one family of tests, the first decides."""

import csv
import io
import json
import random

import msgspec
import pytest
import synthetic
import yaml
from click.testing import CliRunner
from golden_runs import LAB
from samples import replace, sample
from test_reports import flat
from test_runner import runner

from labctl import cli
from labctl.errors import BaselineFailed, ConfigError, UserError
from labctl.lab.load import load
from labctl.lab.models import Workload
from labctl.runs.folder import RunFolder
from labctl.runs.record import RunRecord
from labctl.runs.sample import parse
from labctl.stats.between_runs import across
from labctl.stats.by_metric import by_metric
from labctl.stats.paired import adjust
from labctl.stats.several import compare_all
from labctl.stats.stored import results_of

METRICS = {
    "throughput": {"better": "higher"},
    "faults": {"better": "lower", "scale": "difference", "minimum_effect": 1},
}
NAMES = ("elapsed", "throughput", "faults")


# lab.yaml.


@pytest.fixture
def lab(tmp_path):
    """Return a function that loads a lab with one experiment."""

    def write(experiment, metrics=METRICS, **workload):
        content = {
            "guests": {"numa": {"nodes": 2, "cpus_per_node": 1, "memory_per_node": "512MiB"}},
            "kernels": {"stock": {"source": "debian:linux-source-6.1"}},
            "workloads": {"mine": {"command": "mybench", "metrics": metrics, **workload}},
            "experiments": {"one": {"workload": "mine", "kernels": ["stock"], **experiment}},
        }
        path = tmp_path / "lab.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return load(path)

    return write


def test_each_metric_has_its_direction_scale_and_effect(lab):
    found = lab({"metrics": list(NAMES), "statistics": {"minimum_effect": "5%"}})
    facts = [(m.name, m.better, m.scale, m.minimum_effect) for m in found.all_compared("one")]
    assert facts == [
        ("elapsed", "lower", "ratio", 0.05),
        ("throughput", "higher", "ratio", 0.05),
        ("faults", "lower", "difference", 1.0),
    ]
    assert found.compared("one").name == found.metric_of("one") == "elapsed"
    assert found.resolve_statistics("one").stop_at_half_width == 0.03


def test_the_effect_of_the_experiment_is_that_of_the_first_metric(lab):
    found = lab({"metrics": ["faults", "throughput"], "statistics": {"minimum_effect": 7}})
    assert [m.minimum_effect for m in found.all_compared("one")] == [7.0, 0.02]
    assert found.resolve_statistics("one").stop_at_half_width == pytest.approx(10.5)


@pytest.mark.parametrize(
    ("experiment", "key", "says", "hint"),
    [
        ({"metrics": []}, "experiments.one.metrics", "must not be empty", ""),
        ({"metrics": "elapsed"}, "experiments.one.metrics", "expected a list", "[elapsed]"),
        ({"metrics": ["elapsed", "elapsed"]}, "experiments.one.metrics[1]", "duplicate", "remove"),
        ({"metrics": ["elapsed", "a b"]}, "experiments.one.metrics[1]", "invalid value", ""),
        ({"metrics": ["elapsed", "loss"]}, "experiments.one.metrics[1]",
         "direction of metric 'loss' is unknown", "add `better: lower`"),
        ({"metrics": ["elapsed"], "metric": "elapsed"}, "experiments.one.metric",
         "conflicts with `metrics`", "remove one"),
        ({"metrics": ["elapsed"], "better": "higher"}, "experiments.one.better",
         "conflicts with `metrics`", "under `metrics:` of the workload"),
        ({"metrics": ["elapsed"], "scale": "ratio"}, "experiments.one.scale",
         "conflicts with `metrics`", "under `metrics:` of the workload"),
        ({"metrics": ["elapsed"], "statistics": {"minimum_effect": "2ms"}},
         "experiments.one.statistics.minimum_effect", "expected a share", "difference"),
    ],
)  # fmt: skip
def test_mistakes_in_a_list_of_metrics_are_named(lab, experiment, key, says, hint):
    with pytest.raises(ConfigError) as caught:
        lab(experiment)
    (problem,) = caught.value.problems
    assert problem.key == key
    assert says in problem.what
    assert hint in (problem.hint or "")


def test_a_further_difference_needs_its_own_effect(lab):
    metrics = {"faults": {"better": "lower", "scale": "difference"}}
    with pytest.raises(ConfigError) as caught:
        lab({"metrics": ["elapsed", "faults"]}, metrics=metrics)
    (problem,) = caught.value.problems
    assert problem.what == "minimum_effect is missing: faults has `scale: difference`"
    assert "metrics: {faults: {minimum_effect: 100}} of the workload" in problem.hint


# Measuring.


def measured(folder, monkeypatch, *, output=None, metrics=NAMES, blocks=8, speeds=None):
    """Measure with a workload that prints three metrics; return the lab and the samples.

    The patched kernel is 1.4 times as fast, has half the throughput and 4 faults more.
    """
    draw = random.Random(3)
    whole = synthetic.Guest.run

    def run(guest, argv, **more):
        out = whole(guest, argv, **more)
        is_patched = guest.group.kernel == "patched"
        content = json.loads(out.stdout) | {
            "throughput": (500 if is_patched else 1000) * draw.uniform(0.98, 1.02),
            "faults": draw.randrange(3) + 4 * is_patched,
        }
        content |= output or {}
        content = {name: value for name, value in content.items() if value is not None}
        return replace(out, stdout=json.dumps(content).encode() + b"\n")

    monkeypatch.setattr(synthetic.Guest, "run", run)
    the_lab = synthetic.lab(blocks=blocks, metrics=metrics)
    mine = Workload(name="free", command="freebench", metrics=METRICS)
    the_lab = the_lab.model_copy(update={"workloads": {"free": mine}})
    world = synthetic.World()
    world.speeds = speeds or world.speeds
    one = runner(folder, world, the_lab)
    one.run()
    return the_lab, one.store.samples()


def record_of(the_lab, **changes):
    first, *further = the_lab.all_compared("e")
    experiment = {
        "name": "e", "workload": "free", "baseline": "stock", "confidence": 0.95,
        "metric": first.name, "better": first.better, "scale": first.scale,
        "minimum_effect": first.minimum_effect, "command": "freebench", "blocks_min": 8,
        "further_metrics": [
            {"metric": m.name, "better": m.better, "scale": m.scale,
             "minimum_effect": m.minimum_effect}
            for m in further
        ],
    }  # fmt: skip
    return {
        "schema": 1, "run": "20261124-015501-3fa2", "accel": "tcg", "finished": True,
        "experiments": [experiment], "host": {"id": "h"}, "seed": 7,
        "kernels": {"stock": {"image": "s"}, "patched": {"image": "p", "series": "x"}},
    } | changes  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the record and the samples of a whole run."""
    with pytest.MonkeyPatch.context() as patch:
        the_lab, samples = measured(tmp_path_factory.mktemp("run"), patch)
    return record_of(the_lab), samples


@pytest.fixture
def stored(whole, tmp_path, monkeypatch):
    """Store the run in the lab of the current folder."""
    record, samples = whole
    (tmp_path / "lab.yaml").write_text(LAB)
    path = tmp_path / ".labctl" / "runs" / record["run"]
    path.mkdir(parents=True)
    RunFolder(path).write(record)
    (path / "samples.jsonl").write_text("".join(f"{each.to_json()}\n" for each in samples))
    monkeypatch.chdir(tmp_path)
    return path


def run_cli(*words):
    return CliRunner().invoke(cli.labctl, list(words))


def test_one_repetition_has_all_metrics(whole):
    _, samples = whole
    assert {s.status for s in samples} == {"ok"}
    assert {s.metric for s in samples} == {"elapsed"}
    assert all(set(s.values) == {"throughput", "faults"} for s in samples)
    assert 0.0 in {s.values["faults"] for s in samples}
    for one in samples[:4]:
        assert parse(one.to_json().encode(), "x:1") == one


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ({"throughput": None}, "no top-level key 'throughput'"),
        ({"throughput": 0}, "throughput: expected a number above 0, got 0; a metric that may be"),
        ({"throughput": "many"}, "throughput: expected a JSON number"),
        ({"faults": 1e61}, "faults: expected a number of at most 1e+60"),
    ],
)
def test_a_repetition_without_one_of_the_metrics_is_bad_output(tmp_path, monkeypatch, output, says):
    with pytest.raises(BaselineFailed, match="bad-output") as caught:
        measured(tmp_path, monkeypatch, output=output)
    assert says in str(caught.value)


def test_a_damaged_value_of_a_further_metric_is_named():
    good = sample(values={"faults": 3.0}).to_json()
    for damage in ('"many"', "NaN", "1e999", "true"):
        with pytest.raises(UserError, match=r"faults|NaN"):
            parse(good.replace('"faults":3.0', f'"faults":{damage}').encode(), "x:1")
    with pytest.raises(UserError, match="values: expected dict"):
        parse(good.replace('{"faults":3.0}', "[]").encode(), "x:1")
    assert "values" not in json.loads(sample().to_json())


# The statistics.


def test_the_correction_is_over_the_cells_of_all_metrics(whole):
    record, samples = whole
    (result,) = results_of(RunRecord.of(record), samples)
    every = [result, *result.further]
    assert [each.metric.name for each in every] == list(NAMES)
    rows = [row for each in every for row in each.cells if row.kernel == "patched"]
    assert [row.verdict for row in rows] == ["faster", "slower", "slower"]
    corrected = adjust([row.p for row in rows])
    assert [row.p_corrected for row in rows] == pytest.approx(corrected)
    assert rows[0].p_corrected > rows[0].p
    alone = compare_all(
        samples, metrics=RunRecord.of(record).experiments[0].kinds[:1], baseline="stock",
        confidence=0.95, name="e",
    )  # fmt: skip
    assert alone.cells[1].p_corrected == pytest.approx(rows[0].p)
    assert alone.cells[1].ratio == rows[0].ratio
    assert alone.cells[1].smallest_effect < rows[0].smallest_effect


def test_a_value_that_a_sample_lacks_is_bad_output_of_that_metric(whole):
    record, samples = whole
    less = [replace(s, values={"throughput": 1.0}) if s.block == 0 else s for s in samples]
    (result,) = results_of(RunRecord.of(record), less)
    assert not result.cells[1].failed
    assert not result.further[0].cells[1].failed
    assert result.further[1].cells[1].failed == {"bad-output": 2}


def test_a_record_without_further_metrics_reads_as_before(whole):
    record, samples = whole
    experiment = dict(record["experiments"][0])
    del experiment["further_metrics"], experiment["scale"]
    old = RunRecord.of(record | {"experiments": [experiment]})
    (result,) = results_of(old, samples)
    assert result.further == ()
    assert by_metric(report(record | {"experiments": [experiment]}, samples)).experiments[0].name


def report(record, samples):
    from labctl.reports.document import document

    known = RunRecord.of(record)
    return document(known, results_of(known, samples))


# The reports.

SENTENCES = (
    "times as fast as stock",
    "has 0.50 times the throughput of stock",
    "patched is worse than stock in faults: difference +",
)


@pytest.mark.parametrize("style", ["terminal", "markdown", "html"])
def test_each_report_has_a_sentence_and_a_table_of_each_metric(stored, style):
    done = run_cli("report", "--format", style)
    assert done.exit_code == 0, done.output  # the first metric is faster
    text = flat(done.output)
    for words in SENTENCES:
        assert words in text
    for name in ("e/throughput", "e/faults"):
        assert name in text
    assert "p and verdicts are corrected for 1 cell of 3 metrics (Holm)" in text
    assert text.count("host load") <= 1


def test_a_cover_letter_names_each_metric(stored):
    text = flat(run_cli("report", "--format", "cover-letter").output)
    for words in ("e: elapsed, lower is better", "e/throughput: throughput, higher is better",
                  "e/faults: faults, lower is better", "Difference: faults minus faults of stock",
                  "Ratio: throughput over throughput of stock"):  # fmt: skip
        assert words in text


def test_only_the_first_metric_decides_the_exit_status(stored, whole):
    record, samples = whole
    assert run_cli("report").exit_code == 0
    kinds = record["experiments"][0]
    first = kinds["further_metrics"][0]
    swapped = kinds | first | {"further_metrics": [
        {name: kinds[name] for name in first}, kinds["further_metrics"][1]
    ]}  # fmt: skip
    RunFolder(stored).write(record | {"experiments": [swapped]})
    lines = [
        replace(s, metric="throughput", value=s.values["throughput"],
                values={"elapsed": s.value, "faults": s.values["faults"]})
        for s in samples
    ]  # fmt: skip
    (stored / "samples.jsonl").write_text("".join(f"{each.to_json()}\n" for each in lines))
    assert run_cli("report").exit_code == 1


def test_the_json_has_the_further_metrics(stored):
    (experiment,) = json.loads(run_cli("report", "--json").output)["experiments"]
    assert experiment["metric"] == "elapsed"
    throughput, faults = experiment["further_metrics"]
    assert (throughput["metric"], throughput["better"]) == ("throughput", "higher")
    assert "scale" not in throughput
    assert (faults["scale"], faults["minimum_effect"]) == ("difference", 1.0)
    assert throughput["cells"][1]["verdict"] == "slower"
    assert faults["cells"][1]["difference"] == pytest.approx(4, abs=0.8)
    assert throughput["aa_control"]["verdict"] in ("same", "undecided")


def export(style):
    done = run_cli("export", "--format", style)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_other_tools_get_each_metric(stored):
    suites = export("junit")
    for name in ("e", "e/throughput", "e/faults"):
        assert f'<testsuite name="{name}"' in suites
    assert suites.count("<failure") == 2
    tests = json.loads(export("kcidb"))["tests"]
    assert len({one["id"] for one in tests}) == len(tests)
    verdicts = {t["path"]: t["status"] for t in tests if t["path"].endswith("against_baseline")}
    assert verdicts == {
        "labctl.e.against_baseline": "PASS",
        "labctl.e.throughput.against_baseline": "FAIL",
        "labctl.e.faults.against_baseline": "FAIL",
    }
    lines = export("benchfmt").splitlines()
    assert {"Unit sec/op better=lower assume=nothing",
            "Unit throughput better=higher assume=nothing",
            "Unit faults better=lower assume=nothing"} <= set(lines)  # fmt: skip
    assert sum(line.endswith(" throughput") for line in lines) == 8 * 3
    names = {b["metadata"]["name"] for b in json.loads(export("pyperf"))["benchmarks"]}
    assert "e/throughput patched" in names
    rows = list(csv.DictReader(io.StringIO(export("csv"))))
    assert len(rows) == 8 * 3 * 3
    assert set(json.loads(rows[0]["values"])) == {"throughput", "faults"}


def test_two_runs_are_compared_metric_by_metric(whole):
    record, samples = whole
    first = report(record, samples)
    content = across(first, report(record | {"run": "later"}, samples))
    assert [each.name for each in content.experiments] == ["e", "e/throughput", "e/faults"]
    assert [each.cells[0].verdict for each in content.experiments] != ["slower"] * 3
    assert msgspec.json.encode(content)


def test_plan_names_the_further_metrics(lab, tmp_path):
    lab({"metrics": list(NAMES)})
    done = run_cli("plan", "one", "--lab", str(tmp_path / "lab.yaml"))
    assert "metric: elapsed, lower is better; also throughput, faults" in done.output
