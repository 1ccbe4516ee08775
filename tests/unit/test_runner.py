import dataclasses
import itertools

import pytest
import synthetic
from synthetic import FACTS, World, lab, panic

from labctl.errors import BootFailed, DeadlineExceeded, GuestHung
from labctl.experiments.plan import plan
from labctl.experiments.runner import Runner
from labctl.runs import store as stores
from labctl.runs.store import Store
from labctl.stats.compare import compare


def runner(tmp_path, world, the_lab=None, **more):
    the_lab = the_lab or lab()
    return Runner(
        lab=the_lab,
        plan=plan(the_lab, "e", 7),
        store=Store(tmp_path),
        boot=world.boot,
        facts=FACTS,
        clock=world.clock,
        load=world.load,
        **more,
    )


def measured(tmp_path):
    return [s for s in Store(tmp_path).samples() if not s.warmup]


def test_the_whole_plan_is_measured(tmp_path):
    world = World()
    runner(tmp_path, world, lab(blocks=6, repetitions=2)).run()
    samples = measured(tmp_path)
    assert len(samples) == 6 * 3 * 2
    assert {s.status for s in samples} == {"ok"}
    assert len(world.boots) == 6 * 3
    assert not world.alive
    assert len({(s.block, s.label, s.boot_id) for s in samples}) == 6 * 3
    assert [s.order for s in samples if s.block == 0] == list(range(3, 9))


def test_an_effect_is_found_and_the_control_is_quiet(tmp_path):
    runner(tmp_path, World(), lab(blocks=8)).run()
    result = compare(measured(tmp_path), baseline="stock", confidence=0.95, minimum_effect=0.02)
    patched = next(cell for cell in result.cells if cell.kernel == "patched")
    assert patched.verdict == "faster"
    assert patched.ci[0] < 1.4 < patched.ci[1]
    assert result.aa_control.verdict not in ("faster", "slower")


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    whole = {s.key for s in _all(tmp_path / "whole", World())}
    for stop_after in (1, 4, 9, 17):
        folder = tmp_path / str(stop_after)
        folder.mkdir()
        world = World()
        counter = itertools.count(1)

        def stop(guest, counter=counter, stop_after=stop_after):
            if next(counter) > stop_after:
                raise KeyboardInterrupt

        world.on_run = stop
        with pytest.raises(KeyboardInterrupt):
            runner(folder, world).run()
        assert not world.alive
        first = Store(folder).path.read_bytes()
        assert len(first.splitlines()) == stop_after
        runner(folder, World(2)).run()
        assert Store(folder).path.read_bytes().startswith(first)
        keys = [s.key for s in measured(folder)]
        assert len(keys) == len(set(keys))
        assert set(keys) == {key for key in whole if not key[3]}


def _all(folder, world):
    folder.mkdir()
    runner(folder, world).run()
    return Store(folder).samples()


def test_a_finished_run_is_not_run_again(tmp_path):
    runner(tmp_path, World()).run()
    world = World()
    runner(tmp_path, world).run()
    assert world.boots == []


def test_a_panic_is_a_result_and_costs_one_guest_one_block(tmp_path):
    world = World()

    def fail(guest):
        if guest.group.kernel == "patched" and guest.block == 2:
            panic()

    world.on_run = fail
    runner(tmp_path, world).run()
    samples = Store(tmp_path).samples()
    broken = [s for s in samples if s.kernel == "patched" and s.block == 2]
    assert [s.status for s in broken] == ["panic"] * 3 + ["skipped", "skipped"]
    assert [s.attempt for s in broken] == [0, 1, 2, 2, 2]
    assert "last words" in broken[0].message
    assert {s.status for s in samples if s not in broken} == {"ok"}
    result = compare(samples, baseline="stock", confidence=0.95, minimum_effect=0.02)
    patched = next(cell for cell in result.cells if cell.kernel == "patched")
    assert patched.verdict != "faster"
    assert patched.failed["panic"] == 3


def test_a_failed_boot_spares_the_other_guests(tmp_path):
    world = World()

    def fail(guest):
        if guest.group.control and guest.block == 0:
            raise BootFailed("no init")

    world.on_boot = fail
    runner(tmp_path, world).run()
    samples = [s for s in Store(tmp_path).samples() if s.block == 0]
    assert {s.status for s in samples if s.control} == {"boot-failed", "skipped"}
    assert {s.status for s in samples if not s.control} == {"ok"}


def test_a_slow_command_spares_its_guest(tmp_path):
    world = World()
    failed = []

    def fail(guest):
        if not failed and guest.block == 1 and guest.group.kernel == "patched":
            failed.append(guest)
            raise DeadlineExceeded("took too long")

    world.on_run = fail
    runner(tmp_path, world).run()
    statuses = [s.status for s in Store(tmp_path).samples()]
    assert statuses.count("deadline") == 1
    assert statuses.count("ok") == len(statuses) - 1


