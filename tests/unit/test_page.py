"""The report as one page: all of it in one file, readable, and nothing taken for markup."""

import re
from dataclasses import replace

import pytest
from samples import cell
from test_reports import RUN, STOCK, patched, times

from labctl.reports import page
from labctl.reports.document import document
from labctl.results.stats import compare

LEVELS = (1, 2, 4, 8, 16)


def everything(*groups):
    return [sample for group in (cell(STOCK), *groups) for sample in group]


def rendered(samples, run=RUN, **changes):
    rule = {"baseline": "stock", "confidence": 0.95, "minimum_effect": 0.02}
    content = document(run, [compare(samples, **rule)]) | changes
    return page.render(content, samples)


@pytest.fixture(scope="module")
def matrix():
    control = cell(times(1.0), control=True)
    cells = (patched(1 + level / 20, setting={"max_active": level}) for level in LEVELS)
    return rendered(everything(control, *cells))


def test_nothing_is_loaded_from_elsewhere(matrix):
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", matrix)
    assert "<script" not in matrix
    assert "@import" not in matrix
    assert not re.search(r"url\((?!#)", matrix)


def test_the_finding_comes_first_with_its_basis(matrix):
    said = matrix.index("1.80 times as fast as stock")
    assert said < matrix.index("<table")
    assert "TCG, 2 cores" in matrix
    assert "Measured under TCG emulation" in matrix


def test_ratios_curve_and_samples_are_drawn(matrix):
    assert matrix.count("<svg") == 3
    assert "ratio to stock (95 % CI)" in matrix
    assert "the seed&#x27;s, other hardware" in matrix or "the seed's, other hardware" in matrix
    assert "minutes since the first" in matrix
    assert "stock (A/A)" in matrix


def test_images_and_commands_are_told_in_full(matrix):
    assert "ab" * 32 in matrix
    assert "ef" * 32 in matrix
    assert "labctl run smoke --seed 42" in matrix


def test_the_same_samples_give_the_same_page(matrix):
    samples = everything(patched(1.4))
    assert rendered(samples) == rendered(samples)


def test_names_are_no_markup():
    run = RUN | {"host": RUN["host"] | {"cpu_model": "<script>alert(1)</script>"}}
    text = rendered(everything(patched(1.4, label="<b>bold</b>")), run)
    assert "<script" not in text
    assert "<b>bold" not in text


def test_a_run_that_is_not_to_be_trusted_says_so_first():
    text = rendered(everything(patched(1.4), cell(times(1.3), control=True)))
    assert text.index('class="suspect"') < text.index('class="found"')


def test_an_unfinished_run_and_one_without_a_good_sample_have_a_page():
    assert "labctl run --resume" in rendered(everything(patched(1.4)), finished=False)
    broken = [replace(each, status="panic", value=None) for each in everything(patched(1.4))]
    text = rendered(broken)
    assert "<svg" not in text
    assert "panic" in text


def test_so_many_samples_that_they_are_drawn_as_pixels():
    many = cell([1.0 + n / 1e5 for n in range(3200)])
    text = rendered([*many, *cell([0.7 + n / 1e5 for n in range(3200)], kernel="parallel-free")])
    assert "data:image/png;base64" in text
    assert len(text) < 2**20
