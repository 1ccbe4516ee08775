"""A damaged samples file: every command reports it with its line."""

import json
import re
import signal
import sys

import pytest
from samples import cell
from test_reports import RUN, STOCK, times

from labctl import cli
from labctl.runs import folder

EXPERIMENT = {
    "name": "smoke", "workload": "free", "metric": "elapsed", "set": {}, "baseline": "stock",
    "confidence": 0.95, "minimum_effect": 0.02, "better": "lower", "blocks_min": 6,
}  # fmt: skip
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / "lab.yaml").write_text(
        "version: 1\nguests: {g: {}}\nkernels: {stock: {source: 'debian:linux-source-6.1'}}\n"
    )
    monkeypatch.chdir(tmp_path)
    run = folder.create(tmp_path / ".labctl" / "runs")
    groups = cell(STOCK), cell(times(1.0), control=True), cell(times(1.4), kernel="parallel-free")
    lines = [each.to_json() for group in groups for each in group]
    run.store.path.write_text("\n".join(lines) + "\n")
    run.write(RUN | {"run": run.id, "experiments": [EXPERIMENT]})
    return run


@pytest.fixture
def labctl(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["labctl", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    handlers = {number: signal.getsignal(number) for number in ENDING}
    yield call
    # A command that ends ignores them, and so would all that the next tests start.
    for number, handler in handlers.items():
        signal.signal(number, handler)


def edit(line, **changes):
    return json.dumps(json.loads(line) | changes)


def change(run, number, damage):
    lines = run.store.path.read_text().splitlines()
    lines[number - 1] = damage(lines[number - 1])
    run.store.path.write_text("\n".join(lines) + "\n")


def test_a_torn_last_line_is_reported_and_the_rest_is_used(run, labctl):
    whole = run.store.path.read_bytes()
    run.store.path.write_bytes(whole[:-40])
    status, out, err = labctl("report", "--format", "markdown")
    assert (status, err) == (0, "")
    assert "samples.jsonl:24: last line is incomplete" in out
    _, out, _ = labctl("report", "--json")
    content = json.loads(out)
    assert "incomplete" in content["notes"][0]
    (patched,) = [c for c in content["experiments"][0]["cells"] if c["kernel"] == "parallel-free"]
    assert (patched["blocks"], patched["verdict"]) == (7, "faster")
    for words in (("report", "--format", "html"), ("report", "--format", "cover-letter")):
        assert "incomplete" in " ".join(labctl(*words)[1].split())
    status, out, err = labctl("export", "--format", "csv")
    assert status == 0
    assert "samples.jsonl:24: last line is incomplete" in err
    assert len(out.splitlines()) == 1 + 23


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(lambda line: line[:-40], "invalid sample", id="cut off"),
        (lambda line: edit(line, schema=2), "schema: expected 1, got 2"),
        (lambda line: re.sub('"value":[0-9.]+', '"value":NaN', line), "expected a number, got NaN"),
        (
            lambda line: re.sub('"value":[0-9.]+', '"value":1e999', line),
            "value: expected a number, got inf",
        ),
        (lambda line: edit(line, value=-1.5), "value: expected a number above 0, got -1.5"),
        (lambda line: edit(line, block="3"), "block: expected int, got '3'"),
        (lambda line: edit(line, load=[]), "load: expected dict, got []"),
        (lambda line: edit(line, started_at="yesterday"), "yesterday"),
        (lambda line: edit(line, block=0, repetition=0), "duplicate of the sample in line 1"),
        pytest.param(lambda line: "\0" * 20, "invalid sample", id="null bytes"),
    ],
)
@pytest.mark.parametrize(
    "words", [("report",), ("report", "--json"), ("export", "--format", "csv")]
)
def test_any_other_damage_is_refused_with_its_line(run, labctl, damage, says, words):
    change(run, 5, damage)
    status, out, err = labctl(*words)
    assert (status, out) == (2, "")
    assert "samples.jsonl:5: " in err
    assert says in err
    assert "hint: " in err


def test_a_comparison_refuses_a_damaged_run_too(run, labctl):
    change(run, 5, lambda line: edit(line, value=-1.5))
    assert labctl("compare", run.id, run.id)[0] == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"schema": 1, "run"', "run.json: not JSON"),
        ("[" * 100_000, "run.json: not JSON"),
        ('{"schema": 1, "experiments": 3}', "run.json: not a run.json of schema 1"),
        ("", "run.json: not JSON"),
    ],
)
def test_a_damaged_record_is_refused(run, labctl, content, says):
    (run.path / "run.json").write_text(content)
    status, _, err = labctl("report")
    assert status == 2
    assert says in err


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run", ...), ("accel", ...), ("experiments", ...), ("experiments", [1]),
        ("experiments.name", ...), ("experiments.name", [1]), ("experiments.baseline", ...),
        ("experiments.confidence", "x"), ("experiments.confidence", 1.5),
        ("experiments.metric", 5), ("experiments.set", [1]), ("experiments.better", "up"),
        ("host.memory_bytes", None), ("kernels", {"stock": 1}), ("guests", None),
        ("guests", {"g": {"memory_per_node": "x"}}), ("health", {"disturbed_share": "x"}),
        ("health", {"other": 1}), ("timing", {"smoke": [{}]}), ("host.cores", 2**70),
    ],
)  # fmt: skip
@pytest.mark.parametrize("words", [("report",), ("methodology", "noise")])
def test_a_record_of_other_types_is_refused_by_its_key(run, labctl, key, value, words):
    record = run.document()
    *place, last = key.split(".")
    at = record
    for name in place:
        at = at[name][0] if name == "experiments" else at[name]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    (run.path / "run.json").write_text(json.dumps(record))
    status, _, err = labctl(*words)
    assert status == 2, err
    assert "run.json: not a run.json of schema 1: " in err
    assert last in err
    assert "internal error" not in err


@pytest.mark.parametrize("pages", [["a"], [[1]], [None], [10**400], [1.5], [True], [-1], "x"])
def test_a_page_is_made_from_any_placement_of_pages_that_a_workload_reports(run, labctl, pages):
    lines = run.store.path.read_text().splitlines()
    changed = [edit(line, measurements={"pages_per_node": pages}) for line in lines]
    run.store.path.write_text("\n".join(changed) + "\n")
    status, out, err = labctl("report", "--format", "html")
    assert (status, err) == (0, "")
    assert "Pages on each node" not in out


def test_a_plan_does_without_a_damaged_run(run, labctl, tmp_path):
    (tmp_path / "bzImage").touch()
    (tmp_path / "lab.yaml").write_text(
        "version: 1\nkernels: {stock: {source: 'image:bzImage'}, b: {source: 'image:bzImage'}}\n"
        "workloads: {free: {command: freebench, metric: elapsed}}\n"
        "experiments: {smoke: {workload: free, kernels: [stock, b]}}\n"
    )
    assert run.id in labctl("plan")[1]
    (run.path / "run.json").write_text("{")
    assert labctl("plan")[0] == 0
