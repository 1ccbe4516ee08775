import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from samples import cell, sample
from test_reports import RUN, STOCK, times

from labctl import cli
from labctl.reports.document import document
from labctl.reports.export import EXPORTS
from labctl.results.stats import compare

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
    rule = {"baseline": "stock", "confidence": 0.95, "minimum_effect": 0.02}
    content = document(RUN, [compare(samples, **rule)])
    chosen = [s for s in samples if kernel in (None, s.kernel) and not (kernel and s.control)]
    return EXPORTS[style](content, chosen)


def test_benchfmt_has_a_line_a_boot():
    lines = export("benchfmt").splitlines()
    assert "Unit sec/op better=lower assume=nothing" in lines
    kernels = [line.split()[1] for line in lines if line.startswith("kernel: ")]
    assert kernels == ["patched", "stock", "stock-aa"]
    measured = [line.split() for line in lines if line.startswith("Benchmark")]
    assert len(measured) == 3 * len(STOCK)
    names = {name for name, *_ in measured}
    assert names == {"BenchmarkSmoke", "BenchmarkSmoke/max_active=4"}
    assert all((count, unit) == ("3", "sec/op") for _, count, _, unit in measured)
    stock = lines[lines.index("kernel: stock") + 1].split()
    assert float(stock[2]) == pytest.approx(STOCK[0])


def test_benchfmt_names_hold_no_blank():
    strange = [replace(s, setting={"thp": "a b"}) for s in MATRIX]
    assert "/thp=a_b 3 " in export("benchfmt", strange)


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


def test_junit_passes_what_is_faster():
    suite, (case,) = cases(cell(times(1.5), kernel="patched"))
    assert case.find("failure") is None
    assert case.find("skipped") is None
    named = {p.get("name"): p.get("value") for p in case.iter("property")}
    assert float(named["ratio"]) == pytest.approx(1.5, rel=0.02)
    assert suite.attrib | {"name": ""} == {
        "name": "", "tests": "1", "failures": "0", "skipped": "0"}  # fmt: skip


def test_junit_fails_what_is_slower_or_crashed():
    _, (slower,) = cases(cell(times(0.5), kernel="patched"))
    assert slower.find("failure").get("message").startswith("slower: ratio 0.50")
    crashed = [replace(s, status="panic", value=None) for s in cell(times(1.5), kernel="patched")]
    _, (panicked,) = cases(crashed)
    assert "8 panic" in panicked.find("failure").get("message")


def test_junit_skips_what_is_undecided():
    _, (case,) = cases(cell(times(1.5)[:3], kernel="patched"))
    assert "at least 6" in case.find("skipped").get("message")


def test_junit_fails_the_control_that_differs():
    _, (control, _) = cases(cell(times(1.5), control=True), cell(times(1.5), kernel="patched"))
    assert control.get("name") == "A/A control"
    assert control.find("failure") is not None


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
    content = document(RUN, [])
    assert EXPORTS[style](content, [])


def test_the_command_offers_every_format():
    (option,) = [p for p in cli.runs.export.params if p.name == "style"]
    assert list(option.type.choices) == list(EXPORTS)
