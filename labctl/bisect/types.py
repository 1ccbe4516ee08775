"""The document of `labctl bisect --json`, as frozen structs. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A step that may be the first bad one."""

    step: Annotated[int, Meta(description="Number of the patch in the series, from 1.")]
    patch: Annotated[str, Meta(description="File name of the patch, or short hash of the commit.")]
    subject: Annotated[str, Meta(description="Subject of the patch.")]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The decision on one step."""

    step: Annotated[int, Meta(description="Number of the step.")]
    verdict: Annotated[str, Meta(description="good, bad, skipped or undecided.")]
    blocks: Annotated[int, Meta(description="Blocks that the decision rests on.")] = 0
    ratio: Annotated[
        float | None, Meta(description="Ratio to the good end; above 1 is better.")
    ] = None
    risk: Annotated[float, Meta(description="Highest probability that it is wrong.")] = 0.0
    run: Annotated[str, Meta(description="Id of its run.")] = ""
    why: Annotated[str, Meta(description="Why the step was skipped; empty otherwise.")] = ""
    reason: Annotated[str, Meta(description="The failure that caused it; empty otherwise.")] = ""


class Bisection(msgspec.Struct, frozen=True, kw_only=True):
    """The document of `labctl bisect --json`."""

    schema: Annotated[Literal[1], Meta(description="Version of the document.")] = 1
    kernel: Annotated[str, Meta(description="Name of the kernel.")]
    of: Annotated[str, Meta(description="Experiment or check patterns.")]
    step: Annotated[int | None, Meta(description="First bad step; null if it was not found.")]
    candidates: Annotated[
        tuple[Candidate, ...], Meta(description="Steps that may be the first bad one.")
    ]
    risk: Annotated[float, Meta(description="Highest accepted probability of a wrong answer.")]
    risk_spent: Annotated[float, Meta(description="Probability that the answer is wrong.")]
    problem: Annotated[str, Meta(description="Why no step was found; empty otherwise.")]
    decisions: Annotated[tuple[Decision, ...], Meta(description="Decisions, in their order.")]
