import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import cell, null_times, replace, sample

from labctl.errors import UserError
from labctl.methodology.runs import verdicts
from labctl.stats import robust
from labctl.stats.compare import compare, half_width, smallest_effect
from labctl.stats.paired import (
    _blocks_for,
    _power,
    adjust,
    more_blocks,
    paired,
    sign_flip,
    signed_ranks,
)
from labctl.stats.verdict import Rule

GOLDEN = {
    case["id"]: case
    for case in json.loads((Path(__file__).parent / "golden" / "stats.json").read_text())["cases"]
}
RULE = {"baseline": "stock", "confidence": 0.95, "minimum_effect": 0.02}
EXACT = 1e-9
STOCK = [1.00, 1.10, 0.95, 1.05, 1.02, 0.98, 1.07, 1.01]
WOBBLE = [1.01, 0.99, 1.005, 0.995, 1.0, 1.01, 0.99, 1.0]


def times(speedup, wobble=1.0, of=STOCK):
    return [t / speedup * w**wobble for t, w in zip(of, WOBBLE, strict=False)]


def judge(*groups, **changes):
    return compare([s for group in groups for s in group], **(RULE | changes))


def only(result):
    (row,) = [row for row in result.cells if row.verdict != "baseline"]
    return row


# Golden cases: the answers are R's.


def test_paired_t_is_students():
    case = GOLDEN["student_sleep"]
    d = np.subtract(case["input"]["x"], case["input"]["y"]).tolist()
    expected = case["expected"]["paired"]
    result = paired(d, confidence=0.95, margin=0.02)
    assert result.p == pytest.approx(expected["p"], rel=EXACT)
    low, high = result.mean - result.half_width, result.mean + result.half_width
    assert (low, high) == pytest.approx(expected["ci"], rel=EXACT)


def test_paired_t_of_six_blocks():
    case = GOLDEN["signflip_floor_n6"]
    result = paired(case["input"]["d"], confidence=0.95, margin=0.0)
    assert result.p == pytest.approx(case["expected"]["paired_t_p"], rel=EXACT)
    assert sign_flip(case["input"]["d"]) == pytest.approx(case["expected"]["signflip_p"], rel=EXACT)
    assert result.p_beyond == pytest.approx(result.p, rel=EXACT)  # without a margin, one test


def test_a_missing_cell_is_no_test_of_the_family():
    case = GOLDEN["holm_with_missing_cell"]
    for method, name in (("holm", "holm"), ("fdr_bh", "bh")):
        corrected = adjust(case["input"]["p"], method=method)
        assert corrected[3] is None
        for got, expected in zip(corrected, case["expected"][name], strict=True):
            assert got == (None if expected is None else pytest.approx(expected, rel=EXACT))
    assert adjust([None, None]) == [None, None]


def test_equivalence_is_tost():
    case = GOLDEN["tost_equivalence"]
    result = paired(case["input"]["d"], confidence=0.95, margin=case["input"]["margin"])
    worse = max(case["expected"]["p_lower"], case["expected"]["p_upper"])
    assert result.p_same == pytest.approx(worse, rel=EXACT)


def test_a_matrix_as_a_whole():
    case = GOLDEN["rcbd_4configs_6blocks"]
    values, expected = case["input"]["values"], case["expected"]
    # The tests of 95 % are those of a promise of 93.3 %.
    result = judge(*(cell(v, kernel=k) for k, v in values.items()), confidence=1 - 0.05 / 0.75)
    assert [row.kernel for row in result.cells] == ["stock", "ma1", "ma32", "ma4"]
    for row in result.cells[1:]:
        golden = expected["per_config"][row.kernel]
        assert row.ratio == pytest.approx(1 / golden["ratio"], rel=EXACT)
        low, high = golden["ci95"]
        assert row.ci == pytest.approx((1 / high, 1 / low), rel=EXACT)
        assert row.p == pytest.approx(golden["p"], rel=1e-8)
        assert row.p_corrected == pytest.approx(expected["holm"][row.kernel], rel=1e-8)
    assert [row.verdict for row in result.cells] == ["baseline", "faster", "undecided", "faster"]


