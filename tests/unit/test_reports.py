import json
import math
import re

import msgspec
import pytest
from records import report_of
from samples import as_json, cell, replace

from labctl import cli, units
from labctl.lab.topology import Topology
from labctl.reports import cover_letter, facts, seed, words
from labctl.reports.report import FORMATS, found_a_problem
from labctl.reports.table import render
from labctl.runs.types import Placement
from labctl.stats.compare import compare
from labctl.stats.report_types import Report

STOCK = [1.00, 1.10, 0.95, 1.05, 1.02, 0.98, 1.07, 1.01]
WOBBLE = [1.01, 0.99, 1.005, 0.995, 1.0, 1.01, 0.99, 1.0]
RUN = {
    "schema": 1,
    "run": "20261124-015501-3fa2",
    "created_at": "2026-11-24T01:55:01+00:00",
    "seed": 42,
    "accel": "tcg",
    "finished": True,
    "host": {
        "id": "4711deadbeef",
        "cpu_model": "Xeon E5",
        "cores": 2,
        "memory_bytes": 8 << 30,
        "qemu": "7.2.19",
    },
    "kernels": {
        "stock": {"image": "ab" * 32, "series": None, "release": "6.1.170", "patches": []},
        "parallel-free": {"image": "cd" * 32, "series": "ef" * 32, "release": "6.1.170-pf"},
    },
    "experiments": [{"name": "smoke", "workload": "free", "metric": "elapsed", "confidence": 0.95}],
}


def times(speedup):
    return [t / speedup * w for t, w in zip(STOCK, WOBBLE, strict=True)]


def patched(speedup, **changes):
    return cell(times(speedup), kernel="parallel-free", **changes)


def report(*groups, run=RUN, control=1.0, **changes):
    samples = [s for group in (cell(STOCK), *groups) for s in group]
    if control:
        samples += cell(times(control), control=True)
    rule = {"baseline": "stock", "confidence": 0.95, "minimum_effect": 0.02} | changes
    return report_of(run, [compare(samples, **rule)])


def flat(text):
    return " ".join(text.split())


def row_of(text, name):
    """A row of the first table as a list of its columns, whatever their widths."""
    return next(
        re.split(r"\s{2,}|\s*\|\s*", line.strip("| "))
        for line in text.splitlines()
        if re.match(rf"\|?\s*{re.escape(name)}(\s{{2,}}|\s*\|)", line)
    )


# The document.


def test_the_document_is_the_one_that_scripts_rely_on():
    content = report(patched(1.4))
    assert content.schema == 1
    assert content.run == RUN["run"]
    assert json.loads(as_json(content.host)) == RUN["host"]
    assert content.accel == "tcg"
    assert content.kernels["stock"].series is None
    assert content.kernels["parallel-free"].image == "cd" * 32
    (experiment,) = content.experiments
    assert (experiment.name, experiment.baseline) == ("smoke", "stock")
    assert {"ratio", "ci", "verdict"} <= set(experiment.aa_control.__struct_fields__)
    assert experiment.aa_control.verdict == "same"
    base, new = experiment.cells
    names = "kernel setting n blocks median_seconds spread_percent ratio ci p p_corrected verdict"
    for each in (base, new):
        assert set(names.split()) <= set(each.__struct_fields__)
    assert (base.kernel, base.verdict, base.ratio, base.ci) == (
        "stock",
        "baseline",
        1.0,
        None,
    )
    assert new.verdict == "faster"
    low, high = new.ci
    assert low < new.ratio < high


def test_the_document_survives_json_and_is_rounded():
    content = report(patched(1.4, measurements={"memory_back_nanoseconds": 12345678901}))
    assert msgspec.json.decode(as_json(content), type=Report) == content
    new = content.experiments[0].cells[1]
    for number in (new.ratio, new.p, new.median_seconds, new.spread_percent):
        assert number == float(f"{number:.6g}")
    assert new.memory_back.median_seconds == pytest.approx(12.3457)


def test_whatever_is_unknown_is_null():
    failed = [replace(s, status="panic", value=None) for s in patched(1.4)]
    content = report(failed, control=None)
    as_json(content)
    experiment = content.experiments[0]
    assert experiment.aa_control is None
    new = experiment.cells[1]
    assert new.failed == {"panic": 8}
    assert [getattr(new, n) for n in ("ratio", "ci", "p", "median_seconds", "handovers")] == [
        None
    ] * 5
    render(content)
    render(content, format="markdown")


