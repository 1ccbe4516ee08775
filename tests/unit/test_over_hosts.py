"""Runs whose blocks were measured on several hosts."""

import itertools
import json
import math

import golden_runs
import numpy as np
import pytest
from samples import as_json, cell, replace, sample

from labctl.errors import UserError
from labctl.lab.metrics import MetricKind
from labctl.reports import cover_letter, html, table
from labctl.reports.document import document
from labctl.runs.record import RunRecord
from labctl.stats.between_runs import Summary, difference
from labctl.stats.cells import cells_of
from labctl.stats.compare import compare, half_width
from labctl.stats.over_hosts import over_hosts, random_effects
from labctl.stats.paired import more_hosts, paired
from labctl.stats.repetitions import Goal, chosen
from labctl.stats.run_spread import spreads
from labctl.stats.stopping import ended
from labctl.stats.verdict import Rule

NAMES = ("alpha", "beta", "gamma", "delta")
RULE = {"baseline": "stock", "confidence": 0.95, "minimum_effect": 0.02}


def measured(*effects, speeds=(1, 2, 1, 1), sd=0.01, blocks=(), aa=(), accel="tcg", **changes):
    """Samples of stock, its A/A control and a kernel that is faster by its effect on each host.

    Blocks alternate between hosts; `blocks` has those of each, `aa` the effect of the control.
    """
    draw = np.random.default_rng(3)
    left = list(blocks or [4] * len(effects))
    order = []
    for host in itertools.cycle(range(len(effects))):
        if not any(left):
            break
        if left[host]:
            left[host] -= 1
            order.append(host)
    found = []
    for block, host in enumerate(order):
        control = aa[host] if aa else 0.0
        for kernel, is_control, log in (
            ("stock", False, 0.0), ("stock", True, control), ("patched", False, effects[host]),
        ):  # fmt: skip
            time = speeds[host] * math.exp(draw.normal(0, sd) - log)
            own = {"host": f"id-{NAMES[host]}", "host_name": NAMES[host], "accel": accel}
            own |= changes
            found += [
                replace(one, block=block)
                for one in cell([time], kernel=kernel, control=is_control, repetitions=3, **own)
            ]
    return found


def report_of(samples):
    experiment = {
        "name": "smoke", "workload": "free", "metric": "elapsed", "set": {}, "baseline": "stock",
        "better": "lower", "confidence": 0.95, "minimum_effect": 0.02,
    }  # fmt: skip
    known = {one.host: {"cpu_model": f"CPU of {one.host_name}", "cores": 8} for one in samples}
    record = RunRecord.of(
        {"run": "r", "accel": "tcg", "experiments": [experiment], "finished": True, "hosts": known}
    )
    return document(record, [compare(samples, **RULE)])


# statsmodels 0.15: combine_effects(means, 0.0016 / blocks, method_re="iterated", use_t=True);
# its mean_effect_re, sd_eff_w_re_hksj, tau2 and q.
@pytest.mark.parametrize(
    ("means", "blocks", "expected"),
    [
        (
            [0.31, 0.22, 0.27, 0.05],
            [5, 3, 8, 2],
            (0.21409326317480554, 0.056831235870152354, 0.01245982545110301, 64.90625),
        ),
        ([0.3, 0.31, 0.295], [4, 4, 3], (0.30227272727, 0.00435984683938, 0.0, 0.26136363636)),
    ],
)
def test_random_effects_agree_with_statsmodels(means, blocks, expected):
    found = random_effects(np.array(means), np.array(blocks), np.array(0.0016))
    assert tuple(map(float, found)) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    many = random_effects(np.array([means, means]), np.array(blocks), np.array([0.0016] * 2))
    assert many.mean == pytest.approx([expected[0]] * 2, rel=1e-6)


def test_with_as_many_blocks_on_each_host_it_is_the_t_test_of_the_hosts_means():
    draw = np.random.default_rng(1)
    d = draw.normal(0.2, 0.03, 12) + np.repeat(draw.normal(0, 0.05, 4), 3)
    hosts = [host for host in NAMES for _ in range(3)]
    found = over_hosts(d.tolist(), hosts, confidence=0.95, margin=0.02)
    own = paired(d.reshape(4, 3).mean(axis=1).tolist(), confidence=0.95, margin=0.02)
    assert (found.mean, found.half_width, found.p, found.p_beyond, found.p_same) == pytest.approx(
        (own.mean, own.half_width, own.p, own.p_beyond, own.p_same)
    )
    assert found.blocks == 12
    assert found.sd / math.sqrt(12) == pytest.approx(found.hosts.error)


