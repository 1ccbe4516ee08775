import csv
import io
import json
import subprocess
import sys
from statistics import geometric_mean
from xml.etree import ElementTree

import benchformat
import pandas
import pytest
from click.testing import CliRunner
from junitparser import JUnitXml
from kcidb_io import schema
from records import record_of, report_of
from samples import cell, replace, sample
from test_reports import RUN, STOCK, times

from labctl import cli
from labctl.errors import HostError, UserError
from labctl.reports import report
from labctl.reports.export import EXPORTS
from labctl.runs import folder
from labctl.runs.sample import Sample
from labctl.stats.compare import compare
from labctl.stats.stored import results_of

RULE = {"baseline": "stock", "confidence": 0.95, "minimum_effect": 0.02, "better": "lower"}
MATRIX = [
    s
    for group in (
        cell(STOCK, repetitions=3),
        cell(times(1.0), control=True, repetitions=3),
        cell(times(1.5), kernel="patched", setting={"max_active": 4}, repetitions=3),
    )
    for s in group
]


def export(style, samples=MATRIX, kernel=None):
    run = RUN | {"kernels": RUN["kernels"] | {"patched": RUN["kernels"]["parallel-free"]}}
    content = report_of(run, [compare(samples, **RULE)])
    chosen = [s for s in samples if kernel in (None, s.kernel) and not (kernel and s.control)]
    return EXPORTS[style](content, chosen)


def test_benchfmt_has_a_line_a_boot():
    lines = export("benchfmt").splitlines()
    assert "Unit sec/op better=lower assume=nothing" in lines
    kernels = [line.split()[1] for line in lines if line.startswith("kernel: ")]
    assert kernels == ["patched", "stock", "stock+aa"]
    measured = [line.split() for line in lines if line.startswith("Benchmark")]
    assert len(measured) == 3 * len(STOCK)
    names = {name for name, *_ in measured}
    assert names == {"BenchmarkSmoke", "BenchmarkSmoke/max_active=4"}
    assert all((count, unit) == ("3", "sec/op") for _, count, _, unit in measured)
    stock = lines[lines.index("kernel: stock") + 1].split()
    assert float(stock[2]) == pytest.approx(STOCK[0], rel=1e-4)  # of three repetitions


@pytest.mark.parametrize("kernel", ["stock", "patched"])
def test_benchfmt_has_the_values_that_the_report_counts(kernel):
    results, _ = benchformat.read(export("benchfmt"))
    values = [r.values["sec/op"] for r in results if r.config["kernel"] == kernel]
    (row,) = [c for c in compare(MATRIX, **RULE).cells if c.kernel == kernel]
    assert geometric_mean(values) == pytest.approx(row.median_seconds)


def test_a_strict_reader_of_the_format_finds_the_measured_values():
    results, units = benchformat.read(export("benchfmt"))
    assert units == {("sec/op", "better"): "lower", ("sec/op", "assume"): "nothing"}
    stock = [r for r in results if r.config["kernel"] == "stock"]
    assert [r.values["sec/op"] for r in stock] == pytest.approx(STOCK, rel=1e-4)
    patched = [r for r in results if r.config["kernel"] == "patched"]
    assert {(r.name, r.settings["max_active"], r.processors) for r in patched} == {
        ("Smoke", "4", None)
    }
    assert {r.config["accel"] for r in results} == {"tcg"}


@pytest.mark.parametrize("value", ["a b", "/sys/x", "never-2", "\u2028x", -1])
def test_whatever_a_setting_is_benchfmt_can_be_read(value):
    strange = [replace(s, setting={"thp": value}) for s in MATRIX]
    results, _ = benchformat.read(export("benchfmt", strange))
    assert {(r.name, tuple(r.settings), r.processors) for r in results} == {
        ("Smoke", ("thp",), None)
    }
    assert len(results) == 3 * len(STOCK)


def test_a_strict_reader_is_strict():
    for text in (
        "BenchmarkX 1 2\n",
        "BenchmarkX 0 2 s\n",
        "Benchmarkx 1 2 s\n",
        "Run: 1\n",
        "BenchmarkX/4 1 2 s\n",
        "Unit s better=lower\nUnit s better=higher\n",
    ):
        with pytest.raises(ValueError, match="line"):
            benchformat.read(text)


