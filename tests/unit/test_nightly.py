"""A nightly run: its time budget, its reaction to alarms, its records and reports."""

import contextlib
import json
import math
import re
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from xml.etree import ElementTree

import msgspec
import nights_of
import numpy as np
import pytest
import synthetic
from click.testing import CliRunner

from labctl.cli import labctl
from labctl.errors import HostError, UserError
from labctl.experiments.description import Facts
from labctl.experiments.runner import Runner
from labctl.kernels.images import Image
from labctl.lab.state import StateFolder
from labctl.methodology.nightly import SCENARIOS, history
from labctl.nightly import history as night_history
from labctl.nightly import images as nightly_images
from labctl.nightly.budget import Spent, next_experiment
from labctl.nightly.changes import NightlyRun
from labctl.nightly.findings import document
from labctl.nightly.night import Nightly, setup_of
from labctl.nightly.records import KernelChecks, decode, encode
from labctl.runs import folder as run_folder
from labctl.runs.record import RunRecord
from labctl.runs.types import Kernel
from labctl.stats.kinds import FindingKind
from labctl.stats.verdict import Rule

RULE = Rule.of(0.95, 0.02)


def spent(name, blocks, half_width=math.inf, seconds=10.0, **more):
    fields = {"blocks_min": 2, "blocks_max": 6, "target": 0.03} | more
    return Spent(name=name, blocks=blocks, block_seconds=seconds, half_width=half_width, **fields)


def test_all_experiments_first_reach_their_minimum_in_turns():
    assert next_experiment([spent("a", 1), spent("b", 0, seconds=None)], 100) == "b"
    assert next_experiment([spent("a", 1), spent("b", 1)], 100) == "a"
    assert next_experiment([spent("a", 2, 0.9), spent("b", 1, 0.1)], 100) == "b"


def test_the_widest_interval_gets_the_next_block():
    assert next_experiment([spent("a", 2, 0.05), spent("b", 2, 0.09)], 100) == "b"
    assert next_experiment([spent("a", 2, 0.05), spent("b", 2, 0.02)], 100) == "a"


def test_a_nightly_run_ends_when_all_experiments_are_done_or_no_block_fits():
    assert next_experiment([spent("a", 2, 0.02), spent("b", 6, 0.5)], 100) is None
    assert next_experiment([spent("a", 1, seconds=101)], 100) is None
    assert next_experiment([spent("a", 0, seconds=None)], 0) is None
    assert next_experiment([spent("a", 2, 0.9, seconds=90), spent("b", 2, 0.5)], 20) == "b"


class FakeNights:
    """Nightly runs on synthetic guests, one a day, each with an image of its own."""

    def __init__(self, tmp_path, blocks=6):
        lab = synthetic.lab(blocks=blocks, repetitions=1)
        (tmp_path / "lab.yaml").write_text("version: 1\n")
        self.lab = lab.model_copy(
            update={"path": tmp_path / "lab.yaml", "root": tmp_path, "state": tmp_path / "state"}
        )
        self.history = tmp_path / "history"
        self.world = synthetic.World()
        self.number = 0
        self.seconds = 0.0
        self.image = None
        self.host = "h"
        self.messages = []
        self.opened = []

    def images(self, lab):
        own = self.image or f"image {self.number}"
        return {
            name: Image(
                kernel=name, bzimage=None, hash=own if name == "patched" else f"of {name}",
                source_hash="s", series_hash=f"series {own}", patch_hashes=("a", own),
                config=None, release="6.1", compiler="gcc",
            )
            for name in lab.kernels
        }  # fmt: skip

    @contextlib.contextmanager
    def open_run(self, lab, plans, seed):
        images = self.images(lab)
        folder = run_folder.create(lab.state / "runs")
        folder.write(self.record(lab, folder.id, plans, images))
        facts = Facts(
            run=folder.id, host=self.host, accel="tcg",
            images={name: (image.hash, image.series_hash) for name, image in images.items()},
        )  # fmt: skip
        self.opened.append([cell.id for each in plans for cell in each.cells])

        def measure(each, blocks=None):
            fixed = each.statistics.model_copy(
                update={"blocks": synthetic.Blocks.model_construct(min=blocks, max=blocks)}
            )
            # Neither the host nor a random seed decides what a test finds.
            changed = type(each)(
                each.experiment, fixed, each.baseline, each.cells, seed=len(self.opened)
            )
            Runner(
                lab, changed, folder.store, self.world.boot, facts,
                clock=self.world.clock, load=self.world.load,
            ).run()  # fmt: skip

        yield SimpleNamespace(folder=folder, measure=measure)

    def record(self, lab, run, plans, images):
        """Return what the history takes of a run's record."""
        return {
            "schema": 1,
            "run": run,
            "created_at": "2026-01-01T02:00:00+00:00",
            "host": {"id": self.host, "qemu": "7.2"},
            "accel": "tcg",
            "initramfs": "i",
            "kernels": {
                name: {"image": i.hash, "series": i.series_hash, "patches": list(i.patch_hashes)}
                for name, i in images.items()
            },
            "experiments": [
                {
                    "name": each.experiment.name,
                    "workload": each.experiment.workload,
                    "metric": lab.metric_of(each.experiment),
                    "better": lab.better_of(each.experiment),
                    "baseline": each.baseline,
                    "confidence": each.statistics.confidence,
                    "minimum_effect": each.statistics.minimum_effect,
                    "blocks_min": each.statistics.blocks.min,
                    "stop_at_half_width": each.statistics.stop_at_half_width,
                    "cells": [cell.id for cell in each.cells],
                }
                for each in plans
            ],
        }

    def clock(self):
        self.seconds += 1.0
        return self.seconds

    def night(self, budget=100_000, **more):
        Nightly(
            lab=self.lab,
            experiments=["e"],
            budget_seconds=budget,
            history=self.history,
            open_run=self.open_run,
            image_of=lambda image: self.history,
            report=self.messages.append,
            clock=self.clock,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=self.number),
            **more,
        ).run()
        self.number += 1

    def found(self):
        return document(night_history.read(self.history))

    def kinds(self):
        return [record.kind for record in night_history.read(self.history)]


