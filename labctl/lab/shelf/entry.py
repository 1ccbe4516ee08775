"""What an entry of the shelf is: a workload with what its parameters and metrics mean. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labctl import units
from labctl.lab.metrics import Better
from labctl.lab.quantity import quantity
from labctl.units import Scalar

AUTO_TASKS = "auto: one per CPU"
SIZE_FORMS = "512MiB, or a share of the guest's memory"

# A share is rounded down to MiB: kernels differ in the few pages that they reserve.
_BYTES = """\
bytes() {
  case "$1" in
    *%) awk -v p="${1%\\%}" '/^MemTotal:/ { print int($2 * p / 102400) "M" }' /proc/meminfo ;;
    *) echo "$1" ;;
  esac
}
"""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter: its default and what it means."""

    default: Scalar
    meaning: str

    @property
    def shown_default(self) -> str:
        """The default as in lab.yaml."""
        is_size = isinstance(self.default, int) and self.default >= units.KIB
        return units.format_size(int(self.default)) if is_size else units.text(self.default)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: what it means, its direction, and how it is found in the output.

    `parse` and `unit` are those of `metrics:` in lab.yaml; without `parse` the workload prints
    a time under this name.
    """

    meaning: str
    better: Better = "lower"
    parse: str | None = None
    unit: str = "s"

    @property
    def shown_unit(self) -> str:
        """The unit of labctl's values: seconds, megabytes, or the workload's own."""
        found = quantity(f"1 {self.unit}")
        if found is not None and found.is_time:
            return "s"
        return "MB/s" if self.unit.endswith("B/s") else self.unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A ready workload.

    `good_for` is one line. `workload` has the keys of a workload in lab.yaml without
    parameters and metrics; sources under its `build` are relative to labctl's guest/shelf.
    The first of `metrics` is compared.
    """

    name: str
    good_for: str
    metrics: Mapping[str, Metric]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    workload: Mapping[str, Any]

    @property
    def needs(self) -> str:
        """What its program comes from, in words."""
        packages = self.workload.get("packages", ())
        if packages:
            noun = "Debian package" if len(packages) == 1 else "Debian packages"
            return f"{noun} {', '.join(packages)}"
        build = self.workload.get("build")
        if build is not None:
            return f"compiled from guest/shelf/{build['sources'][0]}"
        return f"{self.workload['command'].split()[0]}, which each guest has"

    def plain(self, programs: str) -> dict[str, Any]:
        """Return it as a workload of lab.yaml; `programs` is the folder of the sources."""
        found = dict(self.workload)
        if "build" in found:
            sources = [f"{programs}/{name}" for name in found["build"]["sources"]]
            found["build"] = {**found["build"], "sources": sources}
        parsed = {name: one for name, one in self.metrics.items() if one.parse is not None}
        if parsed:
            found["metrics"] = {
                name: {"parse": one.parse, "unit": one.unit, "better": one.better}
                for name, one in parsed.items()
            }
        found["metric"] = next(iter(self.metrics))
        found["parameters"] = {name: one.default for name, one in self.parameters.items()}
        return found


def script(parameters: Mapping[str, Parameter], text: str) -> str:
    """Return a script that has the parameters as variables of the shell.

    It is for programs whose options have another form than `--name value`. `bytes` in it
    makes a number of bytes or MiB of a size or a share of the memory.
    """
    options = "\n".join(f"    --{name.replace('_', '-')}) {name}=$2 ;;" for name in parameters)
    read = f'while [ $# -gt 0 ]; do\n  case "$1" in\n{options}\n  esac\n  shift 2\ndone\n'
    return f"{_BYTES if '$(bytes ' in text else ''}{read}{text}"
