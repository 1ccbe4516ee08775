import re
from pathlib import Path

import pytest
from linear_time import assert_linear

from labctl.transports import console as module
from labctl.transports.console import Console, Follower, scan

BOOT = "0a1b2c3d-0000-4000-8000-0123456789ab"
GOLDEN = Path(__file__).parent / "golden"
FIRST = "[    0.000000] Linux version 6.1.192\n"


def reports():
    """Return the kind, the lines and the number of the first known line of each report."""
    blocks = (GOLDEN / "splats.txt").read_text().split("\n\n")[1:]
    for block in blocks:
        title, *lines = block.strip("\n").split("\n")
        (number,) = [n for n, line in enumerate(lines, 1) if line.startswith("> ")]
        name = f"{title}: {lines[number - 1][2:]}"
        yield pytest.param(title.split(":")[0], [line[2:] for line in lines], number, id=name)


def harmless():
    text = (GOLDEN / "no-splats.txt").read_text()
    return [line for line in text.split("\n") if not line.startswith("#")]


def of(tmp_path, *texts):
    """Return a console that has read all of this, and each text by itself."""
    log = tmp_path / "console.log"
    console = Console(log)
    for text in texts:
        with log.open("ab") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        console.poll()
    return console


REPORTS = [*reports()]
every_report = pytest.mark.parametrize(("kind", "lines", "number"), REPORTS)


def message(line):
    """Return a line of the kernel's without its time and its caller."""
    return re.sub(r"^(\[ *[\d.]+\](\[ *\w+\])? )?", "", line)


@every_report
def test_every_kind_of_report_is_recognised(tmp_path, kind, lines, number):
    assert scan(lines[number - 1]) == kind
    found = of(tmp_path, "\n".join(lines) + "\n").complaints
    assert (found[0].kind, found[0].line_number) == (kind, number)


@every_report
def test_a_report_may_carry_a_level_and_a_caller_or_nothing(kind, lines, number):
    for prefix in ("[    T1] ", "[    9.876543][    C3] ", "<4>[    9.876543] ", ""):
        assert scan(prefix + message(lines[number - 1])) == kind


@every_report
def test_a_report_in_the_middle_of_a_line_is_a_quotation(tmp_path, kind, lines, number):
    for quoted in (lines[number - 1], message(lines[number - 1])):
        line = f"[    1.000000] prog: {quoted}"
        assert scan(line) is None, kind
        assert not of(tmp_path, line + "\n").complaints
        assert scan(f"he said: {quoted}") is None


@pytest.mark.parametrize("line", harmless())
def test_a_healthy_kernel_has_no_findings(tmp_path, line):
    assert scan(line) is None
    assert not of(tmp_path, FIRST, line + "\n").complaints


def test_what_a_program_prints_on_the_console_is_not_the_kernels(tmp_path):
    result = [message(lines[number - 1]) for _, lines, number in (each.values for each in REPORTS)]
    assert not of(tmp_path, FIRST, "\n".join(result) + "\n").complaints


def test_a_kernel_that_prints_no_times_is_believed(tmp_path):
    console = of(tmp_path, "Linux version 6.1.192\nKernel panic - not syncing: x\n")
    assert console.panic() is not None


def test_a_program_that_writes_on_the_console_hides_nothing(tmp_path):
    bug = "[    9.123456] BUG: Bad rss-counter state mm:1 type:MM_ANONPAGES val:1"
    console = of(tmp_path, FIRST, "progress 12 %", bug + "\r\n", f"login: {bug}\n")
    assert [(c.kind, c.line_number, c.text) for c in console.complaints] == [
        ("bad-page", 2, bug),
        ("bad-page", 3, bug),
    ]


def test_a_second_boot_is_known(tmp_path):
    ready = f"[    1.000000] labctl: ready boot={BOOT}\n"
    assert not of(tmp_path, FIRST, FIRST, ready).complaints  # earlycon, and then the console
    console = Console(tmp_path / "console.log")
    with console.path.open("a") as log:
        log.write(FIRST)
    console.poll()
    assert [c.kind for c in console.complaints] == ["reboot"]


def test_a_program_cannot_announce_another_boot(tmp_path):
    ready = f"[    1.000000] labctl: ready boot={BOOT}\n"
    console = of(
        tmp_path, FIRST, ready, ready.replace("0a", "ff"), "labctl: ready boot=" + "f" * 36
    )
    assert console.boot_id == BOOT


def test_a_line_without_end_costs_no_more_memory_than_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_BYTES", 2**16)
    bug = "[    9.123456] BUG: Bad page state in process x  pfn:1\n"
    console = of(tmp_path, FIRST)
    for _ in range(8):
        console = of(tmp_path, b"x" * 2**20)
        assert len(console._rest) <= module.LINE_BYTES
    console = of(tmp_path, bug)
    assert [c.kind for c in console.complaints] == ["bad-page"]
    assert all(len(line) <= module.LINE_BYTES + 2 for line in console.tail())
    assert console.tail()[-1].endswith(bug.strip())