def test_a_number_that_json_lacks_is_null():
    samples = cell(STOCK) + patched(1.4)
    result = compare(samples, baseline="stock", confidence=0.95, minimum_effect=0.02)
    base, new = result.cells
    strange = replace(new, ratio=float("nan"), ci=(0.0, float("inf")))
    content = report_of(RUN, [replace(result, cells=(base, strange))]).experiments[0]
    assert (content.cells[1].ratio, content.cells[1].ci) == (None, (0.0, None))


def test_one_block_is_a_document_too():
    content = report([s for s in patched(1.4) if s.block == 0])
    as_json(content)
    assert "undecided" in render(content)


def test_memory_back_and_handovers_are_in_the_document():
    def back(group, factor):
        return [
            replace(s, measurements={"memory_back_nanoseconds": int(s.value * factor * 1e9)})
            for s in group
        ]

    group = back(patched(1.4, counters={"handovers": 12, "pages_handed": 3}), 2)
    samples = back(cell(STOCK), 1) + group
    result = compare(samples, baseline="stock", confidence=0.95, minimum_effect=0.02)
    new = report_of(RUN, [result]).experiments[0].cells[1]
    assert new.handovers == 12
    assert new.memory_back.ratio == pytest.approx(new.ratio / 2, rel=1e-4)


# The text.


@pytest.mark.parametrize("form", ["terminal", "markdown"])
def test_the_first_line_has_the_result(form):
    content = report(patched(1.4))
    new = content.experiments[0].cells[1]
    first = flat(render(content, format=form).split("\n\n")[0])
    low, high = new.ci
    assert (
        f"parallel-free frees 3 GiB {new.ratio:.2f} times as fast as stock "
        f"(95 % CI {low:.2f} to {high:.2f}, 8 blocks, p <0.001)"
    ) in first


@pytest.mark.parametrize(
    ("speedup", "says"),
    [
        (0.8, ": slower: parallel-free frees 3 GiB 0.80 times as fast as stock"),
        (1.0, "as fast as stock, within 2 %"),
        (1.02, "undecided"),
    ],
)
def test_every_verdict_has_its_sentence(speedup, says):
    assert says in flat(render(report(patched(speedup))).split("\n\n")[0])


def test_an_undecided_sentence_says_how_many_more_blocks():
    content = report([s for s in patched(1.4) if s.block < 4])
    assert "about 2 more blocks" in flat(render(content).split("\n\n")[0])


def test_what_is_not_shown_is_called_noise():
    draw = [1.1, 0.93, 1.05, 0.9, 1.12, 0.97, 1.04, 0.91]
    times_of = [t * d for t, d in zip(STOCK, draw, strict=True)]
    noisy = [replace(s, kernel="parallel-free", cell="p") for s in cell(times_of)]
    first = flat(render(report(noisy)).split("\n\n")[0])
    assert "difference not distinguishable from noise" in first


def test_a_report_says_below_which_level_p_counts_and_what_its_control_could_see():
    text = flat(render(report(patched(1.3))))
    assert "p: of any difference at all; it counts below 0.0375." in text
    assert re.search(r"effect \(80 % power\): [0-9.]+ %; of the A/A control [0-9.]+ %", text)


def test_an_interval_beside_a_corrected_p_is_of_its_cell_and_its_run_alone():
    groups = [patched(r, setting={"max_active": n}) for n, r in ((1, 1.3), (4, 1.9))]
    text = flat(render(report(*groups)))
    assert re.search(
        r"\(95 % CI [0-9.]+ to [0-9.]+ for it alone, 8 blocks, p <0.001 \(Holm\)\)", text
    )
    assert "each 95 % CI is of its cell alone; p and verdicts are corrected for all 2" in text
    one = flat(render(report(patched(1.3))))
    assert "95 % CI: of this run; another run differs by more" in one
    assert "alone" not in one


def test_the_best_cell_of_a_matrix_is_reported_as_the_best_of_many():
    groups = [patched(r, setting={"max_active": n}) for n, r in ((1, 0.8), (4, 1.9), (8, 1.5))]
    first = flat(render(report(*groups)).split("\n\n")[0])
    assert "max_active=4 frees 3 GiB 1.90 times" in first
    assert "the best of 3 settings (2 faster, 1 slower)" in first