def test_power_agrees_with_r():
    cases = {case["call"]: case for case in GOLDEN["power_table"]["expected"]}
    delta = next(c["delta"] for c in cases.values() if "delta" in c)
    found = smallest_effect(sd=0.04, blocks=10, confidence=0.95, cells=1, margin=0.0)
    assert math.log1p(found) == pytest.approx(delta, rel=1e-3)
    n = next(c["n"] for call, c in cases.items() if "delta=log(1.05)" in call)
    needed = _blocks_for(math.log(1.05) / 0.04, alpha=0.05, power=0.8, sides="two-sided")
    assert needed == math.ceil(n)
    power = next(c["power"] for call, c in cases.items() if "paired" in call)
    assert _power(0.05 / 0.03, blocks=8, alpha=0.05 / 6) == pytest.approx(power, rel=1e-3)


def test_the_wilcoxon_test_is_rs():
    case = GOLDEN["signflip_floor_n6"]
    found = signed_ranks(case["input"]["d"])
    assert found == pytest.approx(case["expected"]["wilcoxon_p"], rel=EXACT)


def test_the_smallest_p_of_the_exact_tests():
    for blocks, p in GOLDEN["signflip_floor_n6"]["expected"]["min_p_by_blocks"].items():
        d = [0.01 * (1 + n) for n in range(int(blocks))]
        expected = None if int(blocks) < 6 else pytest.approx(p, rel=EXACT)
        assert sign_flip(d) == signed_ranks(d) == expected


def test_the_interval_is_over_batches_and_not_over_all_observations():
    case = GOLDEN["dyestuff_variance_components"]
    result = paired(case["expected"]["batch_means"], confidence=0.95, margin=0.0)
    interval = (result.mean - result.half_width, result.mean + result.half_width)
    assert interval == pytest.approx(case["expected"]["ci95_t_on_batch_means"], rel=EXACT)
    assert result.sd / math.sqrt(6) == pytest.approx(case["expected"]["se"], rel=1e-6)


def test_a_matrix_corrected_for_false_discoveries():
    expected = GOLDEN["rcbd_4configs_6blocks"]["expected"]
    p_values = [golden["p"] for golden in expected["per_config"].values()]
    assert adjust(p_values, method="fdr_bh") == pytest.approx(list(expected["bh"].values()))


# The rule.


@pytest.mark.parametrize(
    ("speedup", "verdict"), [(1.4, "faster"), (0.8, "slower"), (1.0, "same"), (1.02, "undecided")]
)
def test_the_four_verdicts(speedup, verdict):
    row = only(judge(cell(STOCK), cell(times(speedup), kernel="new")))
    assert row.verdict == verdict
    assert row.blocks == row.n == 8
    assert row.ratio == pytest.approx(speedup, rel=0.005)
    assert bool(row.reason) == (verdict == "undecided")
    assert (row.blocks_needed is not None) <= (verdict == "undecided")


def test_a_small_but_certain_difference_is_undecided_with_its_reason():
    row = only(judge(cell(STOCK), cell(times(1.018), kernel="new")))
    assert row.p_corrected < 0.05
    assert row.verdict == "undecided"
    assert "2 %" in row.reason


def test_more_blocks_are_asked_for_when_the_interval_is_wide():
    row = only(judge(cell(STOCK), cell(times(1.0, wobble=6), kernel="new")))
    assert row.verdict == "undecided"
    assert row.blocks_needed > 8
    wider = only(judge(cell(STOCK), cell(times(1.0, wobble=9), kernel="new")))
    assert wider.blocks_needed is None or wider.blocks_needed > row.blocks_needed


def test_blocks_asked_for_would_decide():
    rng = np.random.default_rng(11)
    seen = paired(rng.normal(0.05, 0.05, 8).tolist(), confidence=0.95, margin=0.02)
    more = more_blocks(seen, alpha=0.05, margin=0.02, family=1)
    decided = sum(
        paired(
            rng.normal(seen.mean, seen.sd, 8 + more).tolist(), confidence=0.95, margin=0.02
        ).p_beyond
        <= 0.05
        for _ in range(200)
    )
    assert 0.7 < decided / 200 < 0.9