def test_the_start_of_a_line_that_was_cut_is_no_start_of_a_message(tmp_path):
    line = "x" * 7 + "BUG: of a program" + "x" * (module.LINE_BYTES - len("BUG: of a program"))
    assert not of(tmp_path, line + "\n").complaints
    assert not of(tmp_path, line, "x\n").complaints


@pytest.mark.parametrize(
    "text",
    [
        "x", "[", "[    ", "[ 1.000000]", "[    1.000000][", "INFO: task  blocked ", "Oops [#1",
        "Internal error: : ab", "BUG k (Tainted: ", "a:1: bad ", "1", "BUG a(", "BUG x(Tainted",
        "BUG: ", "rcu_", " ", "general protection fault", "x: 0000 [#",
    ],
)  # fmt: skip
@pytest.mark.parametrize("head", ["", "[    1.000000] ", "[    1.000000] Oops ", "INFO: task "])
def test_scanning_takes_linear_time(head, text):
    short, long = (head + text * (size // len(text)) for size in (2**13, 2**16))

    def work(line):
        for _ in range(3):
            scan(line)
            module.splats.stamped(line)

    assert_linear(work, short, long)


def test_a_flood_of_reports_leaves_the_first_and_the_last(tmp_path):
    flood = "".join(f"[    1.000000] WARNING: number {n}\n" for n in range(1, 5001))
    found = of(tmp_path, flood).complaints
    assert len(found) == 1000
    assert (found[0].line_number, found[-1].line_number) == (1, 5000)


def test_the_log_is_followed_as_it_grows(tmp_path):
    log = tmp_path / "console.log"
    console = Console(log)
    assert not console.poll()
    content = f"[    0.1] hello\r\n[    2.0] labctl: ready boot={BOOT} nodes=4\r\n".encode()
    log.write_bytes(b"")
    for position in range(len(content)):  # one byte at a time
        with log.open("ab") as file:
            file.write(content[position : position + 1])
        console.poll()
    assert console.boot_id == BOOT
    assert console.lines == 2
    assert console.bytes_seen == len(content)


def test_a_long_backlog_is_read_in_several_calls(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_BYTES", 2**12)
    log = tmp_path / "console.log"
    noise = "noise\n" * 5000
    log.write_text(
        f"{FIRST}[    2.0] labctl: ready boot={BOOT}\n{noise}50 %[    3.000000] BUG: x\n"
    )
    console = Console(log)
    calls = 0
    while console.poll(0.0):
        calls += 1
        assert console.bytes_seen <= calls * 2**12
    assert console.bytes_seen == log.stat().st_size
    (found,) = console.complaints
    assert (found.kind, found.line_number, console.lines) == ("bug", 5003, 5003)


def test_complaints_carry_their_line(tmp_path):
    log = tmp_path / "console.log"
    warning, panic = "WARNING: CPU: 0 PID: 1 at a.c:1 f+0x0", "Kernel panic - not syncing: x"
    log.write_text(f"[ 1.0] fine\n[ 2.0] {warning}\n[ 3.0] {panic}\n")
    console = Console(log)
    console.poll()
    assert [(c.kind, c.line_number) for c in console.complaints] == [("warning", 2), ("panic", 3)]
    assert console.panic().line_number == 3


def test_a_line_counts_once_it_is_whole(tmp_path):
    log = tmp_path / "console.log"
    log.write_text("[ 1.0] Kernel panic - not")
    console = Console(log)
    console.poll()
    assert console.panic() is None
    with log.open("a") as file:
        file.write(" syncing: x\n")
    console.poll()
    assert console.panic() is not None


def test_the_tail_counts_lines_as_reports_do(tmp_path):
    text = "a\x0bb\x0cc\u2028d\x85e\n[    1.000000] WARNING: x\n"
    console = of(tmp_path, text)
    (complaint,) = console.complaints
    assert console.tail()[complaint.line_number - 1] == complaint.text


def test_no_lines_are_none(tmp_path):
    console = of(tmp_path, "a\nb\n")
    assert console.tail(0) == []
    follower = Follower(console.path, 0)
    assert follower.read() == b""
    of(tmp_path, "c\n")
    assert follower.read() == b"c\n"


def test_the_tail_is_the_end_of_the_log(tmp_path):
    log = tmp_path / "console.log"
    log.write_bytes(b"".join(b"line %d \xff\r\n" % n for n in range(300)))
    tail = Console(log).tail(100)
    assert len(tail) == 100
    assert tail[-1].startswith("line 299")


def test_the_host_key_is_the_one_printed_before_the_guest_was_ready(tmp_path):
    log = tmp_path / "console.log"
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI+/x="
    log.write_text(f"[    1.0] labctl: ssh host key {key}\n[    1.1] labctl: ready boot={BOOT}\n")
    console = Console(log)
    console.poll()
    assert console.ssh_host_key == key
    with log.open("a") as file:
        file.write("[    9.0] labctl: ssh host key ssh-ed25519 AAAAmine\n")
    console.poll()
    assert console.ssh_host_key == key


def test_a_host_key_in_the_middle_of_a_line_is_a_quotation(tmp_path):
    log = tmp_path / "console.log"
    log.write_text("[    1.0] x: labctl: ssh host key ssh-ed25519 AAAA\n")
    console = Console(log)
    console.poll()
    assert console.ssh_host_key is None
