"""Threads of unbound workqueues, which do the work of a series, and their CPUs."""

# A line for each: pid, kernel ticks, allowed CPUs, last CPU.
WORKERS = r"""
for task in /proc/[0-9]*; do
  read comm < $task/comm 2> /dev/null || continue
  case "$comm" in kworker/u*) ;; *) continue ;; esac
  allowed=$(sed -n 's/^Cpus_allowed_list:\s*//p' $task/status)
  set -- $(sed 's/.*) //' $task/stat)
  echo "${task#/proc/} ${13} $allowed ${37}"
done
"""


def workers(guest):
    """Return ticks, allowed CPUs and last CPU of each unbound worker by its pid."""
    lines = (line.split() for line in guest.output(WORKERS).splitlines())
    return {int(pid): (int(ticks), cpus(allowed), int(last)) for pid, ticks, allowed, last in lines}


def cpus(text):
    ranges = [part.split("-") for part in text.split(",")]
    return {cpu for each in ranges for cpu in range(int(each[0]), int(each[-1]) + 1)}


def time_by_cpus(before, after, cpus):
    """Return the ticks used between two readings by workers bound to `cpus`, and by others."""
    ticks = {True: 0, False: 0}
    for pid, (now, allowed, last) in after.items():
        kept = allowed <= cpus and last in cpus
        ticks[kept] += now - before.get(pid, (0,))[0]
    return ticks[True], ticks[False]
