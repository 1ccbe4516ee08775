"""A guest that fails is booted again in its block; nothing is lost or measured twice."""

import itertools
from collections import Counter

import pytest
from records import report_of
from samples import as_json, cell, replace
from scipy.stats import binom
from synthetic import World, lab, panic
from test_nightly import FakeNights
from test_reports import RUN, flat, patched, times
from test_runner import measured, runner

from labctl.errors import BaselineFailed, BootFailed, GuestLost, GuestSplat
from labctl.experiments.plan import plan
from labctl.nightly import findings
from labctl.nightly import text as night_text
from labctl.reports import cover_letter, export, html, kcidb, table
from labctl.reports.report import found_a_problem
from labctl.runs.folder import create
from labctl.runs.store import Store
from labctl.stats.cells import cells_of, crashes
from labctl.stats.compare import compare
from labctl.stats.crash_rates import crash_rates
from labctl.stats.proportions import p_not_more_often
from labctl.status import GuestFault
from labctl.testing.measuring import Compared


def killed(guest):
    raise GuestLost("QEMU was killed by SIGKILL", fault=GuestFault.QEMU_KILLED)


class Failing:
    """Lets some repetitions of the patched kernel fail, by their number since the start."""

    def __init__(self, world, *runs, fail=lambda guest: panic(), kernel="patched"):
        self.count = itertools.count()
        self.runs, self.fail, self.kernel = runs, fail, kernel
        world.on_run = self

    def __call__(self, guest):
        own = guest.group.kernel == self.kernel and not guest.group.control
        if own and next(self.count) in self.runs:
            self.fail(guest)


def whole():
    """Return the measured repetitions of a plan."""
    the_plan = plan(lab(), "e", 7)
    every = [(number, one) for number in range(6) for one in the_plan.block(number)]
    return {(n, one.cell.id, one.number) for n, one in every if not one.warmup}


def good(folder):
    ok = [s for s in measured(folder) if s.status == "ok"]
    return Counter((s.block, s.cell, s.repetition) for s in ok)


@pytest.mark.parametrize("run", range(4))  # the warm-up and two repetitions, the next block's
def test_a_guest_that_fails_once_is_booted_again_and_nothing_is_missing(tmp_path, run):
    world = World()
    Failing(world, run)
    runner(tmp_path, world).run()
    assert good(tmp_path) == Counter(whole())
    samples = Store(tmp_path).samples()
    (failed,) = [s for s in samples if s.status != "ok"]
    assert (failed.status, failed.fault, failed.attempt) == ("panic", "panic", 0)
    again = [s for s in samples if s.attempt]
    assert again[0].warmup
    assert {(s.block, s.cell) for s in again} == {(failed.block, failed.cell)}
    assert failed.boot_id not in {s.boot_id for s in again}
    assert len(world.boots) == 6 * 3 + 1
    assert not world.alive


def test_the_planned_order_stays(tmp_path):
    """Cells still alternate: a kernel that fails is not measured after all the others."""
    folders = [tmp_path / "quiet", tmp_path / "failing"]
    orders = []
    for folder, runs in zip(folders, ((), (1,)), strict=True):
        folder.mkdir()
        world = World()
        Failing(world, *runs)
        runner(folder, world).run()
        ok = [s for s in measured(folder) if s.status == "ok"]
        orders.append([(s.block, s.cell, s.repetition) for s in ok])
    assert orders[0] == orders[1]


def test_only_some_boots_are_tried(tmp_path):
    world = World()
    world.on_run = lambda guest: panic() if guest.group.kernel == "patched" else None
    runner(tmp_path, world).run()
    boots = Counter(block for block, group in world.boots if group.kernel == "patched")
    assert boots == {0: 3, 1: 3, 2: 1, 3: 1, 4: 1, 5: 1}
    samples = [s for s in Store(tmp_path).samples() if s.kernel == "patched"]
    assert {s.status for s in samples} == {"panic", "skipped"}
    assert {s.status for s in Store(tmp_path).samples() if s.kernel == "stock"} == {"ok"}


def test_a_guest_that_does_not_boot_is_booted_again(tmp_path):
    world = World()
    failed = []

    def fail(guest):
        if guest.group.kernel == "patched" and guest.block == 1 and not failed:
            failed.append(guest)
            raise BootFailed("no init")

    world.on_boot = fail
    runner(tmp_path, world).run()
    assert good(tmp_path) == Counter(whole())
    (sample,) = [s for s in Store(tmp_path).samples() if s.status != "ok"]
    assert (sample.status, sample.fault) == ("boot-failed", "boot-timeout")


def test_a_baseline_ended_by_the_host_does_not_end_the_run(tmp_path):
    world = World()
    Failing(world, 0, fail=killed, kernel="stock")
    runner(tmp_path, world).run()
    assert good(tmp_path) == Counter(whole())


def test_a_baseline_that_panics_at_first_still_ends_the_run(tmp_path):
    world = World()
    Failing(world, 0, kernel="stock")
    with pytest.raises(BaselineFailed, match="panic"):
        runner(tmp_path, world).run()
    assert not world.alive


