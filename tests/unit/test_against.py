"""`labctl report --baseline`: a stored run against another of its kernels."""

import json
import math

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from samples import cell

from labctl.cli import labctl
from labctl.errors import UserError
from labctl.reports.against import Against
from labctl.reports.report import document_of, report_of
from labctl.runs import folder as run_folder
from labctl.stats.stored import results_of

LAB = """\
version: 1
guests: {one: {nodes: 1, memory_per_node: 64MiB}}
kernels: {stock: {source: debian:linux-source-6.1}}
"""
BLOCKS = 10
RULE = {"workload": "exit", "baseline": "stock", "confidence": 0.95, "minimum_effect": 0.02}
TIMES = {"stock": 1.0, "grouped": 0.8, "unmap": 0.5}
WORKERS = {1: 0.9, 4: 0.4}  # of parallel-free, at max_active


def times(rng, middle, spread=0.01):
    return (middle * np.exp(rng.normal(0, spread, BLOCKS))).tolist()


@pytest.fixture
def runs(tmp_path):
    """Return the folder of a run: `all` with four kernels, `two` with stock and grouped."""
    (tmp_path / "lab.yaml").write_text(LAB)
    rng = np.random.default_rng(3)
    run = run_folder.create(tmp_path / ".labctl/runs")
    samples = []
    for name, kernels in (("all", TIMES), ("two", ("stock", "grouped"))):
        for kernel in kernels:
            samples += cell(times(rng, TIMES[kernel]), kernel=kernel, experiment=name)
        samples += cell(times(rng, 1.0), control=True, experiment=name)
    for workers, middle in WORKERS.items():
        setting = {"max_active": workers, "thp": "never"}
        own = {"kernel": "free", "setting": setting, "experiment": "all"}
        samples += cell(times(rng, middle), **own)
    for sample in samples:
        run.store.append(sample)
    experiments = [{"name": name} | RULE for name in ("all", "two")]
    run.write({"schema": 1, "run": run.id, "accel": "tcg", "experiments": experiments})
    return tmp_path / ".labctl/runs"


def ratios(document, name="all"):
    (found,) = (each for each in document.experiments if each.name == name)
    return {
        "/".join([c.kernel, *(f"{v}" for v in c.setting.values())]): c.ratio for c in found.cells
    }


def test_the_ratios_are_those_to_the_other_kernel(runs):
    own, other = document_of(runs, "latest"), document_of(runs, "latest", Against("grouped"))
    first, second = ratios(own), ratios(other)
    assert second["unmap"] == pytest.approx(0.8 / 0.5, rel=0.03)
    assert second["stock"] == pytest.approx(0.8, rel=0.03)
    assert second["free/4/never"] == pytest.approx(0.8 / 0.4, rel=0.03)
    assert second["grouped"] is None or second["grouped"] == 1
    assert first["unmap"] == pytest.approx(2, rel=0.03)
    verdicts = {cell.kernel: cell.verdict for cell in other.experiments[0].cells}
    assert verdicts == {
        "grouped": "baseline", "stock": "slower", "unmap": "faster", "free": "faster",
    }  # fmt: skip
    (experiment, _) = other.experiments
    assert experiment.baseline == "grouped"


def test_the_control_of_the_run_is_no_part_of_the_other_baseline(runs):
    """Blocks of stock and its control would shift the ratio to the mean of 0.8, 1.0 and 1.0."""
    run = run_folder.resolve(runs, "latest")
    record, samples, _ = Against("grouped").applied(run.read(), run.store.samples())
    result = results_of(record, samples)[0]
    (unmap,) = (each for each in result.cells if each.kernel == "unmap")
    logs = {
        kernel: [math.log(s.value) for s in samples if s.experiment == "all" and s.cell == kernel]
        for kernel in ("grouped", "unmap")
    }
    assert math.log(unmap.ratio) == pytest.approx(
        np.mean(logs["grouped"]) - np.mean(logs["unmap"]), abs=0.002
    )


def test_the_control_tests_the_host_with_the_runs_own_baseline(runs):
    own, other = document_of(runs, "latest"), document_of(runs, "latest", Against("grouped"))
    controls = [one.experiments[0].aa_control for one in (own, other)]
    assert controls[0].kernel == controls[1].kernel == "stock"
    assert controls[0].ratio == controls[1].ratio
    _, text = report_of(runs, "latest", "terminal", Against("grouped"))
    assert "A/A control: stock against itself" in text
    assert "all: compared with grouped in place of stock; the A/A control is of stock" in text
    assert "has no baseline" not in text


def test_a_control_that_differs_makes_the_verdicts_invalid(runs):
    run = run_folder.resolve(runs, "latest")
    record, samples = run.read(), run.store.samples()
    apart = [msgspec.structs.replace(s, value=s.value * 1.5) if s.control else s for s in samples]
    record, kept, _ = Against("grouped").applied(record, apart)
    result = results_of(record, kept)[0]
    assert result.control_differs
    assert {cell.verdict for cell in result.cells} <= {"baseline", "undecided"}


def test_an_experiment_without_the_kernel_is_left_out(runs):
    document = document_of(runs, "latest", Against("unmap"))
    assert [each.name for each in document.experiments] == ["all"]
    assert "left out, as unmap was not measured: two" in document.notes


def test_a_baseline_with_several_settings_needs_one(runs):
    with pytest.raises(UserError, match="several settings in all: max_active=1, max_active=4"):
        document_of(runs, "latest", Against("free"))
    document = document_of(runs, "latest", Against("free", {"max_active": 4}))
    found = ratios(document)
    assert "free/1/never" not in found
    assert found["unmap"] == pytest.approx(0.4 / 0.5, rel=0.03)


def test_an_unknown_baseline_is_an_error_with_the_cells_of_the_run(runs):
    for wrong in (Against("groupd"), Against("free", {"max_active": 3})):
        with pytest.raises(UserError, match="no samples of") as caught:
            document_of(runs, "latest", wrong)
        assert "free max_active=4 thp=never" in str(caught.value.hint)


def test_the_runs_own_baseline_changes_nothing(runs):
    own, same = document_of(runs, "latest"), document_of(runs, "latest", Against("stock"))
    assert same == own


@pytest.mark.parametrize("style", ["terminal", "markdown", "cover-letter", "html"])
def test_all_forms_of_the_report_name_the_baseline(runs, style):
    _, text = report_of(runs, "latest", style, Against("grouped"))
    assert "in place of stock" in text or style == "cover-letter"
    assert "grouped" in text


def test_the_command_takes_the_baseline_and_its_setting(runs, monkeypatch):
    monkeypatch.chdir(runs.parent.parent)
    runner = CliRunner()
    done = runner.invoke(
        labctl, ["report", "--baseline", "free", "--set", "max_active=4", "--json"]
    )
    assert done.exit_code == 1, done.exception  # the other kernels are slower
    assert json.loads(done.stdout)["experiments"][0]["baseline"] == "free"
    done = runner.invoke(labctl, ["report", "--set", "max_active=4"])
    assert (done.exit_code, "--set needs --baseline" in done.output) == (2, True)
    done = runner.invoke(labctl, ["report", "--baseline", "free", "--set", "max_active"])
    assert "expected NAME=VALUE" in str(done.exception)
