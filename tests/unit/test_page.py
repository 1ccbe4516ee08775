"""The report as one page: all of it in one file, readable, and nothing taken for markup."""

import re
from html import unescape

import pytest
from records import report_of
from samples import cell, replace
from test_reports import RUN, STOCK, patched, times

from labctl.reports import html, timeline
from labctl.stats.compare import compare
from labctl.units import GIB

LEVELS = (1, 2, 4, 8, 16)
RULE = {"baseline": "stock", "confidence": 0.95, "minimum_effect": 0.02}


def everything(*groups):
    return [sample for group in (cell(STOCK), *groups) for sample in group]


def rendered(samples, run=RUN, **changes):
    content = replace(report_of(run, [compare(samples, **RULE)]), **changes)
    return html.render(content, samples)


@pytest.fixture(scope="module")
def matrix():
    control = cell(times(1.0), control=True)
    cells = (patched(1 + level / 20, setting={"max_active": level}) for level in LEVELS)
    return rendered(everything(control, *cells))


def test_nothing_is_loaded_from_elsewhere(matrix):
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", matrix)
    assert "default-src 'none'" in unescape(matrix)
    assert "@import" not in matrix
    assert not re.search(r"url\((?!#)", matrix)


def test_the_finding_comes_first_with_its_basis(matrix):
    result = matrix.index("1.80 times as fast as stock")
    assert result < matrix.index("<table")
    assert "TCG, 2 cores" in matrix
    assert "Measured under TCG emulation" in matrix


def test_ratios_curve_and_samples_are_drawn(matrix):
    assert matrix.count("<svg") == 3
    assert "ratio to stock (95 % CI)" in matrix
    assert "the seed&#x27;s, other hardware" in matrix or "the seed's, other hardware" in matrix
    assert "minutes since the first" in matrix
    assert "stock (A/A)" in matrix


def test_nodes_that_differ_are_described_one_by_one():
    nodes = [
        {"cpus": 2, "memory": 2 * GIB},
        {"cpus": 1, "memory": 0},
        {"cpus": 0, "memory": 4 * GIB},
    ]
    samples = everything(cell(times(1.0), control=True), patched(1.1))
    name = report_of(RUN, [compare(samples, **RULE)]).experiments[0].name
    experiment = {"name": name, "guest": "tiers"}
    run = RUN | {"guests": {"tiers": {"nodes": nodes, "pin": "auto"}}, "experiments": [experiment]}
    page = rendered(samples, run)
    assert "nodes 2 CPUs and 2 GiB; 1 CPU and no memory; no CPU and 4 GiB, pin auto" in page


def test_images_and_commands_are_reported_in_full(matrix):
    assert "ab" * 32 in matrix
    assert "ef" * 32 in matrix
    assert "labctl run smoke --seed 42" in matrix


def test_the_same_samples_give_the_same_page(matrix):
    samples = everything(patched(1.4))
    assert rendered(samples) == rendered(samples)


def test_names_are_no_markup():
    run = RUN | {"host": RUN["host"] | {"cpu_model": "<script>alert(1)</script>"}}
    text = rendered(everything(patched(1.4, label="<b>bold</b>")), run)
    assert "<script>alert" not in text
    assert "<b>bold" not in text


def test_a_run_that_is_not_to_be_trusted_says_so_first():
    text = rendered(everything(patched(1.4), cell(times(1.3), control=True)))
    assert text.index('class="suspect"') < text.index('class="found ')


def test_an_unfinished_run_and_one_without_a_good_sample_have_a_page():
    assert "labctl run --resume" in rendered(everything(patched(1.4)), finished=False)
    broken = [replace(each, status="panic", value=None) for each in everything(patched(1.4))]
    text = rendered(broken)
    assert "<svg" not in text
    assert "panic" in text


def test_a_plot_of_very_many_samples_keeps_every_outlier():
    values = [1.0 + (n % 97) / 1e3 for n in range(100_000)]
    values[31_337], values[77_777] = 9.0, 0.01
    kept = timeline.thinned(range(100_000), list(range(100_000)), values, most=1000)
    assert len(kept) <= 1000
    assert {31_337, 77_777} <= set(kept)
    assert kept == sorted(set(kept))
    assert timeline.thinned(range(900), list(range(900)), values, most=1000) == list(range(900))


def test_a_page_of_very_many_samples_names_the_samples_that_are_drawn():
    many = cell([1.0 + n / 1e5 for n in range(3200)])
    text = rendered([*many, *cell([0.7 + n / 1e5 for n in range(3200)], kernel="parallel-free")])
    assert re.search(r"[23],\d{3} of 6,400 repetitions", text)
    assert "no outlier is missing" in text
    assert len(text) < 2**20
    assert "are drawn" not in rendered(everything(patched(1.4)))


def test_a_repetition_that_the_host_disturbed_is_marked():
    marked = [replace(s, disturbed="others" if s.block == 2 else "") for s in patched(1.4)]
    assert "A cross was disturbed" in rendered(everything(marked))
    assert "A cross was disturbed" not in rendered(everything(patched(1.4)))


def test_the_placement_of_pages_is_reported_for_each_node():
    def lying(pages, group):
        return [replace(s, measurements={"pages_per_node": pages}) for s in group]

    text = rendered(lying([10, 30], [*cell(STOCK), *patched(1.4)]))
    assert "every cell" in text
    assert "30 (75 %)" in text
    uneven = [*lying([10, 30], cell(STOCK)), *lying([40, 0], patched(1.4))]
    text = rendered(uneven)
    assert "every cell" not in text
    assert "40 (100 %)" in text
    assert "Pages on each node" not in rendered(everything(patched(1.4)))


def test_host_guest_and_all_commands_are_reported():
    experiment = {
        "name": "smoke", "workload": "free", "metric": "elapsed", "command": "freebench",
        "guest": "numa4", "set": {"thp": "never"},
    }  # fmt: skip
    run = RUN | {
        "host": RUN["host"] | {"kernel": "6.18-test"},
        "guests": {"numa4": {"nodes": 4, "memory_per_node": 3 << 29,
                             "distances": {"remote": 21, "matrix": None}}},
        "experiments": [experiment],
    }  # fmt: skip
    samples = everything(patched(1.4, setting={"max_active": 4}))
    rule = {"baseline": "stock", "confidence": 0.95, "minimum_effect": 0.02}
    text = html.render(
        report_of(run, [compare(samples, **rule)]),
        samples,
        lab="version: 1  # <mine>",
        guests={"smoke-000-stock": "qemu-system-x86_64 -append 'a b'"},
    )
    assert "6.18-test" in text
    assert "nodes 4, memory per node 1.5 GiB, distances remote=21" in text
    assert "freebench --op free --size 3221225472" in text
    assert "thp=never, max_active=4" in text
    assert "qemu-system-x86_64 -append &#x27;a b&#x27;" in text
    assert "version: 1  # &lt;mine&gt;" in text
    closed = [unescape(each) for each in re.findall("<details><summary>(.*?)</summary>", text)]
    assert closed == [
        "Blocks of smoke one by one",
        "What ran in the guests",
        "The guests of the first blocks, as QEMU was called",
        "lab.yaml",
    ]
