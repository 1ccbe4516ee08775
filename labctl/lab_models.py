"""The nouns of lab.yaml as frozen models; attribute names are the YAML keys.

An `…Entry` is what stands in the file, `LabFile` all of it; `Kernel`, `Tunable`,
`Workload`, `Experiment` and `Lab` are what it means once names and paths are
resolved. The JSON Schema is made from `LabFile`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from labctl import lab_metrics, units
from labctl.lab_arch import ArchName
from labctl.lab_metrics import Better
from labctl.lab_yaml import KeyPath, Mark, Text
from labctl.units import Scalar

LOCAL_DISTANCE = 10
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
# An experiment's and a guest's name are in one name of a folder, which may have 255 bytes.
LONGEST_NAME = 100
WORD_PATTERN = r"^[A-Za-z][A-Za-z0-9_]*$"


def _scalar(value: object) -> Scalar:
    if isinstance(value, Text):
        return str(value) if value.quoted else units.scalar(str(value))
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        return value
    raise units.UnitError(f"must be one value, and is {units.kind(value)}")


def _none(value: object) -> object:
    return None if isinstance(value, Text) and value == "none" else value


def _version(value: object) -> object:
    return 1 if value == "1" else value


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise units.UnitError(f"must be true or false, and is {units.kind(value)}")


def _numbers(value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise units.UnitError(
            f"must be a list of numbers, and is {units.kind(value)}", "write it like [0, 1]"
        )
    found = tuple(units.count(one) for one in value)
    if not found or min(found) < 0:
        raise units.UnitError("must name at least one, counted from 0", "write it like [0, 1]")
    for number in found:
        if found.count(number) > 1:
            raise units.UnitError(f"{number} stands twice in this list", "remove one of them")
    return found


def _page_size(value: object) -> int | None:
    if value is None or value == "none":
        return None
    found = units.size(value)
    if found not in (2 * units.MIB, units.GIB):
        raise units.UnitError(f"must be 2MiB, 1GiB or none, and is {units.format_size(found)}")
    return found


def _choice(value: object) -> object:
    return _none(value) if value in ("auto", "none", None) else _numbers(value)


def _schema(pattern: str, number: str, description: str, **limits: float) -> WithJsonSchema:
    text = {"type": "string", "pattern": pattern}
    return WithJsonSchema({"anyOf": [{"type": number, **limits}, text], "description": description})


_SIZE = _schema(units.SIZE_PATTERN, "integer", "a size: 1536MiB, 3GiB", minimum=0)
_COUNT = _schema(units.COUNT_PATTERN, "integer", "a whole number: 4, 64Ki", minimum=0)
_SHARE = _schema(units.SHARE_PATTERN, "number", "a share: 2% or 0.02", minimum=0)
_DURATION = _schema(units.DURATION_PATTERN, "number", "a duration: 300s, 5min", minimum=0)
_NO_HALF_WIDTH = WithJsonSchema(
    {
        "anyOf": [
            {"type": "number", "minimum": 0},
            {"type": "string", "pattern": f"{units.SHARE_PATTERN}|^none$"},
            {"type": "null"},
        ],
        "description": "stop when every interval is this narrow: 3%; none: never",
    }
)

_FLAG = WithJsonSchema({"type": "boolean", "description": "true or false"})
_PAGE = WithJsonSchema(
    {"enum": ["2MiB", "1GiB", "none", None], "description": "2MiB, 1GiB or none"}
)
_NUMBERS: dict[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": 0}}


def _choice_schema(description: str) -> WithJsonSchema:
    words = {"enum": ["auto", "none", None]}
    return WithJsonSchema({"anyOf": [words, _NUMBERS], "description": description})


Version = Annotated[Literal[1], BeforeValidator(_version), WithJsonSchema({"const": 1})]
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=LONGEST_NAME)]
# A name like 6.1 is a number to an editor, and text here.
Reference = Annotated[str, WithJsonSchema({"type": ["string", "number"]})]
Word = Annotated[str, Field(pattern=WORD_PATTERN)]
Value = Annotated[
    Scalar,
    BeforeValidator(_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean"], "description": "16Ki, 3GiB, never"}),
]
Bytes = Annotated[int, BeforeValidator(units.size), _SIZE]
Count = Annotated[int, BeforeValidator(units.count), _COUNT]
Positive = Annotated[Count, Field(ge=1, le=units.GIB)]
Natural = Annotated[Count, Field(ge=0, le=units.GIB)]
BlockCount = Annotated[Count, Field(ge=2, le=10_000)]
Distance = Annotated[Count, Field(ge=LOCAL_DISTANCE, le=254)]
Confidence = Annotated[
    float, BeforeValidator(units.share), _SHARE, Field(ge=0.5, lt=1, title="share")
]
Share = Annotated[float, BeforeValidator(units.share), _SHARE, Field(gt=0, lt=1, title="share")]
HalfWidth = Annotated[Share | None, BeforeValidator(_none), _NO_HALF_WIDTH]
Seconds = Annotated[float, BeforeValidator(units.duration), _DURATION, Field(gt=0)]
Flag = Annotated[bool, BeforeValidator(_flag), _FLAG]
PageSize = Annotated[int | None, BeforeValidator(_page_size), _PAGE]
HostNodes = Annotated[
    Literal["auto"] | tuple[int, ...] | None,
    BeforeValidator(_choice),
    _choice_schema("host NUMA nodes for the guest's nodes, in turn: [0, 1], auto or none"),
]
HostCpus = Annotated[
    Literal["auto"] | tuple[int, ...] | None,
    BeforeValidator(_choice),
    _choice_schema("host CPUs for the vCPUs, in turn: [2, 3, 4, 5], auto or none"),
]
NodeMemory = Annotated[Bytes, Field(ge=64 * units.MIB, multiple_of=units.MIB)]


class Model(BaseModel):
    """A frozen part of a lab; unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Defaults(Model):
    """What holds where nothing else is said."""

    launcher: Literal["qemu", "virtme-ng"] = "qemu"
    transport: Literal["serial", "ssh"] = "serial"
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    arch: ArchName = "x86_64"
    guest: Reference = Field("numa4", description="the name of a guest under `guests:`")


