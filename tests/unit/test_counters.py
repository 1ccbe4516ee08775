"""Which counters changed, by simulated runs; and the documents made of them."""

import csv
import io
import json
import re

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from samples import replace, sample

from labctl.cli import labctl
from labctl.observers import OBSERVERS
from labctl.runs.folder import RunFolder
from labctl.runs.record import RunExperiment
from labctl.stats.cells import cells_of
from labctl.stats.compare import roles
from labctl.stats.counters import changes
from labctl.stats.observed import observed

BLOCKS = 8
RUN = "20261124-015501-3fa2"
RECORD = {
    "name": "smoke", "workload": "free", "baseline": "stock", "confidence": 0.95,
    "minimum_effect": 0.02, "better": "lower", "metric": "elapsed", "observe": ["vmstat"],
}  # fmt: skip


def experiment(**changes):
    return msgspec.convert(RECORD | changes, RunExperiment)


def cells(kernels, count_of, blocks=BLOCKS, repetitions=1, value=lambda *_: 1.0):
    """Return the samples of a baseline, its A/A control and other kernels.

    `count_of` gets kernel, control and block, and returns the counters of a repetition.
    """
    found = []
    for kernel, control in [("stock", False), ("stock", True), *((k, False) for k in kernels)]:
        name = kernel + "+aa" * control
        for block in range(blocks):
            for repetition in range(repetitions):
                counters = count_of(kernel, control, block)
                if repetitions > 1 and repetition == block % repetitions:
                    counters = {}
                found.append(
                    sample(
                        kernel=kernel, label=name, cell=name, control=control, block=block,
                        repetition=repetition, counters=counters,
                        value=value(kernel, block, bool(counters)),
                    )
                )  # fmt: skip
    return found


def found_in(samples, *, with_control=True):
    every = cells_of(samples)
    baselines, controls, others = roles(every, "stock")
    return changes(others, baselines, confidence=0.95, controls=controls if with_control else ())


def null_counters(draw, runs, blocks=BLOCKS):
    """Return 300 counters of three boots in each block, without a difference between them.

    The axes: run, boot, block, counter. Host and block are shared by the boots; many
    counters follow the same events, as in a kernel.
    """
    shape = (runs, 3, blocks)
    host = draw.normal(0, 0.3, (runs, 1, blocks, 1))
    boot = draw.normal(0, 0.1, (*shape, 1))
    correlated = 1e5 * np.exp(host + boot + draw.normal(0, 0.02, (*shape, 80)))
    alone = 1e4 * np.exp(host + draw.normal(0, 0.2, (*shape, 40)))
    rates = np.geomspace(0.1, 100, 60)
    rare = draw.poisson(np.broadcast_to(rates, (*shape, 60)))
    gauges = 500 * (boot * 10 + draw.normal(0, 1, (*shape, 30)))
    spikes = 50 * np.abs(draw.standard_t(2, (*shape, 20)))
    states = 4096 * draw.integers(0, 2, (*shape, 10))
    constant = np.broadcast_to(np.arange(60) * 7 % 50, (*shape, 60))
    parts = (correlated, alone, rare, gauges, spikes, states, constant)
    return np.concatenate(parts, axis=-1).round().astype(int)


def boots_of(row):
    """Return the samples of the three boots in each block: two of the baseline, one patched."""
    names = [f"vmstat.c{n}" for n in range(row.shape[-1])]
    return [
        sample(
            kernel=kernel, cell=kernel + "+aa" * control, control=control, block=block,
            counters=dict(zip(names, counts, strict=True)),
        )
        for (kernel, control), blocks in zip(
            (("stock", False), ("stock", True), ("patched", False)), row.tolist(), strict=True
        )
        for block, counts in enumerate(blocks)
    ]  # fmt: skip


def test_without_a_difference_95_of_100_runs_report_nothing():
    reports = 0
    for row in null_counters(np.random.default_rng(17), 100):
        [cell] = observed(experiment(), boots_of(row)).cells
        assert cell.counters >= 200
        reports += cell.changed > 0
    assert reports <= 5


