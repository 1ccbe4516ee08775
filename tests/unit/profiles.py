"""Synthetic profiles of a kernel with one more lock in the unmap path, and of its baseline."""

import msgspec
import numpy as np
from samples import sample

from labctl.runs.record import RunExperiment
from labctl.stats.observed import observed

SYSCALL = "entry_SYSCALL_64_after_hwframe;do_syscall_64"
UNMAP = f"{SYSCALL};__x64_sys_munmap;unmap_vmas;zap_pte_range"
MILLISECOND = 1_000_000
# Milliseconds of each stack in the baseline and in the patched kernel.
STACKS = {
    SYSCALL: (10, 10),
    UNMAP: (80, 80),
    f"{UNMAP};take_planted_lock": (0, 30),
    f"{UNMAP};take_planted_lock;_raw_spin_lock": (0, 30),
    f"{UNMAP};page_remove_rmap": (60, 30),
    f"{UNMAP};tlb_flush_mmu;release_pages": (100, 100),
    "asm_exc_page_fault;handle_mm_fault;clear_page_erms": (220, 220),
    "ret_from_fork;kthread": (0.01, 0.01),
}
FUNCTIONS = {
    "clear_page_erms": (220, 220),
    "zap_pte_range": (80, 80),
    "take_planted_lock": (0, 60),
    "page_remove_rmap": (60, 30),
    **{f"f{n}": (5, 5) for n in range(20)},
}


def stacks(kernel, draw):
    """Return the times of stacks, with the noise of samples that are 2 ms apart."""
    return {
        f"stacks.{stack}.nanoseconds": 2 * MILLISECOND * int(draw.poisson(times[kernel] / 2))
        for stack, times in STACKS.items()
    }


def functions(kernel, draw):
    """Return the own times of functions."""
    return {
        f"functions.{name}.nanoseconds": round(
            MILLISECOND * times[kernel] * np.exp(draw.normal(0, 0.02))
        )
        for name, times in FUNCTIONS.items()
    }


def measured(profile, *, experiment="smoke", kernel="patched", blocks=10, rename=str):
    """Return samples of the baseline, its A/A control and a kernel with a profile's counters."""
    draw = np.random.default_rng(9)
    return [
        sample(
            experiment=experiment, kernel=own, label=own, cell=own + "+aa" * control,
            control=control, block=block, repetition=repetition,
            counters={
                rename(name): count
                for name, count in profile(own != "stock", draw).items()
                if count and repetition
            },
        )
        for own, control in (("stock", False), ("stock", True), (kernel, False))
        for block in range(blocks)
        for repetition in range(2)
    ]  # fmt: skip


def found(profile, **changes):
    """Return what the observers of such samples found."""
    samples = measured(profile, **changes)
    record = {
        "name": samples[0].experiment, "workload": "free", "baseline": "stock",
        "confidence": 0.95, "minimum_effect": 0.02, "better": "lower", "metric": "elapsed",
        "observe": [profile.__name__],
    }  # fmt: skip
    return observed(msgspec.convert(record, RunExperiment), samples)