def test_a_series_that_was_not_entered_says_so(tmp_path):
    world = World()
    world.exercised = False
    runner(tmp_path, world).run()
    patched = {s.status for s in measured(tmp_path) if s.kernel == "patched"}
    assert patched == {"not-exercised"}
    result = compare(measured(tmp_path), baseline="stock", confidence=0.95, minimum_effect=0.02)
    assert next(c for c in result.cells if c.kernel == "patched").verdict == "undecided"


def test_a_series_that_should_stay_out_may(tmp_path):
    world = World()
    world.exercised = False
    runner(tmp_path, world, lab(handovers="none")).run()
    assert {s.status for s in measured(tmp_path)} == {"ok"}


def test_a_series_that_should_stay_out_and_does_not_is_a_failure(tmp_path):
    runner(tmp_path, World(), lab(handovers="none")).run()
    patched = [s for s in measured(tmp_path) if s.kernel == "patched"]
    assert {s.status for s in patched} == {"exercised"}
    assert "expected no handovers, got " in patched[0].message
    result = compare(measured(tmp_path), baseline="stock", confidence=0.95, minimum_effect=0.02)
    assert next(c for c in result.cells if c.kernel == "patched").verdict == "undecided"


def test_settings_are_written_before_each_repetition(tmp_path):
    runner(tmp_path, World(), lab(matrix={"max_active": (1, 4)})).run()
    for sample in measured(tmp_path):
        expected = {"max_active": str(sample.setting["max_active"])} if sample.setting else {}
        assert sample.read_back == expected


def test_it_stops_at_a_block_end_when_that_is_enough(tmp_path):
    the_lab = lab(blocks=2)
    blocks = the_lab.statistics.blocks.model_copy(update={"max": 9})
    statistics = the_lab.statistics.model_copy(update={"blocks": blocks})
    the_lab = the_lab.model_copy(update={"statistics": statistics})
    asked = []

    def ended(samples):
        asked.append(len(samples))
        return frozenset({"patched"} if len(asked) == 3 else ())

    runner(tmp_path, World(), the_lab, ended=ended).run()
    assert max(s.block for s in measured(tmp_path)) == 3
    assert all(count % 9 == 0 for count in asked), "asked in the middle of a block"


def up_to(blocks, the_lab):
    most = the_lab.statistics.blocks.model_copy(update={"max": blocks})
    statistics = the_lab.statistics.model_copy(update={"blocks": most})
    return the_lab.model_copy(update={"statistics": statistics})


@pytest.mark.parametrize(("budget_blocks", "blocks"), [(0.5, 2), (2.5, 2), (5.5, 5), (99, 9)])
def test_a_budget_ends_the_run_with_the_last_block_that_fits(tmp_path, budget_blocks, blocks):
    the_lab = up_to(9, lab(blocks=2))
    repetitions = len(plan(the_lab, "e", 7).block(0))  # each takes a second
    runner(tmp_path, World(), the_lab, budget_seconds=repetitions * budget_blocks).run()
    assert max(s.block for s in measured(tmp_path)) + 1 == blocks


def test_the_remaining_time_covers_the_minimum_of_blocks(tmp_path):
    """A budget that is spent does not end the run before them."""
    the_lab, seen = up_to(9, lab(blocks=4)), []
    budget = len(plan(the_lab, "e", 7).block(0))  # one block: each repetition takes a second
    runner(tmp_path, World(), the_lab, budget_seconds=budget, progress=seen.append).run()
    known = [one for one in seen if one.remaining_seconds is not None]
    assert all(one.remaining_seconds > 0 for one in known if one.block < 3)
    assert known[-1].remaining_seconds == 0
    assert {one.block for one in known} == {0, 1, 2, 3}


def one_ends(samples):
    """The first cell ends after three blocks, the other never; nothing else is looked at."""
    return frozenset({"patched/max_active=1"} if max(s.block for s in samples) >= 2 else ())


def test_an_ended_cell_is_left_out_but_the_baseline_and_its_control_stay(tmp_path):
    the_lab = up_to(5, lab(blocks=2, matrix={"max_active": (1, 4)}))
    runner(tmp_path, World(), the_lab, ended=one_ends).run()
    blocks = {}
    for each in Store(tmp_path).samples():
        blocks.setdefault(each.cell, set()).add(each.block)
    assert blocks["patched/max_active=1"] == {0, 1, 2}
    assert all(blocks[c] == set(range(5)) for c in ("stock", "stock+aa", "patched/max_active=4"))
    result = compare(measured(tmp_path), baseline="stock", confidence=0.95, minimum_effect=0.02)
    assert not any("dropped" in warning for warning in result.warnings)
    assert [cell.blocks_visited for cell in result.cells] == [5, 3, 5]


def test_a_run_that_goes_on_lets_the_same_cells_end(tmp_path):
    the_lab = up_to(5, lab(blocks=2, matrix={"max_active": (1, 4)}))
    for stop_after in (28, 33, 40):
        folder = tmp_path / str(stop_after)
        folder.mkdir()
        counter = itertools.count(1)
        world = World()

        def stop(guest, counter=counter, stop_after=stop_after):
            if next(counter) > stop_after:
                raise KeyboardInterrupt

        world.on_run = stop
        with pytest.raises(KeyboardInterrupt):
            runner(folder, world, the_lab, ended=one_ends).run()
        runner(folder, World(2), the_lab, ended=one_ends).run()
        first = [s.block for s in measured(folder) if s.cell == "patched/max_active=1"]
        assert sorted(set(first)) == [0, 1, 2]
        assert len(measured(folder)) == 3 * 8 + 2 * 6