class Distances(Model):
    """NUMA distances: one figure for all remote pairs, or the whole matrix."""

    remote: Distance = 20
    matrix: tuple[tuple[Distance, ...], ...] | None = Field(
        None, description="one row a node, one column a node, 10 from a node to itself"
    )

    def distance(self, i: int, j: int) -> int:
        """Return the distance from node `i` to node `j`."""
        if self.matrix is not None:
            return self.matrix[i][j]
        return LOCAL_DISTANCE if i == j else self.remote


class Topology(Model):
    """The shape of a guest: nodes, each with its vCPUs and memory, and their distances."""

    nodes: Annotated[Count, Field(ge=1, le=128)] = 4
    cpus_per_node: Annotated[Count, Field(ge=1, le=255)] = 1
    memory_per_node: NodeMemory = 1536 * units.MIB
    distances: Distances = Distances()
    prealloc: Flag = Field(False, description="all memory is taken from the host before boot")
    hugepages: PageSize = Field(
        None, description="the host's hugepages that memory is made of: 2MiB, 1GiB or none"
    )
    host_nodes: HostNodes = None
    pin: HostCpus = "auto"

    @property
    def vcpus(self) -> int:
        """All vCPUs of one guest."""
        return self.nodes * self.cpus_per_node

    @property
    def memory_bytes(self) -> int:
        """All memory of one guest."""
        return self.nodes * self.memory_per_node


class KernelEntry(Model):
    """A kernel as written: a source of its own, or a base and what is different."""

    source: str | None = Field(None, description="debian:NAME, dir:PATH or image:PATH")
    base: Reference | None = Field(None, description="a kernel to share source and kconfig with")
    series: str | None = Field(None, description="a folder with patches and a `series` file")
    kconfig: tuple[str, ...] = Field(
        (), description="kconfig fragments, after the base's; the lab's own if there is none"
    )
    command_line: str | None = Field(None, description="added to the kernel's command line")
    arch: ArchName | None = Field(
        None, description="x86_64 or arm64; what `defaults:` says if not given, never beside a base"
    )


class Kernel(Model):
    """A kernel resolved: everything of its base filled in, paths absolute.

    `source` is `debian:NAME`, `dir:/absolute` or `image:/absolute`.
    """

    name: str
    source: str
    base: str | None = None
    series: Path | None = None
    kconfig: tuple[Path, ...] = ()
    command_line: str = ""
    arch: ArchName = "x86_64"


class TargetEntry(Model):
    """A machine to measure on in place of guests: its kernel is changed by kexec."""

    kind: Literal["ssh"] = Field(description="how it is reached")
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:%-]+$")]
    port: Annotated[Count, Field(ge=1, le=65535)] | None = None
    user: str = "root"
    key: str | None = Field(None, description="a private key; the user's own if not given")
    host_key: str | None = Field(
        None, description="ssh-ed25519 AAAA...; what ~/.ssh/known_hosts says if not given"
    )
    initrd: str | None = Field(
        None, description="a file of this host that its kernels boot with; its own if not given"
    )
    command_line: str = Field("", description="added to the machine's own command line")
    boot_timeout: Seconds = 300.0


class Target(Model):
    """The same resolved: `key` and `initrd` are absolute paths."""

    name: str
    kind: Literal["ssh"]
    host: str
    port: int | None
    user: str
    key: Path | None
    host_key: str | None
    initrd: Path | None
    command_line: str
    boot_timeout: float