def test_a_matrix_without_a_gain_says_so():
    groups = [patched(r, setting={"max_active": n}) for n, r in ((1, 0.8), (4, 0.9))]
    assert "none of 2 settings is shown to be faster: 2 slower" in flat(render(report(*groups)))


def test_higher_is_better_is_no_speed():
    run = RUN | {"experiments": [{"name": "smoke", "metric": "pages"}]}
    text = flat(render(report(patched(1 / 1.4), run=run, better="higher")))
    assert "1.40 times the pages of stock" in text
    assert " s ±" not in text


@pytest.mark.parametrize("form", ["terminal", "markdown"])
def test_a_host_that_differs_from_itself_comes_first_of_all(form):
    text = render(report(patched(1.4), control=1.1), format=form)
    assert flat(text).lstrip("- ").startswith("smoke: this host cannot be trusted today")
    assert row_of(text, "parallel-free")[-2] == "undecided"


def test_a_good_control_is_reported_but_not_first():
    text = flat(render(report(patched(1.4))))
    assert "A/A control: stock against itself, ratio 1.00" in text
    assert "trusted" not in text


def test_emulation_says_so_on_its_face():
    note = "measured under TCG emulation: ratios only, and only on this host"
    assert note in flat(render(report(patched(1.4))))
    kvm = report(patched(1.4), run=RUN | {"accel": "kvm"})
    assert "TCG" not in render(kvm)
    assert "accelerator: kvm" in render(kvm)


def test_host_and_kernels_are_on_its_face():
    text = flat(render(report(patched(1.4))))
    for fact in ("Xeon E5", "2 cores", "8 GiB", "QEMU 7.2.19", "6.1.170-pf", "seed 42"):
        assert fact in text
    assert "image cdcdcdcdcdcd, series efefefefefef" in text
    assert "image abababababab, no series" in text
    assert "cd" * 7 not in text


def test_an_unfinished_run_says_so():
    text = flat(render(report(patched(1.4), run=RUN | {"finished": False})))
    assert f"not finished: labctl run --resume {RUN['run']}" in text
    assert "not finished" not in render(report(patched(1.4)))


@pytest.mark.parametrize("form", ["terminal", "markdown"])
def test_a_row_has_time_spread_ratio_interval_p_and_verdict(form):
    content = report(patched(1.4))
    new = content.experiments[0].cells[1]
    text = render(content, format=form, seed_figures=False)
    low, high = new.ci
    assert row_of(text, "parallel-free") == [
        "parallel-free",
        f"{new.median_seconds:.3f} s ± {new.spread_percent:.0f} %",
        f"{new.ratio:.2f}",
        f"{low:.2f} to {high:.2f}",
        "<0.001",
        "faster",
    ]
    head = flat(text)
    for name in ("95 % CI", "(Holm)", "± CV", "across", "blocks"):
        assert name in head


def test_failures_have_a_column_and_a_warning():
    group = patched(1.4)
    group[3] = replace(group[3], status="panic", value=None)
    text = render(report(group))
    assert row_of(text, "parallel-free")[-3:-1] == ["undecided", "1 panic"]
    assert "1 of 8 blocks dropped" in flat(text)


def test_handovers_prove_the_exercise():
    text = render(report(patched(1.4, counters={"handovers": 12})))
    assert re.search(r"handovers per repetition.*12", text)
    assert "handovers" not in render(report(patched(1.4)))


def full_matrix():
    groups = [
        patched(
            1 + n / 32,
            setting={"max_active": n},
            counters={"handovers": n},
            measurements={"memory_back_nanoseconds": 10**9},
        )
        for n in (1, 2, 4, 8, 16, 32)
    ]
    return report(*groups)


def test_the_terminal_needs_no_more_than_100_columns():
    assert max(map(len, render(full_matrix()).splitlines())) <= 100


def test_markdown_is_one_table_an_experiment():
    text = render(full_matrix(), format="markdown")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 7
    assert len({row.count("|") for row in rows}) == 1


# The seed's figures.


def test_the_seeds_figures_are_beside_their_cells():
    text = render(full_matrix())
    expected = {1: "1.21 (8.9 s)", 8: "2.26 (4.77 s)", 32: "1.74 (6.21 s)"}
    for value, figure in expected.items():
        assert row_of(text, f"max_active={value}")[-1] == figure
    assert row_of(text, "stock")[-1] == "1.00 (10.8 s)"
    assert "seed (144 threads, 320 GB)" in flat(render(full_matrix(), format="markdown"))
    assert "other hardware" in flat(text)


