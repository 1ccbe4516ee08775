"""The document of `labctl verify --json`, as frozen structs. Pure.

The order of the fields is the order of the JSON keys.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from labctl.runs.types import Settings


class CheckStatus(StrEnum):
    """The verdict on a check; `known` if it also fails on the base."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    KNOWN = "known"


class Trials(msgspec.Struct, frozen=True, kw_only=True):
    """How often processes were OOM-killed in a scenario that counts trials."""

    count: Annotated[int, Meta(description="Number of trials.", ge=1)]
    with_kills: Annotated[int, Meta(description="Trials in which a process was killed.", ge=0)]


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """One check of a variant of a kernel at one setting."""

    variant: Annotated[str, Meta(description="Name of the variant.")]
    name: Annotated[str, Meta(description="Program and its test, such as integrity/free.")]
    setting: Annotated[Settings, Meta(description="Tunables that were set.")]
    status: Annotated[
        CheckStatus, Meta(description="The verdict; `known` if it also fails on the base.")
    ]
    on_base: Annotated[
        CheckStatus | None, Meta(description="Verdict on the base; null if it was not checked.")
    ]
    why: Annotated[str, Meta(description="Reason of the verdict; may be empty.")]
    handovers: Annotated[
        int | None,
        Meta(description="Handovers during the check; null if they are not counted."),
    ]
    trials: Annotated[
        Trials | None, Meta(description="Trials and kills; null if the check has no trials.")
    ] = None
    seconds: Annotated[float, Meta(description="Duration in seconds.")]
    details: Annotated[
        tuple[str, ...], Meta(description="End of the output or of the console, after a failure.")
    ]
    host: Annotated[
        str | UnsetType, Meta(description="Worker that ran it; only with a scheduler.")
    ] = UNSET


class KernelResult(msgspec.Struct, frozen=True, kw_only=True):
    """All checks of one kernel."""

    images: Annotated[dict[str, str], Meta(description="Hash of each variant's image.")]
    series: Annotated[
        str | None, Meta(description="Hash of the series, with those of the bases; null without.")
    ]
    patches: Annotated[
        tuple[str, ...], Meta(description="Hashes of all patches, those of the bases first.")
    ] = ()
    release: Annotated[str, Meta(description="Release, as in `uname -r`.")]
    base: Annotated[str | None, Meta(description="Name of the base; null without one.")]
    passed: Annotated[bool, Meta(description="Whether no check failed.")]
    checks: Annotated[tuple[CheckResult, ...], Meta(description="Checks, in their order.")]


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """The document of `labctl verify --json`."""

    schema: Annotated[Literal[1], Meta(description="Version of the document.")] = 1
    host: Annotated[dict[str, str | int], Meta(description="Facts about the host, as in a run.")]
    hosts: Annotated[
        dict[str, dict[str, str | int]] | UnsetType,
        Meta(description="Facts about the workers' hosts, by name; only with a scheduler."),
    ] = UNSET
    accel: Annotated[str, Meta(description="Accelerator of the guests: kvm or tcg.")]
    passed: Annotated[bool, Meta(description="Whether at least one check ran and no check failed.")]
    kernels: Annotated[
        dict[str, KernelResult], Meta(description="Results by kernel, with their bases.")
    ]
