"""The table of folders: what each may import, and which reach nothing outside the process."""

import ast
from functools import cache
from pathlib import Path

import pytest

import labctl
from labctl.lab import state

ROOT = Path(labctl.__file__).parent
# A folder or module imports its own floor and the floors below it.
FLOORS = (
    ("errors", "status", "printable", "units", "arch"),
    ("signals", "environment", "completed", "parent_death", "process_table", "flock", "files"),
    ("proc", "command_log"),
    ("lab", "host", "series", "observers"),
    ("kernels", "transports", "runs"),
    ("stats", "guests", "targets", "workloads"),
    ("reports",),
    ("experiments",),
    ("verify", "review", "doctor", "testing", "model", "packing"),
    ("scheduler",),
    ("nightly", "bisect", "trial"),
    ("methodology", "site"),
    ("progress", "cli", "__main__", "pytest_plugin"),
)
ONLY_IN = {
    "subprocess": {"proc"},
    "fcntl": {"flock"},
    "pexpect": {"transports.serial"},
    "fabric": {"transports.ssh"},
    "paramiko": {"transports.ssh"},
    "numpy": {"stats", "methodology", "model", "nightly.changes"},
    "scipy": {"stats", "methodology", "model", "bisect.search", "nightly.findings"},
    "ruptures": {"nightly.changes"},
    "matplotlib": {"reports.plots"},
    "pyarrow": {"reports.parquet"},
    "shiv": {"packing.zipped"},
    "rich": {"progress"},
    "click": {"cli"},
    "dask": {"scheduler"},
    "distributed": {"scheduler"},
    "pytest": {"pytest_plugin", "testing.watch"},
}
# A pure folder reaches no system call, also not through what it imports. The exceptions
# look at the disk: lab.load reads the file, lab.kernels, lab.paths and lab.sources what it
# names, lab.template writes.
PURE_FOLDERS = ("lab", "observers", "stats", "methodology", "model")
EXCEPTIONS = {"lab.kernels", "lab.load", "lab.paths", "lab.sources", "lab.template"}
PURE_MODULES = (
    "arch",
    "units",
    "printable",
    "guests.topology",
    "guests.placement",
    "guests.limits",
    "guests.shape",
    "experiments.plan",
    "experiments.needs",
    "trial.shape",
    "nightly.budget",
    "nightly.changes",
    "nightly.records",
    "runs.sample",
    "doctor.diagnosis",
    "doctor.building",
    "doctor.launching",
    "doctor.running",
    "packing.place",
    "packing.records",
    "testing.cases",
)
IMPURE = {
    "asyncio", "ctypes", "fcntl", "glob", "mmap", "multiprocessing", "os", "pwd", "pty", "resource",
    "select", "selectors", "shutil", "signal", "socket", "subprocess", "tempfile", "threading",
    "time",
}  # fmt: skip
# Methods of pathlib.Path and of datetime that ask the system.
SYSTEM_CALLS = {
    "chmod", "exists", "expanduser", "glob", "is_dir", "is_file", "is_symlink", "iterdir", "lstat",
    "mkdir", "now", "open", "read_bytes", "read_text", "resolve", "rglob", "rmdir", "stat",
    "symlink_to", "today", "touch", "unlink", "write_bytes", "write_text",
}  # fmt: skip
MODULES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path): path for path in MODULES}


def floor_of(name: str) -> int:
    top = name.split(".")[0]
    return next(number for number, floor in enumerate(FLOORS) if top in floor)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> frozenset[str]:
    """What a module imports when it is used, but for its type annotations."""
    found = set()
    for node in _runtime(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {
                f"{node.module}.{a.name}" for a in node.names if node.module.startswith("labctl")
            }
    return frozenset(found)


def _runtime(node: ast.AST):
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _runtime(child)


def own_imports(name: str) -> set[str]:
    found = {each.removeprefix("labctl.") for each in imports(NAMES[name]) if "labctl" in each}
    return {each for each in found if each in NAMES and each != name}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_its_own_floor_and_those_below(path):
    name = name_of(path)
    if name == "__init__":
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "labctl":
            tops = node.module.split(".")[1:2] or [alias.name for alias in node.names]
            for top in tops:
                if not top.startswith("_"):
                    assert floor_of(top) <= floor_of(name), f"line {node.lineno}: {top}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_outside_libraries_have_one_home(path):
    name = name_of(path)
    for imported in imports(path):
        homes = ONLY_IN.get(imported.split(".")[0])
        assert homes is None or any(
            name == home or name.startswith(f"{home}.") for home in homes
        ), f"{name} imports {imported}"


PURE = sorted(
    {name for name in NAMES if name.split(".")[0] in PURE_FOLDERS} - EXCEPTIONS | set(PURE_MODULES)
)


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_reaches_no_system_call(name):
    seen, ahead = set(), [(name,)]
    while ahead:
        way = ahead.pop()
        here = way[-1]
        if here in seen or here in EXCEPTIONS:
            continue
        seen.add(here)
        bad = {each.split(".")[0] for each in imports(NAMES[here])} & IMPURE
        assert not bad, f"{' -> '.join(way)} imports {', '.join(sorted(bad))}"
        for node in _runtime(tree_of(NAMES[here])):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func).split(".")
                way_in = f"{' -> '.join(way)}, line {node.lineno}: {'.'.join(called)}()"
                assert called != ["open"], way_in
                assert len(called) == 1 or called[-1] not in SYSTEM_CALLS, way_in
        ahead += [(*way, each) for each in own_imports(here)]


@pytest.mark.parametrize(
    "path", [p for p in MODULES if name_of(p).split(".")[0] != "cli"], ids=name_of
)
def test_only_the_commands_print_or_exit(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"print", "exit", "sys.exit", "quit"}, f"line {node.lineno}"


STATE_NAMES = {*state.FOLDERS, *state.FILES, state.USUAL_NAME}
# Also names of folders elsewhere, such as a run's or the checkout's.
AMBIGUOUS = {"guest", "guests", "images", "logs", "nightly", "series", "ssh", "verify"}


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p) != "lab.state"], ids=name_of)
def test_only_one_module_names_the_state_folders_contents(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            left, right = ast.unparse(node.left), node.right
            if isinstance(right, ast.Constant) and isinstance(right.value, str):
                first = right.value.split("/")[0]
                of_state = left.split(".")[-1].strip("_") in {"state", "state_folder"}
                assert not of_state, f"line {node.lineno}: {left} / {right.value!r}"
                assert first not in STATE_NAMES - AMBIGUOUS, f"line {node.lineno}: {right.value!r}"


def test_every_folder_is_in_the_table():
    known = {top for floor in FLOORS for top in floor}
    found = {name.split(".")[0] for name in NAMES} - {"__init__"}
    assert found <= known


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_file_fits_on_a_few_screens(path):
    assert len(path.read_text().splitlines()) <= 350
