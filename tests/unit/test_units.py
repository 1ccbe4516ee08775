from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl import units


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3GiB", 3 * 2**30),
        ("1536MiB", 1536 * 2**20),
        ("1.5GiB", 1536 * 2**20),
        ("64 KiB", 65536),
        ("2TiB", 2**41),
        ("16Ki", 16384),
        ("4096", 4096),
        ("4096B", 4096),
        ("0", 0),
        ("-3GiB", -3 * 2**30),
    ],
)
def test_sizes(text: str, value: int) -> None:
    assert units.size(text) == value


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("3GB", "did you mean 3GiB?"),
        ("3G", "did you mean 3GiB?"),
        ("3gib", "did you mean 3GiB?"),
        ("1536m", "did you mean 1536MiB?"),
        ("3XiB", "1536MiB or 3GiB"),
        ("three", "1536MiB or 3GiB"),
        ("", "1536MiB or 3GiB"),
        ("GiB", "1536MiB or 3GiB"),
        ("1.3B", "1536MiB or 3GiB"),
        ("1e9", "1536MiB or 3GiB"),
        ("3GiBGiB", "1536MiB or 3GiB"),
        ("2%", "1536MiB or 3GiB"),
        ("9" * 5000, "1536MiB or 3GiB"),
        ("٣GiB", "1536MiB or 3GiB"),
    ],
)
def test_an_invalid_size_is_reported_with_an_example(text: str, hint: str) -> None:
    with pytest.raises(units.UnitError) as caught:
        units.size(text)
    assert hint in (caught.value.hint or "")
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(("text", "value"), [("4", 4), ("64Ki", 65536), ("1Mi", 2**20), ("-1", -1)])
def test_counts(text: str, value: int) -> None:
    assert units.count(text) == value


@pytest.mark.parametrize("text", ["four", "1.5", "64KiB", "4%", "", "0x10", "1_000", "off"])
def test_an_invalid_count(text: str) -> None:
    with pytest.raises(units.UnitError) as caught:
        units.count(text)
    assert caught.value.hint == "example: 4 or 64Ki"


@pytest.mark.parametrize(
    ("text", "value"), [("2%", 0.02), ("0.02", 0.02), ("95 %", 0.95), ("2.5%", 0.025), ("1", 1.0)]
)
def test_shares(text: str, value: float) -> None:
    assert units.share(text) == value


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("300", 300), ("300s", 300), ("5min", 300), ("1.5h", 5400), ("500ms", 0.5), ("1d", 86400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.duration(text) == seconds


@pytest.mark.parametrize("text", ["1:30", "5m", "soon", "", "5 minutes"])
def test_an_invalid_duration(text: str) -> None:
    with pytest.raises(units.UnitError) as caught:
        units.duration(text)
    assert caught.value.hint == "example: 300s or 5min"


@pytest.mark.parametrize("text", ["2 percent", "half", "%", "2%%", "3GiB"])
def test_an_invalid_share(text: str) -> None:
    with pytest.raises(units.UnitError):
        units.share(text)


@pytest.mark.parametrize("parser", [units.size, units.count, units.share, units.duration])
@pytest.mark.parametrize("value", [None, True, [1], {"a": 1}])
def test_only_text_and_numbers_are_quantities(parser: object, value: object) -> None:
    with pytest.raises(units.UnitError, match="got"):
        parser(value)  # type: ignore[operator]


def test_numbers_are_unchanged() -> None:
    assert units.size(5) == 5
    assert units.count(5) == 5
    assert units.share(0.5) == 0.5
    assert units.duration(5) == 5.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16Ki", 16384),
        ("3GiB", 3 * 2**30),
        ("4", 4),
        ("-4", -4),
        ("-3GiB", -3 * 2**30),
        ("0", 0),
        ("0.5", 0.5),
        ("6.10", 6.1),
        ("never", "never"),
        ("off", "off"),
        ("true", "true"),
        ("1:30", "1:30"),
        ("0x10", "0x10"),
        ("007", "007"),
        ("10ms", "10ms"),
        ("2%", "2%"),
        ("", ""),
        ("1" * 5000, "1" * 5000),
    ],
)
def test_a_scalar_is_a_number_only_if_it_looks_like_one(text: str, value: units.Scalar) -> None:
    result = units.scalar(text)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize("text", ["3GB", "16k", "1.3B", "3 Gib"])
def test_a_scalar_that_resembles_a_size_is_an_error(text: str) -> None:
    with pytest.raises(units.UnitError) as caught:
        units.scalar(text)
    assert "quotes" in (caught.value.hint or "")


@given(st.integers(min_value=0, max_value=2**50))
def test_a_size_reads_back_as_it_was_shown(value: int) -> None:
    shown = units.format_size(value)
    assert units.size(shown) == value
    assert re.search(units.SIZE_PATTERN, shown)


@given(st.integers(min_value=0, max_value=2**50))
def test_a_count_reads_back_as_it_was_shown(value: int) -> None:
    shown = units.format_count(value)
    assert units.count(shown) == value
    assert units.scalar(shown) == value
    assert re.search(units.COUNT_PATTERN, shown)


@given(st.integers(min_value=0, max_value=10**9))
def test_a_duration_reads_back_as_it_was_shown(milliseconds: int) -> None:
    shown = units.format_duration(milliseconds / 1000)
    assert units.duration(shown) == milliseconds / 1000
    assert re.search(units.DURATION_PATTERN, shown)


@given(st.sampled_from([units.size, units.count, units.share, units.duration]), st.text())
def test_any_text_is_a_number_or_a_unit_error(parser: object, text: str) -> None:
    try:
        value = parser(text)  # type: ignore[operator]
    except units.UnitError as error:
        value = len(str(error).splitlines())
    assert isinstance(value, int | float)


@given(st.text())
def test_any_scalar_is_a_value_or_a_unit_error(text: str) -> None:
    try:
        value = units.scalar(text)
    except units.UnitError:
        return
    assert isinstance(value, int | float) or value == text


def test_the_largest_whole_unit_is_shown() -> None:
    assert units.format_size(3 * 2**30) == "3GiB"
    assert units.format_size(1536 * 2**20) == "1536MiB"
    assert units.format_size(1000) == "1000B"
    assert units.format_count(262144) == "256Ki"
    assert units.format_duration(300) == "5min"
    assert units.format_duration(90) == "90s"
    assert units.format_duration(0.5) == "0.5s"


def test_quoted_text_stays_on_one_short_line() -> None:
    assert units.quote("a\n b") == "'a b'"
    assert len(units.quote("x" * 500)) == 42


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00001, "0.00001"), (1.5, "1.5"), (1.0, "1.0"), (123456789012345.5, "123456789012345.5"),
     (7, "7"), ("1e-05", "1e-05")],
)  # fmt: skip
def test_a_value_has_no_exponent(value, text):
    assert units.text(value) == text


def test_quoted_text_is_short_and_printable():
    assert units.quote("a\x1b[1m\tb\x07") == "'a?[1m b?'"
    assert units.quote("5" + " " * 9999 + "x") == "'5 x'"
    assert len(units.quote("x" * 9999)) == 42
    assert len(units.quote("x y " * 9999)) <= 42