def test_progress_reports_where_it_is(tmp_path):
    messages = []
    runner(tmp_path, World(), progress=messages.append).run()
    assert messages[-1].repetition == messages[-1].repetitions
    assert {p.status for p in messages} == {"booting", "measuring", "ok"}
    assert messages[-1].remaining_seconds == pytest.approx(0)


@pytest.mark.parametrize(
    "text",
    ['{"elapsed": 1, "x": NaN}', '{"elapsed": ' + "9" * 400 + "}",
     '{"elapsed": 1, "x": ' + "[" * 3000 + "]" * 3000 + "}", "elapsed: 402,5 ms", "elapsed: 402"],
)  # fmt: skip
def test_output_that_is_no_number_is_a_sample_and_no_end_of_the_run(tmp_path, monkeypatch, text):
    run = synthetic.Guest.run

    def run_with_this_output(guest, argv, **more):
        outcome = run(guest, argv, **more)
        if guest.group.kernel == "patched":
            return dataclasses.replace(outcome, stdout=text.encode())
        return outcome

    monkeypatch.setattr(synthetic.Guest, "run", run_with_this_output)
    runner(tmp_path, World(), lab(blocks=2, repetitions=1)).run()
    samples = measured(tmp_path)
    assert {s.block for s in samples} == {0, 1}
    assert {s.status for s in samples if s.kernel == "stock"} == {"ok"}
    bad = [s for s in samples if s.kernel == "patched"]
    assert {s.status for s in bad} == {"bad-output"}
    assert all("elapsed" in s.message and s.value is None for s in bad)


@pytest.mark.parametrize("pauses", [0, 1], ids=["after its boot", "after its command"])
def test_a_guest_that_cannot_be_paused_is_hung_and_the_others_go_on(tmp_path, pauses):
    world = World()

    def stop(guest):
        if guest.group.kernel == "patched":
            calls, pause = itertools.count(), guest.pause

            def fail():
                pause()
                if next(calls) >= pauses:
                    raise GuestHung("QEMU's monitor did not answer")

            guest.pause = fail

    world.on_boot = stop
    runner(tmp_path, world, lab(blocks=2, repetitions=1)).run()
    samples = Store(tmp_path).samples()
    hung = {s.kernel for s in samples if s.status == "hung"}
    assert hung == {"patched"}
    assert {s.status for s in samples if s.kernel == "stock"} == {"ok"}
    assert not [s for s in samples if s.kernel == "patched" and s.status == "ok"]


def test_a_block_of_another_host_stays_as_it_is_and_is_measured_again(tmp_path):
    counter = itertools.count(1)

    def stop(guest):
        if next(counter) > 14:
            raise KeyboardInterrupt

    world = World()
    world.on_run = stop
    with pytest.raises(KeyboardInterrupt):
        runner(tmp_path, world, lab(blocks=3)).run()
    first = Store(tmp_path).samples()
    assert {sample.block for sample in first} == {0, 1}, "stopped inside block 1"

    other = runner(tmp_path, World(2), lab(blocks=3))
    elsewhere = dataclasses.replace(FACTS, host="other")
    other.facts, other.blocks.host = elsewhere, elsewhere.host
    other.run()
    samples = Store(tmp_path).samples()
    hosts = {(sample.block, sample.host) for sample in samples}
    assert hosts == {(0, "h"), (1, "h"), (2, "other"), (3, "other")}
    assert [s for s in samples if s.block < 2] == first


def test_a_block_of_a_worker_is_complete(tmp_path):
    world = World()
    named = dataclasses.replace(FACTS, host_name="big")
    far = runner(tmp_path, world, lab(blocks=3))
    far.facts = named
    far.measure(far.blocks.block(1, []))
    before = Store(tmp_path).path.read_bytes()
    runner(tmp_path, World(2), lab(blocks=3)).run()
    assert Store(tmp_path).path.read_bytes().startswith(before)
    samples = Store(tmp_path).samples()
    assert {s.block for s in samples} == {0, 1, 2}
    assert {s.host_name for s in samples if s.block == 1} == {"big"}


def test_each_line_of_the_store_is_read_once(tmp_path, monkeypatch):
    """Reading all samples anew after each block would take most of the time of a long run."""
    parsed, parse = [], stores.parse_valid
    monkeypatch.setattr(stores, "parse_valid", lambda line: parsed.append(len(line)) or parse(line))
    for blocks in (6, 24):
        parsed.clear()
        folder = tmp_path / str(blocks)
        folder.mkdir()
        runner(folder, World(), lab(blocks=blocks)).run()
        assert sum(parsed) == Store(folder).path.stat().st_size
