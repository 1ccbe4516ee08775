"""Function profiler and lock statistics: scripts for the guest, and parsers. Pure.

The formats: Documentation/trace/ftrace.rst and Documentation/locking/lockstat.rst.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from labctl.observers.observer import Counters

FUNCTIONS = ("/run/labctl-functions",)
LOCKS = ("/proc/lock_stat",)
_MOST_FUNCTIONS = 4000
_NANOSECONDS = 1000  # in a microsecond
# graph-time=0: a function's own time; sleep-time=0: without the time off the CPU.
START_FUNCTIONS = """\
t=/sys/kernel/tracing
[ -e $t/function_profile_enabled ] || mount -t tracefs tracefs $t 2>/dev/null
[ -e $t/function_profile_enabled ] || t=/sys/kernel/debug/tracing
[ -e $t/function_profile_enabled ] || {
  echo "functions: $t/function_profile_enabled is missing: CONFIG_FUNCTION_PROFILER is off" >&2
  exit 9
}
echo 0 >$t/function_profile_enabled
for option in graph-time sleep-time; do
  echo 0 >$t/options/$option || exit 9
done
echo 1 >$t/function_profile_enabled
"""
# The tables of all CPUs as one: name, calls, microseconds. The longest times come first, in
# case there are too many functions.
STOP_FUNCTIONS = f"""\
t=/sys/kernel/tracing
[ -e $t/function_profile_enabled ] || t=/sys/kernel/debug/tracing
echo 0 >$t/function_profile_enabled
cat $t/trace_stat/function* | awk '
  $2 ~ /^[0-9]+$/ && $4 == "us" {{ calls[$1] += $2; time[$1] += $3 }}
  END {{ for (name in calls) printf "%s %d %.3f\\n", name, calls[name], time[name] }}
' | sort -k 3 -g -r | head -n {_MOST_FUNCTIONS} >{FUNCTIONS[0]}
"""
START_LOCKS = """\
[ -e /proc/sys/kernel/lock_stat ] || {
  echo "lock_stat: /proc/sys/kernel/lock_stat is missing: CONFIG_LOCK_STAT is off" >&2
  exit 9
}
echo 0 >/proc/sys/kernel/lock_stat
echo 0 >/proc/lock_stat
echo 1 >/proc/sys/kernel/lock_stat
"""
STOP_LOCKS = "echo 0 >/proc/sys/kernel/lock_stat\n"
# Where a CPU waits for work: its time depends on that of the other CPUs.
_IDLE = re.compile(
    r"(.*_)?safe_halt|(do|default|poll|mwait|amd_e400|arch_cpu|schedule)_idle(_.*)?"
    r"|(acpi|intel|tick_nohz)_idle.*|cpuidle_.*|cpu_startup_entry"
)
_FUNCTION = re.compile(r"(\S+) ([0-9]{1,18}) ([0-9]{1,15}\.[0-9]{1,3})")
_LONGEST_LINE = 4096
_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,9})?")
_LOCK_FIELDS = 12


def functions(texts: Mapping[str, str]) -> Counters:
    """Return calls and own time of each function but the idle loop's: NAME.calls.

    A function that was not called is not listed.
    """
    found: Counters = {}
    for line in "".join(texts.values()).splitlines():
        match = _FUNCTION.fullmatch(line.strip())
        if match is None or _IDLE.fullmatch(match[1]):
            continue
        found[f"{match[1]}.calls"] = int(match[2])
        found[f"{match[1]}.nanoseconds"] = round(float(match[3]) * _NANOSECONDS)
    return found


def locks(texts: Mapping[str, str]) -> Counters:
    """Return waits and holds of each class of locks: NAME.wait_nanoseconds.

    A class that was not used is not listed.
    """
    found: Counters = {}
    for line in "".join(texts.values()).splitlines():
        head, colon, numbers = line[:_LONGEST_LINE].rpartition(": ")
        fields = numbers.split()
        if not colon or not head.strip() or len(fields) != _LOCK_FIELDS:
            continue
        if not all(map(_NUMBER.fullmatch, fields)):
            continue
        values = [float(field) for field in fields]
        name = "_".join(head.split())
        found[f"{name}.contentions"] = round(values[1])
        found[f"{name}.wait_nanoseconds"] = round(values[4] * _NANOSECONDS)
        found[f"{name}.acquisitions"] = round(values[7])
        found[f"{name}.hold_nanoseconds"] = round(values[10] * _NANOSECONDS)
    return found
