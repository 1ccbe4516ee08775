import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.errors import TunableRefused
from labctl.experiments import tunables
from labctl.lab.models import Tunable
from labctl.transports import Outcome, exchange

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
                raise TunableRefused(f"{path}: there is no such file")
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
    with pytest.raises(TunableRefused, match="wrote 16, read back '8'"):
        tunables.apply(guest, TUNABLES, {"max_active": 16}, {})


def test_a_missing_file_is_refused():
    with pytest.raises(TunableRefused, match="no such file"):
        tunables.apply(Files({}), TUNABLES, {"thp": "never"}, {})


def test_counters_are_beside_tunables_of_a_series_only():
    assert tunables.counter_files(TUNABLES, "stock") == {}
    assert tunables.counter_files(TUNABLES, "patched") == {
        "handovers": f"{DEBUG}/handovers",
        "pages_handed": f"{DEBUG}/pages_handed",
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("always madvise [never]", "never"),
        ("[none] integrity confidentiality", "none"),
        ("0 [0x10] 32", "16"),
        ("16", "16"),
        ("0x10", "16"),
        ("16", "0x0010"),
        ("4\t4\t1\t7", "4 4 1 7"),
        ("4096   131072\t6291456", "4096 0x20000 6291456"),
        ("0007", "7"),
        ("7", "007"),
        ("8", "010"),
        ("10", "010"),
        ("0644", "420"),
        ("644", "0644"),
        ("1.500", "1.5"),
        ("1", "1.0"),
        ("-5", "-05"),
        ("Y", "1"),
        ("N", "off"),
        ("1", "Y"),
        ("on", "1"),
        ("0000000f", "f"),
        ("00000033", "0x33"),  # coredump_filter
        ("0xff", "ff"),
        ("ffffffff,ffffffff", "0xffffffffffffffff"),
        ("00000000,0000000f", "f"),
        ("f", "00000000,0000000F"),
        ("ff,ffffffff", "000000ff,ffffffff"),
        ("0-3", "0,1,2,3"),
        ("0-3", "2-3,0-1"),
        ("0,2,4", "0-5:1/2"),
        ("0-1,4", "0-1,4-4"),
        ("65536", "64K"),
        ("64k", "65536"),
        ("a b", "a  b"),
        ("foo[0]", "foo[0]"),
        ("always [madvise] never", "always [madvise] never"),
        ("", ""),
    ],
)
def test_a_tunable_holds_a_value_in_any_spelling(text, value):
    assert tunables.holds(text, value)
    assert tunables.holds(text + "\n", value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("always madvise [never]", "always"),
        ("[a] b\n[c] d", "a"),
        ("N", "1"),
        ("8", "16"),
        ("", "16"),
        ("4 4 1 7", "4"),
        ("4 4 1 7", "4 4 7 1"),
        ("10", "0x10"),
        ("16", "10"),
        ("0", "f"),
        ("1", "t"),
        ("1000", "1_000"),
        ("33", "0x33"),
        ("12345678", "0x12345678"),
        ("0-3", "0-4"),
        ("0-3", "3-0"),
        ("0-999999", "0-999998"),
        ("1-2:0/0", "1"),
        ("f", "0000000f,00000000"),
        ("1.500", "1.51"),
        ("1e3", "1000"),
        ("\u0661", "1"),
        ("1" * 9999, "2" * 9999),
        ("0x" + "f" * 999, "f" * 998),
        ("abc", "abd"),
    ],
)
def test_a_tunable_does_not_hold_another_value(text, value):
    assert not tunables.holds(text, value)


@given(st.text(alphabet="0123456789abfxKY,-:/[] \t.", max_size=30), st.text(max_size=30))
def test_any_two_texts_can_be_compared(text, value):
    assert tunables.holds(text, text)
    assert tunables.holds(text, value) in (True, False)


@pytest.mark.parametrize(("value", "written"), [(0.00001, "0.00001"), (1.5, "1.5"), (4, "4")])
def test_a_value_is_written_as_a_kernel_reads_it(value, written):
    guest = Files({THP: ""})
    read_back, _ = tunables.apply(guest, TUNABLES, {"thp": value}, {})
    assert read_back == {"thp": written}


def test_a_counter_of_thousands_of_digits_is_rejected():
    guest = Files({"/c": "9" * 5000, "/d": "7"})
    assert tunables.read_counters(guest, {"c": "/c", "d": "/d"}) == {"d": 7}


def test_values_that_read_back_are_reported_short_and_printable():
    guest = Files({f"{DEBUG}/max_active": "\x1b" + "x" * 9999}, deaf=(f"{DEBUG}/max_active",))
    with pytest.raises(TunableRefused) as caught:
        tunables.apply(guest, TUNABLES, {"max_active": 16}, {})
    assert caught.value.what.isprintable()
    assert len(caught.value.what) < 200


def test_a_file_with_nul_bytes_is_read(tmp_path):
    one, two = tmp_path / "a b", tmp_path / "two"
    one.write_bytes(b"x\0y\0")
    two.write_text("8\n")
    argv = ["/bin/sh", "-c", exchange.script({}, [str(one), str(two)])]
    done = subprocess.run(argv, capture_output=True, check=True)
    outcome = Outcome("sh", 0, done.stdout, done.stderr, 0.1)
    assert exchange.answer(outcome, "here") == {str(one): "x y ", str(two): "8\n"}
