"""Values of metrics that are not times: shown in their own unit, never in seconds."""

import json
import random
import re

import pytest
import synthetic
from records import report_of
from samples import as_json, replace
from test_reports import flat
from test_runner import runner

from labctl.experiments.repetition import values_of
from labctl.lab.compared import Compared
from labctl.lab.models import Workload
from labctl.lab.quantity import quantity
from labctl.reports import cover_letter, export, html, kcidb, sentence, table, two_runs
from labctl.runs.record import RunRecord
from labctl.runs.sample import parse
from labctl.stats.between_runs import across
from labctl.stats.by_metric import by_metric, samples_by_metric
from labctl.stats.stored import results_of
from labctl.transports import Outcome

METRICS = {
    "throughput": {"better": "higher"},
    "lost": {"parse": r"lost ([-0-9]+)", "unit": "kpages", "better": "lower",
             "scale": "difference", "minimum_effect": "1 kpages"},
}  # fmt: skip
NAMES = ("throughput", "lost")


@pytest.mark.parametrize(
    ("unit", "base"),
    [("KiB/s", "MB/s"), ("MBps", "MB/s"), ("kB", "MB"), ("Gbps", "Mbit/s"), ("Kbits", "Mbit"),
     ("ops/s", "ops/s"), ("Mops/sec", "ops/s"), ("kpages", "pages"), ("%", "%"), ("iops", "iops"),
     ("cycles/op", "cycles/op"), ("MB/op", "MB/op"), ("/s", "/s"), ("ns/op", "s"), ("ms", "s")],
)  # fmt: skip
def test_the_unit_of_a_quantity_is_that_of_its_value(unit, base):
    assert quantity(f"3 {unit}").unit == base
    assert quantity(f"1 {base}").value == 1
    assert quantity("3").unit == ""


