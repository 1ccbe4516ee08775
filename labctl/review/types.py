"""The document of `labctl series check --json`, as frozen structs. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """A series up to and including one patch."""

    number: Annotated[int, Meta(description="Number of the patch in the series, from 1.")]
    patch: Annotated[str, Meta(description="File name of the patch.")]
    subject: Annotated[str, Meta(description="Subject of the patch.")]
    passed: Annotated[bool, Meta(description="Whether every check ran and passed.")]
    checks: Annotated[
        dict[str, tuple[str, ...] | None],
        Meta(description="Findings by check; empty if it passed, null if it was not reached."),
    ]
    left_out: Annotated[
        dict[str, dict[str, str]] | UnsetType,
        Meta(description="By check: files it did not compile, each with the reason."),
    ] = UNSET


class SeriesCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The document of `labctl series check --json`."""

    schema: Annotated[Literal[1], Meta(description="Version of the document.")] = 1
    series: Annotated[
        dict[str, tuple[StepResult, ...]], Meta(description="Steps of the series, by kernel.")
    ]