def test_higher_is_better_turns_the_ratio():
    low = only(judge(cell(STOCK), cell(times(1.4), kernel="new")))
    high = only(judge(cell(STOCK), cell(times(1.4), kernel="new"), better="higher"))
    assert high.ratio == pytest.approx(1 / low.ratio)
    assert (low.verdict, high.verdict) == ("faster", "slower")


def test_a_repetition_far_from_the_others_hardly_counts():
    """The plain mean of the logs of the three would be more than halved."""
    fast = times(1.4)
    spoilt = cell(fast, kernel="new", repetitions=3)
    spoilt = [replace(s, value=s.value * 9) if s.repetition == 2 else s for s in spoilt]
    row = only(judge(cell(STOCK), spoilt))
    undisturbed = only(judge(cell(STOCK), cell(fast, kernel="new"))).ratio
    assert row.ratio == pytest.approx(undisturbed, rel=0.015)
    assert (row.blocks, row.n) == (8, 24)


def test_all_repetitions_near_each_other_count():
    values = np.log([[1.0, 1.02, 1.07], [2.0, 2.02, 2.03]])
    wide = robust.means(values, np.array(1.0))
    assert wide == pytest.approx(values.mean(axis=1))
    assert robust.means(values, np.array(0.0)) == pytest.approx(np.median(values, axis=1))


def test_fewer_repetitions_have_their_own_mean():
    values = np.array([[1.0, 2.0, 3.0], [5.0, 7.0, np.nan], [9.0, np.nan, np.nan]])
    assert robust.means(values, np.array(10.0)) == pytest.approx([2, 6, 9])
    assert robust.spread(values) == pytest.approx(2.2219)  # pairs: 1, 1, 2 and 2
    assert robust.spread(values[2:]) == 0


def test_the_spread_is_the_standard_deviation_of_normal_values_despite_outliers():
    draw = np.random.default_rng(5)
    values = draw.normal(0, 0.04, (500, 5))
    assert robust.spread(values) == pytest.approx(0.04, rel=0.05)
    values[::5, 2] += 1
    assert robust.spread(values) == pytest.approx(0.04, rel=0.15)


def test_the_baseline_is_the_mean_of_its_two_boots():
    base, control = times(1.0), times(1.02, wobble=5)
    row = only(judge(cell(base), cell(control, control=True), cell(times(1.4), kernel="new")))
    middle = [math.sqrt(one * other) for one, other in zip(base, control, strict=True)]
    alone = only(judge(cell(middle), cell(times(1.4), kernel="new")))
    assert (row.ratio, row.p) == (pytest.approx(alone.ratio), pytest.approx(alone.p))
    assert row.ratio == pytest.approx(1.4 / math.sqrt(1.02), rel=0.01)


def test_a_block_without_the_baseline_is_compared_with_the_control():
    base = [None if block == 3 else time for block, time in enumerate(STOCK)]
    result = judge(cell(base), cell(times(1.0), control=True), cell(times(1.4), kernel="new"))
    assert only(result).blocks == 8
    assert result.aa_control.blocks == 7


def test_warmups_never_count():
    slow = [replace(s, warmup=True, value=50.0) for s in cell(STOCK, kernel="new")]
    assert only(judge(cell(STOCK), slow, cell(times(1.4), kernel="new"))) == only(
        judge(cell(STOCK), cell(times(1.4), kernel="new"))
    )


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_few_blocks_decide_nothing_and_say_how_many_are_missing(blocks):
    row = only(judge(cell(STOCK[:blocks]), cell(times(3)[:blocks], kernel="new")))
    assert row.verdict == "undecided"
    assert row.blocks_needed >= 6 - blocks
    assert row.ratio == pytest.approx(3, rel=0.02)
    assert (row.ci is None) == (row.p is None) == (blocks == 1)


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "same"), (2.0, "faster"), (0.5, "slower")])
def test_constant_data_has_an_answer_and_no_nan(factor, verdict):
    row = only(judge(cell([0.3] * 8), cell([0.3 / factor] * 8, kernel="new")))
    assert row.verdict == verdict
    assert row.ci == pytest.approx((factor, factor))
    numbers = [row.p, row.p_corrected, row.p_beyond, row.spread_percent, row.median_seconds]
    assert all(math.isfinite(number) for number in numbers)