def test_cochrans_q_is_the_f_test_of_one_way_anova():
    from scipy.stats import f_oneway

    draw = np.random.default_rng(2)
    groups = [draw.normal(mean, 0.03, count) for mean, count in ((0.2, 5), (0.25, 3), (0.1, 4))]
    hosts = [name for name, own in zip(NAMES, groups, strict=False) for _ in own]
    found = over_hosts(np.concatenate(groups).tolist(), hosts, confidence=0.95, margin=0.0).hosts
    statistic, p = f_oneway(*groups)
    assert (found.q / 2, found.p) == pytest.approx((statistic, p))
    assert found.i_squared == pytest.approx(1 - 1 / statistic)


def test_the_order_of_blocks_and_hosts_changes_nothing():
    d, hosts = [0.1, 0.12, 0.3, 0.29, 0.2], ["a", "a", "b", "b", "c"]
    found = over_hosts(d, hosts, confidence=0.95, margin=0.02)
    assert over_hosts(d[::-1], hosts[::-1], confidence=0.95, margin=0.02) == found


@pytest.mark.parametrize("d", [[0.0] * 6, [0.1] * 6, [0.2, 0.2, 0.2, 0.1, 0.1, 0.1]])
def test_hosts_without_any_spread_give_no_nan(d):
    found = over_hosts(d, ["a"] * 3 + ["b"] * 3, confidence=0.95, margin=0.02)
    assert found.hosts.p is None
    for value in (found.mean, found.half_width, found.p, found.p_beyond, found.p_same):
        assert math.isfinite(value)


def test_hosts_that_are_equal_by_chance_do_not_make_the_mean_exact():
    """Counts of rare events often have the same mean on two hosts."""
    found = over_hosts([0, 2, 1, 1, 0, 2], ["a"] * 3 + ["b"] * 3, confidence=0.95, margin=0.02)
    assert found.half_width > 0.5


def test_one_block_a_host_is_the_t_test_of_the_blocks():
    d = [0.1, 0.12, 0.15, 0.11, 0.2, 0.13]
    found = over_hosts(d, list("abcdef"), confidence=0.95, margin=0.02)
    own = paired(d, confidence=0.95, margin=0.02)
    assert (found.mean, found.half_width) == pytest.approx((own.mean, own.half_width))
    assert (found.hosts.q, found.hosts.p, found.hosts.i_squared, found.hosts.tau) == (None,) * 4


def test_a_run_on_one_host_is_compared_as_ever():
    """The name of its host is all that a worker adds."""
    samples = measured(0.3, blocks=(8,))
    found = compare(samples, **RULE)
    local = compare([replace(one, host="h", host_name="") for one in samples], **RULE)
    assert (found.cells, found.aa_control, found.warnings) == (
        local.cells, local.aa_control, local.warnings,
    )  # fmt: skip
    assert [(one.name, one.blocks) for one in found.hosts] == [("alpha", 8)]
    assert local.hosts == ()


def test_an_effect_on_four_hosts_is_found_though_one_is_slow_by_half():
    found = compare(measured(0.3, 0.3, 0.3, 0.3, blocks=(3, 3, 2, 2)), **RULE)
    row = found.cells[1]
    assert row.verdict == "faster"
    assert row.ci[0] < math.exp(0.3) < row.ci[1]
    assert row.spread_percent < 5  # within hosts
    assert [one.blocks for one in row.hosts.hosts] == [3, 3, 2, 2]
    assert not row.hosts.differing
    assert found.warnings == ()
    assert [(one.name, one.blocks) for one in found.hosts] == [
        ("alpha", 3), ("beta", 3), ("delta", 2), ("gamma", 2),
    ]  # fmt: skip


def test_two_hosts_need_more_hosts_not_more_blocks():
    row = compare(measured(0.1, 0.2, blocks=(15, 15)), **RULE).cells[1]
    assert (row.verdict, row.blocks_needed) == ("undecided", None)
    assert row.hosts_needed > 0
    assert "noise between 2 hosts" in row.reason
    assert (row.p_sign_flip, row.p_wilcoxon) == (None, None)


def test_a_host_whose_effect_differs_is_named():
    found = compare(measured(0.3, 0.3, 0.0, 0.3), **RULE)
    row = found.cells[1]
    assert [one.host for one in row.hosts.differing] == ["id-gamma"]
    assert row.hosts.p < 0.001
    assert row.hosts.i_squared > 0.9
    assert row.hosts.tau == pytest.approx(0.15, rel=0.1)
    logs = {one.host: math.log(one.ratio) for one in row.hosts.hosts}
    truth = {"id-alpha": 0.3, "id-beta": 0.3, "id-delta": 0.3, "id-gamma": 0.0}
    assert logs == pytest.approx(truth, abs=0.03)


