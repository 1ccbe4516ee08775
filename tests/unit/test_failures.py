"""Reports show why samples failed, and a failing baseline ends the run."""

import json
from xml.etree import ElementTree

import msgspec
import pytest
from records import report_of
from samples import as_json, cell, replace
from synthetic import World, panic
from test_nightly import FakeNights
from test_reports import RUN, flat, patched, times
from test_runner import measured, runner

from labctl.errors import BadOutput, BaselineFailed, BootFailed
from labctl.nightly import text as night_text
from labctl.reports import cover_letter, export, html, kcidb, table, two_runs
from labctl.stats.between_runs import across
from labctl.stats.compare import compare
from labctl.stats.failures import failures_of
from labctl.transports import Outcome

GONE = "workload exited with status 127: sh: nope: not found"
WHERE = "guests/smoke-000-x/console.log"


def failed(samples, status="bad-output", message=GONE, console=WHERE):
    return [
        replace(s, status=status, value=None, message=message, console=console) for s in samples
    ]


def of(*groups, folder="", **more):
    samples = [*cell(times(1.0)), *cell(times(1.0), control=True)]
    samples += [s for group in groups for s in group]
    result = compare(samples, baseline="stock", confidence=0.95, minimum_effect=0.02)
    own = {"name": "smoke", "workload": "free", "metric": "elapsed", "better": "lower"}
    run = RUN | {"experiments": [own]} | more
    return report_of(run, [result], folder=folder), samples


def test_a_kind_of_failure_is_reported_once_with_cause_count_and_cells():
    content, _ = of(failed(patched(1.4)), folder=".labctl/runs/r")
    (found,) = content.experiments[0].failures
    assert msgspec.to_builtins(found) == {
        "status": "bad-output",
        "whose": "workload",
        "reason": GONE,
        "count": 8,
        "cells": ("parallel-free",),
        "block": 0,
        "console": f".labctl/runs/r/{WHERE}",
        "fault": "",
        "retried": 0,
    }


@pytest.mark.parametrize(
    ("status", "whose"),
    [
        ("panic", "its kernel failed (8 panic)"),
        ("boot-failed", "its kernel failed (8 boot-failed)"),
        ("hung", "its kernel failed (8 hung)"),
        ("bad-output", "its workload failed (8 bad-output)"),
        ("deadline", "its workload failed (8 deadline)"),
        ("knob-refused", "a tunable was rejected (8 knob-refused)"),
        ("lost", "its guest was lost (8 lost)"),
    ],
)
def test_a_failure_is_blamed_on_its_cause(status, whose):
    content, _ = of(failed(patched(1.4), status=status))
    reason = content.experiments[0].cells[1].reason
    assert reason == f"{whose}; timings are disregarded"


def test_failures_of_two_are_charged_to_both():
    some = patched(1.4)
    content, _ = of([*failed(some[:2], status="panic"), *failed(some[2:4]), *some[4:]])
    reason = content.experiments[0].cells[1].reason
    assert "its kernel failed (2 panic) and its workload failed (2 bad-output)" in reason


def test_every_form_of_a_report_has_the_reason_and_the_console():
    content, samples = of(failed(patched(1.4)))
    second, _ = of(patched(1.4), run="second")
    texts = {
        "terminal": table.render(content),
        "markdown": table.render(content, format="markdown"),
        "cover-letter": cover_letter.render(content),
        "html": html.render(content, samples),
        "json": as_json(content),
        "junit": export.junit(content, samples),
        "kcidb": kcidb.kcidb(content, samples),
        "compare": two_runs.render(across(second, replace(content, run="first"))),
        "notes of benchfmt": "\n".join(export.notes("benchfmt", content)),
    }
    for form, text in texts.items():
        assert GONE in flat(text), form
        assert WHERE in flat(text), form
    assert flat(texts["terminal"]).count(GONE) == 1


def test_a_path_is_not_broken_at_the_end_of_a_line():
    long = "guests/an-experiment-with-a-long-name-000-parallel-free-and-unmap/console.log"
    content, _ = of(failed(patched(1.4), console=long))
    assert long in table.render(content)
    assert long in cover_letter.render(content)


def test_the_same_failure_with_other_numbers_is_one_kind():
    group = patched(1.4)
    panics = [
        replace(s, status="panic", value=None, message=f"Oops at 0xffff{n:04x} pid {n}\ntail {n}")
        for n, s in enumerate(group)
    ]
    (found,) = failures_of(panics)
    assert (found.count, found.reason) == (8, "Oops at 0xffff0000 pid 0")


def test_kinds_of_failures_are_separate_the_most_frequent_first():
    group = patched(1.4)
    found = failures_of([*failed(group[:3]), *failed(group[3:], message="no JSON line")])
    assert [(one.count, one.reason) for one in found] == [(5, "no JSON line"), (3, GONE)]


def test_what_was_skipped_or_only_warmed_up_is_no_failure_of_its_own():
    group = patched(1.4)
    skipped = failed(group[:4], status="skipped")
    warm = [replace(s, warmup=True) for s in failed(group[4:6], status="not-exercised")]
    assert failures_of([*skipped, *warm]) == ()
    (found,) = failures_of([replace(s, warmup=True) for s in failed(group[:1])])
    assert found.count == 1


@pytest.mark.parametrize("message", ["\x1b[31m" + "x" * 100_000, "a\n" * 50_000, "", "\x00\u2028"])
def test_a_reason_is_one_short_printable_line(message):
    for status in ("bad-output", "panic"):
        (found,) = failures_of(failed(patched(1.4), status=status, message=message))
        assert len(found.reason) <= 200
        assert found.reason.isprintable()
        ElementTree.fromstring(export.junit(*of(failed(patched(1.4), message=message))))