@pytest.mark.parametrize(
    ("text", "metric", "units"),
    [("rate: 12 kops/s", "rate", {"rate": "ops/s"}), ("rate: 12", "rate", {}),
     ("elapsed: 12 ms", "elapsed", {}), ("waits: 12 ms", "waits", {"waits": "s"}),
     ('{"waits_ms": 12}', "waits", {"waits": "s"}), ('{"rate": 12}', "rate", {})],
)  # fmt: skip
def test_a_sample_knows_the_unit_of_its_value(text, metric, units):
    compared = Compared(metric, "lower", "ratio", 0.02)
    out = Outcome("", 0, text.encode() + b"\n", b"", 10.0)
    assert values_of(out, Workload(name="m", command="mine"), [compared])["units"] == units


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Return a function that measures a throughput and a count; it returns record and samples."""
    whole = synthetic.Guest.run

    def measure(name):
        draw = random.Random(name)

        def run(guest, argv, **more):
            is_patched = guest.group.kernel == "patched"
            rate = (600 if is_patched else 1200) * draw.uniform(0.98, 1.02)
            lost = draw.randrange(3) + 4 * is_patched - 1
            text = f"throughput: {rate:.3f} kops/s\nlost {lost}\n"
            return replace(whole(guest, argv, **more), stdout=text.encode())

        monkeypatch.setattr(synthetic.Guest, "run", run)
        (tmp_path / name).mkdir()
        the_lab = synthetic.lab(blocks=8, metrics=NAMES)
        mine = Workload(name="free", command="mine", metrics=METRICS)
        the_lab = the_lab.model_copy(update={"workloads": {"free": mine}})
        one = runner(tmp_path / name, synthetic.World(), the_lab)
        one.run()
        first, further = (
            {"metric": m.name, "better": m.better, "scale": m.scale,
             "minimum_effect": m.minimum_effect} for m in the_lab.all_compared("e")
        )  # fmt: skip
        experiment = {
            "name": "e", "workload": "free", "baseline": "stock", "confidence": 0.95,
            "command": "mine", "blocks_min": 8, **first, "further_metrics": [further],
        }  # fmt: skip
        kernels = {"stock": {}, "patched": {}}
        record = {"run": name, "accel": "tcg", "finished": True, "experiments": [experiment],
                  "kernels": kernels, "host": {"id": "h", "qemu": "9"}}  # fmt: skip
        samples = [replace(s, run=name) for s in one.store.samples()]
        return report_of(record, results_of(RunRecord.of(record), samples)), samples

    return measure


def test_samples_keep_their_units(measured):
    _, samples = measured("r")
    assert {s.status for s in samples} == {"ok"}
    for sample in samples:
        assert sample.units == {"throughput": "ops/s", "lost": "pages"}
        assert parse(sample.to_json().encode(), "x:1") == sample
    assert '"units"' not in replace(samples[0], units={}).to_json()


def test_reports_show_values_with_their_unit_and_no_seconds(measured):
    content, samples = measured("r")
    (experiment,) = content.experiments
    (further,) = experiment.further_metrics
    assert (experiment.unit, further.unit) == ("ops/s", "pages")
    every = by_metric(content)
    stock, patched = every.experiments[0].cells
    lost = every.experiments[1].cells[1]
    assert stock.median_seconds == pytest.approx(1.2e6, rel=0.01)
    assert 3000 < lost.difference < 5000
    assert [one.kind.unit for one in every.experiments] == ["ops/s", "pages"]

    shown, low = f"+{lost.difference:.0f} pages", f"{lost.ci[0]:.0f} to {lost.ci[1]:.0f} pages"
    texts = [
        table.render(content),
        table.render(content, format="markdown"),
        html.render(content, samples),
    ]
    for text in map(flat, texts):
        assert f"{stock.median_seconds:.4g} ops/s" in text
        assert f"{patched.median_seconds:.4g} ops/s" in text
        assert f"{shown} (95 % CI {low} for it alone" in text
        assert not re.search(r"\d\.\d+ s\b", text)
    assert f"{stock.median_seconds:.4g}ops/s" in flat(cover_letter.render(content))
    assert shown in sentence.sentence(every.experiments[1])
    assert "beyond 2 % or 1000 pages (lost)" in flat(table.render(content))
    assert "throughput, ops/s" in html.render(content, samples)
    assert json.loads(as_json(content))["experiments"][0]["unit"] == "ops/s"


def test_exports_name_the_unit(measured):
    content, samples = measured("r")
    every, of_metric = by_metric(content), samples_by_metric(content, samples)
    lines = export.benchfmt(every, of_metric).splitlines()
    assert "Unit throughput-ops/s better=higher assume=nothing" in lines
    assert "Unit lost-pages better=lower assume=nothing" in lines
    assert not any("sec" in line for line in lines)
    tests = json.loads(kcidb.kcidb(every, of_metric))["tests"]
    units = {t["number"]["unit"] for t in tests if "unit" in t.get("number", {})}
    assert units == {"ops/s", "pages"}
    text = export.junit(every, of_metric)
    assert "median_seconds" not in text
    assert '<property name="unit" value="pages"' in text
    assert 'name="value"' in text
    assert '""lost"": ""pages""' in export.to_csv(content, samples)


def test_two_runs_are_compared_in_the_unit(measured):
    content = across(measured("first")[0], measured("second")[0])
    assert [each.unit for each in content.experiments] == ["ops/s", "pages"]
    text = two_runs.render(content)
    assert len(re.findall(r"e\+0[56] ops/s", text)) == 2
    assert len(re.findall(r"\+\d+ pages \([0-9]+ to [0-9]+ pages\)", text)) == 2
    assert not re.search(r"\d s\b", text)


def test_a_margin_has_the_unit(measured):
    content, samples = measured("r")
    record = RunRecord.of(
        {"run": "r", "accel": "tcg", "experiments": [
            {"name": "e", "workload": "free", "baseline": "stock", "confidence": 0.95,
             "command": "mine", "metric": "lost", "better": "lower", "scale": "difference",
             "minimum_effect": 4000.0}]}
    )  # fmt: skip
    own = [sample.of_metric("lost", "difference") for sample in samples]
    (result,) = results_of(record, own)
    (row,) = [cell for cell in result.cells if cell.kernel == "patched"]
    assert "4000 pages" in row.reason
    assert content.experiments[0].unit == "ops/s"