def test_hosts_that_are_alike_are_seldom_called_different():
    draw = np.random.default_rng(5)
    hosts = [host for host in NAMES for _ in range(3)]
    named = sum(
        any(one.differs for one in over_hosts(d, hosts, confidence=0.95, margin=0.0).hosts.means)
        for d in draw.normal(0, 0.03, (300, 12)).tolist()
    )
    assert named <= 0.05 * 300 + 2 * math.sqrt(0.05 * 0.95 * 300)


def test_an_aa_control_that_differs_on_one_host_invalidates_the_verdicts():
    found = compare(measured(0.3, 0.3, 0.3, 0.3, aa=(0, 0, 0.2, 0)), **RULE)
    assert found.control_differs
    assert found.cells[1].verdict == "undecided"
    assert "A/A control also differs" in found.cells[1].reason
    assert found.warnings[0].startswith(
        "host gamma cannot be trusted today: the baseline differs from itself (host gamma: ratio"
    )
    report = report_of(measured(0.3, 0.3, 0.3, 0.3, aa=(0, 0, 0.2, 0)))
    assert report.experiments[0].control_differs
    assert "host gamma cannot be trusted today" in table.render(report)


def test_a_block_of_two_hosts_is_refused():
    samples = measured(0.3, 0.3)
    samples[0] = replace(samples[0], host="id-other")
    with pytest.raises(UserError, match="block 0 has samples of several hosts: id-other and id-al"):
        compare(samples, **RULE)


def test_accelerators_share_no_table():
    samples = [*measured(0.3, blocks=(4,)), *measured(0.3, blocks=(4,), accel="kvm")]
    with pytest.raises(UserError, match="samples differ in accelerator: kvm, tcg"):
        compare(samples, **RULE)


def test_differences_on_several_hosts_have_the_unit_of_the_metric():
    kind = MetricKind("requests", "higher", "mine", "difference")
    samples = []
    for block, host in enumerate("ababab"):
        for kernel, is_control, value in (
            ("stock", False, 1e6), ("stock", True, 1e6 + block), ("patched", False, 1.3e6 + block),
        ):  # fmt: skip
            own = {"kernel": kernel, "control": is_control, "label": kernel, "host": host}
            name = kernel + "+aa" * is_control
            one = sample(block=block, value=value, scale="difference", cell=name, **own)
            samples.append(one)
    row = compare(samples, metric=kind, better="higher", **RULE | {"minimum_effect": 10}).cells[1]
    assert row.difference == pytest.approx(3e5, rel=1e-4)
    assert row.hosts.tau < 10
    for one in row.hosts.hosts:
        assert one.difference == pytest.approx(3e5, rel=1e-4)
        assert one.ci[0] < 3e5 < one.ci[1] + 10


def test_the_stopping_rule_uses_the_spread_within_hosts():
    """However much hosts differ, more blocks of them do not help."""
    apart, alike = measured(0.1, 0.5, blocks=(8, 8)), measured(0.3, 0.3, blocks=(8, 8))
    rule = {"baseline": "stock", "confidence": 0.95, "half_width": 0.03}
    assert ended(apart, **rule) == ended(alike, **rule) == {"patched"}
    assert ended(measured(0.3, 0.3, sd=0.1, blocks=(8, 8)), **rule) == frozenset()
    assert ended(measured(0.3, 0.3, 0.3, 0.3, blocks=(1, 1, 1, 1)), **rule) == frozenset()
    one_each = [one for one in apart if one.block < 8]
    one_each = [replace(one, host=f"h{one.block}") for one in one_each]
    assert ended(one_each, **rule) == frozenset(), "nothing shows the spread within hosts"
    level = {"baseline": "stock", "confidence": 0.95}
    assert half_width(apart, **level) > 1 > half_width(measured(0.3, blocks=(8,)), **level)


def test_a_difference_between_hosts_does_not_change_the_number_of_repetitions():
    goal = Goal(0.95, 0.03, 8)

    def timed(samples):
        def at(number):
            return f"2026-11-24T01:{number // 60:02}:{number % 60:02}+00:00"

        return [
            replace(one, load={"boot_seconds": 20.0}, started_at=at(n))
            for n, one in enumerate(samples)
        ]  # fmt: skip

    apart, alike = timed(measured(0.1, 0.6)), timed(measured(0.3, 0.3))
    assert chosen(apart, baseline="stock", goal=goal) == chosen(alike, baseline="stock", goal=goal)


def test_values_of_a_slow_host_are_no_outliers():
    (stock, *_) = cells_of(measured(0.3, 0.3, 0.3, blocks=(8, 2, 8), speeds=(1, 3, 1)))
    assert stock.outliers() == []