def test_no_sample_at_all():
    result = compare([], name="smoke", **RULE)
    assert (result.name, result.cells, result.aa_control) == ("smoke", (), None)


# Failures.


@pytest.mark.parametrize(
    "status", ["panic", "splat", "hung", "lost", "deadline", "boot-failed", "bad-output"]
)
@pytest.mark.parametrize("warmup", [False, True])
def test_a_kernel_that_failed_is_never_faster(status, warmup):
    failed = sample(kernel="new", cell="new", status=status, block=8, warmup=warmup, message="oops")
    row = only(judge(cell(STOCK), cell(times(2), kernel="new"), [failed]))
    assert row.verdict == "undecided"
    assert row.failed == {status: 1}
    assert status in row.reason
    assert row.ratio == pytest.approx(2, rel=0.01)


def test_a_failure_does_not_excuse_what_is_slower():
    failed = sample(kernel="new", cell="new", status="panic", block=8)
    assert only(judge(cell(STOCK), cell(times(0.5), kernel="new"), [failed])).verdict == "slower"


def test_a_crash_counts_against_every_cell_of_its_kernel():
    groups = [cell(times(2), kernel="new", setting={"max_active": n}) for n in (1, 2)]
    crash = [replace(groups[0][0], block=8, status="panic", value=None)]
    other = cell(times(2), kernel="other")
    result = judge(cell(STOCK), *groups, other, crash)
    verdicts = {row.cell: row.verdict for row in result.cells}
    assert verdicts["new/max_active=1"] == verdicts["new/max_active=2"] == "undecided"
    assert verdicts["other"] == "faster"
    refused = [replace(groups[0][0], block=8, status="knob-refused", value=None)]
    result = judge(cell(STOCK), *groups, refused)
    assert {row.setting["max_active"]: row.verdict for row in result.cells[1:]} == {
        1: "undecided",
        2: "faster",
    }


def test_a_cell_whose_series_was_not_entered_is_not_the_same():
    group = [replace(s, status="not-exercised") for s in cell(times(1.0), kernel="new")]
    result = judge(cell(STOCK), group)
    row = only(result)
    assert row.verdict == "undecided"
    assert row.failed == {"not-exercised": 8}
    assert row.reason == "series not exercised in 8 samples"
    assert row.blocks == 0
    assert row.ratio is row.p is row.ci is None


def test_a_cell_without_any_pair_is_undecided():
    failed = [replace(s, status="panic", value=None) for s in cell(STOCK, kernel="new")]
    row = only(judge(cell(STOCK), failed))
    assert (row.verdict, row.blocks, row.median_seconds) == ("undecided", 0, None)


def test_a_value_without_a_logarithm_is_bad_output():
    group = cell(times(1.4), kernel="new")
    row = only(judge(cell(STOCK), [replace(group[0], value=0.0), *group[1:]]))
    assert row.failed == {"bad-output": 1}
    assert (row.verdict, row.blocks) == ("undecided", 7)


def test_blocks_without_a_pair_are_dropped_and_counted():
    new = times(1.4)
    new[2] = None
    old = list(STOCK)
    old[5] = None
    result = judge(cell(old), cell(new, kernel="new"))
    row = only(result)
    assert (row.blocks, row.n) == (6, 7)
    (warning,) = [w for w in result.warnings if "dropped" in w]
    assert "2 of 8 blocks" in warning
    assert "2, 5" in warning
    assert row.verdict == "faster"


def test_complete_data_with_a_control_has_no_warnings():
    result = judge(cell(STOCK), cell(times(1.0), control=True), cell(times(1.4), kernel="new"))
    assert result.warnings == ()