def test_many_kinds_do_not_fill_the_report():
    letters = "abcdefghijkl"
    group = [
        replace(s, status="bad-output", value=None, message=f"no {letters[n]}")
        for n, s in enumerate([*patched(1.4), *patched(1.2, setting={"n": 1})][:12])
    ]
    content, _ = of(group)
    text = flat(table.render(content))
    assert text.count("failed: 1 bad-output") == 8
    assert "failed: 4 more in 4 more ways" in text


def test_a_failed_baseline_is_a_case_of_junit():
    _, samples = of(patched(1.4))
    base = failed([s for s in samples if s.kernel == "stock" and not s.control])
    rest = [s for s in samples if s.kernel != "stock" or s.control]
    result = compare([*base, *rest], baseline="stock", confidence=0.95, minimum_effect=0.02)
    text = export.junit(report_of(RUN | {"experiments": []}, [result]), samples)
    assert GONE in text


def test_kcidb_charges_the_kernel_only_with_its_own_failures():
    for status, result in (("bad-output", "ERROR"), ("panic", "FAIL"), ("exercised", "FAIL")):
        content, samples = of(failed(patched(1.4), status=status))
        tests = json.loads(kcidb.kcidb(content, samples))["tests"]
        own = [one for one in tests if "parallel-free" in one["id"]]
        assert {one["status"] for one in own} == {result}


def test_an_experiment_of_which_nothing_was_compared_says_what_failed():
    samples = failed(cell(times(1.0))[:1])
    result = compare(samples, baseline="stock", confidence=0.95, minimum_effect=0.02)
    text = table.render(report_of(RUN | {"experiments": []}, [result]))
    assert "nothing was compared with the baseline, since stock failed (1 bad-output)" in flat(text)


# The run.


def absent(guest):
    raise BadOutput(GONE)


@pytest.mark.parametrize("warmup", [0, 1])
def test_a_baseline_whose_first_repetition_fails_ends_the_run(tmp_path, warmup):
    from synthetic import lab

    world = World()
    world.on_run = absent
    the_lab = lab(blocks=6, repetitions=2)
    statistics = the_lab.statistics.model_copy(update={"warmup": warmup})
    the_lab = the_lab.model_copy(update={"statistics": statistics})
    with pytest.raises(BaselineFailed, match=r"baseline stock failed: bad-output.*not found"):
        runner(tmp_path, world, the_lab, log_of=lambda _: WHERE).run()
    assert {block for block, _ in world.boots} == {0}
    assert not world.alive
    samples = runner(tmp_path, world).store.samples()
    assert [s for s in samples if s.kernel == "stock" and not s.control] == [samples[-1]]
    assert samples[-1].console == WHERE


def test_a_baseline_that_does_not_boot_ends_the_run_at_once(tmp_path):
    world = World()

    def no_init(guest):
        if guest.group.kernel == "stock" and not guest.group.control:
            raise BootFailed("no init")

    world.on_boot = no_init
    with pytest.raises(BaselineFailed, match="no init"):
        runner(tmp_path, world).run()
    assert {block for block, _ in world.boots} == {0}


def test_a_resumed_run_ends_again_or_goes_on(tmp_path):
    world = World()
    world.on_run = absent
    for _ in range(2):
        with pytest.raises(BaselineFailed):
            runner(tmp_path, world).run()
    world.on_run = lambda guest: None
    runner(tmp_path, world).run()
    assert {s.block for s in measured(tmp_path)} == set(range(6))


def test_a_baseline_that_fails_later_or_another_kernel_ends_nothing(tmp_path):
    world = World()

    def fail(guest):
        later = guest.group.kernel == "stock" and guest.block == 1
        if later or guest.group.kernel == "patched":
            panic()

    world.on_run = fail
    runner(tmp_path, world).run()
    assert {s.block for s in measured(tmp_path)} == set(range(6))


def test_the_reason_is_reported_while_the_run_goes_on(tmp_path):
    messages = []
    world = World()
    world.on_run = lambda guest: absent(guest) if guest.group.kernel == "patched" else None
    runner(tmp_path, world, progress=messages.append).run()
    reasons = {one.reason for one in messages if one.status == "bad-output"}
    assert reasons == {GONE}
    assert {one.reason for one in messages if one.status == "ok"} == {""}
    assert {one.cell for one in messages if one.status == "bad-output"} == {"patched"}
    assert {one.cell for one in messages if one.status == "ok"} == {"stock", "stock (A/A)"}


def test_a_workload_that_is_not_there_is_bad_output_with_its_own_words(tmp_path):
    world = World()
    world.on_run = lambda guest: None
    from synthetic import Guest

    class Without(Guest):
        def run(self, argv, *, timeout_seconds, stdin=b""):
            return Outcome("nope", 127, b"", b"sh: nope: not found\n", 0.1)

    import contextlib

    @contextlib.contextmanager
    def boot(group, block):
        yield Without(group, block, world)

    world.boot = boot
    with pytest.raises(BaselineFailed, match="status 127: sh: nope: not found"):
        runner(tmp_path, world).run()


def test_a_nightly_run_reports_a_failed_baseline_and_measures_the_other_experiments(tmp_path):
    fake = FakeNights(tmp_path, blocks=2)
    fake.world.on_run = absent
    fake.night()
    content = fake.found()
    (finding,) = [one for one in content.findings if one.kind == "broken"]
    assert finding.kernel == "stock"
    assert GONE in finding.why
    assert "(workload)" in finding.why
    for form in ("terminal", "markdown", "junit"):
        assert GONE in flat(night_text.FORMATS[form](content)).replace("| ", "")