def test_the_control_is_a_second_boot_of_the_baseline_and_adds_power():
    draw, found = np.random.default_rng(18), {True: 0, False: 0}
    for row in null_counters(draw, 100):
        # A counter that rises by four standard deviations of a boot.
        own = 1e5 * np.exp(draw.normal(0, 0.02, row.shape[:2]))
        own[2] *= np.exp(0.08)
        row[:, :, -1] = own.round()
        for with_control in found:
            [cell] = found_in(boots_of(row), with_control=with_control)
            found[with_control] += "vmstat.c299" in [one.counter for one in cell.changes]
    assert 20 < found[False] < 80
    assert found[True] > 1.1 * found[False]


def test_the_value_of_the_baseline_is_the_mean_of_its_boots():
    def counts(kernel, control, block):
        return {"vmstat.x": 300 if kernel == "patched" else 120 if control else 80}

    samples = cells(["patched"], counts)
    [cell] = found_in(samples)
    [change] = cell.changes
    assert (change.baseline, change.cell, change.difference) == (100, 300, 200)
    assert change.ratio == pytest.approx(300 / (120 * 80) ** 0.5, rel=1e-4)
    # In a block without the control, the baseline alone is compared.
    [cell] = found_in([s for s in samples if not s.control or s.block < 4])
    [change] = cell.changes
    assert (cell.blocks, change.baseline) == (BLOCKS, 90)


def test_a_control_with_another_setting_is_no_boot_of_the_baseline():
    def counts(kernel, control, block):
        return {"vmstat.x": 300 if kernel == "patched" else 120 if control else 80}

    samples = [
        replace(s, parameters={"op": "exit"}) if s.control else s
        for s in cells(["patched"], counts)
    ]
    assert found_in(samples)[0].changes[0].baseline == 80


def planted(draw):
    """Counters of a kernel that takes one more lock in the unmap path."""

    def counts(kernel, control, block):
        noise = lambda: float(np.exp(draw.normal(0, 0.03)))  # noqa: E731
        slow = 4.0 if kernel == "patched" else 1.0
        found = {
            f"functions.f{n}.nanoseconds": round(10 ** (3 + n % 5) * noise()) for n in range(100)
        }
        found |= {f"functions.f{n}.calls": 1000 for n in range(100)}
        found["functions.zap_pte_range.nanoseconds"] = round(50_000_000 * noise())
        found["functions._raw_spin_lock.nanoseconds"] = round(20_000_000 * slow * noise())
        found["functions._raw_spin_lock.calls"] = 70_000 if kernel == "patched" else 10_000
        if kernel == "patched":
            found["functions.planted.calls"] = 60_000
            found["functions.planted.nanoseconds"] = round(300_000 * noise())
        return found

    return counts


def test_the_slower_function_is_first():
    samples = cells(["patched"], planted(np.random.default_rng(3)))
    [cell] = found_in(samples)
    assert cell.changes[0].counter == "functions._raw_spin_lock.nanoseconds"
    assert cell.changes[0].ratio == pytest.approx(4, rel=0.1)
    assert cell.changes[0].difference == pytest.approx(60e6, rel=0.1)
    low, high = cell.changes[0].difference_ci
    assert low < 60e6 < high
    by_name = {change.counter: change for change in cell.changes}
    assert cell.functions[0].function == "_raw_spin_lock"
    spin = next(f for f in cell.functions if f.function == "_raw_spin_lock")
    assert spin.changed
    assert spin.difference == pytest.approx(cell.changes[0].difference)
    assert len(cell.functions) == 20
    # A function that the baseline never calls has 0 there, and no ratio.
    assert by_name["functions.planted.calls"].baseline == 0
    assert by_name["functions.planted.calls"].ratio is None
    assert not any(name.startswith("functions.f") for name in by_name)