def test_the_number_of_hosts_that_would_decide():
    rule = Rule.of(0.95, 0.02)
    d = [0.1, 0.11, 0.3, 0.31]
    found = over_hosts(d, list("aabb"), confidence=rule.confidence, margin=rule.margin)
    more = more_hosts(found, alpha=rule.alpha, margin=rule.margin, family=1)
    assert 1 < more < 20
    one_host = paired(d, confidence=0.95, margin=0.0)
    assert more_hosts(one_host, alpha=0.05, margin=0.0, family=1) is None


def test_runs_on_several_hosts_are_compared_with_the_freedom_of_hosts():
    rule = Rule.of(0.95, 0.02)
    few, many = Summary(16, 0.3, 0.1, hosts=3), Summary(16, 0.3, 0.1)
    assert (few.freedom, many.freedom) == (2, 15)
    wide, narrow = (difference(one, one, rule, run_sd=0.0).half_width for one in (few, many))
    assert wide > 1.2 * narrow


def test_the_noise_between_runs_is_that_of_one_host():
    with pytest.raises(UserError, match="run r was measured on several hosts"):
        spreads([report_of(measured(0.3, 0.3))] * 3)


@pytest.mark.parametrize("render", [table.render, cover_letter.render], ids=["text", "letter"])
def test_a_report_names_the_hosts_their_blocks_and_the_one_that_differs(render):
    text = " ".join(render(report_of(measured(0.3, 0.3, 0.0, 0.3, blocks=(4, 4, 4, 3)))).split())
    assert "hosts: alpha (4 blocks), beta (4 blocks), delta (3 blocks), gamma (4 blocks)" in text
    assert "patched: gamma differs from the other hosts: gamma 0.99" in text
    assert "host alpha: CPU of alpha, 8 cores" in text or "alpha: CPU of alpha, 8 cores" in text
    assert "Cochran's Q" in text
    assert "15 blocks on 4 hosts" in text or render is cover_letter.render


def test_a_report_says_where_hosts_do_not_differ():
    text = " ".join(table.render(report_of(measured(0.3, 0.3, 0.3))).split())
    assert "patched: no difference between hosts shown: alpha 1.3" in text
    samples = measured(0.3, 0.3)
    for level in (1, 2):
        samples += [
            replace(one, cell=f"other/{level}", kernel="other", label="other", setting={"n": level})
            for one in measured(0.3, 0.3)
            if one.kernel == "patched"
        ]
    text = " ".join(table.render(report_of(samples)).split())
    assert "no difference between hosts shown in 3 cells (Cochran's Q: p " in text


def test_the_page_has_a_table_of_hosts():
    samples = measured(0.3, 0.3, 0.0, 0.3)
    page = html.render(report_of(samples), samples)
    assert "Hosts of smoke" in page
    assert "CPU of gamma" in page
    assert page.count('<th scope="row">patched</th>') >= 4


def test_the_document_has_the_hosts():
    report = report_of(measured(0.3, 0.3, 0.0))
    found = json.loads(as_json(report))
    assert set(found["hosts"]) == {"id-alpha", "id-beta", "id-gamma"}
    (experiment,) = found["experiments"]
    assert experiment["hosts"][2] == {"id": "id-gamma", "name": "gamma", "blocks": 4}
    between = experiment["cells"][1]["between_hosts"]
    assert [one["differs"] for one in between["hosts"]] == [False, False, True]
    assert set(between) == {"hosts", "q", "p", "i_squared", "tau"}
    assert set(between["hosts"][0]) == {"host", "blocks", "ratio", "ci", "differs"}
    assert "between_hosts" not in experiment["cells"][0]
    schema = json.loads(golden_runs.printed("schema", "--report"))
    import jsonschema

    jsonschema.validate(found, schema)


def test_hosts_of_the_same_name_are_told_apart():
    samples = [replace(one, host_name="node") for one in measured(0.3, 0.3)]
    found = compare(samples, **RULE)
    assert [one.name for one in found.hosts] == ["node id-alpha", "node id-beta"]
    samples = [replace(one, host_name="\x1b[31mred\x07") for one in measured(0.3, blocks=(8,))]
    assert [one.name for one in compare(samples, **RULE).hosts] == ["?[31mred?"]
    samples = [replace(one, host_name="") for one in measured(0.3, 0.3)]
    assert [one.name for one in compare(samples, **RULE).hosts] == ["id-alpha", "id-beta"]


def test_many_hosts_are_not_all_named():
    hosts = [f"{number:02}" for number in range(40)]
    samples = []
    for block, host in enumerate(hosts):
        for one in measured(0.3, blocks=(1,), host=host, host_name=f"n{host}"):
            samples.append(replace(one, block=block, value=one.value * (1 + block / 1000)))
    text = " ".join(table.render(report_of(samples)).split())
    assert "differences between hosts: not tested" in text or "not tested: too few" in text
    assert "n11 (1 block) and 28 more (28 blocks)" in text
