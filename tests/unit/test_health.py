"""Blocks that the host disturbed are found by a rule, measured again and reported."""

import pytest
from records import record_of, report_of
from samples import as_json, cell, replace, sample
from synthetic import World, lab
from test_reports import RUN, STOCK, times
from test_runner import runner

from labctl.errors import BaselineFailed
from labctl.experiments.plan import plan
from labctl.lab.topology import Topology
from labctl.reports import cover_letter, health, html, table
from labctl.runs.store import Store
from labctl.stats.health import HealthRule, disturbance, disturbed_blocks, extra_blocks, usable
from labctl.stats.stored import results_of

RULE = HealthRule()
CALM = {
    "cores": 2.0,
    "wall_seconds": 5.0,
    "busy_seconds": 7.1,
    "own_seconds": 7.0,
    "steal_seconds": 0.0,
    "cpu_pressure_seconds": 4.0,
    "memory_pressure_seconds": 0.0,
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""),
        ({"busy_seconds": 8.54}, ""),
        ({"busy_seconds": 8.56}, "other processes used 15 % of the CPU time"),
        ({"steal_seconds": 0.54}, ""),
        ({"steal_seconds": 0.56}, "the hypervisor took 5 % of the CPU time"),
        ({"steal_seconds": 1.05}, "the hypervisor took 10 % of the CPU time"),
        ({"memory_pressure_seconds": 0.5}, "tasks waited for memory 10 % of the time"),
        ({"throttled_count": 1.0}, "a core was thermally throttled"),
        ({"cpu_pressure_seconds": 5.0}, ""),  # its own guest's four CPUs on two cores
        ({"busy_seconds": 6.9}, ""),  # counters in ticks do not fit exactly
    ],
)
def test_a_repetition_is_judged_by_the_host_alone(changes, says):
    assert disturbance(CALM | changes, RULE) == says


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({}, HealthRule()),
        ({"disturbed_share": 0.1}, HealthRule(0.1, 0.1)),
        ({"disturbed_share": 0.1, "others_share": 0.3}, HealthRule(0.1, 0.3)),
    ],
)
def test_a_run_keeps_its_rule(stored, expected):
    assert HealthRule.of(record_of(RUN | {"health": stored})) == expected


def test_short_repetitions_are_not_judged_by_single_ticks():
    short = CALM | {"wall_seconds": 0.1, "own_seconds": 0.1}
    assert disturbance(short | {"busy_seconds": 0.14}, RULE) == ""
    assert disturbance(short | {"busy_seconds": 0.2}, RULE) != ""


@pytest.mark.parametrize("load", [{}, {"busy_seconds": 9.0, "steal_seconds": 0, "wall_seconds": 1}])
def test_an_older_sample_reports_nothing(load):
    assert disturbance(load, RULE) == ""
    assert usable([sample(load=load)], 1)[1].seen == {}


@pytest.mark.parametrize(("repetitions", "disturbed", "found"), [
    (1, 1, True), (2, 1, True), (3, 1, False), (3, 2, True), (5, 2, False),
])  # fmt: skip
def test_a_block_is_disturbed_if_the_median_of_a_cell_may_be(repetitions, disturbed, found):
    own = [
        sample(repetition=r, disturbed="others" if r < disturbed else "")
        for r in range(repetitions)
    ]
    calm = [sample(repetition=r, cell="patched", kernel="patched") for r in range(repetitions)]
    assert disturbed_blocks([*own, *calm]) == ({0: "others"} if found else {})


def test_warm_ups_do_not_count():
    assert disturbed_blocks([sample(warmup=True, disturbed="others"), sample()]) == {}


def test_only_a_few_blocks_are_measured_again():
    assert [extra_blocks(n, 8) for n in (0, 1, 2, 8)] == [0, 1, 2, 2]
    assert [extra_blocks(n, 20) for n in (4, 20)] == [4, 5]
    assert extra_blocks(2, 5) == 0, "five blocks decide nothing anyhow"


