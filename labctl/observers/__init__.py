"""Counters of the kernel that are read around each repetition, by the observer's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labctl.observers import perf, procfs, stacks, tracing
from labctl.observers.observer import Observer

OBSERVERS: Mapping[str, Observer] = {
    each.name: each
    for each in (
        Observer(
            name="vmstat",
            about="events and states of memory management, /proc/vmstat",
            files=procfs.VMSTAT,
            parse=procfs.vmstat,
            is_gauge=procfs.is_vmstat_gauge,
            needs=(("CONFIG_VM_EVENT_COUNTERS",),),
        ),
        Observer(
            name="psi",
            about="time that tasks waited for CPU, memory and I/O, /proc/pressure",
            files=procfs.PRESSURE,
            parse=procfs.psi,
            needs=(("CONFIG_PSI",),),
            fragment="psi.config",
        ),
        Observer(
            name="interrupts",
            about="interrupts and softirqs, /proc/interrupts and /proc/softirqs",
            files=procfs.INTERRUPTS,
            parse=procfs.interrupts,
        ),
        Observer(
            name="slab",
            about="objects and pages of slab caches, /proc/slabinfo",
            files=procfs.SLABINFO,
            parse=procfs.slab,
            is_gauge=procfs.is_any,
            needs=(("CONFIG_SLUB_DEBUG", "CONFIG_SLAB"),),
            fragment="slab.config",
        ),
        Observer(
            name="buddyinfo",
            about="free blocks of each node, zone and order, /proc/buddyinfo",
            files=procfs.BUDDYINFO,
            parse=procfs.buddyinfo,
            is_gauge=procfs.is_any,
        ),
        Observer(
            name="lock_stat",
            about="waits for and holds of locks, /proc/lock_stat",
            files=tracing.LOCKS,
            parse=tracing.locks,
            needs=(("CONFIG_LOCK_STAT",),),
            fragment="lockstat.config",
            start=tracing.START_LOCKS,
            stop=tracing.STOP_LOCKS,
        ),
        Observer(
            name="functions",
            about="calls and own time of the kernel's functions, by ftrace's function profiler",
            files=tracing.FUNCTIONS,
            parse=tracing.functions,
            needs=(("CONFIG_FUNCTION_PROFILER",), ("CONFIG_FUNCTION_GRAPH_TRACER",)),
            fragment="trace.config",
            start=tracing.START_FUNCTIONS,
            stop=tracing.STOP_FUNCTIONS,
            rewrites_code=True,
        ),
        Observer(
            name="perf",
            about="events of the CPUs and the kernel, by `perf stat`",
            files=perf.COUNTS,
            parse=perf.perf,
            needs=(("CONFIG_PERF_EVENTS",),),
            fragment="perf.config",
            start=perf.START,
            stop=perf.STOP,
            programs=("perf",),
        ),
        Observer(
            name=stacks.NAME,
            about="CPU time of the kernel by call stack, by `perf record`",
            files=stacks.STACKS,
            parse=stacks.stacks,
            needs=(("CONFIG_PERF_EVENTS",),),
            fragment="perf.config",
            start=stacks.START,
            stop=stacks.STOP,
            programs=("perf",),
        ),
    )
}


def chosen(names: Sequence[str]) -> tuple[Observer, ...]:
    """Return observers by their names."""
    return tuple(OBSERVERS[name] for name in names)