def test_crashed_boots_are_counted_against_those_of_the_baseline():
    crashed = [
        sample(kernel="new", cell="new", status="panic", block=b, boot_id=f"x{b}") for b in (8, 9)
    ]
    boots = [replace(s, boot_id=f"b{s.block}") for s in cell(times(2), kernel="new")]
    own = [replace(s, boot_id=f"s{s.block}") for s in cell(STOCK)]
    (line,) = [w for w in judge(own, boots, crashed).warnings if "Fisher" in w]
    assert "new: 2 of 10 boots crashed, baseline: 0 of 8" in line
    assert "p 0.29" in line  # of 153 ways to choose two of 18 boots 45 hit the new ones


def test_a_repetition_that_lies_far_out_is_named_and_counts():
    new = cell(times(1.4), kernel="new", repetitions=3)
    spoilt = [replace(s, value=s.value * 9) if s.block == r == 2 else s
              for s in new for r in [s.repetition]]  # fmt: skip
    result = judge(cell(STOCK), cell(times(1.0), control=True), spoilt)
    (warning,) = result.warnings
    assert "new: 1 outlier in 24 repetitions (block 2: 8.5 times the median)" in warning
    assert only(result).n == 24


def test_equal_times_have_no_outlier_but_the_one_that_is_not_equal():
    odd = [0.3] * 7 + [0.9]
    warnings = judge(cell([0.3] * 8), cell(odd, kernel="new")).warnings
    assert [w for w in warnings if "outlier" in w] == [
        "new: 1 outlier in 8 repetitions (block 7: 3 times the median); "
        "outliers count, with less weight, within their block's mean"
    ]


def test_blocks_that_lie_far_out_are_reported_where_ranks_see_a_difference():
    spoilt = [t * (4 if n in (1, 6) else 1) for n, t in enumerate(times(1.15))]
    result = judge(cell(3 * STOCK), cell([*spoilt, *times(1.15), *times(1.15)], kernel="new"))
    row = only(result)
    assert row.verdict == "undecided"
    assert row.p_wilcoxon < 0.005 < 0.5 < row.p
    assert any("Wilcoxon" in warning for warning in result.warnings)


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 3600.0, 1e7])
def test_nanoseconds_and_hours_are_judged_alike(scale):
    row = only(judge(cell([t * scale for t in STOCK]),
                     cell([t * scale for t in times(1.4)], kernel="new")))  # fmt: skip
    assert row.verdict == "faster"
    assert row.ratio == pytest.approx(1.4, rel=0.01)
    assert row.median_seconds == pytest.approx(scale * 1.022 / 1.4, rel=0.02)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["ok", "panic", "boot-failed", "skipped", None]), max_size=9),
    st.sampled_from([1e-9, 1.0, 1e6]),
)
def test_whatever_is_missing_no_interval_is_made_up(statuses, scale):
    new = [
        sample(kernel="new", cell="new", block=n, status=status, boot_id=f"b{n}",
               **({"value": scale * (1 + n % 3 / 10)} if status == "ok" else {}))
        for n, status in enumerate(statuses) if status
    ]  # fmt: skip
    result = judge(cell([t * scale for t in STOCK]), new)
    for row in result.cells[1:]:
        good = sum(s.status == "ok" and s.block < len(STOCK) for s in new)
        assert row.blocks == good
        assert (row.ci is None) == (row.p is None) == (good < 2)
        if good < 6:
            assert row.verdict == "undecided"
        numbers = [row.ratio, row.p, row.p_wilcoxon, row.median_seconds, *(row.ci or ())]
        assert all(math.isfinite(each) for each in numbers if each is not None)


# The control.


def test_the_control_is_judged_alone_and_is_no_cell():
    groups = [cell(times(1.4, wobble=n), kernel=f"new{n}") for n in range(1, 5)]
    result = judge(cell(STOCK), cell(times(1.0), control=True), *groups)
    assert result.aa_control.verdict == "same"
    assert result.aa_control.label == "stock (A/A)"
    assert result.aa_control.p == result.aa_control.p_corrected
    assert "stock (A/A)" not in {row.label for row in result.cells}
    compared = result.cells[1:]
    assert [row.p_corrected for row in compared] == adjust([row.p for row in compared])
    without = judge(cell(STOCK), *groups)
    assert any("no A/A control" in warning for warning in without.warnings)


