"""The lab.yaml that `labctl init` writes, and the JSON Schema that `labctl schema` prints."""

from __future__ import annotations

import copy
from typing import Any

from labctl.lab_shape import file_schema

KCONFIG = "guest/kconfig/base.config"
SERIES = "patches/parallel-free/6.1"

_TEXT = """\
# The lab: which kernels are built, on which guests they boot, what is measured
# on them, and how sure the answer must be. `labctl plan` shows what this file
# leads to and runs nothing; every mistake in it is told with its line.
#
# Sizes and counts carry units: 3GiB, 1536MiB, 64Ki, 2%, 5min.
# Paths start from the folder of this file. Names are yours to choose.
version: 1

# What holds where nothing else is said. `accel: auto` takes KVM if a probe
# guest really boots with it, and QEMU's emulator (tcg) otherwise.
defaults:
  launcher: qemu
  transport: serial
  accel: auto
  guest: numa4

# The shape of a guest. All kernels of an experiment are up at the same time,
# one of them twice: here 3 guests of 6 GiB each.
guests:
  numa4:
    nodes: 4
    cpus_per_node: 1
    memory_per_node: 1536MiB
    # What a node pays to reach another one; itself is always 10. For pairs that
    # differ, write `matrix:` with one row a node in place of `remote:`.
    distances: {remote: 21}

# A kernel has a source of its own (debian:NAME, dir:PATH, image:PATH), or a
# base, whose source and kconfig it shares, and a series of patches on top.
kernels:
  stock:
    source: debian:linux-source-6.1
    kconfig: [@KCONFIG@]
  parallel-free:
    base: stock
    series: @SERIES@  # a folder with a quilt `series` file and its patches

# What can be set in a guest: a file that is written and read back, or, with
# `parameter:`, a word of the kernel's command line. Without `kernels:` it is
# there on all of them. A kernel that lacks a tunable is measured without it.
tunables:
  max_active:  # how many workers free pages at the same time
    file: /sys/kernel/debug/parallel_free/max_active
    kernels: [parallel-free]
  batch_pages:  # so many pages make a list for a worker; 0 turns it off
    file: /sys/kernel/debug/parallel_free/batch_pages
    kernels: [parallel-free]
  thp:  # transparent huge pages: always, madvise or never
    file: /sys/kernel/mm/transparent_hugepage/enabled

# What runs in the guest. Each parameter becomes an option (`size` is --size),
# and `metric` names the figure of its output that is compared.
workloads:
  free:  # malloc, touch, and the time that free() takes
    command: freebench
    parameters: {op: free, size: 3GiB, placement: interleave, threads: 4}
    metric: elapsed
    timeout: 5min
  exit:  # the same memory, given back by a process that ends
    command: freebench
    parameters: {op: exit, size: 3GiB, placement: interleave, threads: 4}
    metric: elapsed
    timeout: 5min

# A workload on some kernels, against a baseline (the first kernel if none is
# named). `set` is the same in every cell; `matrix` makes one cell for each
# combination of its values. Both take tunables and the workload's parameters.
experiments:
  # Is it worth it? Everything at the series' own defaults. A list has 256Ki
  # pages (1 GiB) then, so that 3GiB are handed over in two or three lists.
  headline:
    workload: free
    kernels: [stock, parallel-free]
    set: {thp: never}

  # How many workers are best? At the default threshold there are never more
  # than three lists, and no setting above 3 could matter. With 64Ki pages
  # (256 MiB) there are 12 of them, and the question can be answered.
  max-active:
    workload: free
    kernels: [parallel-free]
    baseline: stock
    set: {thp: never, batch_pages: 64Ki}
    matrix:
      max_active: [1, 2, 4, 8, 16, 32]

  # How large should a list be? Small ones start early, large ones cost less.
  # 1Mi pages are more than 3GiB: the lab must find that cell not exercised.
  threshold:
    workload: free
    kernels: [parallel-free]
    baseline: stock
    set: {thp: never}
    matrix:
      batch_pages: [16Ki, 64Ki, 256Ki, 1Mi]

  # A first answer in a few minutes. Any key of `statistics` can be changed for
  # one experiment; below 6 blocks no verdict is given.
  smoke:
    workload: free
    kernels: [stock, parallel-free]
    set: {thp: never}
    statistics: {blocks: {min: 6, max: 6}, repetitions: 2, warmup: 1}

# A block is a stretch of time in which every cell boots afresh and is visited
# once, in an order drawn from the run's seed. The evidence is the block, not
# the repetition: two repetitions of one boot have too much in common.
statistics:
  confidence: 0.95  # of every interval
  minimum_effect: 2%  # what is smaller than this counts as the same
  blocks: {min: 8, max: 30}
  repetitions: 3  # in each visit
  warmup: 1  # repetitions before them that never count
  stop_at_half_width: 3%  # done before `max` if all intervals are this narrow; none: never
"""


def text(kconfig: str = KCONFIG, series: str = SERIES) -> str:
    """Return a commented lab.yaml with the given kconfig fragment and patch series."""
    return _TEXT.replace("@KCONFIG@", kconfig).replace("@SERIES@", series)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of lab.yaml as it is written, sizes as text with units."""
    schema = copy.deepcopy(file_schema())
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "lab.yaml"
    schema["description"] = "A lab for Linux mm developers: kernels, guests, experiments"
    return schema