class TunableEntry(Model):
    """A setting of the kernel: a file in the guest, or a parameter of the command line."""

    file: Annotated[str, Field(pattern=r"^/[^\s]+$")] | None = Field(
        None, description="a file in the guest"
    )
    parameter: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] | None = Field(
        None, description="a parameter of the kernel's command line; changing it boots afresh"
    )
    kernels: tuple[Reference, ...] | None = Field(
        None, min_length=1, description="the kernels that have it; all if not given"
    )

    def applies_to(self, kernel: str) -> bool:
        """Say whether the kernel of that name has this tunable."""
        return self.kernels is None or kernel in self.kernels


class Tunable(TunableEntry):
    """A tunable and its name."""

    name: str


_BETTER = Field(
    None, description="lower or higher, where the metric is not a time, which is better lower"
)


class WorkloadEntry(Model):
    """A command in the guest that prints one JSON object a repetition."""

    command: Annotated[str, Field(min_length=1, description="the command, quoted as in a shell")]
    parameters: dict[Word, Value] = Field({}, description="a_b: 1 is given as --a-b 1")
    metric: Word = lab_metrics.DEFAULT
    better: Better | None = _BETTER
    timeout: Seconds = 600.0


class Workload(WorkloadEntry):
    """A workload and its name."""

    name: str

    def argv(self, parameters: Mapping[str, Scalar] | None = None) -> list[str]:
        """Return the command with the workload's own parameters, overridden by `parameters`."""
        words = shlex.split(self.command)
        for name, value in {**self.parameters, **(parameters or {})}.items():
            words += [f"--{name.replace('_', '-')}", units.text(value)]
        return words


class Blocks(Model):
    """How many blocks a run measures, at least and at most."""

    min: BlockCount = 8
    max: BlockCount = 30


class BlocksOverride(Model):
    """The part of `Blocks` that an experiment changes."""

    min: BlockCount | None = None
    max: BlockCount | None = None


class Statistics(Model):
    """How much is measured and how sure an answer must be; shares are fractions."""

    confidence: Confidence = 0.95
    minimum_effect: Share = 0.02
    blocks: Blocks = Blocks()
    repetitions: Positive = 3
    warmup: Natural = 1
    stop_at_half_width: HalfWidth = 0.03


class StatisticsOverride(Model):
    """The part of `Statistics` that an experiment changes."""

    confidence: Confidence | None = None
    minimum_effect: Share | None = None
    blocks: BlocksOverride = BlocksOverride()
    repetitions: Positive | None = None
    warmup: Natural | None = None
    stop_at_half_width: HalfWidth = None

    def over(self, statistics: Statistics) -> Statistics:
        """Return `statistics` with this override's keys in place of its own.

        Nothing is validated here: `min` above `max` is for the caller to find.
        """
        mine = {key: getattr(self, key) for key in self.model_fields_set if key != "blocks"}
        blocks = {key: getattr(self.blocks, key) for key in self.blocks.model_fields_set}
        return statistics.model_copy(
            update={**mine, "blocks": statistics.blocks.model_copy(update=blocks)}
        )


class ExperimentEntry(Model):
    """A workload on some kernels over a matrix of settings, against a baseline."""

    workload: Reference
    kernels: Annotated[tuple[Reference, ...], Field(min_length=1)]
    baseline: Reference | None = Field(None, description="the first of `kernels` if not given")
    set: dict[str, Value] = Field({}, description="tunables and parameters, the same in all cells")
    matrix: dict[str, Annotated[tuple[Value, ...], Field(min_length=1)]] = Field(
        {}, description="tunables and parameters, each with a list of values; every combination"
    )
    guest: Reference | None = None
    target: Reference | None = Field(None, description="a machine to measure on, not guests")
    metric: Word | None = Field(None, description="in place of the workload's own")
    better: Better | None = _BETTER
    handovers: Literal["required", "none"] = Field(
        "required",
        description="none: the series must stay out of it, as below its threshold",
    )
    statistics: StatisticsOverride = StatisticsOverride()


def better_of(experiment: ExperimentEntry, workload: WorkloadEntry) -> Better | None:
    """Return whether less or more of an experiment's metric is better; None if nothing tells.

    What the workload says holds for its own metric, and for no other.
    """
    metric = experiment.metric or workload.metric
    said = experiment.better or (workload.better if metric == workload.metric else None)
    return lab_metrics.better_of(metric, workload.command, said)


