"""The series parallel-unmap: what its workers do, and what they leave alone."""

import json

import pytest
from program import BOOT_SECONDS

from labctl.errors import KnobRefused
from labctl.guests.guest import Guest

KNOBS = "/sys/kernel/debug/parallel_unmap"
RANGE_PAGES = 8192
SIZE_BYTES = 1 << 30


@pytest.fixture(scope="module")
def guest(specs):
    with Guest(specs("parallel-unmap")) as booted:
        booted.wait_ready(BOOT_SECONDS)
        # With huge pages on, watermarks are high, and so much of what several CPUs
        # free stays on their per-CPU lists that MemFree says nothing.
        booted.write("/sys/kernel/mm/transparent_hugepage/enabled", "never")
        yield booted


@pytest.fixture(autouse=True)
def _knobs(guest):
    guest.write(f"{KNOBS}/max_active", "8")
    guest.write(f"{KNOBS}/range_pages", str(RANGE_PAGES))


def measure(guest, op, size=SIZE_BYTES):
    """Return what freebench measured, and how many pages workers unmapped meanwhile."""
    before = int(guest.read(f"{KNOBS}/pages_handed"))
    argv = ["freebench", "--op", op, "--size", str(size), "--placement", "interleave"]
    outcome = guest.run([*argv, "--threads", "4", "--thp", "never"], timeout_seconds=300)
    assert outcome.status == 0, outcome.stderr
    return json.loads(outcome.stdout), int(guest.read(f"{KNOBS}/pages_handed")) - before


@pytest.mark.parametrize("op", ["munmap", "free", "exit"])
def test_workers_take_a_part_and_all_memory_comes_back(guest, op):
    measured, handed = measure(guest, op)
    assert 0 < handed <= SIZE_BYTES // 4096 + 1
    before, settled = (measured["memfree_bytes"][when] for when in ("before", "settled"))
    assert abs(before - settled) <= 0.01 * before


def test_less_than_two_pieces_are_left_to_one_thread(guest):
    _, handed = measure(guest, "munmap", size=2 * RANGE_PAGES * 4096 - 2**21)
    assert handed == 0


def test_it_can_be_switched_off(guest):
    guest.write(f"{KNOBS}/range_pages", "0")
    assert measure(guest, "munmap")[1] == 0


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("max_active", "0"),
        ("max_active", "513"),
        ("max_active", "-1"),
        ("max_active", "many"),
        ("range_pages", "511"),  # a page table would be shared
        ("range_pages", "-512"),
        ("range_pages", str(2**40)),
        ("range_pages", "some"),
    ],
)
def test_a_knob_refuses_what_makes_no_sense(guest, knob, value):
    before = guest.read(f"{KNOBS}/{knob}")
    with pytest.raises(KnobRefused, match=knob):
        guest.write(f"{KNOBS}/{knob}", value)
    assert guest.read(f"{KNOBS}/{knob}") == before


def test_the_kernel_has_not_complained(guest):
    guest.check()
    assert guest.console.complaints == []
