"""Reads the imports and keeps the layers: dependencies point one way."""

import ast
from pathlib import Path

import pytest

import labctl

ROOT = Path(labctl.__file__).parent
# Lower may not import higher; siblings of one number may import each other.
LAYERS = {
    "errors": 0,
    "printable": 0,
    "units": 0,
    "files": 1,
    "flock": 1,
    "command_log": 1,
    "completed": 1,
    "environment": 1,
    "parent_death": 1,
    "process_table": 1,
    "proc": 1,
    "signals": 1,
    "git": 2,
    "checkout": 2,
    "lab": 2,  # and lab_*.py
    "state": 3,  # and what it may hold: lab_state
    "host": 3,
    "host_identity": 3,
    "host_tools": 3,
    "host_facts": 3,
    "host_lock": 3,
    "kernels": 4,
    "transports": 5,
    "guests": 6,
    "targets": 6,
    "results": 6,
    "experiments": 7,
    "reports": 7,
    "checks": 7,
    "doctor": 8,
    "testing": 8,
    "screen": 9,
    "terminal": 9,
    "cli": 10,
    "pytest_plugin": 10,
    "__main__": 10,
}
ONLY_IN = {
    "subprocess": {"proc"},
    "pexpect": {"transports.serial"},
    "fabric": {"transports.ssh"},
    "paramiko": {"transports.ssh"},
    "numpy": {"results"},
    "matplotlib": {"reports.plots"},
    "pyarrow": {"reports.parquet"},
    "scipy": {"results"},
    "ruptures": {"results"},
    "statsmodels": {"results"},
    "rich": {"screen"},
    "click": {"cli"},
    "pytest": {"pytest_plugin", "testing.watch"},
}
PURE = (
    "lab_types",
    "lab_topology",
    "lab_statistics",
    "lab_entries",
    "lab_models",
    "units",
    "guests.topology",
    "guests.placement",
    "guests.limits",
    "guests.shape",
    "experiments.plan",
    "experiments.needs",
    "results.history",
    "results.stats",
    "doctor.diagnosis",
    "doctor.building",
    "doctor.launching",
    "doctor.running",
    "testing.cases",
)
IMPURE = {"os", "time", "socket", "shutil", "tempfile", "labctl.proc", "labctl.host"}
MODULES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer_of(name: str) -> int:
    top = name.split(".")[0]
    return LAYERS["lab"] if top.startswith("lab_") else LAYERS[top]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{a.name}" for a in node.names if node.module == "labctl"}
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_what_stands_before_it(path):
    name = name_of(path)
    if name == "__init__":
        return
    layer = layer_of(name)
    for imported in imports(path):
        parts = imported.split(".")
        if parts[0] == "labctl" and len(parts) > 1 and not parts[1].startswith("_"):
            assert layer_of(parts[1]) <= layer, f"{name} imports {imported}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_outside_libraries_have_one_home(path):
    name = name_of(path)
    for imported in imports(path):
        homes = ONLY_IN.get(imported.split(".")[0])
        assert homes is None or any(
            name == home or name.startswith(f"{home}.") for home in homes
        ), f"{name} imports {imported}"


@pytest.mark.parametrize("name", PURE)
def test_the_thinking_is_pure(name):
    path = ROOT / (name.replace(".", "/") + ".py")
    assert not imports(path) & IMPURE


@pytest.mark.parametrize(
    "path", [p for p in MODULES if name_of(p).split(".")[0] != "cli"], ids=name_of
)
def test_only_the_commands_print_or_exit(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"print", "exit", "sys.exit", "quit"}, f"line {node.lineno}"
