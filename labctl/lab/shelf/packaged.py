"""Entries of the shelf whose programs come from Debian packages. Pure."""

from __future__ import annotations

from labctl import units
from labctl.lab.metrics import WALL_TIME
from labctl.lab.shelf.entry import AUTO_TASKS, SIZE_FORMS, Entry, Metric, Parameter, script

_SECONDS = Parameter(5, "time of measuring")
_TASKS = '[ "$threads" != auto ] || threads=$(nproc)\n'
_HACKBENCH = {
    "groups": Parameter(2, "groups of 20 senders and 20 receivers"),
    "loops": Parameter(50, "messages from each sender to each receiver of its group"),
    "datasize": Parameter(100, "bytes of a message"),
    "channel": Parameter("pipe", "pipe, or socket, for which the kernel needs CONFIG_UNIX"),
}
_STRESS_VM = {
    "threads": Parameter("auto", f"processes; {AUTO_TASKS}"),
    "size": Parameter("40%", f"of all processes: {SIZE_FORMS}"),
    "ops": Parameter(200, "bogo operations of each process"),
    "method": Parameter("write64", "what is done to the memory; `stress-ng --vm-method which`"),
}
_STRESS_MMAP = {
    "threads": Parameter("auto", f"processes; {AUTO_TASKS}"),
    # Each page has several system calls of its own.
    "size": Parameter(units.MIB, f"of all processes: {SIZE_FORMS}"),
    "ops": Parameter(4, "bogo operations of each process"),
}
_SYSBENCH = {
    "threads": Parameter("auto", f"threads; {AUTO_TASKS}"),
    "block_size": Parameter(units.MIB, "size of the buffer of each thread"),
    "operation": Parameter("write", "read, write or none"),
    "access": Parameter("seq", "seq or rnd"),
    "seconds": _SECONDS,
}
_FIO = {
    "threads": Parameter("auto", f"jobs, each with its own file; {AUTO_TASKS}"),
    "size": Parameter("20%", f"of all files: {SIZE_FORMS}"),
    "directory": Parameter("/tmp", "folder of the files; in a guest of QEMU it is in memory"),  # noqa: S108
    "seconds": _SECONDS,
}
_PERF = {
    "routine": Parameter("memset", "memset or memcpy"),
    "size": Parameter("10%", f"of the buffer: {SIZE_FORMS}"),
    "loops": Parameter(3, "times that the buffer is written"),
}
_BUILD = {"jobs": Parameter("auto", f"jobs of make; {AUTO_TASKS}")}
# 64 files of 100 functions, without headers, as a small folder of the kernel's tree.
_TREE = """\
mkdir -p tree
cd tree
rm -f *.o
if [ -e Makefile ]; then exit; fi
for i in $(seq 64); do
  awk -v file="$i" 'BEGIN {
    print "struct item { struct item *next; unsigned long key; char name[16]; };"
    for (f = 0; f < 100; f++)
      printf "int find_%d_%d(struct item *at, unsigned long key)\\n{\\n\\t" \\
        "for (; at; at = at->next) {\\n\\t\\tif (at->key == key + %d)\\n\\t\\t\\t" \\
        "return at->name[%d] ? 1 : -1;\\n\\t}\\n\\treturn 0;\\n}\\n\\n", file, f, f, f % 16
  }' > "part$i.c"
done
cat > Makefile <<'END'
objects := $(patsubst %.c,%.o,$(wildcard *.c))
built.o: $(objects)
\ttcc -nostdlib -r -o $@ $^
%.o: %.c
\ttcc -nostdinc -c -o $@ $<
END
"""


def _fio(name: str, good_for: str, options: str, metric: Metric) -> Entry:
    text = (
        f'{_TASKS}cd "$directory"\nmkdir fio.$$\ntrap "rm -rf fio.$$" EXIT\n'
        'total=$(bytes "$size")\n'
        'case "$total" in *M) total=$((${total%M} * 1048576)) ;; esac\n'
        f"fio --name={name} --directory=fio.$$ {options} --numjobs=$threads --thread \\\n"
        "  --size=$((total / threads)) --time_based --runtime=$seconds \\\n"
        "  --group_reporting --output-format=json\n"
    )
    return Entry(
        name=name,
        good_for=good_for,
        metrics={"rate": metric},
        parameters=_FIO,
        workload={"packages": ["fio"], "script": script(_FIO, text), "timeout": "5min"},
    )