@pytest.mark.parametrize("has_failure", [False, True])
def test_a_control_that_differs_withholds_all_verdicts(has_failure):
    control = cell(times(1.1), control=True)
    if has_failure:
        control += [replace(control[0], block=9, status="lost", value=None)]
    result = judge(cell(STOCK), control, cell(times(1.4), kernel="new"))
    assert result.aa_control.verdict == "faster"
    assert "cannot be trusted today" in result.warnings[0]
    row = only(result)
    assert row.verdict == "undecided"
    assert "A/A" in row.reason


def test_a_control_that_differs_less_than_matters_is_no_reason_for_distrust():
    control = cell(times(1.01, wobble=0.3), control=True)
    result = judge(cell(STOCK), control, cell(times(1.4), kernel="new"))
    assert result.aa_control.p < 0.05
    assert only(result).verdict == "faster"


# Which baseline.


def test_each_setting_of_the_workload_has_its_own_baseline():
    big = {"op": "free", "size": 2}
    result = judge(
        cell(STOCK),
        cell([3 * t for t in STOCK], parameters=big, setting={"size": 2}),
        cell(times(1.4), kernel="new"),
        cell([3 * t for t in times(2)], kernel="new", parameters=big, setting={"size": 2}),
    )
    ratios = [row.ratio for row in result.cells if row.kernel == "new"]
    assert ratios == [pytest.approx(1.4, rel=0.01), pytest.approx(2, rel=0.01)]
    assert [row.verdict for row in result.cells].count("baseline") == 2


def test_a_baseline_with_the_same_tunable_is_taken_before_another():
    result = judge(
        cell(STOCK, setting={"thp": "never"}),
        cell([t / 4 for t in STOCK], setting={"thp": "always"}),
        cell(times(8), kernel="new", setting={"thp": "always"}),
    )
    assert only(result).ratio == pytest.approx(2, rel=0.01)


def test_a_cell_without_its_baseline_is_named():
    result = judge(cell(STOCK), cell(times(2), kernel="new", parameters={"op": "exit"}))
    assert only(result).verdict == "undecided"
    assert any("no baseline" in warning for warning in result.warnings)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(UserError, match="experiment"):
        judge(cell(STOCK), cell(STOCK, kernel="new", experiment="other"))
    with pytest.raises(UserError, match="kvm, tcg"):
        judge(cell(STOCK), cell(STOCK, kernel="new", accel="kvm"))


# The second metric and the counters.


def with_memory_back(group, factor):
    return [
        replace(s, measurements={"memory_back_nanoseconds": int(s.value * factor * 1e9)})
        for s in group
    ]


def test_memory_back_is_compared_by_the_same_method():
    row = only(
        judge(
            with_memory_back(cell(STOCK), 2),
            with_memory_back(cell(times(1.4), kernel="new"), 3),
        )
    )
    second = row.secondary["memory_back"]
    assert second.ratio == pytest.approx(row.ratio * 2 / 3, rel=1e-6)
    assert second.median_seconds == pytest.approx(row.median_seconds * 3, rel=1e-6)
    low, high = second.ci
    assert low < second.ratio < high
    assert second.p == second.p_corrected < 0.05


def test_without_memory_back_there_is_none():
    assert only(judge(cell(STOCK), cell(times(2), kernel="new"))).secondary == {}


def test_counters_are_medians_of_the_repetitions():
    group = cell(times(2), kernel="new", counters={"handovers": 12})
    group[0] = replace(group[0], counters={"handovers": 99})
    assert only(judge(cell(STOCK), group)).counters == {"handovers": 12}


# What must not matter.

GROUPS = st.lists(st.floats(0.2, 5.0), min_size=6, max_size=9)


def essence(result):
    return [replace(row, label="") for row in result.cells]