# The rule in a run.


def run_under(tmp_path, others, blocks=6):
    world = World()
    world.others = others
    the_lab = lab(blocks=blocks, repetitions=2)
    runner(tmp_path, world, the_lab).run()
    samples = Store(tmp_path).samples()
    record = RUN | {
        "experiments": [
            {
                "name": "e",
                "baseline": "stock",
                "confidence": 0.95,
                "minimum_effect": 0.02,
                "better": "lower",
                "blocks_min": blocks,
            }
        ]
    }
    return samples, results_of(record_of(record), samples)[0]


def blocks_of(samples):
    return sorted({s.block for s in samples})


def test_a_disturbed_block_is_kept_marked_and_measured_again(tmp_path):
    samples, result = run_under(tmp_path, lambda guest: 0.3 if guest.block == 2 else 0.01)
    assert blocks_of(samples) == list(range(7))
    marks = {s.disturbed for s in samples if s.block == 2 and not s.warmup}
    assert marks == {"other processes used 28 % of the CPU time"}
    assert not any(s.disturbed for s in samples if s.block != 2)
    assert result.health.left_out == (2,)
    assert (result.health.blocks, result.blocks) == (7, 6)
    assert not result.health.stays_loaded


def test_a_host_that_stays_loaded_costs_a_few_blocks_and_all_are_used(tmp_path):
    samples, result = run_under(tmp_path, lambda guest: 0.3)
    assert blocks_of(samples) == list(range(8))
    assert (result.health.left_out, result.blocks) == ((), 8)
    assert result.health.stays_loaded


def test_the_load_and_the_clock_of_the_host_say_nothing_of_instructions(tmp_path):
    def slowly(_):
        world.seconds += 100

    for name in ("time", "instructions"):
        (tmp_path / name).mkdir()
    world = World()
    world.others, world.on_run = (lambda _: 0.28), slowly
    with pytest.raises(BaselineFailed, match="clock jumped"):
        runner(tmp_path / "time", world, lab(blocks=6)).run()
    counting = lab(blocks=6).model_copy(update={"guests": {"numa4": Topology(icount=True)}})
    runner(tmp_path / "instructions", world, counting).run()
    samples = Store(tmp_path / "instructions").samples()
    assert {s.status for s in samples} == {"ok"}
    assert not any(s.disturbed for s in samples)


def test_a_report_says_that_a_guest_counts_instructions(tmp_path):
    store = Store(tmp_path)
    counting = lab(blocks=6).model_copy(update={"guests": {"numa4": Topology(icount=True)}})
    runner(tmp_path, World(), counting).run()
    for icount in (True, False):
        known = {"name": "e", "workload": "w", "metric": "elapsed", "confidence": 0.95}
        record = RUN | {"guests": {"g": {"nodes": 1, "icount": icount}}}
        record |= {"experiments": [known | {"guest": "g"}]}
        report = report_of(record, results_of(record_of(record), store.samples()))
        assert (table.ICOUNT_NOTE in table.remarks(report.experiments[0])) is icount


def test_the_rule_does_not_ask_which_kernel_was_disturbed(tmp_path):
    samples, result = run_under(
        tmp_path, lambda guest: 0.3 if guest.block == 0 and guest.group.kernel == "patched" else 0.0
    )
    assert result.health.left_out == (0,)
    assert {cell.blocks for cell in result.cells} == {6}
    assert blocks_of(samples) == list(range(7))


def test_blocks_measured_again_have_an_order_of_their_own():
    planned = plan(lab(blocks=6), "e", 7)
    orders = [[one.cell.id for one in planned.block(number)] for number in range(8)]
    assert len({tuple(order) for order in orders}) > 4