def test_a_target_is_not_booted_again(tmp_path):
    world = World()
    Failing(world, 1)
    runner(tmp_path, world, together=False, retries=False).run()
    samples = [s for s in Store(tmp_path).samples() if s.kernel == "patched"]
    assert Counter(s.status for s in samples)["panic"] == 1
    assert {s.attempt for s in samples} == {0}
    assert len(world.boots) == 6 * 3


@pytest.mark.parametrize("stop_after", range(1, 22))
def test_a_run_interrupted_around_a_retry_measures_the_same(tmp_path, stop_after):
    """Whenever it is interrupted: the same repetitions, the same faults, no key twice."""
    folder = tmp_path / "run"
    folder.mkdir()
    failing = {(0, "patched", False, 0), (0, "patched", True, 0), (1, "patched", False, 1)}
    done = set()

    def fails(guest, repetition):
        key = (guest.block, guest.group.name, repetition.warmup, repetition.number)
        if key in failing - done:
            done.add(key)
            panic()

    def interrupted(limit):
        world = World()
        one = runner(folder, world)
        measure, counter = one._measure, itertools.count()

        def patched_measure(repetition, guest, base, *, is_last):
            if limit is not None and next(counter) >= limit:
                raise KeyboardInterrupt
            fails(guest, repetition)
            return measure(repetition, guest, base, is_last=is_last)

        one_class = type(one)
        original = one_class._measure
        one_class._measure = lambda _, *a, **k: patched_measure(*a, **k)
        try:
            one.run()
        finally:
            one_class._measure = original
            assert not world.alive

    with pytest.raises(KeyboardInterrupt):
        interrupted(stop_after)
    interrupted(None)
    samples = Store(folder).samples()  # rejects a key that is there twice
    assert good(folder) == Counter(whole())
    assert Counter(s.status for s in samples)["panic"] == 3
    attempts = {(s.block, s.attempt) for s in samples if s.cell == "patched"}
    assert {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)} <= attempts


def test_a_finished_run_with_failures_is_not_measured_again(tmp_path):
    world = World()
    world.on_run = lambda guest: panic() if guest.group.kernel == "patched" else None
    runner(tmp_path, world).run()
    before = Store(tmp_path).path.read_bytes()
    world = World()
    runner(tmp_path, world).run()
    assert world.boots == []
    assert Store(tmp_path).path.read_bytes() == before


def test_samples_without_a_failure_are_stored_as_before(tmp_path):
    runner(tmp_path, World()).run()
    text = Store(tmp_path).path.read_text()
    assert '"attempt"' not in text
    assert '"fault"' not in text


# Statistics and reports.


def judged(*groups):
    samples = [*cell(times(1.0)), *cell(times(1.0), control=True)]
    samples += [s for group in groups for s in group]
    return compare(samples, baseline="stock", confidence=0.95, minimum_effect=0.02), samples


def reported(result, **more):
    own = {"name": "smoke", "workload": "free", "metric": "elapsed", "better": "lower"}
    return report_of(RUN | {"experiments": [own]} | more, [result])


def with_failure(group, fault, status="lost"):
    """Return a cell whose first repetition failed and was measured again."""
    first = replace(group[0], status=status, value=None, fault=fault, message=f"a {fault}")
    return [first, replace(group[0], attempt=1, boot_id="second"), *group[1:]]


def test_a_host_that_ends_a_guest_costs_no_verdict():
    result, _ = judged(with_failure(patched(1.4), "qemu-killed"))
    row = result.cells[1]
    assert row.verdict == "faster"
    assert row.failed == {}
    assert row.retried == {"qemu-killed": 1}
    assert result.crashes == ()
    content = reported(result)
    assert not found_a_problem(content)
    text = flat(table.render(content))
    assert "failed: 1 lost, qemu-killed (host): a qemu-killed" in text
    assert "1 measured again" in text
    assert "measured again on a fresh boot after a failure (1 qemu-killed; block 0)" in text


def test_without_a_second_boot_it_stays_a_failure():
    group = patched(1.4)
    lost = replace(group[0], status="lost", value=None, fault="qemu-killed")
    row = judged([lost, *group[1:]])[0].cells[1]
    assert row.verdict == "undecided"
    assert row.failed == {"lost": 1}
    assert row.retried == {}


def test_a_kernel_that_failed_is_not_called_faster_whatever_a_second_boot_says():
    row = judged(with_failure(patched(1.4), "panic", status="panic"))[0].cells[1]
    assert row.verdict == "undecided"
    assert row.failed == {"panic": 1}
    assert row.retried == {"panic": 1}


def crashing(count):
    """Return a cell of which the first boots of some blocks panicked."""
    group = [replace(s, boot_id=f"new-{s.block}") for s in patched(1.0)]
    return [
        each
        for s in group
        for each in (
            [
                replace(s, status="panic", value=None, fault="panic", message="Kernel panic"),
                replace(s, attempt=1, boot_id=f"again-{s.block}"),
            ]
            if s.block < count
            else [s]
        )
    ]


