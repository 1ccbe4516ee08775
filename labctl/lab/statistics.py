"""The `statistics:` of a lab, and what an experiment overrides of them. Pure."""

from __future__ import annotations

from pydantic import Field

from labctl.lab.effect import MinimumEffect, StopEffect
from labctl.lab.types import (
    BlockCount,
    Confidence,
    HalfWidth,
    Model,
    Natural,
    PositiveOrAuto,
    Share,
)


class Blocks(Model):
    """Minimum and maximum number of blocks in a run."""

    min: BlockCount = Field(8, description="Minimum number of blocks, at least 2.")
    max: BlockCount = Field(30, description="Maximum number of blocks.")


class BlocksOverride(Model):
    """The keys of `Blocks` that an experiment overrides."""

    min: BlockCount | None = Field(
        None, description="Minimum number of blocks. If omitted, that of the lab's `statistics:`."
    )
    max: BlockCount | None = Field(
        None, description="Maximum number of blocks. If omitted, that of the lab's `statistics:`."
    )


class Statistics(Model):
    """How much is measured, and how certain a verdict must be; shares are fractions."""

    confidence: Confidence = Field(
        0.95, description="Confidence level of every interval. Example: 99%. Default: 95%."
    )
    minimum_effect: Share = Field(
        0.02,
        description="Smallest relative change that matters; smaller ones count as the same."
        " Default: 2%.",
    )
    blocks: Blocks = Field(
        Blocks(), description="Minimum and maximum number of blocks. Default: {min: 8, max: 30}."
    )
    repetitions: PositiveOrAuto = Field(
        3,
        description="Measured repetitions of each cell in each block. auto: 3 in the first two"
        " blocks, then as many as make the intervals narrow soonest, 3 to 15, by the spread"
        " within and between boots and the time of a boot with its warm-ups. Default: 3.",
    )
    warmup: Natural = Field(
        1, description="Repetitions before the measured ones; their values are not used."
    )
    stop_at_half_width: HalfWidth = Field(
        0.03,
        description="Half width of the confidence interval at which a cell stops before the"
        " maximum number of blocks; none measures all blocks. Default: 3%.",
    )


class StatisticsOverride(Model):
    """The keys of `Statistics` that an experiment overrides."""

    confidence: Confidence | None = Field(
        None, description="Confidence level of every interval. If omitted, that of the lab."
    )
    minimum_effect: MinimumEffect | None = Field(
        None,
        description="Smallest change that matters: a share, such as 2%, or with"
        " `scale: difference` a value with the metric's unit, such as 100 pages. If omitted, that"
        " of the metric or the lab.",
    )
    blocks: BlocksOverride = Field(
        BlocksOverride(), description="Minimum and maximum number of blocks. Example: {max: 12}."
    )
    repetitions: PositiveOrAuto | None = Field(
        None,
        description="Measured repetitions of each cell in each block. If omitted, that of the lab.",
    )
    warmup: Natural | None = Field(
        None,
        description="Repetitions before the measured ones. If omitted, that of the lab.",
    )
    stop_at_half_width: StopEffect = Field(
        None,
        description="Half width of the confidence interval at which a cell stops; none measures"
        " all blocks. With `scale: difference` a value with the metric's unit. If omitted, that of"
        " the lab; with a difference, as much larger than `minimum_effect` as the lab's is.",
    )

    def over(self, statistics: Statistics) -> Statistics:
        """Return `statistics` with the keys that are set here replaced.

        Not replaced are the effects, which depend on the metric (`lab.compared`). Nothing is
        validated: the caller must check that `min` is at most `max`.
        """
        own = self.model_fields_set - {"blocks", "minimum_effect", "stop_at_half_width"}
        mine = {key: getattr(self, key) for key in own}
        blocks = {key: getattr(self.blocks, key) for key in self.blocks.model_fields_set}
        return statistics.model_copy(
            update={**mine, "blocks": statistics.blocks.model_copy(update=blocks)}
        )