def test_stopping_early_asks_for_the_blocks_that_count(tmp_path):
    the_lab = lab(blocks=6)
    blocks = the_lab.statistics.blocks.model_copy(update={"max": 9})
    the_lab = the_lab.model_copy(
        update={"statistics": the_lab.statistics.model_copy(update={"blocks": blocks})}
    )
    world, asked = World(), []
    world.others = lambda guest: 0.3 if guest.block == 1 else 0.0

    def ended(samples):
        asked.append(blocks_of(samples))
        return frozenset({"patched"})

    runner(tmp_path, world, the_lab, ended=ended).run()
    assert asked == [[0, 2, 3, 4, 5, 6]]


def test_an_interrupted_run_measures_again_what_was_disturbed_before(tmp_path):
    world = World()
    world.others = lambda guest: 0.3 if guest.block == 0 else 0.0
    booted = []

    def stop(guest):
        booted.append(guest)
        if guest.block == 1:
            raise KeyboardInterrupt

    world.on_run = stop
    with pytest.raises(KeyboardInterrupt):
        runner(tmp_path, world).run()
    runner(tmp_path, World(2)).run()
    assert blocks_of(Store(tmp_path).samples()) == list(range(7))


def test_a_disturbed_block_is_shown_on_the_screen(tmp_path):
    world, messages = World(), []
    world.others = lambda guest: 0.3 if guest.block == 2 else 0.0
    runner(tmp_path, world, progress=messages.append).run()
    statuses = {(p.block, p.status) for p in messages if p.status.startswith("block disturbed")}
    assert statuses == {(2, "block disturbed: other processes used 28 % of the CPU time")}
    assert {p.blocks_max for p in messages} == {6, 7}


# What reports say.


def experiment_of(samples, least=6):
    record = RUN | {
        "experiments": [
            {
                "name": "smoke",
                "baseline": "stock",
                "confidence": 0.95,
                "minimum_effect": 0.02,
                "better": "lower",
                "blocks_min": least,
            }
        ]
    }
    return report_of(record, results_of(record_of(record), samples))


def under_load(*blocks):
    groups = cell(STOCK), cell(times(1.0), control=True), cell(times(1.4), kernel="parallel-free")
    return [
        replace(
            s,
            load=CALM | {"busy_seconds": 9.05 if s.block in blocks else 7.1, "frequency_hz": 2.6e9},
            disturbed="other processes used 20 % of the CPU time" if s.block in blocks else "",
        )
        for group in groups
        for s in group
    ]


def test_the_hosts_load_and_omitted_blocks_are_below_a_table():
    content = experiment_of(under_load(2, 5))
    as_json(content)
    seen, left_out = health.lines(content.experiments[0])
    assert "other processes used 0.5 % (worst 20 %) of the CPU time" in seen
    assert "the hypervisor took 0 % (worst 0 %)" in seen
    assert "for memory 0 % (worst 0 %)" in seen
    assert "CPUs at 2.60 GHz (least 2.60)" in seen
    assert left_out.startswith("2 of 8 blocks were disturbed and are left out, 6 count (block 2: ")
    assert content.experiments[0].cells[1].blocks == 6
    for text in (table.render(content), table.render(content, format="markdown")):
        assert "host load (median" in text
        assert "left out" in text
    assert "was busy" not in table.render(content)
    letter = " ".join(cover_letter.render(content).split())
    assert "6 blocks count; 2 of 8 are left out as disturbed." in letter


def test_a_host_that_stayed_loaded_heads_every_report():
    samples = under_load(2, 5, 6)
    content = experiment_of(samples)
    assert content.experiments[0].cells[1].blocks == 8
    result = "the host was busy during the run: 3 of 8 blocks were disturbed"
    assert result in table.render(content).splitlines()[0]
    assert result in " ".join(cover_letter.render(content).split())
    text = html.render(content, samples)
    assert text.index(result) < text.index('<p class="found')


def test_a_host_that_reports_nothing_has_no_line():
    content = experiment_of(cell(STOCK) + cell(times(1.4), kernel="parallel-free"))
    assert content.experiments[0].host_health is None
    assert health.lines(content.experiments[0]) == []