class Experiment(ExperimentEntry):
    """An experiment and its name; `kernels` holds the baseline too."""

    name: str
    baseline: str

    @model_validator(mode="before")
    @classmethod
    def _with_baseline(cls, data: Any) -> Any:  # noqa: ANN401
        if not isinstance(data, dict) or not data.get("kernels"):
            return data
        kernels = tuple(data["kernels"])
        baseline = data.get("baseline") or kernels[0]
        kernels = kernels if baseline in kernels else (baseline, *kernels)
        return {**data, "baseline": baseline, "kernels": kernels}


class VariantEntry(Model):
    """A way to build and boot a kernel in order to check it."""

    kconfig: tuple[str, ...] = Field((), description="kconfig fragments, after the kernel's own")
    command_line: str = Field("", description="added to the kernel's own command line")
    checks: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        ("*",), description="which checks are made on it: integrity/*, stress-ng/vm"
    )


class Variant(VariantEntry):
    """The same resolved; `fragments` are the paths of `kconfig`, absolute."""

    name: str
    fragments: tuple[Path, ...] = ()


class VerifyEntry(Model):
    """How `labctl verify` puts a kernel to the test."""

    guest: Reference | None = Field(None, description="the default guest if not given")
    variants: dict[Name, VariantEntry] = Field(
        {}, description="builds of each kernel; the kernel as it is if there is none"
    )
    set: dict[str, Value] = Field({}, description="tunables, the same in all checks")
    matrix: dict[str, Annotated[tuple[Value, ...], Field(min_length=1)]] = Field(
        {}, description="tunables, each with a list of values; checked at every combination"
    )
    compile: dict[Name, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(
        {},
        description="configurations in which each step of a series must compile: each a list of"
        " kconfig fragments, in place of the kernel's own",
    )
    held_back: Bytes = Field(
        256 * units.MIB, description="memory that may be unmapped and not be free yet: 256MiB"
    )


class Verify(Model):
    """The same resolved."""

    guest: str | None = None
    variants: tuple[Variant, ...] = (Variant(name="as-is"),)
    set: dict[str, Scalar] = {}
    matrix: dict[str, tuple[Scalar, ...]] = {}
    compile: dict[str, tuple[Path, ...]] = {}
    held_back: int = VerifyEntry().held_back


class LabFile(Model):
    """The whole of lab.yaml as written."""

    version: Version = 1
    state: str = Field(".labctl", description="the folder for all that labctl makes: .labctl")
    defaults: Defaults = Defaults()
    guests: dict[Name, Topology] = Field({"numa4": Topology()}, min_length=1)
    targets: dict[Name, TargetEntry] = {}
    kernels: dict[Name, KernelEntry] = Field(min_length=1)
    tunables: dict[Name, TunableEntry] = {}
    workloads: dict[Name, WorkloadEntry] = {}
    experiments: dict[Name, ExperimentEntry] = {}
    statistics: Statistics = Statistics()
    verify: VerifyEntry = VerifyEntry()


class Lab(Model):
    """A valid lab.

    `root` is the folder that relative paths of the file start from, `state` the one
    that holds all that labctl makes; both absolute.
    """

    path: Path
    root: Path
    state: Path
    defaults: Defaults
    guests: dict[str, Topology]
    targets: dict[str, Target] = {}
    kernels: dict[str, Kernel]
    tunables: dict[str, Tunable]
    workloads: dict[str, Workload]
    experiments: dict[str, Experiment]
    statistics: Statistics
    verify: Verify = Verify()
    marks: dict[KeyPath, Mark] = Field({}, repr=False)

    def resolve_statistics(self, experiment: Experiment | str) -> Statistics:
        """Return the statistics of an experiment: the lab's, overridden key by key."""
        if isinstance(experiment, str):
            experiment = self.experiments[experiment]
        return experiment.statistics.over(self.statistics)

    def guest_of(self, experiment: Experiment | str) -> str:
        """Return the name of the guest an experiment runs on."""
        if isinstance(experiment, str):
            experiment = self.experiments[experiment]
        return experiment.guest or self.defaults.guest

    def topologies(self, experiments: Iterable[str] | None = None) -> dict[str, list[Topology]]:
        """Return by kernel the topologies of its guests in some experiments, or in all."""
        found: dict[str, list[Topology]] = {}
        for name in self.experiments if experiments is None else experiments:
            one = self.experiments[name]
            for kernel in () if one.target is not None else one.kernels:
                found.setdefault(kernel, []).append(self.guests[self.guest_of(one)])
        return found

    def metric_of(self, experiment: Experiment | str) -> str:
        """Return the metric an experiment compares."""
        if isinstance(experiment, str):
            experiment = self.experiments[experiment]
        return experiment.metric or self.workloads[experiment.workload].metric

    def better_of(self, experiment: Experiment | str) -> Better:
        """Return whether less or more of an experiment's metric is better."""
        if isinstance(experiment, str):
            experiment = self.experiments[experiment]
        return better_of(experiment, self.workloads[experiment.workload]) or "lower"
