import pytest

from labctl.transports.console import Console, scan

BOOT = "0a1b2c3d-0000-4000-8000-0123456789ab"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("[    1.234567] Kernel panic - not syncing: sysrq triggered crash", "panic"),
        ("Kernel panic - not syncing: VFS: Unable to mount root fs", "panic"),
        ("[    3.1] BUG: kernel NULL pointer dereference, address: 0000000000000000", "oops"),
        ("[    3.1] BUG: unable to handle page fault for address: ffffc900", "oops"),
        ("[    3.1] Oops: 0002 [#1] PREEMPT SMP NOPTI", "oops"),
        ("[    3.1] general protection fault, probably for non-canonical address", "oops"),
        ("[    3.1] kernel BUG at mm/mmu_gather.c:123!", "bug"),
        ("[    3.1] invalid opcode: 0000 [#1] SMP", "bug"),
        ("[    3.1] BUG: Bad page state in process freebench  pfn:12345", "bad-page"),
        ("[    3.1] BUG: Bad rss-counter state mm:0000 type:MM_ANONPAGES val:1", "bad-page"),
        ("[    3.1] BUG: sleeping function called from invalid context", "bug"),
        ("[   30.1] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a:1]", "soft-lockup"),
        ("[   30.1] watchdog: Watchdog detected hard LOCKUP on cpu 2", "hard-lockup"),
        ("[  130.1] INFO: task freebench:77 blocked for more than 60 seconds.", "hung-task"),
        ("[  130.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "rcu-stall"),
        ("[    9.9] Out of memory: Killed process 70 (freebench)", "oom-kill"),
        ("[    9.9] Memory cgroup out of memory: Killed process 70 (x)", "oom-kill"),
        ("[    9.9] WARNING: CPU: 1 PID: 7 at mm/mmu_gather.c:99 tlb_x+0x1/0x2", "warning"),
        ("[    9.9][  T71] WARNING: possible circular locking dependency detected", "warning"),
    ],
)
def test_a_sick_kernel_is_recognised(line, kind):
    assert scan(line) == kind


@pytest.mark.parametrize(
    "line",
    [
        "[    0.0] Command line: console=ttyS0 panic=-1 oops=panic",
        "[    0.1] clocksource: tsc: mask: 0xffffffffffffffff",
        "[    1.0] my-test: expects WARNING: CPU to appear",
        "he said: Kernel panic - not syncing",
        "[    0.2] rcu: Hierarchical RCU implementation.",
        "[    0.3] NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
        "",
    ],
)
def test_a_healthy_kernel_is_not_accused(line):
    assert scan(line) is None


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


def test_the_tail_is_the_end_of_the_log(tmp_path):
    log = tmp_path / "console.log"
    log.write_bytes(b"".join(b"line %d \xff\r\n" % n for n in range(300)))
    tail = Console(log).tail(100)
    assert len(tail) == 100
    assert tail[-1].startswith("line 299")


def test_the_host_key_is_what_was_said_before_the_guest_was_ready(tmp_path):
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