@pytest.mark.parametrize(("count", "is_found"), [(1, False), (2, False), (4, True), (8, True)])
def test_a_kernel_that_crashes_more_often_is_a_finding(count, is_found):
    result, _ = judged(crashing(count))
    (rate,) = result.crashes
    assert (rate.crashed, rate.boots) == (count, 8)
    assert (rate.baseline_crashed, rate.baseline_boots) == (0, 16)
    assert rate.more_often is is_found
    assert bool(reported(result).experiments[0].crashes_more_often) is is_found


def test_crashes_are_counted_once_for_all_cells(monkeypatch):
    counted = []
    monkeypatch.setattr(
        "labctl.stats.compare.crashes", lambda cells: counted.append(1) or crashes(cells)
    )
    judged(*([replace(s, kernel=f"k{n}", cell=f"k{n}") for s in crashing(1)] for n in range(8)))
    assert len(counted) == 1


def test_the_p_value_is_fishers():
    """3 of 8 boots against 0 of 16: C(8, 3) / C(24, 3) = 56 / 2024."""
    (rate,) = judged(crashing(3))[0].crashes
    assert rate.p == pytest.approx(56 / 2024)


@pytest.mark.parametrize(
    ("blocks", "false", "found"), [(8, 0.022, 0.855), (16, 0.026, 0.998), (30, 0.032, 1.0)]
)
def test_the_test_keeps_its_level_and_finds_what_the_documentation_says(blocks, false, found):
    both = 2 * blocks
    rejected = [
        (own, base)
        for own in range(blocks + 1)
        for base in range(both + 1)
        if p_not_more_often(own, blocks, base, both) <= 0.05
    ]
    assert min(own for own, base in rejected if base == 0) == 3

    def share(own_rate, base_rate):
        pairs = ((binom.pmf(a, blocks, own_rate), binom.pmf(b, both, base_rate))
                 for a, b in rejected)  # fmt: skip
        return sum(a * b for a, b in pairs)

    assert max(share(rate / 50, rate / 50) for rate in range(51)) == pytest.approx(false, abs=5e-4)
    assert share(0.5, 0.0) == pytest.approx(found, abs=1e-3)


def test_a_baseline_that_crashes_as_often_is_no_finding():
    base = [replace(s, kernel="stock", cell="stock", label="stock") for s in crashing(6)]
    samples = [*base, *crashing(6)]
    result = compare(samples, baseline="stock", confidence=0.95, minimum_effect=0.02)
    assert [one.more_often for one in result.crashes] == [False]


def test_kernels_are_a_family():
    cells = cells_of([*cell(times(1.0)), *crashing(3)])
    others = [each for each in cells if each.kernel != "stock"]
    base = [each for each in cells if each.kernel == "stock"]
    (alone,) = crash_rates(base, others, 0.95)
    quiet = cells_of([replace(s, kernel=f"k{n}", cell=f"k{n}") for n in range(4)
                      for s in patched(1.0)])  # fmt: skip
    (among,) = crash_rates(base, [*others, *quiet], 0.95)
    assert among.p == alone.p
    assert among.p_corrected == pytest.approx(5 * alone.p)


def test_faults_of_the_host_are_no_crashes_of_the_kernel():
    group = [replace(s, fault="qemu-killed", status="lost") if s.status == "panic" else s
             for s in crashing(8)]  # fmt: skip
    assert judged(group)[0].crashes == ()


def test_every_form_of_a_report_has_the_finding(tmp_path):
    result, samples = judged(crashing(5))
    content = reported(result)
    assert found_a_problem(content)
    finding = "parallel-free crashes more often than stock: 5 of 8 boots, stock: 0 of 16"
    run = create(tmp_path)
    rule = {"baseline": "stock", "confidence": 0.95, "minimum_effect": 0.02}
    run.write(RUN | {"experiments": [{"name": "smoke", "workload": "free"} | rule]})
    texts = {
        "pytest": repr(Compared(run, result)),
        "terminal": table.render(content),
        "markdown": table.render(content, format="markdown"),
        "cover-letter": cover_letter.render(content),
        "html": html.render(content, samples),
        "junit": export.junit(content, samples),
        "kcidb": kcidb.kcidb(content, samples),
        "notes of benchfmt": "\n".join(export.notes("benchfmt", content)),
    }
    for form, text in texts.items():
        assert finding in flat(text), form
    assert '"more_often": true' in as_json(content)


def test_a_nightly_run_reports_a_kernel_that_crashes(tmp_path):
    fake = FakeNights(tmp_path, blocks=8)
    counts = Counter()

    def fail(guest):
        key = guest.block, guest.group.name
        counts[key] += 1
        if guest.group.kernel == "patched" and counts[key] == 1 and guest.block < 6:
            raise GuestSplat("BUG: soft lockup", kind="soft-lockup")

    fake.world.on_run = fail
    fake.night()
    content = fake.found()
    (finding,) = [one for one in content.findings if one.kind == "crashes"]
    assert (finding.kernel, finding.experiment) == ("patched", "e")
    assert "6 of 8 boots crashed, stock: 0 of 16" in finding.why
    assert finding in findings.problems(content, of_last_night=True)
    for form in ("terminal", "markdown", "junit"):
        assert "6 of 8 boots crashed" in flat(night_text.FORMATS[form](content))
