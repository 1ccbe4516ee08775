"""Whether a kernel crashes more often than its baseline. Pure.

A block boots each guest once. These first boots are independent, and their number does not
depend on how many crash. Boots after a failure are not counted: there are more of them the
more a kernel crashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from labctl.stats.cells import Cell, crashes
from labctl.stats.paired import adjust
from labctl.stats.proportions import p_not_more_often
from labctl.status import CRASHES, HOST_FAULTS
from labctl.units import counted


class CrashRate(msgspec.Struct, frozen=True, kw_only=True):
    """The first boots of a kernel in each block that crashed, beside those of the baseline."""

    kernel: Annotated[str, Meta(description="Name of the kernel.")]
    crashed: Annotated[int, Meta(description="Boots of the kernel that crashed.")]
    boots: Annotated[int, Meta(description="First boots of the kernel in a block.")]
    baseline_crashed: Annotated[
        int, Meta(description="Boots of the baseline and its A/A control that crashed.")
    ]
    baseline_boots: Annotated[
        int, Meta(description="First boots of the baseline and its A/A control in a block.")
    ]
    p: Annotated[
        float,
        Meta(description="p of no more crashes than the baseline: Fisher's exact test, one-sided."),
    ]
    p_corrected: Annotated[float, Meta(description="p after Holm's correction over the kernels.")]
    more_often: Annotated[
        bool, Meta(description="Whether the kernel crashes more often than the baseline.")
    ]

    def counts(self, baseline: str) -> str:
        """Return how many boots crashed, beside those of the baseline."""
        return (
            f"{self.crashed} of {counted(self.boots, 'boot')} crashed, {baseline}: "
            f"{self.baseline_crashed} of {self.baseline_boots}"
        )


def crash_rates(
    bases: Sequence[Cell], others: Sequence[Cell], confidence: float
) -> tuple[CrashRate, ...]:
    """Return the crash rates of the kernels, empty if no boot of any but the baseline crashed.

    `bases` are the cells of the baseline and of its A/A controls.
    """
    if not any(crashes(others).values()):
        return ()  # the usual case; there may be a million samples
    kernels = dict.fromkeys(cell.kernel for cell in others)
    boots = {name: _boots(cell for cell in others if cell.kernel == name) for name in kernels}
    base = _boots(bases)
    base_counts = sum(base.values()), len(base)
    p = [p_not_more_often(sum(own.values()), len(own), *base_counts) for own in boots.values()]
    corrected = adjust(p)
    return tuple(
        CrashRate(
            kernel=name,
            crashed=sum(own.values()),
            boots=len(own),
            baseline_crashed=base_counts[0],
            baseline_boots=base_counts[1],
            p=each,
            p_corrected=1.0 if after is None else after,
            more_often=after is not None and after <= 1 - confidence,
        )
        for (name, own), each, after in zip(boots.items(), p, corrected, strict=True)
        if any(own.values())
    )


def _boots(cells: Iterable[Cell]) -> dict[tuple[object, ...], bool]:
    """Return the first boots in each block, and whether each crashed by its own fault."""
    boots: dict[tuple[object, ...], bool] = {}
    of_host = set()
    for cell in cells:
        for sample in (*cell.samples, *cell.warmups):
            if sample.attempt:
                continue
            # A guest that did not boot has no id, and the console log of its own.
            own = sample.boot_id or sample.console or sample.cell
            key = (sample.block, cell.is_control, own)
            is_crash = sample.status in CRASHES
            if is_crash and sample.fault in HOST_FAULTS:
                of_host.add(key)
            boots[key] = boots.get(key, False) or is_crash
    return {key: crashed for key, crashed in boots.items() if key not in of_host}
