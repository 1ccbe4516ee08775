"""freebench on this host, with little memory: its fields, its checks, its exit statuses."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labctl import completed, proc
from labctl.guests import initramfs

SIZE = 32 << 20
PAGE = 4096
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PR_SET_THP_DISABLE = 41


@pytest.fixture(scope="session")
def freebench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The benchmark as a guest gets it."""
    return initramfs.program(tmp_path_factory.mktemp("freebench"), "freebench")


@pytest.fixture
def no_huge_pages() -> Iterator[None]:
    """Programs started meanwhile get no huge pages, whatever they ask for."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0
    yield
    assert libc.prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0) == 0


def run(freebench: Path, *arguments: str) -> completed.Completed:
    return proc.run([freebench, *arguments], timeout_seconds=60, check=False)


def measure(freebench: Path, *arguments: str) -> dict[str, Any]:
    done = run(freebench, "--size", "32MiB", *arguments)
    assert (done.status, done.stderr) == (0, b"")
    assert done.text.count("\n") == 1
    fields: dict[str, Any] = json.loads(done.text)
    return fields


@pytest.mark.parametrize("op", ["free", "munmap", "dontneed", "exit"])
def test_every_operation_gives_its_memory_back(freebench: Path, op: str) -> None:
    fields = measure(freebench, "--op", op, "--threads", "2", "--thp", "never")
    assert (fields["op"], fields["size_bytes"], fields["threads"]) == (op, SIZE, 2)
    assert fields["checks"] == "ok"
    assert fields["elapsed_nanoseconds"] > 0
    assert fields["populate_nanoseconds"] > 0
    assert 0 < fields["cpu_nanoseconds"] < 60e9
    # malloc's header needs a page more.
    assert sum(fields["pages_per_node"]) - SIZE // PAGE in (0, 1)
    assert fields["vmstat"]["pgfree"] >= SIZE // PAGE
    assert fields["huge_bytes"] == 0
    assert set(fields["memfree_bytes"]) == {"before", "right_after", "settled"}
    back = fields["memory_back_nanoseconds"]
    assert back is None or back >= fields["elapsed_nanoseconds"]


@pytest.mark.parametrize("placement", ["local", "interleave", "node:0"])
def test_placements(freebench: Path, placement: str) -> None:
    fields = measure(freebench, "--op", "munmap", "--placement", placement)
    assert fields["placement"] == placement
    assert sum(fields["pages_per_node"]) == SIZE // PAGE


@pytest.mark.parametrize("size", ["33554432", "32768KiB", "32MiB"])
def test_units_of_size(freebench: Path, size: str) -> None:
    done = run(freebench, "--op=munmap", f"--size={size}")
    assert json.loads(done.text)["size_bytes"] == SIZE


def test_threads_may_outnumber_processors_and_pages(freebench: Path) -> None:
    done = run(freebench, "--op", "munmap", "--size", "4KiB", "--threads", "64")
    assert done.status == 0
    assert sum(json.loads(done.text)["pages_per_node"]) == 1


@pytest.mark.skipif(not HUGE_PAGES.exists(), reason="this kernel has no huge pages")
@pytest.mark.parametrize("op", ["munmap", "exit"])
def test_a_failed_check_prints_no_number(freebench: Path, no_huge_pages: None, op: str) -> None:
    done = run(freebench, "--op", op, "--size", "32MiB", "--thp", "always")
    assert done.status == 1
    assert done.stdout == b""
    assert b"--thp: only 0 bytes are in huge pages" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--placement", "node:63"], "--placement: no node 63"),
        (["--size", "1000000GiB"], "--size: "),
    ],
)
def test_what_this_system_cannot_do_is_skipped(
    freebench: Path, arguments: list[str], message: str
) -> None:
    done = run(freebench, *arguments)
    assert done.status == 4
    assert done.stdout == b""
    assert message in done.stderr.decode()


@pytest.mark.skipif(Path("/proc/lock_stat").exists(), reason="this kernel counts")
def test_a_kernel_that_does_not_count_is_reported(freebench: Path) -> None:
    done = run(freebench, "--watch", "locks")
    assert done.status == 4
    assert "--watch: this kernel has no /proc/" in done.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--op", "frei"], "--op: frei"),
        (["--size", "3x"], "--size: 3x"),
        (["--size", "-1"], "--size: -1"),
        (["--size", ""], "--size"),
        (["--size", "17"], "--size: 17 is less than a page"),
        (["--size", "99999999999999999999"], "--size: 9999"),
        (["--size", "16777216000GiB"], "--size: "),
        (["--threads", "0"], "--threads: 0"),
        (["--threads", "2x"], "--threads: 2x"),
        (["--placement", "far"], "--placement: far"),
        (["--placement", "node:"], "--placement"),
        (["--thp", "maybe"], "--thp: maybe"),
        (["--watch", "time"], "--watch: time"),
        (["--nonsense"], "--nonsense"),
        (["--op"], "--op"),
        (["more"], "more: unexpected"),
    ],
)
def test_a_wrong_argument_is_named(freebench: Path, arguments: list[str], message: str) -> None:
    done = run(freebench, *arguments)
    assert done.status == 2
    assert done.stdout == b""
    assert message in done.stderr.decode()


def test_help_names_every_option(freebench: Path) -> None:
    done = run(freebench, "--help")
    assert done.status == 0
    for option in ("--op", "--size", "--threads", "--placement", "--thp", "--watch", "dontneed"):
        assert option in done.text
