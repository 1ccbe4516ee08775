"""What must be measured for a prediction, as lines of lab.yaml. Pure."""

from __future__ import annotations

EXPERIMENT = """\
measure this, in a guest with as many vCPUs as the host has cores:
  experiments:
    model:
      workload: munmap
      kernels: [stock, node-grouped-free, parallel-free, parallel-unmap]
      baseline: stock
      set: {thp: never}
      matrix: {max_active: [1, 2], unmap_max_active: [1, 2]}
      statistics: {blocks: {min: 8, max: 12}}"""
LOCKS = (
    "add `observe: [lock_stat]` to the experiment in lab.yaml and measure it with "
    "`labctl run --why`, or measure with 1 and 2 workers on a host with 3 or more cores"
)
