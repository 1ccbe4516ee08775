"""Entries of the shelf whose programs labctl has: freebench, and what it compiles. Pure."""

from __future__ import annotations

from labctl.lab.shelf.entry import AUTO_TASKS, SIZE_FORMS, Entry, Metric, Parameter

_FREEBENCH_METRICS = {
    "elapsed": Metric("time of the operation"),
    "cpu": Metric("CPU time of the process in it"),
    "other_cpu": Metric("CPU time of all others in it, such as kernel workers"),
    "memory_back": Metric("time until the memory is free again"),
    "populate": Metric("time of touching the memory before"),
}
_MEMORY_METRICS = {
    "elapsed": Metric("time of the operation"),
    "populate": Metric("time of touching the memory before"),
}


def _freebench(operation: str, good_for: str) -> Entry:
    return Entry(
        name=operation,
        good_for=good_for,
        metrics=_FREEBENCH_METRICS,
        parameters={
            "op": Parameter(operation, "free, munmap, dontneed or exit"),
            "size": Parameter("50%", SIZE_FORMS),
            "threads": Parameter(4, "threads that touch the memory"),
            "placement": Parameter("interleave", "local, interleave, or node:N"),
        },
        workload={"command": "freebench", "timeout": "10min"},
    )


def _memory(name: str, good_for: str) -> Entry:
    return Entry(
        name=name,
        good_for=good_for,
        metrics=_MEMORY_METRICS,
        parameters={
            "size": Parameter("80%", SIZE_FORMS),
            "threads": Parameter("auto", f"threads that touch the memory; {AUTO_TASKS}"),
        },
        workload={
            "build": {
                "sources": [f"{name}.c", "memory.c", "common.c", "../lib/size.c"],
                "flags": "-pthread",
            },
            "timeout": "10min",
        },
    )


def _will_it_scale(test: str, good_for: str, size: str | None = "10%") -> Entry:
    sizes = {} if size is None else {"size": Parameter(size, f"of all mappings: {SIZE_FORMS}")}
    return Entry(
        name=test,
        good_for=good_for,
        metrics={
            "rate": Metric("operations of all tasks", "higher", "$.rate", "ops/s"),
            "least_rate": Metric("of the slowest task", "higher", "$.least_rate", "ops/s"),
            "most_rate": Metric("of the fastest task", "higher", "$.most_rate", "ops/s"),
        },
        parameters={
            "tasks": Parameter("auto", f"tasks; {AUTO_TASKS}"),
            "mode": Parameter("processes", "processes, or threads that share the memory map"),
            **sizes,
            "seconds": Parameter(5, "time of measuring, after 1 s of warm-up"),
        },
        workload={
            "build": {
                "sources": ["will-it-scale.c", "common.c", "../lib/size.c"],
                "flags": "-pthread",
            },
            "command": f"./will-it-scale --test {test}",
            "timeout": "2min",
        },
    )


ENTRIES = (
    _freebench("free", "free() of a large allocation: the whole way from malloc to the nodes"),
    _freebench("munmap", "munmap of one large mapping: zapping and freeing pages"),
    _freebench("dontneed", "MADV_DONTNEED: as munmap, but the mapping stays"),
    _freebench("exit", "exit of a process with much memory, by itself"),
    _memory("time-unmap", "one munmap of most of the memory, as mmtests' time-unmap"),
    _memory("exit-free", "a large process that is killed, as lkp's exit-free"),
    _will_it_scale("page_fault1", "anonymous page faults and munmap on all CPUs: mmap_lock, zones"),
    _will_it_scale("page_fault2", "private file faults on all CPUs: page cache and copies"),
    _will_it_scale("page_fault3", "shared file faults on all CPUs: page cache, reverse map"),
    _will_it_scale("brk1", "growing and shrinking the heap on all CPUs: VMA changes", None),
)
