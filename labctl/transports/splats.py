"""Recognise kernel splats by the first line of their reports.

A pattern must match at the start of a message, after printk's time and optional caller:
text in the middle of a line may be a quotation. Each pattern begins with fixed text and
has at most one unbounded repetition before the next fixed text, so that a line is matched
in linear time.
"""

from __future__ import annotations

import re

# The prefix of a kernel message: syslog level (8 and above: from user space), time, and
# caller, a task or a CPU.
PREFIX = r"(?:<[0-7]>)?(?:\[ *\d+\.\d+\])?(?:\[ *[CT]\d+\])? ?"
_STAMPED = re.compile(r"(?:<\d+>)?\[ *\d+\.\d+\]")
# A kernel message can follow a program's incomplete line: `50 %[    9.123456] BUG: …`.
# The widths are printk's.
_TORN = re.compile(r"\[(?: {0,4}\d{1,5}|\d{6,10})\.\d{6}\](?:\[ *[CT]\d+\])? ")

# Reports of a program's fault start with its name, which can be any text.
_PROGRAM = r".{1,15}\[\d+\]: (?:segfault at |unhandled )"
# Messages that begin with WARNING: but report no kernel fault.
_NOTICES = (
    r"(?:Unprivileged eBPF|See https?:|kernel not compiled with|CPU does not support"
    r"|(?:Spectre|LFENCE|IBRS|ITS|BTB|retbleed)\b"  # speculation and its mitigations
    r"|workqueue cpumask: |[Tt]he mand mount option|polling idle and HT|'bootconfig' found"
    r"|BIOS bug: |bogus zero IO-APIC|x1-x3 nonzero|fbcon: )"
)

# Specific patterns before general ones: the first match wins.
_KINDS: tuple[tuple[str, str], ...] = (
    ("panic", r"Kernel panic - not syncing|Rebooting in \d+ seconds\.\."),
    ("oops", r"PANIC: double fault"),
    ("panic", r"PANIC: "),
    ("kasan", r"BUG: KASAN: "),
    ("kmsan", r"BUG: KMSAN: "),
    ("kcsan", r"BUG: KCSAN: "),
    ("kfence", r"BUG: KFENCE: "),
    ("ubsan", r"UBSAN: "),
    (
        "bad-page",
        r"BUG: Bad (?:page|rss-counter)|BUG: non-zero (?:pgtables_bytes|nr_ptes|nr_pmds)"
        r"|[\w./-]+:\d+: bad p(?:te|md|ud|4d|gd) "
        r"|pagealloc: (?:single bit error|memory corruption)",
    ),
    ("soft-lockup", r"(?:(?:NMI )?watchdog: )?BUG: soft lockup"),
    (
        "hard-lockup",
        r"(?:NMI )?watchdog: (?:\w+: )?(?:Watchdog detected )?[Hh]ard (?:LOCKUP|lockup)",
    ),
    (
        "hung-task",
        r"INFO: task .*(?: blocked (?:in I/O wait )?for more than | can't die for more than )",
    ),
    (
        "rcu-stall",
        r"(?:rcu: )?INFO: \w+ (?:self-)?detected (?:expedited )?stalls?\b"
        r"|(?:rcu: )?rcu_\w+ kthread (?:starved for|timer wakeup didn't happen for) ",
    ),
    # BUG() is an invalid opcode on x86.
    ("bug", r"[Kk]ernel BUG at |(?:Oops: )?invalid opcode: "),
    (
        "oops",
        r"BUG: (?:[Uu]nable to handle|[Kk]ernel NULL)"
        r"|Oops\b.*\[#\d+\]"
        r"|general protection fault(?:[,:]|$)"
        # die() of x86: divide error, stack segment, int3 and the others.
        r"|[A-Za-z][\w #,-]{2,60}: [0-9a-f]{4} \[#\d+\]"
        # arm64 and arm.
        r"|Unable to handle kernel |Internal error: .*: [0-9a-f]{1,16} \[#\d+\]"
        r"|Unhandled fault: |Alignment trap: not handling instruction"
        r"|Insufficient stack space to handle exception|Bad mode in \w|SError Interrupt on CPU"
        r"|Unhandled [\w -]{1,40} exception on CPU|Unexpected kernel BRK exception",
    ),
    (
        "oom-kill",
        r"(?:Memory cgroup out|Out) of memory(?: \(\w+\))?: Kill(?:ed)? process \d"
        r"|Out of memory and no killable processes",
    ),
    (
        "bug",
        r"(?:\[ )?BUG: |BUG [\w.:(),/-]+ ?(?:\((?:Not t|T)ainted[^)]{0,40}\))?: "  # SLUB's
        r"|(?:smp: )?csd: \w+ non-responsive CSD lock|CFI failure at "
        r"|VFS: Close: file count is 0|VFS: Busy inodes after unmount|trusty: panic",
    ),
    (
        "warning",
        rf"(?:\[ )?WARNING: (?!{_NOTICES})"
        r"|(?:\[ )?INFO: (?:possible |suspicious RCU usage|inconsistent lock state"
        r"|trying to register non-static key|[\w-]+-safe -> [\w-]+-unsafe lock order)"
        r"| ?\*\*\* DEADLOCK \*\*\*"
        r"|kmemleak: \d+ new suspected memory leaks|(?:kmemleak: )?unreferenced object 0x"
        r"|unregister_netdevice: waiting for |sysfs: cannot create duplicate filename",
    ),
)
_ANY_OF_THEM = "|".join(f"({pattern})" for _, pattern in _KINDS)
_SPLAT = re.compile(f"{PREFIX}(?!{_PROGRAM})(?:{_ANY_OF_THEM})")
_BANNER = re.compile(PREFIX + r"(?:Linux version \d|Booting the kernel\.)")


def scan(line: str) -> str | None:
    """Return the kind of the report that starts on a kernel line, None if none does."""
    found = _SPLAT.match(line)
    return None if found is None or found.lastindex is None else _KINDS[found.lastindex - 1][0]


def is_banner(line: str) -> bool:
    """Return whether this kernel line is the banner of a booting kernel."""
    return _BANNER.match(line) is not None


def stamped(line: str) -> str | None:
    """Return the kernel's text on a console line, None without a printk time."""
    return line if _STAMPED.match(line) else torn(line)


def torn(line: str) -> str | None:
    """Return the kernel's text after a program's text on the same line, None without one."""
    found = _TORN.search(line)
    return None if found is None else line[found.start() :]
