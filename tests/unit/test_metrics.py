"""Sentences name what was measured: metrics, their direction, numbers of things."""

import re

import msgspec
import pytest
from samples import cell, replace, sample
from test_reports import RUN, STOCK, flat, patched, report, times

from labctl.experiments.output import measure
from labctl.lab.metrics import MetricKind, better_of, is_time
from labctl.nightly import text as night_text
from labctl.nightly.types import Finding
from labctl.reports import cover_letter, export, health, html, kcidb, table, two_runs, words
from labctl.reports.sentence import sentence
from labctl.stats.between_runs import across
from labctl.stats.compare import compare
from labctl.stats.health import usable
from labctl.stats.health_types import HostHealth
from labctl.stats.kinds import FindingKind

OP = {"op": "free", "size": 1 << 30}


def of(metric, *groups, command="freebench", better="lower", speedup=1.25, **more):
    """The document of an experiment that compared a metric, better by `speedup`."""
    own = {"name": "smoke", "workload": "w", "metric": metric, "command": command, "better": better}
    kind = MetricKind(metric, better, command)
    factor = speedup if better == "lower" else 1 / speedup
    groups = groups or (patched(factor, parameters=OP),)
    base = [replace(s, parameters=OP) for s in cell(times(1.0))]
    aa = [replace(s, parameters=OP) for s in cell(times(1.0), control=True)]
    samples = [*base, *aa, *(s for group in groups for s in group)]
    rule = {"baseline": "stock", "confidence": 0.95, "minimum_effect": 0.02}
    from records import report_of

    result = compare(samples, better=better, metric=kind, **rule)
    return report_of(RUN | {"experiments": [own]} | more, [result])


def sentence_of(*args, **more):
    (experiment,) = of(*args, **more).experiments
    return sentence(experiment)


@pytest.mark.parametrize(
    ("metric", "command", "time"),
    [
        ("elapsed", "freebench", True),
        ("populate", "freebench", True),
        ("memory_back", "/bin/freebench --x", True),
        ("cpu", "freebench", True),
        ("size_bytes", "freebench", False),
        ("cpu", "mine", False),
        ("elapsed", "mine", True),
        ("elapsed_s", "mine", True),
        ("build_time", "mine", True),
        ("p99_us", "mine", True),
        ("read_latency_ns", "mine", True),
        ("ops_s", "mine", False),
        ("requests_per_second", "mine", False),
        ("pages_second", "mine", False),
        ("elapsed_second", "mine", True),
        ("bytes_per_ms", "mine", False),
        ("ms", "mine", False),
        ("uptime", "mine", False),
        ("throughput", "mine", False),
    ],
)
def test_a_metric_is_a_time_by_its_name(metric, command, time):
    assert is_time(metric, command) == time
    assert better_of(metric, command, None) == ("lower" if time else None)
    assert better_of(metric, command, "higher") == "higher"


@pytest.mark.parametrize(
    ("metric", "command", "better", "says"),
    [
        ("elapsed", "freebench", "lower", "frees 1 GiB 1.25 times as fast as stock"),
        ("populate", "freebench", "lower", "populates 1 GiB 1.25 times as fast as stock"),
        ("memory_back", "freebench", "lower", "has 1 GiB back 1.25 times as fast as stock"),
        ("cpu", "freebench", "lower", "has 0.80 times the CPU time of stock (ratio 1.25, 95 % CI"),
        ("elapsed", "mine", "lower", "is 1.25 times as fast as stock"),
        ("p99_us", "mine", "lower", "has 0.80 times the p99_us of stock (ratio 1.25,"),
        ("rss_kib", "mine", "lower", "has 0.80 times the rss_kib of stock (ratio 1.25,"),
        ("ops_s", "mine", "higher", "has 1.25 times the ops_s of stock (95 % CI"),
        ("idle_time", "mine", "higher", "has 1.25 times the idle_time of stock (95 % CI"),
    ],
)
def test_a_sentence_names_what_was_measured(metric, command, better, says):
    assert says in sentence_of(metric, command=command, better=better)


@pytest.mark.parametrize("metric", ["populate", "cpu", "rss_kib"])
def test_another_metric_is_never_described_as_the_operation(metric):
    for speedup in (0.8, 1.0, 1.02, 1.25):
        assert "frees" not in sentence_of(metric, speedup=speedup)
        names = {"populate": "populates", "cpu": "CPU time"}
        assert names.get(metric, metric) in sentence_of(metric, speedup=speedup)


