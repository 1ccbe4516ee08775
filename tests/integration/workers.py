"""The threads of unbound workqueues, which work for a series, and their CPUs."""

# One line each: pid, ticks in the kernel, the CPUs it may run on, the one it ran on last.
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
    """Return the ticks used meanwhile by workers bound to `cpus`, and by the others."""
    ticks = {True: 0, False: 0}
    for pid, (now, allowed, last) in after.items():
        kept = allowed <= cpus and last in cpus
        ticks[kept] += now - before.get(pid, (0,))[0]
    return ticks[True], ticks[False]