@pytest.fixture
def fake(tmp_path):
    return FakeNights(tmp_path)


def test_quiet_nights_are_stored_and_nothing_is_reported(fake):
    for _ in range(7):
        fake.night()
    content = fake.found()
    assert content.nights == 7
    assert fake.kinds() == ["night"] * 7
    (cell,) = content.cells
    assert all(1.3 < night.ratio < 1.5 for night in cell.nights)
    assert content.findings == ()


def test_a_regression_is_measured_again_then_against_the_earlier_kernel(fake):
    for _ in range(12):
        fake.night()
    fake.world.speeds = {"patched": 1.2, "patched.before": 1.4}
    fake.night()
    assert fake.kinds()[12:] == ["night", "again", "against", "against"]
    # Only what it takes: the baseline, its control, the cell; then the two kernels.
    assert fake.opened[-3] == ["stock", "stock+aa", "patched"]
    assert fake.opened[-1] == ["patched.before", "patched.before+aa", "patched"]
    (finding,) = fake.found().findings
    assert finding.kind == "regressed"
    assert finding.since == "2026-01-13"
    assert 0.8 < finding.change < 0.9
    assert finding.between.nights == ("2026-01-12", "2026-01-13")
    assert finding.between.image == ("image 11", "image 12")
    assert finding.between.patches_changed == (2,)
    fake.world.speeds = {"patched": 1.2}
    fake.night()
    assert len(fake.found().findings) == 1
    assert fake.kinds()[-1] == "night"


def test_an_outlying_nightly_run_is_measured_again_and_yields_no_finding(fake):
    for _ in range(12):
        fake.night()
    wild = iter([{"patched": 0.9}])
    opened = fake.open_run

    def once(lab, plans, seed):
        fake.world.speeds = next(wild, {"patched": 1.4})
        return opened(lab, plans, seed)

    fake.open_run = once
    fake.night()
    assert fake.kinds()[12:] == ["night", "again"]
    assert fake.found().findings == ()
    assert fake.found().cells[0].nights[-1].ratio > 1.3


def test_another_host_is_a_new_segment(fake):
    for _ in range(7):
        fake.night()
    fake.host = "another"
    fake.world.speeds = {"patched": 1.0}
    fake.night()
    content = fake.found()
    assert fake.kinds()[-1] == "night"
    assert content.findings == ()
    assert content.cells[0].segments[-1].why == "another host"


def test_an_exhausted_budget_ends_the_nightly_run_with_the_blocks_so_far(fake):
    fake.night(budget=12)
    (row,) = night_history.read(fake.history)[0].cells
    assert 1 <= row.blocks < 6


def test_a_nightly_run_without_time_for_a_block_is_an_error(fake):
    with pytest.raises(HostError, match="before the first block"):
        fake.night(budget=1)
    assert night_history.read(fake.history) == []


