import pytest

from labctl.errors import KnobRefused
from labctl.experiments import tunables
from labctl.lab_models import Tunable

THP = "/sys/kernel/mm/transparent_hugepage/enabled"
DEBUG = "/sys/kernel/debug/parallel_free"
TUNABLES = {
    "thp": Tunable(name="thp", file=THP),
    "max_active": Tunable(name="max_active", file=f"{DEBUG}/max_active", kernels=("patched",)),
}


class Files:
    """A guest that is a dictionary; `deaf` files take a write and ignore it."""

    def __init__(self, content, deaf=()):
        self.content = dict(content)
        self.deaf = deaf

    def exchange(self, writes, reads):
        for path, text in writes.items():
            if path not in self.content:
                raise KnobRefused(f"{path}: there is no such file")
            if path not in self.deaf:
                self.content[path] = text + "\n"
        return {path: self.content[path] for path in reads if path in self.content}


def test_values_are_written_and_read_back():
    guest = Files({f"{DEBUG}/max_active": "8\n", f"{DEBUG}/handovers": "7\n"})
    counters = tunables.counter_files(TUNABLES, "patched")
    read_back, counted = tunables.apply(guest, TUNABLES, {"max_active": 16}, counters)
    assert read_back == {"max_active": "16"}
    assert counted == {"handovers": 7}


def test_a_value_that_does_not_stick_is_refused():
    guest = Files({f"{DEBUG}/max_active": "8\n"}, deaf=(f"{DEBUG}/max_active",))
    with pytest.raises(KnobRefused, match="set to 16 and reads back as '8'"):
        tunables.apply(guest, TUNABLES, {"max_active": 16}, {})


def test_a_missing_file_is_refused():
    with pytest.raises(KnobRefused, match="no such file"):
        tunables.apply(Files({}), TUNABLES, {"thp": "never"}, {})


def test_counters_stand_beside_knobs_of_a_series_only():
    assert tunables.counter_files(TUNABLES, "stock") == {}
    assert tunables.counter_files(TUNABLES, "patched") == {
        "handovers": f"{DEBUG}/handovers",
        "pages_handed": f"{DEBUG}/pages_handed",
    }


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("always madvise [never]", "never", True),
        ("always madvise [never]", "always", False),
        ("16", "16", True),
        ("0x10", "16", True),
        ("Y", "1", True),
        ("N", "1", False),
        ("8", "16", False),
        ("", "16", False),
        ("a b", "a b", True),
    ],
)
def test_what_a_knob_holds(text, value, expected):
    assert tunables.holds(text, value) is expected