def disturbed(samples):
    load = {"cores": 2, "wall_seconds": 1, "busy_seconds": 2, "own_seconds": 1, "steal_seconds": 0}
    return [replace(s, disturbed="others", load=load) if s.block == 1 else s for s in samples]


@pytest.mark.parametrize("style", ["benchfmt", "pyperf"])
def test_other_judges_get_the_blocks_that_the_report_counts(style):
    samples = disturbed(MATRIX)
    record = RUN | {"experiments": [RULE | {"name": "smoke", "blocks_min": 6}]}
    content = report_of(record, results_of(record_of(record), samples))
    assert content.experiments[0].host_health.left_out == (1,)
    text = EXPORTS[style](content, samples)
    whole = export(style)
    mark = "Benchmark" if style == "benchfmt" else '"boot_id"'
    assert text.count(mark) == whole.count(mark) - 3


def test_pyperf_itself_reads_and_compares_two_kernels(tmp_path):
    for kernel in ("stock", "patched"):
        samples = [replace(s, setting={}) for s in MATRIX]
        (tmp_path / f"{kernel}.json").write_text(export("pyperf", samples, kernel))
    pyperf = [sys.executable, "-m", "pyperf", "compare_to", "stock.json", "patched.json"]
    done = subprocess.run(pyperf, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1.5" in done.stdout
    assert "faster" in done.stdout


def test_pyperf_has_a_run_a_boot_with_its_warm_up():
    warm = sample(warmup=True, value=9.0)
    (benchmark,) = json.loads(export("pyperf", [warm, *cell(STOCK)]))["benchmarks"]
    assert benchmark["metadata"]["name"] == "smoke"
    assert len(benchmark["runs"]) == len(STOCK)
    assert benchmark["runs"][0]["warmups"] == [[1, 9.0]]
    assert "warmups" not in benchmark["runs"][1]


def cases(*groups):
    samples = [s for group in (cell(STOCK), *groups) for s in group]
    suite = ElementTree.fromstring(export("junit", samples)).find("testsuite")
    return suite, suite.findall("testcase")


def test_junit_passes_faster_cells():
    suite, (case,) = cases(cell(times(1.5), kernel="patched"))
    assert case.find("failure") is None
    assert case.find("skipped") is None
    named = {p.get("name"): p.get("value") for p in case.iter("property")}
    assert float(named["ratio"]) == pytest.approx(1.5, rel=0.02)
    assert suite.attrib | {"name": ""} == {
        "name": "", "tests": "1", "failures": "0", "skipped": "0"}  # fmt: skip


def test_junit_fails_slower_and_crashed_cells():
    _, (slower,) = cases(cell(times(0.5), kernel="patched"))
    assert slower.find("failure").get("message").startswith("slower: ratio 0.50")
    crashed = [replace(s, status="panic", value=None) for s in cell(times(1.5), kernel="patched")]
    _, (panicked,) = cases(crashed)
    assert "8 panic" in panicked.find("failure").get("message")


def test_junit_skips_undecided_cells():
    _, (case,) = cases(cell(times(1.5)[:3], kernel="patched"))
    assert "at least 6" in case.find("skipped").get("message")


def test_junit_fails_the_control_that_differs():
    _, (control, _) = cases(cell(times(1.5), control=True), cell(times(1.5), kernel="patched"))
    assert control.get("name") == "A/A control"
    assert control.find("failure") is not None


def test_junitparser_reads_the_suites(tmp_path):
    slower = cell(times(0.5), kernel="patched", setting={"max_active": 8}, repetitions=3)
    (tmp_path / "junit.xml").write_text(export("junit", [*MATRIX, *slower]))
    xml = JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    (suite,) = xml
    assert (suite.tests, suite.failures, suite.skipped, suite.errors) == (3, 1, 0, 0)
    names = {case.name: case for case in suite}
    assert set(names) == {"A/A control", "patched max_active=4", "patched max_active=8"}
    assert names["patched max_active=4"].is_passed
    assert names["patched max_active=8"].is_failure


# KCIDB, read by its own library.


def kcidb(samples=MATRIX, kernel=None):
    content = json.loads(export("kcidb", samples, kernel))
    assert schema.V5_3.is_compatible(content)
    return schema.V5_3.validate(content)


def test_kcidb_takes_the_report():
    content = kcidb()
    assert schema.V5_3.is_compatible_exactly(content)
    builds = {each["id"]: each for each in content["builds"]}
    checkouts = {each["id"]: each for each in content["checkouts"]}
    assert {each["comment"] for each in builds.values()} == {"stock", "patched"}
    assert {builds[test["build_id"]]["checkout_id"] for test in content["tests"]} == set(checkouts)
    stock = next(each for each in checkouts.values() if each["comment"].startswith("stock"))
    assert stock["patchset_hash"] == ""
    ids = [test["id"] for test in content["tests"]]
    assert len(ids) == len(set(ids))


def test_kcidb_has_a_number_for_each_repetition_and_a_verdict_for_each_cell():
    tests = kcidb()["tests"]
    numbers = [test for test in tests if test["status"] == "DONE"]
    assert len(numbers) == 3 * len(STOCK)
    first = next(test for test in numbers if test["path"] == "labctl.smoke")
    assert first["number"] == {"value": pytest.approx(STOCK[0]), "unit": "s"}
    (verdict,) = [test for test in tests if test["status"] == "PASS"]
    assert verdict["path"] == "labctl.smoke.max_active_4.against_baseline"
    assert verdict["number"]["value"] == pytest.approx(1.5, rel=0.02)


def test_kcidb_distinguishes_a_crash_from_a_failure_of_the_lab():
    def failure(**changes):
        return sample(kernel="patched", label="patched", cell="patched", **changes)

    failed = [
        failure(block=0, status="panic", message="Kernel panic\0"),
        failure(block=1, status="deadline"),
        failure(block=2, status="not-exercised"),
    ]
    tests = kcidb([*cell(STOCK), *failed])["tests"]
    patched = {t["misc"]["block"]: t for t in tests if "block" in t["misc"] and "number" not in t}
    assert {block: test["status"] for block, test in patched.items()} == {
        0: "FAIL", 1: "ERROR", 2: "SKIP"}  # fmt: skip
    assert patched[0]["log_excerpt"] == "Kernel panic"
    (verdict,) = [t for t in tests if t["path"].endswith("against_baseline")]
    assert verdict["status"] == "FAIL"


@pytest.mark.parametrize("style", ["benchfmt", "kcidb"])
def test_two_values_keep_two_names(style):
    values = ("a b", "a_b", "a/b", "a,b", "a  b")
    samples = [replace(s, setting={"thp": v}, cell=v) for v in values for s in MATRIX if s.setting]
    if style == "benchfmt":
        results, _ = benchformat.read(export("benchfmt", samples))
        names = {r.settings["thp"] for r in results}
    else:
        content = kcidb([*MATRIX, *samples])
        names = {
            t["path"]
            for t in content["tests"]
            if "thp_" in t["path"] and "against" not in t["path"]
        }
    assert len(names) == len(values)


def test_kcidb_of_one_kernel_names_no_other():
    content = kcidb(kernel="patched")
    assert [build["comment"] for build in content["builds"]] == ["patched"]


@pytest.mark.parametrize("value", ["a b", "1.5", "/sys/x", "é"])
def test_kcidb_paths_hold_whatever_a_setting_is(value):
    kcidb([replace(s, setting={"thp": value}) if s.setting else s for s in MATRIX])


# Tables.


STRANGE = sample(block=9, status="panic", message='it said "no", then\nnothing',
                 setting={"thp": "never"}, load={"wall_seconds": 0.25})  # fmt: skip


def test_pandas_reads_the_csv(tmp_path):
    (tmp_path / "samples.csv").write_text(export("csv", [*MATRIX, STRANGE]))
    frame = pandas.read_csv(tmp_path / "samples.csv")
    assert len(frame) == len(MATRIX) + 1
    stock = frame[(frame.label == "stock") & (frame.repetition == 1) & (frame.status == "ok")]
    assert list(stock.value) == pytest.approx(STOCK)
    assert frame.iloc[-1].message == STRANGE.message


def test_pandas_reads_the_parquet(tmp_path):
    (tmp_path / "samples.parquet").write_bytes(export("parquet", [*MATRIX, STRANGE]))
    frame = pandas.read_parquet(tmp_path / "samples.parquet")
    assert list(frame.columns) == list(Sample.__struct_fields__)
    assert list(frame.value[:-1]) == [s.value for s in MATRIX]
    assert frame.value.isna().iloc[-1]
    assert frame.started_at.dt.tz is not None
    assert frame.started_at.iloc[-1].isoformat() == STRANGE.started_at
    assert frame.warmup.dtype == bool
    assert json.loads(frame.setting.iloc[-1]) == {"thp": "never"}
    assert json.loads(frame.load.iloc[-1]) == {"wall_seconds": 0.25}


def test_parquet_files_of_any_samples_are_one_table(tmp_path):
    for name, samples in (("a", MATRIX), ("b", [STRANGE]), ("none", [])):
        (tmp_path / f"{name}.parquet").write_bytes(export("parquet", samples))
    assert len(pandas.read_parquet(tmp_path)) == len(MATRIX) + 1


def test_without_pyarrow_the_hint_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(HostError, match="pyarrow") as caught:
        export("parquet")
    assert "pip install" in caught.value.hint


def test_csv_has_every_sample():
    samples = [*MATRIX, sample(block=9, status="panic", message='it said "no", then\nnothing')]
    rows = list(csv.DictReader(io.StringIO(export("csv", samples))))
    assert len(rows) == len(samples)
    assert json.loads(rows[-2]["setting"]) == {"max_active": 4}
    assert rows[-1]["status"] == "panic"
    assert rows[-1]["message"].endswith("then\nnothing")
    assert rows[-1]["value"] == ""


@pytest.mark.parametrize("style", sorted(EXPORTS))
def test_a_run_without_samples_is_exported_too(style):
    content = report_of(RUN, [])
    assert EXPORTS[style](content, [])


def test_the_command_offers_every_format():
    (option,) = [p for p in cli.runs.export.params if p.name == "style"]
    assert list(option.type.choices) == list(EXPORTS)


@pytest.fixture
def stored(tmp_path, monkeypatch):
    (tmp_path / "lab.yaml").write_text(
        "version: 1\nguests: {g: {}}\nkernels: {stock: {source: 'debian:linux-source-6.1'}}\n"
    )
    monkeypatch.chdir(tmp_path)
    run = folder.create(tmp_path / ".labctl" / "runs")
    for each in MATRIX:
        run.store.append(replace(each, run=run.id))
    kernels = RUN["kernels"] | {"patched": RUN["kernels"]["parallel-free"]}
    experiment = RULE | {"name": "smoke", "workload": "free", "metric": "elapsed", "set": {}}
    run.write(RUN | {"run": run.id, "kernels": kernels, "experiments": [experiment]})
    return run


@pytest.mark.parametrize("style", sorted(EXPORTS))
def test_the_command_writes_to_a_file_or_to_stdout(stored, tmp_path, style):
    words = ["export", "--format", style]
    printed = CliRunner().invoke(cli.labctl, words)
    assert printed.exit_code == 0, printed.output
    done = CliRunner().invoke(cli.labctl, [*words, "--output", "out"])
    assert (done.exit_code, done.stdout) == (0, "")
    assert (tmp_path / "out").read_bytes() == printed.stdout_bytes


def test_a_report_imports_no_part_of_scipy_that_takes_longer_than_the_report(stored):
    program = (
        "import sys; from labctl import cli; cli.labctl.main(['report'], standalone_mode=False);"
        "sys.exit(str({'scipy.stats', 'scipy.optimize', 'matplotlib'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_an_export_reads_no_passes(stored, monkeypatch):
    monkeypatch.setattr(report, "observed_in_passes", lambda _: pytest.fail("read"))
    report.export_of(stored.path.parent, stored.id, "csv")


def test_a_file_that_cannot_be_written_is_named(stored):
    done = CliRunner().invoke(cli.labctl, ["export", "--format", "csv", "--output", "no/where"])
    assert isinstance(done.exception, UserError)
    assert done.exception.where == "no/where"