def test_an_alarm_without_time_is_reported_as_open(fake):
    for _ in range(12):
        fake.night()
    fake.world.speeds = {"patched": 1.0}
    # The matrix takes all of the time that there is.
    fake.night(keep=lambda record: setattr(fake, "seconds", 200_000))
    assert fake.kinds()[-1] == "night"
    assert [one.kind for one in fake.found().findings] == ["alarm"]
    assert any("no time" in message for message in fake.messages)


def test_a_crashing_kernel_is_reported_once(fake):
    fake.night()
    fake.world.on_run = lambda guest: synthetic.panic() if guest.group.kernel == "patched" else None
    fake.night()
    crashes, broken = fake.found().findings
    assert (crashes.kind, crashes.kernel) == ("crashes", "patched")
    assert (broken.kind, broken.kernel) == ("broken", "patched")
    assert "panic" in broken.why
    fake.night()
    assert len(fake.found().findings) == 2


def test_check_results_are_on_record_and_failures_are_reported(fake):
    failed = KernelChecks(passed=False, failed={"integrity/a": "a foreign byte"})
    fake.night(check=lambda lab: {"patched": failed})
    (finding,) = fake.found().findings
    assert (finding.kind, finding.why) == ("broken", "integrity/a: a foreign byte")


def built_from(image):
    """Return a nightly record that names one image."""
    night = SimpleNamespace(date="2026-01-01", image="")
    record = nights_of.record("night", night, "run", [])
    return msgspec.structs.replace(record, kernels={"k": Kernel(image=image)})


def test_images_are_kept_and_the_oldest_go(tmp_path, monkeypatch):
    lab = SimpleNamespace(state_folder=StateFolder(tmp_path / "state"))
    monkeypatch.setattr(nightly_images, "_MOST", 2)
    for name in ("a", "b", "c"):
        image = name * 64
        built = lab.state_folder.image(image) / "bzImage"
        built.parent.mkdir(parents=True)
        built.write_text(name)
        nightly_images.keep(lab, tmp_path / "history", built_from(image))
    assert nightly_images.find(tmp_path / "history", "a" * 64) is None
    assert nightly_images.find(tmp_path / "history", "c" * 64).read_text() == "c"
    assert len(list((tmp_path / "history/images").iterdir())) == 4  # with a note beside each


def test_a_damaged_kept_image_is_not_measured_against_and_is_kept_again(tmp_path):
    lab = SimpleNamespace(state_folder=StateFolder(tmp_path / "state"))
    built = lab.state_folder.image("a" * 64) / "bzImage"
    built.parent.mkdir(parents=True)
    built.write_text("whole")
    history, record = tmp_path / "history", built_from("a" * 64)
    nightly_images.keep(lab, history, record)
    nightly_images.find(history, "a" * 64).write_text("who")
    assert nightly_images.find(history, "a" * 64) is None
    nightly_images.keep(lab, history, record)
    assert nightly_images.find(history, "a" * 64).read_text() == "whole"


def test_an_incomplete_last_line_is_ignored(tmp_path):
    watch = history(SCENARIOS[0], RULE, np.random.default_rng(1))
    nights_of.store(tmp_path, watch)
    whole = night_history.read(tmp_path)
    with night_history.path_of(tmp_path).open("ab") as file:
        file.write(b'{"schema":1,"kind":"nig')
    assert night_history.read(tmp_path) == whole
    night_history.append(tmp_path, whole[-1])
    assert len(night_history.read(tmp_path)) == len(whole) + 1


@pytest.mark.parametrize("cells", ["null", "[1]", "[" * 100_000])
def test_damaged_cells_are_reported_with_their_place(tmp_path, cells):
    line = '{"schema":1,"kind":"night","night":"2026-11-01","run":"r","cells":' + cells + "}\n"
    night_history.path_of(tmp_path).write_text(line * 2)
    with pytest.raises(UserError, match="invalid nightly record") as caught:
        night_history.read(tmp_path)
    assert "nights.jsonl:1" in str(caught.value)


def test_a_missing_history_has_no_nightly_runs(tmp_path):
    assert night_history.read(tmp_path / "nowhere") == []


def without(*keys):
    """Return a function that removes the last key from what the others lead to."""

    def change(record):
        for key in keys[:-1]:
            record = record[key]
        del record[keys[-1]]

    return change


