"""Load a lab.yaml: `load` returns a valid `Lab`, or raises all errors at once."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from labctl import units
from labctl.errors import ConfigError, UserError
from labctl.host.shipped import PROGRAMS, shipped
from labctl.host.state_folder import check_state
from labctl.lab.document import Document, parse
from labctl.lab.entries import Defaults, ExperimentEntry, LabFile, TargetEntry, VerifyEntry
from labctl.lab.kernels import resolve
from labctl.lab.models import Experiment, Kernel, Lab, Target, Tunable, Variant, Verify, Workload
from labctl.lab.paths import absolute
from labctl.lab.problems import Findings
from labctl.lab.references import check, check_memory, default_guest
from labctl.lab.schema import read
from labctl.lab.shelf.take import take
from labctl.lab.statistics import Blocks, Statistics, StatisticsOverride
from labctl.lab.tabs import is_deep, repair, with_tabs
from labctl.lab.topology import Distances, Topology
from labctl.lab.use import Use
from labctl.lab.workload_entry import WorkloadEntry
from labctl.units import Scalar

__all__ = [
    "Blocks",
    "Defaults",
    "Distances",
    "Experiment",
    "Kernel",
    "Lab",
    "Scalar",
    "Statistics",
    "StatisticsOverride",
    "Topology",
    "Tunable",
    "Verify",
    "Workload",
    "check_host",
    "load",
]

_LARGEST_BYTES = 4 * units.MIB


def load(
    path: Path,
    host_memory_bytes: int | None = None,
    *,
    limited_by: str = "",
    use: Use = Use.WORKS,
) -> Lab:
    """Return the lab of a lab.yaml.

    With `host_memory_bytes`, guests that need more memory are errors too; `limited_by` is the
    file of the control group that limits it, if one does. `use` is what the state folder will
    be used for.

    Raises:
        ConfigError: the file has errors; carries all of them, in the order of their lines.
        UserError: the file cannot be read.
    """
    text = _read_text(path)
    root = path.absolute().parent
    document = parse(text)
    tabs: list[tuple[int, int]] = []
    if document.broken and "\t" in text and not is_deep(text):

        def cost(candidate: str) -> tuple[int, int]:
            tried = parse(candidate)
            if tried.broken:
                return 1, -tried.problems[0].mark.line
            # The contents of the state folder do not depend on the indentation.
            return 0, len(_check(tried, path, root, None, "", Use.ENDS)[1].problems)

        repaired = repair(text, cost)
        document = repaired.restore(parse(repaired.text))
        tabs = repaired.tabs
    file, found = _check(document, path, root, host_memory_bytes, limited_by, use)
    problems = found.problems
    if tabs:
        problems = with_tabs(str(path), tabs, problems, broken=document.broken)
    if problems or file is None:
        raise ConfigError(problems)
    return _resolve(file, path, root, document)


def check_host(lab: Lab, memory_bytes: int, *, limited_by: str = "") -> None:
    """Check that the guests of each experiment fit into a host's memory at the same time.

    `limited_by` is the file of the control group that limits its memory, empty if none does.

    Raises:
        ConfigError: they do not; names `memory_per_node` of each guest that does not fit.
    """
    document = Document(
        plain={"kernels": dict.fromkeys(lab.kernels), "guests": dict.fromkeys(lab.guests)},
        keys=dict(lab.marks),
    )
    found = Findings(str(lab.path), document)
    default = lab.defaults.guest
    check_memory(lab.guests, lab.experiments, default, memory_bytes, found, limited_by=limited_by)
    if found.problems:
        raise ConfigError(found.problems)


def _read_text(path: Path) -> str:
    try:
        content = _content(path)
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError as error:
        hint = "`labctl init` writes one, `--lab FILE` selects another"
        raise UserError("no such file", where=str(path), hint=hint) from error
    except UnicodeDecodeError as error:
        what = f"file is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}"
        raise UserError(what, where=str(path), hint="save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"file cannot be read: {error.strerror}", where=str(path)) from error


def _content(path: Path) -> bytes:
    # O_NONBLOCK, as the open of a FIFO would wait for a writer.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123
        kind = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(kind):
            got = "a folder" if stat.S_ISDIR(kind) else "a special file"
            raise UserError(
                f"expected a file, got {got}",
                where=str(path),
                hint="`--lab FILE` selects a lab.yaml",
            )
        content = file.read(_LARGEST_BYTES + 1)
    if len(content) > _LARGEST_BYTES:
        what = f"file is larger than {_LARGEST_BYTES // units.MIB} MiB: not a lab.yaml"
        raise UserError(what, where=str(path))
    return content


def _check(
    document: Document,
    path: Path,
    root: Path,
    host_memory_bytes: int | None,
    limited_by: str,
    use: Use,
) -> tuple[LabFile | None, Findings]:
    faults = take(document, str(shipped(PROGRAMS)))
    found = Findings(str(path), document)
    for fault in faults:
        fault.add_to(found)
    for problem in document.problems:
        found.note(problem.path, problem.what, problem.hint, problem.mark)
        if problem.no_value:
            found.silence(problem.path)
    if document.broken:
        return None, found
    file = read(document, found)
    if file is None:
        return None, found
    check(file, found, root)
    check_state(file.state, found, root, path, use)
    if host_memory_bytes is not None:
        guests, experiments = file.guests, file.experiments
        default = default_guest(file)
        check_memory(guests, experiments, default, host_memory_bytes, found, limited_by)
    return file, found


def _resolve(file: LabFile, path: Path, root: Path, document: Document) -> Lab:
    return Lab(
        path=path.absolute(),
        root=root,
        state=absolute(root, file.state).resolve(),
        defaults=file.defaults.model_copy(update={"guest": default_guest(file)}),
        guests=file.guests,
        targets={name: _target(name, one, root) for name, one in file.targets.items()},
        kernels={name: resolve(file, name, root) for name in file.kernels},
        tunables={name: Tunable(name=name, **dict(one)) for name, one in file.tunables.items()},
        workloads={name: _workload(name, one) for name, one in file.workloads.items()},
        experiments={name: _experiment(name, one) for name, one in file.experiments.items()},
        statistics=file.statistics,
        scheduler=file.scheduler,
        verify=_verify(file.verify, root),
        marks={**document.keys, **document.values},
    )


def _workload(name: str, entry: WorkloadEntry) -> Workload:
    built = "" if entry.build is None else f"./{entry.build.program}"
    command = entry.command or entry.script or built
    return Workload(**{**dict(entry), "command": command, "name": name})


def _target(name: str, entry: TargetEntry, root: Path) -> Target:
    paths = {"key": entry.key, "initrd": entry.initrd}
    found = {key: None if text is None else absolute(root, text) for key, text in paths.items()}
    return Target(**{**dict(entry), **found, "name": name})


def _verify(entry: VerifyEntry, root: Path) -> Verify:
    variants = tuple(
        Variant(
            name=name, fragments=tuple(absolute(root, text) for text in one.kconfig), **dict(one)
        )
        for name, one in entry.variants.items()
    )
    others = {
        name: tuple(absolute(root, text) for text in texts) for name, texts in entry.compile.items()
    }
    return Verify(**{**dict(entry), "variants": variants or Verify().variants, "compile": others})


def _experiment(name: str, entry: ExperimentEntry) -> Experiment:
    return Experiment(name=name, **dict(entry))
