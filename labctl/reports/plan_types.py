"""The document of `labctl plan --json`, as frozen structs. Pure.

The order of the fields is the order of the JSON keys.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from labctl.runs.types import Placement

# Ends the name of such a repetition in `first_block`, in parentheses.
WARM_UP = "warm-up"


class BlockRange(msgspec.Struct, frozen=True, kw_only=True):
    """How many blocks an experiment may take."""

    min: Annotated[int, Meta(description="Minimum number of blocks.")]
    max: Annotated[int, Meta(description="Maximum number of blocks.")]


class PlannedGuest(msgspec.Struct, frozen=True, kw_only=True):
    """One guest of a block, or one kernel of a target."""

    name: Annotated[str, Meta(description="Name of the guest.")]
    kernel: Annotated[str, Meta(description="Name of the kernel.")]
    command: Annotated[str, Meta(description="Command that starts it.")]


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """The minimum detectable effect of a number of blocks."""

    blocks: Annotated[int, Meta(description="Number of blocks.")]
    effect: Annotated[
        float,
        Meta(
            description="Minimum detectable effect: called faster in 80 % of the runs; 0.05 is 5 %."
        ),
    ]


class Power(msgspec.Struct, frozen=True, kw_only=True):
    """What a run could detect with the spread of an earlier one."""

    origin: Annotated[str, Meta(description="Run that the spread is from.")] = msgspec.field(
        name="from"
    )
    sd_log: Annotated[float, Meta(description="Standard deviation of the blocks' log ratios.")]
    smallest_effect: Annotated[
        tuple[Effect, ...], Meta(description="Minimum detectable effects by number of blocks.")
    ]


class PlannedExperiment(msgspec.Struct, frozen=True, kw_only=True):
    """What `labctl run` would do for one experiment."""

    name: Annotated[str, Meta(description="Name of the experiment.")]
    seed: Annotated[int, Meta(description="Seed of the order of cells.")]
    baseline: Annotated[str, Meta(description="Kernel that the cells are compared with.")]
    metric: Annotated[str, Meta(description="Name of the metric.")]
    better: Annotated[Literal["lower", "higher"], Meta(description="Which values are better.")]
    further_metrics: Annotated[
        tuple[str, ...] | UnsetType, Meta(description="Names of the metrics after the first.")
    ] = UNSET
    cells: Annotated[tuple[str, ...], Meta(description="Ids of the cells.")]
    blocks: Annotated[BlockRange, Meta(description="Number of blocks.")]
    accel: Annotated[str | None, Meta(description="Accelerator of the guests; null on a target.")]
    accel_reason: Annotated[str, Meta(description="Why KVM does not work; may be empty.")]
    guests: Annotated[tuple[PlannedGuest, ...], Meta(description="Guests of a block.")]
    placement: Annotated[
        Placement | None, Meta(description="Placement of a guest; null on a target.")
    ]
    first_block: Annotated[
        tuple[str, ...], Meta(description="Repetitions of the first block, in their order.")
    ]
    expected_seconds: Annotated[
        tuple[float, float], Meta(description="Expected time with the fewest and most blocks.")
    ]
    expected_from: Annotated[str, Meta(description="Source of the expected time.")]
    power: Annotated[
        Power | None, Meta(description="What it could detect; null without an earlier run.")
    ]


class PlanDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The document of `labctl plan --json`."""

    schema: Annotated[Literal[1], Meta(description="Version of the document.")] = 1
    experiments: Annotated[
        tuple[PlannedExperiment, ...], Meta(description="Experiments in their order.")
    ]