def changed(*keys_and_value):
    """Return a function that replaces what the keys lead to."""
    *keys, last, value = keys_and_value

    def change(record):
        for key in keys:
            record = record[key]
        record[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("kind"), "missing required field `kind`"),
        (without("host"), "missing required field `host`"),
        (without("cells", 0, "ratio"), "missing required field `ratio` - at `$.cells[0]`"),
        (without("cells", 0, "setup"), "missing required field `setup` - at `$.cells[0]`"),
        (without("cells", 0, "suspect"), "missing required field `suspect` - at `$.cells[0]`"),
        (without("kernels", "patched", "image"), "no image of kernel 'patched'"),
        (changed("kernels", {}), "no image of kernel 'patched' - at `$.cells[0].kernel`"),
        (changed("schema", 2), "schema: expected 1, got 2"),
        (changed("night", "2026-13-40"), "night: expected a date such as 2026-01-31"),
        (changed("kind", "again"), "missing key `of` in a record of kind again"),
        (changed("cells", 0, "ratio", 0), "$.cells[0].ratio"),
        (changed("cells", 0, "ratio", 10**400), "invalid nightly record"),
        (changed("cells", 0, "sd_log", float("nan")), "$.cells[0].sd_log"),
        (changed("cells", 0, "blocks", "many"), "$.cells[0].blocks"),
        (changed("cells", 0, "verdict", "fine"), "$.cells[0].verdict"),
        (changed("cells", 0, "failed", {"panic": "two"}), "$.cells[0].failed"),
    ],
)
def test_a_damaged_line_ends_the_replay_with_its_place_and_a_hint(tmp_path, change, reason):
    night = NightlyRun(date="2026-11-01", logs=(0.1,), error=0.01, image="i")
    whole = encode(nights_of.record("night", night, "r", [nights_of.row(night, 0.1)])).decode()
    record = json.loads(whole)
    change(record)
    path = night_history.path_of(tmp_path)
    path.write_text(f"{whole}{json.dumps(record)}\n{whole}")
    error = replay(tmp_path).exception
    assert isinstance(error, UserError)
    assert reason in error.what
    assert error.where == f"{path}:2"
    assert error.hint


# As labctl wrote it before failures, baselines, checks and metrics were on record.
OLD_LINE = (
    b'{"accel":"tcg","at":"2026-11-01T02:00:00+00:00","cells":[{"baseline":"stock","blocks":8,'
    b'"cell":"patched/a=1","ci":[1.4,1.6],"confidence":0.95,"experiment":"exit","failed":{},'
    b'"kernel":"patched","minimum_effect":0.02,"ratio":1.5,"reason":"","sd_log":0.04,"setting":'
    b'{"a":1},"setup":{"host":"h"},"suspect":false,"verdict":"faster","workload":"exit"}],'
    b'"commits":{"lab":"v1"},"host":{"cores":2,"id":"h","qemu":"7.2"},"kernels":{"patched":'
    b'{"image":"i","patches":["1"],"series":"s"},"stock":{"image":"j","patches":[],"series":'
    b'null}},"kind":"night","night":"2026-11-01","run":"r","schema":1}\n'
)


def test_an_old_line_is_read_and_written_to_the_byte():
    record = decode(OLD_LINE)
    assert record.cells[0].log_ratio == pytest.approx(math.log(1.5))
    assert encode(record) == OLD_LINE


def test_written_lines_are_read_back_to_the_byte(fake):
    for _ in range(7):
        fake.night()
    fake.world.speeds = {"patched": 1.2, "patched.before": 1.4}
    fake.night(check=lambda lab: {"patched": KernelChecks(passed=True, failed={})})
    lines = night_history.path_of(fake.history).read_bytes().splitlines(keepends=True)
    assert len(lines) == 12
    assert [encode(decode(line)) for line in lines] == lines


def test_the_setup_of_a_run_reads_as_in_older_records(fake):
    placement = {
        "cores": 2, "emulator": [], "host_nodes": [0], "overcommitted": True,
        "pinned": [], "vcpus": 4,
    }  # fmt: skip
    experiment = {
        "name": "e", "workload": "w", "baseline": "stock", "confidence": 0.95,
        "minimum_effect": 0.02, "placement": placement,
    }  # fmt: skip
    run = {
        "run": "r", "accel": "tcg", "initramfs": "i", "host": {"qemu": "7.2"},
        "kernels": {"stock": {"image": "j"}}, "experiments": [experiment],
    }  # fmt: skip
    setup = setup_of(fake.lab, "e", RunRecord.of(run))
    assert setup["placement"] == str(placement)
    assert (setup["host"], setup["QEMU"], setup["baseline"]) == ("None", "7.2", "j")
    assert setup_of(fake.lab, "e", RunRecord.of(run), {"h"}) == setup