def test_the_inner_of_two_nested_locks_is_first():
    draw = np.random.default_rng(4)

    def counts(kernel, control, block):
        more = 30e6 if kernel == "patched" else 0.0
        return {
            "lock_stat.outer.hold_nanoseconds": round(200e6 * np.exp(draw.normal(0, 0.01)) + more),
            "lock_stat.inner.hold_nanoseconds": round(1e6 * np.exp(draw.normal(0, 0.01)) + more),
        }

    [cell] = found_in(cells(["patched"], counts))
    assert [change.counter for change in cell.changes] == [
        "lock_stat.inner.hold_nanoseconds",
        "lock_stat.outer.hold_nanoseconds",
    ]


def test_a_counter_that_differs_in_the_control_is_left_out():
    draw = np.random.default_rng(5)

    def counts(kernel, control, block):
        odd = 2000 if kernel == "patched" or control else 1000
        real = 2000 if kernel == "patched" else 1000
        return {
            f"vmstat.{name}": round(mean * np.exp(draw.normal(0, 0.01)))
            for name, mean in (("odd", odd), ("real", real), ("same", 1000))
        }

    result = observed(experiment(), cells(["patched"], counts))
    assert result.unstable == ("vmstat.odd",)
    assert [c.counter for c in result.cells[0].changes] == ["vmstat.real"]
    assert (result.cells[0].counters, result.cells[0].changed) == (3, 1)


def test_a_counter_that_one_kernel_lacks_is_not_compared():
    def counts(kernel, control, block):
        found = {"vmstat.both": 100 + block, "vmstat.stock_only": 5}
        return found if kernel == "stock" else {"vmstat.both": 300 + block}

    [cell] = found_in(cells(["patched"], counts))
    assert cell.counters == 1
    assert [c.counter for c in cell.changes] == ["vmstat.both"]


def test_fewer_than_six_blocks_are_not_compared():
    samples = cells(["patched"], lambda k, *_: {"vmstat.x": 9 if k == "stock" else 1}, blocks=5)
    result = observed(experiment(), samples)
    assert result.cells[0].changed == 0
    assert result.warnings == ("5 blocks with counters: at least 6 are needed to compare",)


def test_the_cost_is_that_of_the_same_boots():
    def value(kernel, block, is_observed):
        return (1 + 0.1 * block) * (1.03 if is_observed else 1.0)

    samples = cells(["patched"], lambda *_: {"vmstat.x": 1}, repetitions=3, value=value)
    cost = observed(experiment(), samples).cost
    assert cost.ratio == pytest.approx(1.03)
    assert cost.blocks == BLOCKS
    higher = observed(experiment(better="higher"), samples).cost
    assert higher.ratio == pytest.approx(1 / 1.03)
    assert observed(experiment(), cells([], lambda *_: {"vmstat.x": 1})).cost is None


def test_an_observer_without_counters_is_named_with_what_it_needs():
    record = experiment(observe=("vmstat", "psi"))
    result = observed(record, cells(["patched"], lambda *_: {"vmstat.x": 1}))
    assert result.warnings == (
        "psi: no counters of kernel patched (it needs CONFIG_PSI)",
        "psi: no counters of kernel stock (it needs CONFIG_PSI)",
    )


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A stored run with observers, in a lab in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab.yaml").write_text(
        "version: 1\nguests: {g: {}}\nkernels: {stock: {source: 'debian:linux-source-6.1'}}\n"
    )
    draw = np.random.default_rng(6)

    def counts(kernel, control, block):
        moved = 500 if kernel == "patched" else 100
        found = {f"vmstat.c{n}": round(moved * np.exp(draw.normal(0, 0.02))) for n in range(14)}
        return found | {"vmstat.still": round(100 * np.exp(draw.normal(0, 0.02)))}

    def value(kernel, block, is_observed):
        return float(np.exp(draw.normal(0, 0.01)))

    def of(observe=("vmstat",), name=RUN):
        run = RunFolder(tmp_path / ".labctl" / "runs" / name)
        run.path.mkdir(parents=True)
        record = RECORD | {"observe": list(observe)} if observe is not None else RECORD
        if observe is None:
            record = {key: item for key, item in RECORD.items() if key != "observe"}
        run.write(
            {"schema": 1, "run": name, "accel": "tcg", "experiments": [record], "finished": True,
             "seed": 1, "host": {}, "kernels": {}}
        )  # fmt: skip
        samples = cells(["patched"], counts, repetitions=3, value=value)
        for each in samples if observe else [replace(s, counters={}) for s in samples]:
            run.store.append(replace(each, run=name))

    return of