def test_the_default_setting_has_the_seeds_default():
    assert row_of(render(report(patched(1.4))), "parallel-free")[-1] == "1.86 (5.795 s)"


@pytest.mark.parametrize(
    "changes",
    [
        {"setting": {"batch_pages": 65536}},
        {"setting": {"max_active": 3}},
        {"setting": {"max_active": 4, "batch_pages": 65536}},
        {"parameters": {"op": "exit", "size": 3 << 30}},
        {"kernel": "parallel-unmap"},
    ],
)
def test_what_the_seed_did_not_measure_has_no_figure(changes):
    cell_of = {"kernel": "parallel-free", "setting": {}, "parameters": {"op": "free"}} | changes
    assert seed.figure(**cell_of) is None


def test_the_seeds_figures_can_be_left_out():
    text = render(full_matrix(), seed_figures=False)
    assert "4.77" not in text
    assert "320 GB" not in text


def test_the_seeds_best_is_twice_as_fast_as_stock():
    assert max(f.ratio for f in seed.MAX_ACTIVE.values()) == pytest.approx(2.26, abs=0.005)
    assert seed.DEFAULT.ratio == pytest.approx(1.86, abs=0.005)


# Words.


@pytest.mark.parametrize(
    ("p", "text"),
    [(None, "-"), (0.0, "<0.001"), (0.0002, "<0.001"), (0.0123, "0.012"), (0.5, "0.50")],
)
def test_p_values_are_no_more_exact_than_they_deserve(p, text):
    assert words.p_value(p) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8712, "0.871 s"),
        (10.84, "10.8 s"),
        (1.234, "1.23 s"),
        (0.0123, "12.3 ms"),
        (5e-8, "50 ns"),
    ],
)
def test_times_have_about_three_digits(value, text):
    assert words.seconds(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(3 << 30, "3 GiB"), (1536 << 20, "1.5 GiB"), (1020 << 30, "1020 GiB"), (512, "512 bytes")],
)
def test_sizes_are_in_the_unit_that_suits(count, text):
    assert units.rough_size(count) == text


# The block for a cover letter.


def test_the_cover_letter_block_is_plain_and_narrow():
    text = cover_letter.render(report(patched(1.4)))
    assert text.isprintable() or set(filter(lambda c: not c.isprintable(), text)) == {"\n"}
    assert max(map(len, text.splitlines())) <= 72
    row = next(line.split() for line in text.splitlines() if line.strip().startswith("parallel-"))
    assert re.fullmatch(r"0\.\d{3}s", row[1])
    assert re.fullmatch(r"±\d+\.\d%", row[2])
    assert (row[3], row[-1]) == ("1.40", "faster")
    assert "TCG emulation, where only ratios mean anything" in flat(text)
    assert "series efefefefefef" in text
    assert "A/A control: stock against itself" in text
    assert "8 blocks count. A/A control" in flat(text)
    assert "of its cell alone" not in text


def test_the_placement_of_guests_is_reported():
    where = {"vcpus": 4, "cores": 2, "overcommitted": True, "pinned": [], "emulator": [],
             "host_nodes": []}  # fmt: skip
    run = {**RUN, "experiments": [{**RUN["experiments"][0], "placement": where}]}
    text = render(report(patched(1.5), run=run))
    assert "guest: 4 vCPUs on 2 cores, overcommitted, not pinned" in text
    pinned = {"cores": 4, "overcommitted": False, "pinned": [2, 4], "emulator": [0]}
    result = words.placement(Placement(**where | pinned | {"host_nodes": [0, 1]}))
    assert result == (
        "4 vCPUs on 4 cores, pinned to CPUs 2, 4, QEMU's other threads on 0; "
        "memory on host nodes 0, 1"
    )


def test_the_cover_letter_block_of_a_matrix_names_settings_and_what_is_the_same():
    run = {**RUN, "experiments": [{**RUN["experiments"][0], "set": {"thp": "never"}}]}
    matrix = [patched(1.0 + k / 10, setting={"max_active": k}) for k in (1, 8)]
    text = cover_letter.render(report(*matrix, run=run))
    assert "thp=never" in text.splitlines()[0]
    assert [line.split()[0] for line in text.splitlines() if "max_active=" in line] == [
        "max_active=1",
        "max_active=8",
    ]
    assert "alone; verdicts are corrected for all 2 cells (Holm)." in flat(text)


