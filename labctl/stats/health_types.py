"""The load of the host in the document of `labctl report --json`, as frozen structs. Pure."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of the host's load over the repetitions."""

    median: Annotated[float, Meta(description="Median over the repetitions.")]
    worst: Annotated[float, Meta(description="Worst repetition.")]


class HostHealth(msgspec.Struct, frozen=True, kw_only=True):
    """What the host did during an experiment."""

    blocks: Annotated[int, Meta(description="Blocks that were measured.")]
    disturbed: Annotated[
        dict[str, str], Meta(description="Disturbed blocks by number, each with the reason.")
    ]
    left_out: Annotated[
        tuple[int, ...],
        Meta(description="Disturbed blocks without effect on the results; empty if all are used."),
    ]
    stays_loaded: Annotated[bool, Meta(description="Whether the host was busy during the run.")]
    seen: Annotated[
        dict[str, Seen], Meta(description="Load of the host, by the name of the figure.")
    ]