@pytest.mark.parametrize("metric", ["errors", "ops_s", "p99_us"])
def test_what_is_the_same_may_be_one_or_many(metric):
    assert f"has the same {metric} as stock, within 2 %" in sentence_of(metric, speedup=1.0)


def test_values_that_are_no_times_are_not_called_timings():
    failed = [
        replace(s, status="bad-output", value=None) if s.block == 1 else s
        for s in patched(1.25, parameters=OP)
    ]
    assert sentence_of("rss_kib", failed).endswith("(1 bad-output); values are disregarded")
    assert sentence_of("p99_us", failed).endswith("(1 bad-output); timings are disregarded")


def test_a_cover_letter_has_no_empty_part():
    content = of("rss_kib", command="mine")
    (experiment,) = content.experiments
    cells = tuple(replace(cell, parameters={}) for cell in experiment.cells)
    text = cover_letter.render(replace(content, experiments=(replace(experiment, cells=cells),)))
    assert text.startswith("smoke: rss_kib, lower is better\n")


def test_of_an_experiment_that_was_not_reached_nothing_was_measured():
    """As after a baseline that failed in the experiment before it."""
    (experiment,) = of("elapsed").experiments
    empty = replace(experiment, name="later", cells=(), aa_control=None, blocks=0)
    content = replace(of("elapsed"), experiments=(experiment, empty))
    texts = [table.render(content), cover_letter.render(content), html.render(content, [])]
    assert all("nothing was measured" in text for text in texts)


def test_a_cover_letter_says_which_mean_its_rows_are():
    assert "Each row is the geometric mean over blocks" in flat(cover_letter.render(of("elapsed")))


def test_of_a_matrix_without_a_gain_the_metric_is_named():
    groups = [patched(r, setting={"n": n}, parameters=OP) for n, r in ((1, 0.8), (4, 0.9))]
    result = sentence_of("rss_kib", *groups, command="mine")
    assert result == "none of 2 settings is shown to be better in rss_kib: 2 worse"