def invoke(*words):
    return CliRunner().invoke(labctl, words)


def test_explain_prints_the_ten_most_important_counters_and_the_cost(stored):
    stored()
    done = invoke("explain")
    assert done.exit_code == 0, done.output
    assert "14 of 15 counters changed (false discovery rate 1 %); the first 10" in done.output
    rows = [line for line in done.output.splitlines() if line.startswith("vmstat.c")]
    assert len(rows) == 10
    assert "observers vmstat: " in done.output
    assert "times the metric without them" in done.output
    assert "vmstat.still" not in done.output
    every = [line for line in invoke("explain", "--all").output.splitlines() if "vmstat.c" in line]
    assert len(every) == 14


def test_explain_json_has_its_schema(stored):
    import jsonschema

    stored()
    document = json.loads(invoke("explain", "--json").output)
    jsonschema.validate(document, json.loads(invoke("schema", "--explain").output))
    [experiment] = document["experiments"]
    assert experiment["cells"][0]["changed"] == len(experiment["cells"][0]["changes"]) == 14
    assert 0.9 < experiment["cost"]["ratio"] < 1.1


def test_the_report_tells_the_cost_and_how_many_counters_changed(stored):
    stored()
    text = invoke("report").output
    assert "times the metric without them" in text
    assert "counters that changed: patched: 14 of 15, first vmstat.c" in text
    report = json.loads(invoke("report", "--json").output)
    [experiment] = report["experiments"]
    assert len(experiment["observed"]["cells"][0]["changes"]) == 10
    assert all(cell["counters"] == {} for cell in experiment["cells"])


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("is_pass", [False, True])
def test_the_report_has_the_cost_of_each_observer(observer, is_pass, stored):
    """Those that slow the kernel have a pass of their own, which is a run within the run."""
    stored(("vmstat",) if is_pass else (observer,))
    if is_pass:
        stored((observer,), name=f"{RUN}/{observer}")
    cost = (
        rf"observers {observer}: [01]\.\d+ times the metric without them \(95 % CI [^)]+ blocks\)"
    )
    for style in ("terminal", "markdown", "html"):
        assert re.search(cost, invoke("report", "--format", style).output)
    [experiment] = json.loads(invoke("report", "--json").output)["experiments"]
    found = experiment["passes"] if is_pass else [experiment["observed"]]
    assert [one["observers"] for one in found] == [[observer]]
    assert found[0]["cost"]["blocks"] == BLOCKS
    assert ("passes" in experiment) == is_pass


@pytest.mark.parametrize("observe", [None, ()])
def test_a_run_without_observers_cannot_be_explained(stored, observe):
    stored(observe)
    done = CliRunner().invoke(labctl, ["explain"])
    assert getattr(done.exception, "exit_status", done.exit_code) == 2
    assert "had no observers" in str(done.exception)
    assert "observed" not in json.loads(invoke("report", "--json").output)["experiments"][0]


def test_exports_have_a_column_for_each_counter(stored, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    stored()
    rows = list(csv.DictReader(io.StringIO(invoke("export", "--format", "csv").output)))
    observed_rows = [row for row in rows if row["counter.vmstat.still"]]
    assert len(observed_rows) == len(rows) * 2 / 3
    assert 50 < int(observed_rows[0]["counter.vmstat.still"]) < 200
    assert {row["counters"] for row in rows} == {"{}"}
    path = tmp_path / "samples.parquet"
    assert invoke("export", "--format", "parquet", "--output", str(path)).exit_code == 0
    column = pq.read_table(path)["counter.vmstat.still"].to_pylist()
    assert [str(v) if v is not None else "" for v in column] == [
        row["counter.vmstat.still"] for row in rows
    ]