def _stress(stressor: str, good_for: str, parameters: dict[str, Parameter], options: str) -> Entry:
    name = f"stress-ng-{stressor}"
    # Real time of a fixed number of operations: a fixed time would count only whole ones.
    row = rf"\] {stressor} +[0-9]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +([0-9.]+)"
    return Entry(
        name=name,
        good_for=good_for,
        metrics={"rate": Metric("bogo operations", "higher", row, "ops/s")},
        parameters=parameters,
        workload={
            "packages": ["stress-ng"],
            "script": script(
                parameters,
                f"{_TASKS}exec stress-ng --{stressor} $threads {options} --metrics 2>&1\n",
            ),
            "timeout": "10min",
        },
    )


ENTRIES = (
    Entry(
        name="hackbench",
        good_for="scheduler and pipes: many processes that send messages to each other",
        metrics={"run_time": Metric("time of all messages", "lower", r"^Time: ([0-9.]+)$", "s")},
        parameters=_HACKBENCH,
        workload={
            "packages": ["rt-tests"],
            "script": script(
                _HACKBENCH,
                'if [ "$channel" = pipe ]; then set -- --pipe; fi\n'
                'exec hackbench "$@" -g $groups -l $loops -s $datasize\n',
            ),
            "timeout": "10min",
        },
    ),
    _stress(
        "vm",
        "mapping, writing and unmapping anonymous memory, with checks of its contents",
        _STRESS_VM,
        "--vm-bytes $size --vm-ops $((ops * threads)) --vm-method $method",
    ),
    _stress(
        "mmap",
        "mmap, mprotect, madvise and munmap of single pages in changing order: VMA changes",
        _STRESS_MMAP,
        "--mmap-bytes $size --mmap-ops $((ops * threads))",
    ),
    Entry(
        name="sysbench-memory",
        good_for="memory bandwidth of threads in user space: should not change with the kernel",
        metrics={"rate": Metric("bytes", "higher", r"transferred \(([0-9.]+) MiB/sec\)", "MiB/s")},
        parameters=_SYSBENCH,
        workload={
            "packages": ["sysbench"],
            "script": script(
                _SYSBENCH,
                f"{_TASKS}exec sysbench memory --threads=$threads --time=$seconds --events=0 \\\n"
                "  --memory-block-size=$block_size --memory-total-size=1000T \\\n"
                "  --memory-oper=$operation --memory-access-mode=$access run\n",
            ),
            "timeout": "2min",
        },
    ),
    _fio(
        "fio-mmap",
        "random reads of mapped files: file faults and the page cache",
        "--ioengine=mmap --rw=randread --bs=4k",
        Metric("reads of 4 KiB", "higher", "$.jobs[0].read.iops", "iops"),
    ),
    _fio(
        "fio-page-cache",
        "sequential reads of cached files: lookups in the page cache and copies",
        "--ioengine=psync --rw=read --bs=64k",
        Metric("bytes", "higher", "$.jobs[0].read.bw_bytes", "B/s"),
    ),
    Entry(
        name="perf-bench-mem",
        good_for="memset or memcpy of a large buffer: bandwidth, and huge pages if they are on",
        metrics={"rate": Metric("bytes", "higher", r"^([0-9]+\.[0-9]+)$", "B/s")},
        parameters=_PERF,
        workload={
            "packages": ["linux-perf"],
            "script": script(
                _PERF,
                'exec perf bench --format simple mem "$routine" --size "$(bytes "$size")B" \\\n'
                "  --nr_loops $loops --function default\n",
            ),
            "timeout": "5min",
        },
    ),
    Entry(
        name="kernel-build",
        good_for="make of a small C tree: short processes that fork, exec, fault, read and exit",
        metrics={WALL_TIME: Metric("time of make, with tcc as compiler")},
        parameters=_BUILD,
        workload={
            "packages": ["make", "tcc"],
            "setup": {"repetition": _TREE},
            "script": script(
                _BUILD,
                '[ "$jobs" != auto ] || jobs=$(nproc)\nexec make -s -C tree -j$jobs built.o\n',
            ),
            "timeout": "10min",
        },
    ),
)