def visible(page):
    return re.sub(r"<(style|script)\b.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)


def test_a_metric_that_is_no_time_has_no_seconds_and_no_speed():
    content = of("rss_kib", command="mine")
    samples = [*cell(times(1.0)), *patched(1.25)]
    second = [
        replace(s, value=(s.value or 0) * (1 + s.block % 3 / 250))
        for s in patched(1.5, parameters=OP)
    ]
    across_runs = across(content, of("rss_kib", second, command="mine", run="other"))
    texts = [
        table.render(content),
        table.render(content, format="markdown"),
        cover_letter.render(content),
        visible(html.render(content, [])),
        two_runs.render(across_runs),
    ]
    for text in texts:
        assert not re.search(r"\d ?m?s\b|faster|slower", text), text
        assert "better" in text
    assert "Ratio: rss_kib of stock over rss_kib." in flat(cover_letter.render(content))
    assert "sec/op" not in export.benchfmt(content, samples)
    assert '"unit": "second"' not in export.pyperf(content, samples)
    assert '"unit": "s"' not in kcidb.kcidb(content, samples)


def test_a_throughput_fits_no_law_of_times_and_is_explained():
    groups = [
        patched(1 / (1 + n / 8), setting={"max_active": n}, parameters=OP) for n in (1, 2, 4, 8)
    ]
    content = of("ops_s", *groups, command="mine", better="higher")
    assert content.experiments[0].curves == ()
    assert "Ratio: ops_s over ops_s of stock." in flat(cover_letter.render(content))
    assert "ops_s: higher is better" in flat(table.render(content))
    assert export.notes("pyperf", content) == [
        "smoke: higher ops_s is better, but pyperf calls it slower"
    ]


def test_the_seeds_times_are_beside_the_same_time_only():
    assert "320 GB" in table.render(of("elapsed", patched(1.25, parameters=OP)))
    for metric, command in (("populate", "freebench"), ("elapsed", "mine")):
        assert "320 GB" not in table.render(of(metric, command=command))


def test_a_run_of_an_older_labctl_is_reported_as_its_time():
    (experiment,) = report(patched(1.25)).experiments
    old = replace(experiment, metric=msgspec.UNSET, command=msgspec.UNSET)
    assert "frees 3 GiB 1.25 times as fast" in sentence(old)
    content = replace(report(patched(1.25)), experiments=(old,))
    assert "frees 3 GiB" in flat(table.render(content))
    assert "time of stock over time" in flat(cover_letter.render(content))


def test_notes_explain_only_columns_that_are_there():
    text = table.render(report(patched(1.25)))
    assert "Memory back" not in text
    assert "CPU time" not in text


@pytest.mark.parametrize(
    ("disturbed", "loaded", "says"),
    [
        (1, False, "1 of 8 blocks was disturbed; it is used, because too few others remain"),
        (2, False, "2 of 8 blocks were disturbed; they are used, because too few others remain"),
        (3, True, "the host was busy during the run: 3 of 8 blocks were disturbed"),
        (8, True, "the host was busy during the run: 8 of 8 blocks were disturbed"),
    ],
)
def test_a_few_disturbed_blocks_are_no_loaded_host(disturbed, loaded, says):
    samples = [sample(block=b, disturbed="others" if b < disturbed else "") for b in range(8)]
    found = usable(samples, 8)[1]
    assert found.stays_loaded == loaded
    (experiment,) = of("elapsed").experiments
    result = replace(
        experiment,
        host_health=HostHealth(
            disturbed={str(block): why for block, why in found.disturbed.items()},
            blocks=found.blocks,
            left_out=(),
            stays_loaded=found.stays_loaded,
            seen={},
        ),
    )
    heading = health.heading(result)
    assert heading.startswith(says)
    assert ("was busy" in heading) == loaded
    was = "was disturbed and is used" if disturbed == 1 else "were disturbed and are used"
    assert was in health.lines(result)[0]


def test_one_thing_is_in_the_singular():
    group = patched(1.4)
    group[3] = replace(group[3], status="panic", value=None)
    text = flat(table.render(report(group)))
    assert "1 sample was not ok (1 panic)" in text


def test_the_sign_flip_test_is_quoted_only_where_it_could_disagree():
    six = [s for s in (*cell(times(1.0)), *patched(1.4)) if s.block < 6]
    result = compare(six, baseline="stock", confidence=0.99, minimum_effect=0.02)
    assert result.cells[1].verdict == "faster"
    assert not [line for line in result.warnings if "sign-flip" in line]


def test_ranks_are_quoted_only_where_the_t_test_sees_nothing():
    near = times(1.02)
    samples = [*cell(STOCK), *cell(near, kernel="new")]
    result = compare(samples, baseline="stock", confidence=0.95, minimum_effect=0.02)
    row = result.cells[1]
    assert row.verdict == "undecided"
    assert row.p_corrected < 0.05
    assert row.p_wilcoxon < 0.05
    assert not [line for line in result.warnings if "Wilcoxon" in line]


def test_handovers_of_every_cell_are_claimed_only_if_all_counted():
    panicked = [
        replace(s, status="panic", value=None) for s in patched(1.4, setting={"max_active": 8})
    ]
    counted = patched(1.4, setting={"max_active": 4}, counters={"handovers": 3})
    also = patched(1.4, setting={"max_active": 2}, counters={"handovers": 3})
    text = flat(table.render(report(counted, also, panicked)))
    assert "in every patched cell" not in text
    assert "max_active=4: 3" in text


@pytest.mark.parametrize("metric", ["requests_per_second", "bytes_per_ms", "ops_s", "ops_sec"])
def test_a_rate_may_exceed_the_duration_of_its_command(metric):
    assert measure(f'{{"{metric}": 5000}}', metric, took_seconds=1.0)[0].value == 5000


def test_a_unit_in_a_metrics_own_name_still_counts():
    assert measure('{"p99_us": 5000}', "p99_us", took_seconds=1.0)[0].value == pytest.approx(5e-3)
    assert measure('{"populate_s": 0.5}', "populate", took_seconds=1.0)[0].value == 0.5


@pytest.mark.parametrize(
    ("share", "text"), [(0.0093, "0.93 %"), (0.042, "4.2 %"), (1.38, "140 %"), (25.0, "2500 %")]
)
def test_a_large_effect_has_no_exponent(share, text):
    assert words.percent(share) == text


@pytest.mark.parametrize(
    ("metric", "better", "change", "says"),
    [
        ("errors", "lower", 0.8, "errors 25 % higher against its baseline"),
        ("ops_s", "higher", 0.8, "ops_s 20 % lower against its baseline"),
        ("cpu", "lower", 1.25, "CPU time 20 % lower against its baseline"),
    ],
)
def test_a_nightly_finding_is_higher_or_lower(metric, better, change, says):
    finding = Finding(
        kind=FindingKind.REGRESSED, experiment="e", cell="c", kernel="mine", setting={},
        night="y", run="r", since="x",
        command="freebench", metric=metric, better=better, change=change,
    )  # fmt: skip
    assert says in night_text.heading(finding)
