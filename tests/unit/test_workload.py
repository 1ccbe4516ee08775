import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.errors import BadOutput
from labctl.experiments.workload import measure


@pytest.mark.parametrize(
    ("text", "metric", "value"),
    [
        ('{"elapsed": 2.5}', "elapsed", 2.5),
        ('{"elapsed_nanoseconds": 1500000000}', "elapsed", 1.5),
        ('{"elapsed_ms": 20}', "elapsed", 0.02),
        ('{"elapsed_nanoseconds": 2000000000}', "elapsed_nanoseconds", 2.0),
        ('noise\n{"elapsed": 1}\nmore\n{"elapsed": 2}\n', "elapsed", 2.0),
        ("elapsed: 12.5 ms\n", "elapsed", 0.0125),
        ("warm elapsed=3\nelapsed=4\n", "elapsed", 4.0),
        ("Throughput: 812.5 MB\n", "Throughput", 812.5),
        ("starting\n3.25\n", "elapsed", 3.25),
    ],
)
def test_a_number_is_found(text, metric, value):
    assert measure(text, metric)[0] == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    ["", "done", '{"other": 1}', '{"elapsed": "1"}', '{"elapsed": true}', '{"elapsed": 0}',
     '{"elapsed": -1}', '{"elapsed": NaN}', '{"elapsed": Infinity}', "unelapsed=3 x"],
)  # fmt: skip
def test_no_number_is_an_error_that_says_so(text):
    with pytest.raises(BadOutput, match="elapsed"):
        measure(text, "elapsed")


@given(st.text())
def test_any_output_is_a_number_or_an_error(text):
    try:
        value, _ = measure(text, "elapsed")
    except BadOutput:
        return
    assert value > 0