def test_the_hosts_of_a_run_on_workers_are_those_that_measured(fake):
    hosts = {
        name: {"id": name, "qemu": qemu} for name, qemu in {"b": "9", "c": "9", "a": "8"}.items()
    }
    experiment = {
        "name": "e", "workload": "w", "baseline": "stock", "confidence": 0.95,
        "minimum_effect": 0.02,
    }  # fmt: skip
    run = {
        "run": "r", "accel": "tcg", "initramfs": "i", "host": {"id": "here", "qemu": "7.2"},
        "hosts": hosts, "kernels": {"stock": {"image": "j"}}, "experiments": [experiment],
    }  # fmt: skip
    setup = setup_of(fake.lab, "e", RunRecord.of(run), {"b", "a"})
    assert (setup["host"], setup["QEMU"]) == ("a, b", "8, 9")


def test_a_history_that_cannot_be_written_is_the_hosts_fault(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError):
        night_history.append(tmp_path / "file", decode(OLD_LINE))


def replay(folder, *words):
    return CliRunner().invoke(labctl, ["nightly", "--replay", "--history", str(folder), *words])


SLOWER = next(one for one in SCENARIOS if one.name == "slower by 20 %")


@pytest.fixture(scope="module")
def regressed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regressed")
    watch = history(SLOWER, RULE, np.random.default_rng(2))
    assert watch.changes[-1].verdict == "slower"
    nights_of.store(folder, watch)
    return folder, watch


def test_a_stored_history_yields_its_findings(regressed):
    folder, watch = regressed
    done = replay(folder, "--json")
    assert done.exit_code == 1, done.output
    content = json.loads(done.stdout)
    (finding,) = [one for one in content["findings"] if one["kind"] == "regressed"]
    change = watch.changes[-1]
    assert finding["night"] == watch.nights[change.found].date
    assert finding["since"] == watch.nights[change.analysis.first].date
    assert len(finding["between"]["commits"]["lab"]) == 2


def test_quiet_nights_replayed_are_quiet(tmp_path):
    nights_of.store(tmp_path, history(SCENARIOS[1], RULE, np.random.default_rng(5)))
    done = replay(tmp_path)
    assert done.exit_code == 0, done.output
    assert "no change" in done.stdout.splitlines()[0]


def test_the_mail_has_72_columns_and_reports_the_range(regressed):
    text = replay(regressed[0]).stdout
    assert max(map(len, text.splitlines())) <= 72
    assert text.startswith("labctl nightly 2026-")
    for part in (
        "REGRESSED: exit: patched",
        "% slower",
        "Commits of lab: v1-",
        "became",
        "patches",
    ):
        assert part in text


def test_junit_has_the_regression_as_a_failure(regressed):
    root = ElementTree.fromstring(replay(regressed[0], "--format", "junit").stdout)
    (case,) = root.findall("testsuite/testcase")
    assert "REGRESSED" in case.find("failure").get("message")
    assert root.find("testsuite").get("failures") == "1"


def test_all_reports_go_into_one_folder_and_the_page_needs_no_network(regressed, tmp_path):
    done = replay(regressed[0], "--output", str(tmp_path / "out"))
    assert done.exit_code == 1
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"index.html", "junit.xml", "mail.txt", "summary.md", "nightly.json"}
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<svg" in page
    assert not re.findall(r"(?:src|href)=\W?https?:", page)
    assert "REGRESSED" in (tmp_path / "out" / "summary.md").read_text()


def test_the_page_has_findings_and_cells_as_tables():
    page = nights_of.page()
    (findings, cells) = re.findall(r'<table class="grid">.*?</table>', page, re.DOTALL)
    rows = re.findall(r"<tr><th scope=.row.>(.*?)</tr>", findings)
    assert len(rows) == len(FindingKind)
    assert rows[-1].startswith("2026-10-02</th>")  # the newest is first
    assert 'class="is-slower">REGRESSED' in rows[-1]
    assert "panic" in rows[-2]
    links = re.findall(r'href="#(cell-\d)"', cells)
    assert len(links) == 2
    assert all(f'id="{link}"' in page for link in links)


def test_a_mistake_is_reported_without_a_traceback(tmp_path):
    runner = CliRunner()
    assert runner.invoke(labctl, ["nightly", "--budget", "soon"]).exit_code == 2
    assert runner.invoke(labctl, ["nightly", "--budget", "0"]).exit_code == 2
    assert runner.invoke(labctl, ["nightly", "--replay", "e"]).exit_code == 2
    done = runner.invoke(labctl, ["nightly", "--replay", "--history", str(tmp_path)])
    assert isinstance(done.exception, UserError)


def test_without_the_library_a_history_is_an_error(regressed, monkeypatch):
    monkeypatch.setitem(sys.modules, "ruptures", None)
    assert isinstance(replay(regressed[0]).exception, HostError)