@settings(max_examples=25, deadline=None)
@given(GROUPS, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(speedups, shuffle):
    old = STOCK[: len(speedups)]
    new = [t / s for t, s in zip(old, speedups, strict=False)]
    all_samples = cell(old, repetitions=3) + cell(new, kernel="new", repetitions=3)
    expected = compare(all_samples, **RULE)
    shuffle.shuffle(all_samples)
    assert compare(all_samples, **RULE) == expected


@settings(max_examples=25, deadline=None)
@given(GROUPS, st.floats(1e-6, 1e6))
def test_the_unit_of_time_does_not_matter(speedups, factor):
    old = STOCK[: len(speedups)]
    new = [t / s for t, s in zip(old, speedups, strict=False)]
    one = judge(cell(old), cell(new, kernel="new"))
    scaled = judge(cell([t * factor for t in old]), cell([t * factor for t in new], kernel="new"))
    assert only(scaled).ratio == pytest.approx(only(one).ratio, rel=1e-9)
    assert only(scaled).p == pytest.approx(only(one).p, rel=1e-6, abs=1e-12)
    assert only(scaled).verdict == only(one).verdict


@settings(max_examples=25, deadline=None)
@given(GROUPS)
def test_swapping_baseline_and_cell_inverts_the_ratio(speedups):
    old = STOCK[: len(speedups)]
    new = [t / s for t, s in zip(old, speedups, strict=False)]
    groups = (cell(old), cell(new, kernel="new"))
    there, back = only(judge(*groups)), only(judge(*groups, baseline="new"))
    assert back.ratio == pytest.approx(1 / there.ratio)
    assert back.ci == pytest.approx((1 / there.ci[1], 1 / there.ci[0]))
    assert back.p == pytest.approx(there.p)
    turned = {"faster": "slower", "slower": "faster"}
    assert back.verdict == turned.get(there.verdict, there.verdict)


def test_the_order_of_blocks_does_not_move_the_last_digit():
    d = [0.1, 0.2, 0.3, 1e-9, 7.7, 0.123456789]
    args = {"confidence": 0.95, "margin": 0.02}
    assert paired(d, **args) == paired(d[::-1], **args) == paired(d[3:] + d[:3], **args)


def test_labels_do_not_matter():
    groups = [cell(STOCK), cell(times(1.0), control=True), cell(times(1.4), kernel="new")]
    renamed = [
        [replace(s, label=f"label {i % 3}") for i, s in enumerate(group)] for group in groups
    ]
    assert essence(judge(*groups)) == essence(judge(*renamed))
    assert judge(*groups).warnings == judge(*renamed).warnings


# The method, by simulation: nominal 5 %.


def test_a_matrix_without_any_effect_is_seldom_called_different():
    rng = np.random.default_rng(20261124)
    runs, cells, blocks = 400, 4, 8
    wrong = single = 0
    for _ in range(runs):
        base, *others = null_times(rng, blocks, cells + 1)
        d = np.log(base) - np.log(others)
        p_values = [paired(row.tolist(), confidence=0.95, margin=0.0).p for row in d]
        wrong += min(adjust(p_values)) <= 0.05
        single += sum(p <= 0.05 for p in p_values)
    assert 0.02 <= wrong / runs <= 0.075
    assert 0.035 <= single / (runs * cells) <= 0.065


def test_null_data_through_the_whole_comparison():
    rng = np.random.default_rng(7)
    runs, called = 150, 0
    for _ in range(runs):
        base, *others = null_times(rng, 8, 4)
        groups = [cell(t, kernel=f"new{i}") for i, t in enumerate(others)]
        result = judge(cell(base), *groups, minimum_effect=0.0)
        called += any(row.verdict in ("faster", "slower") for row in result.cells)
    assert 0.005 <= called / runs <= 0.10


def test_repetitions_do_not_add_evidence():
    one = only(judge(cell(STOCK), cell(times(1.03, wobble=3), kernel="new")))
    many = only(
        judge(cell(STOCK, repetitions=9), cell(times(1.03, wobble=3), kernel="new", repetitions=9))
    )
    assert many.p == pytest.approx(one.p)


# Planning.


def test_half_width_is_that_of_the_widest_cell():
    narrow, wide = cell(times(1.4), kernel="a"), cell(times(1.4, wobble=-4), kernel="b")
    control = cell(times(1.0, wobble=9), control=True)
    width = half_width([*cell(STOCK), *narrow, *wide, *control], baseline="stock", confidence=0.95)
    low, high = only(judge(cell(STOCK), wide, control)).ci
    assert width == pytest.approx(math.log(high / low) / 2)


def test_half_width_while_nothing_is_known():
    one_block = [*cell(STOCK[:1]), *cell(STOCK[:1], kernel="new")]
    assert half_width([], baseline="stock", confidence=0.95) == math.inf
    assert half_width(one_block, baseline="stock", confidence=0.95) == math.inf


def test_half_width_leaves_a_dead_cell_out():
    dead = [replace(s, status="panic", value=None) for s in cell(STOCK, kernel="dead")]
    alive = [*cell(STOCK), *cell(times(1.4), kernel="new")]
    args = {"baseline": "stock", "confidence": 0.95}
    assert half_width([*alive, *dead], **args) == half_width(alive, **args)


@pytest.mark.parametrize(
    ("d", "p"),
    [
        ([0.1] * 6, 2 / 2**6),
        ([0.1] * 8, 2 / 2**8),
        ([0.1, -0.1] * 3, 1.0),
        # all 2^7 sign patterns by hand: only the two with all signs alike reach 2.2
        ([0.1, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5], 2 / 2**7),
        ([0.1] * 5, None),
        ([], None),
    ],
)
def test_sign_flip_counts_the_patterns_that_reach_as_far(d, p):
    assert sign_flip(d) == (None if p is None else pytest.approx(p, rel=1e-12))


def test_sign_flip_of_many_blocks_is_a_sample_drawn_alike_each_time():
    d = [0.01 * (i % 7 - 2) for i in range(30)]
    assert sign_flip(d) == sign_flip(d[::-1])
    assert 0 < sign_flip(d) < 0.2


def test_smallest_effect_shrinks_with_blocks_and_grows_with_cells():
    def effect(sd, blocks, cells=1, margin=0.0):
        return smallest_effect(sd, blocks, confidence=0.95, cells=cells, margin=margin)

    by_blocks = [effect(0.04, blocks) for blocks in (2, 6, 8, 30)]
    assert by_blocks == sorted(by_blocks, reverse=True)
    assert effect(0.04, 8, cells=6) > effect(0.04, 8)
    assert effect(0.04, 1) == math.inf
    assert effect(0.0, 8) == 0
    assert effect(0.0, 8, margin=math.log(1.02)) == pytest.approx(0.02)


@pytest.mark.parametrize(("cells", "blocks"), [(1, 8), (1, 30), (12, 10)])
def test_the_smallest_effect_is_called_faster_in_four_of_five_runs(cells, blocks):
    rule, runs = Rule.of(0.95, 0.02), 4000
    level = rule.confidence
    effect = smallest_effect(0.04, blocks, confidence=level, cells=cells, margin=rule.margin)
    draw = np.random.default_rng(5)
    mean = draw.normal(0, 0.04 / math.sqrt(blocks), (runs, cells))
    mean[:, 0] += math.log1p(effect)
    sd = 0.04 * np.sqrt(draw.chisquare(blocks - 1, (runs, cells)) / (blocks - 1))
    words = verdicts(mean, sd, np.full(mean.shape, blocks), rule)
    assert (words[:, 0] == "faster").mean() == pytest.approx(0.8, abs=0.02)


def test_the_sign_flip_test_of_very_many_blocks_needs_little_memory():
    """By the normal distribution: patterns of 100 000 blocks would need 1.6 GB."""
    draw = np.random.default_rng(1)
    d = draw.normal(0.0004, 0.02, 3000)
    many = sign_flip(d.tolist())
    shown = math.erfc(abs(d.sum()) / math.sqrt(2 * (d**2).sum()))
    assert many == pytest.approx(shown)
    assert many == pytest.approx(paired(d.tolist(), confidence=0.95, margin=0.0).p, rel=0.05)
    assert sign_flip([0.0] * 3000) == 1.0
    assert 0 <= sign_flip([0.1] * 100_000) < 1e-9
