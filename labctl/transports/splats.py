"""What a sick kernel prints: the first lines of its reports, each of a kind.

A report is known by the start of a message, behind printk's time and perhaps its
caller: text in the middle of a line is somebody quoting. Each pattern begins with
fixed text and has at most one unbounded repetition before the next fixed text, so
that a line is matched in linear time.
"""

from __future__ import annotations

import re

# What stands before a kernel's message: syslog's level (from 8 on it is a message of
# user space), the time, and the caller, a task or a CPU.
PREFIX = r"(?:<[0-7]>)?(?:\[ *\d+\.\d+\])?(?:\[ *[CT]\d+\])? ?"
_STAMPED = re.compile(r"(?:<\d+>)?\[ *\d+\.\d+\]")
# The kernel writes a message and its end of line at once, whatever a program has begun
# to write before: `50 %[    9.123456] BUG: …`. printk's own width and digits.
_TORN = re.compile(r"\[(?: {0,4}\d{1,5}|\d{6,10})\.\d{6}\](?:\[ *[CT]\d+\])? ")

# A fault of a program begins with the program's name, which it chooses.
_PROGRAM = r".{1,15}\[\d+\]: (?:segfault at |unhandled )"
# Messages that begin with WARNING: and yet report no fault of the kernel.
_NOTICES = (
    r"(?:Unprivileged eBPF|See https?:|kernel not compiled with|CPU does not support"
    r"|(?:Spectre|LFENCE|IBRS|ITS|BTB|retbleed)\b"  # speculation and its mitigations
    r"|workqueue cpumask: |[Tt]he mand mount option|polling idle and HT|'bootconfig' found"
    r"|BIOS bug: |bogus zero IO-APIC|x1-x3 nonzero|fbcon: )"
)

# The special before the general; of two that match, the first counts.
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
    """Return the kind of report that begins on a line of the kernel's, or None."""
    found = _SPLAT.match(line)
    return None if found is None or found.lastindex is None else _KINDS[found.lastindex - 1][0]


def is_banner(line: str) -> bool:
    """Say whether a kernel begins to boot on this line of its own."""
    return _BANNER.match(line) is not None


def stamped(line: str) -> str | None:
    """Return what the kernel wrote on a line of the console, None if it has no printk time."""
    return line if _STAMPED.match(line) else torn(line)


def torn(line: str) -> str | None:
    """Return what the kernel wrote behind a program's text on the same line, None if nothing."""
    found = _TORN.search(line)
    return None if found is None else line[found.start() :]