def test_a_parameter_that_an_experiment_sets_is_listed_once():
    run = {**RUN, "experiments": [{**RUN["experiments"][0], "set": {"size": 3 << 20, "thp": "x"}}]}
    sized = [replace(s, parameters={"size": 3 << 20}) for s in (*cell(STOCK), *patched(1.4))]
    rule = {"baseline": "stock", "confidence": 0.95, "minimum_effect": 0.02}
    text = cover_letter.render(report_of(run, [compare(sized, **rule)]))
    assert text.splitlines()[0] == "smoke: size=3MiB; thp=x"


def test_the_cover_letter_block_lists_failures_and_untrusted_hosts():
    failed = [replace(s, status="panic", value=None) for s in patched(1.4)]
    assert "8 panic" in cover_letter.render(report(failed))
    suspect = cover_letter.render(report(patched(1.4), control=1.3))
    assert "NOT TO BE TRUSTED" in suspect


def test_every_format_can_be_asked_for():
    (option,) = (each for each in cli.runs.report.params if each.name == "style")
    assert list(option.type.choices) == list(FORMATS)


def test_a_host_that_differs_from_itself_is_a_problem_to_scripts():
    assert found_a_problem(report(patched(1.4), control=1.3))
    assert not found_a_problem(report(patched(1.4)))


def test_every_table_has_its_minimum_detectable_effect():
    assert "minimum detectable effect" in render(report(patched(1.4)))
    assert "minimum detectable effect" not in render(report(cell([0.5], kernel="parallel-free")))


def test_a_verdict_that_the_sign_flip_test_does_not_share_is_marked():
    d = [0.085, 0.091, 0.08, 0.1, 0.086, -0.009]
    times = [t / math.exp(x) for t, x in zip(STOCK, d, strict=False)]
    experiment = report(cell(times, kernel="parallel-free")).experiments[0]
    assert experiment.cells[1].verdict == "faster"
    assert any("but not by the sign-flip test" in line for line in experiment.warnings)
    clear = report(patched(1.4)).experiments[0]
    assert not any("sign-flip" in line for line in clear.warnings)


def test_a_cell_has_the_p_of_the_sign_flip_test():
    d = [1.25] * 7 + [0.99]
    samples = cell([t / r for t, r in zip(STOCK, d, strict=True)], kernel="parallel-free")
    (row,) = [c for c in report(samples).experiments[0].cells if c.verdict != "baseline"]
    assert row.p_sign_flip == pytest.approx(4 / 2**8)


def test_long_names_stay_within_the_columns_of_a_mail():
    setting = {"unmap_max_active": 1, "batch_pages": 65536}
    text = cover_letter.render(report(patched(1.4, setting=setting)))
    assert max(map(len, text.splitlines())) <= 72
    assert "unmap_max_active=1" in text


def test_a_matrix_over_workers_says_from_where_on_more_are_not_worth_it():
    groups = [
        cell([t * f for t in STOCK], kernel="parallel-free", setting={"max_active": n})
        for n, f in ((1, 0.9), (2, 0.6), (4, 0.5), (8, 0.48), (16, 0.55))
    ]
    text = flat(render(report(*groups)))
    assert re.search(r"parallel-free over max_active: max_active=[48] is recommended", text)
    assert "contention" in text


def test_the_keys_of_a_guest_are_reported_with_units():
    nodes = [
        {"cpus": 2, "memory": "1GiB"},
        {"cpus": 0, "memory": 0, "hotplug": {"memory": "2GiB", "state": "online_movable"}},
    ]
    guest = Topology(
        nodes=nodes,
        latency=[["80ns", "250ns"]],
        bandwidth=["40GiB/s", "1536MiB/s"],
        swap={"zram": "512MiB"},
        disks=["1GiB", "64MiB"],
    )
    text = facts._guest(guest.model_dump(mode="json"))
    assert "nodes 2 CPUs and 1 GiB; no CPU and no memory and 2 GiB hotplugged (online_mov" in text
    assert "latency 80 ns, 250 ns, bandwidth 40 GiB/s, 1.5 GiB/s" in text
    assert "swap zram 512 MiB, disks 1 GiB, 64 MiB" in text
