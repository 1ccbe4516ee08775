"""A workload of lab.yaml as its author writes it. Pure."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema, model_validator

from labctl.lab.metric_entry import SCALE, MetricEntry
from labctl.lab.metrics import DEFAULT, Better, Scale
from labctl.lab.shelf import SHELF
from labctl.lab.types import WORD_PATTERN, GuestPath, Model, Seconds, Value, Word

BETTER = Field(
    None,
    description="Direction of improvement of the metric: lower or higher. Required unless the"
    " metric is a time: the default is lower for times.",
)


Script = Annotated[str, Field(min_length=1)]
ROOT_DEBIAN = r"debian:[a-z][a-z0-9-]*(@[a-z]+://[^\s]+)?"
PackageName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Steps(Model):
    """Scripts of the guest's shell, run in the folder of the workload's files with sh -e."""

    boot: Script | None = Field(
        None, description="Once per boot of a guest: before its first repetition or after its last."
    )
    repetition: Script | None = Field(
        None, description="At each repetition, with its tunables set; not while time is measured."
    )


class Build(Model):
    """A program that labctl compiles statically, with gcc or the cross compiler of the guest."""

    sources: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="Paths of C or assembler files. The program has the name of the first one:"
        " mybench.c becomes mybench, in the workload's folder."
    )
    flags: str = Field(
        "", description="Flags after -O2 -static and the sources. Example: -pthread -Iinclude -lm."
    )

    @property
    def program(self) -> str:
        """The name of the program."""
        return PurePosixPath(self.sources[0]).stem


class WorkloadEntry(Model):
    """A command in the guest, and how its output is read."""

    use: Annotated[str, WithJsonSchema({"enum": list(SHELF)})] | None = Field(
        None,
        description="Name of a ready workload; `labctl workloads` lists them. It brings its"
        " program, parameters and metrics; other keys of the workload override them."
        " Conflicts with `command`, `script`, `build`, `make` and `packages`.",
    )
    command: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Command to run in the guest, quoted as in a shell. Examples: freebench;"
        " ../mybench, a program of this host, relative to the folder of lab.yaml.",
    )
    script: Script | None = Field(
        None,
        description="Script of the guest's shell to run instead of a command. It ends at the first"
        " command that fails (sh -e). Conflicts with `command`.",
    )
    build: Build | None = Field(
        None,
        description="Program to compile before the run, again only if it changed. Without"
        " `command`, it is the command.",
    )
    make: str | None = Field(
        None,
        description="Path of a folder on this host in which to run make before the run."
        " `command` or `files` name the programs that it builds.",
    )
    packages: tuple[PackageName, ...] = Field(
        (),
        description="Debian packages whose programs the command needs; they are downloaded with"
        " the host's apt, without root, and not installed. Example: [rt-tests].",
    )
    root: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Root file system of the command: a folder, a tar archive, or a raw or qcow2"
        " image of ext2, ext3 or ext4, relative to the folder of lab.yaml; or debian:SUITE, which"
        " mmdebstrap builds with `packages`. It is never written. Example: ../rootfs.",
    )
    env: dict[EnvName, str] = Field(
        {}, description="Environment variables of the command and the other scripts."
    )
    setup: Steps = Field(
        Steps(),
        description="Scripts to run before, not measured. If one fails, so does the sample.",
    )
    teardown: Steps = Field(
        Steps(),
        description="Scripts to run after, not measured. If one fails, so does the sample.",
    )
    parameters: dict[Word, Value] = Field(
        {},
        description="Options passed to the command: `free_all: 1` becomes `--free-all 1`."
        " Experiments can change their values.",
    )
    files: dict[GuestPath, str] = Field(
        {},
        description="Files and folders of this host that the command needs, by path in the"
        " guest: {input.dat: ../data/input.dat}. Relative paths in the guest start from the"
        " workload's folder, where the command starts; relative paths on the host start from the"
        " folder of lab.yaml. A program comes with its shared libraries, a script with its"
        " interpreter.",
    )
    metrics: dict[Word, MetricEntry] = Field(
        {},
        description="How metrics are found in the output and compared, by name. A metric that is"
        " not here is a key of the last JSON object, or a line `NAME: NUMBER UNIT`.",
    )
    metric: Word = Field(
        DEFAULT,
        description="Metric that is compared. wall_time is the run time of the command, measured"
        " in the guest, for programs that print nothing. If omitted, the first of `metrics`, or"
        " elapsed.",
    )
    better: Better | None = BETTER
    scale: Scale | None = SCALE
    timeout: Seconds = Field(
        600.0, description="Time limit for one run of the command. Default: 10min."
    )

    @model_validator(mode="before")
    @classmethod
    def _first_metric(cls, data: Any) -> Any:  # noqa: ANN401
        if not isinstance(data, dict) or "metric" in data:
            return data
        known = data.get("metrics")
        first = next(iter(known), "") if isinstance(known, dict) else ""
        return {**data, "metric": first} if re.match(WORD_PATTERN, first) else data
