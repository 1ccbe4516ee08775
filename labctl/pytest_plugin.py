"""The pytest plugin: run tests in guests of the lab's kernels.

pytest loads this module in every environment with labctl, so heavy imports happen only
when a test uses them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from labctl.lab.models import Lab
    from labctl.testing.cases import Case, Markers
    from labctl.testing.guest import LabGuest
    from labctl.testing.leases import Room
    from labctl.testing.measuring import Measure
    from labctl.testing.watch import Watch

_CASE = "_lab_case"
_MARKERS = (
    "kernels(*names): kernels of lab.yaml to run on (default: all)",
    "topology(guest=None, **keys): guest of lab.yaml, or its keys: nodes, cpus_per_node, "
    "memory_per_node, distances; a list runs the test with each value",
    "tunables(**values): tunables of lab.yaml to set; a list runs the test with each value",
)
_LAB = pytest.StashKey["Lab"]()
_WRONG = pytest.StashKey[str]()
_WATCH = pytest.StashKey["Watch"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command line options and the `lab` ini option."""
    group = parser.getgroup("labctl", "tests in guests (labctl)")
    group.addoption(
        "--lab",
        metavar="FILE",
        help="lab file [default: `lab` of the ini-file, or lab.yaml in the current or a parent "
        "folder]",
    )
    group.addoption(
        "--kernel",
        action="append",
        default=[],
        metavar="NAME",
        help="run only on this kernel of the lab (repeatable)",
    )
    group.addoption(
        "--lab-keep-failed",
        action="store_true",
        help="keep the guests of failed tests running, for `labctl exec` and `labctl down`",
    )
    group.addoption(
        "--lab-memory",
        metavar="SIZE",
        help="memory limit for the guests of all processes together, such as 12GiB "
        "[default: three quarters of the host's memory]",
    )
    parser.addini("lab", "lab file, relative to the folder of this file", type="string")


def pytest_configure(config: pytest.Config) -> None:
    """Add the markers; check the lab of `--lab`."""
    for line in _MARKERS:
        config.addinivalue_line("markers", line)
    distributes = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    # With xdist this process collects nothing, and errors in workers are hard to read.
    if config.getoption("--lab") or (distributes and _lab_path(config)):
        _lab(config)
        _message(config)


def _lab_path(config: pytest.Config) -> Path | None:
    """Return the path of the lab file, None if there is none."""
    here = config.invocation_params.dir
    named: str | None = config.getoption("--lab")
    written: str = config.getini("lab")
    if named:
        return here / named
    if written:
        return (config.inipath.parent if config.inipath else config.rootpath) / written
    folders = (here, *here.parents, config.rootpath)
    return next((f / "lab.yaml" for f in folders if (f / "lab.yaml").is_file()), None)


def _lab(config: pytest.Config) -> Lab | None:
    """Return the lab, None if it is invalid; `_message` reports that after collection."""
    if _LAB not in config.stash and _WRONG not in config.stash:
        from labctl.errors import LabError
        from labctl.host.facts import read_memory
        from labctl.lab.load import load

        path = _lab_path(config)
        try:
            if path is None:
                config.stash[_WRONG] = (
                    "the tests need a lab, but there is no lab.yaml in "
                    f"{config.invocation_params.dir} or its parent folders: create one with "
                    "`labctl init`, or pass `--lab FILE`"
                )
            else:
                memory = read_memory()
                config.stash[_LAB] = load(path, memory.total_bytes, limited_by=memory.limited_by)
        except LabError as error:
            config.stash[_WRONG] = str(error)
    return config.stash.get(_LAB, None)


def _message(config: pytest.Config) -> None:
    """Raise errors of the lab or of the options as pytest usage errors."""
    if _WRONG in config.stash:
        raise pytest.UsageError(*config.stash[_WRONG].splitlines())
    lab = config.stash.get(_LAB, None)
    unknown = [n for n in config.getoption("--kernel") if lab is not None and n not in lab.kernels]
    if lab is not None and unknown:
        raise pytest.UsageError(
            f"--kernel: unknown kernel {', '.join(unknown)}; available: {', '.join(lab.kernels)}"
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize a test with the kernels, topologies and tunables of its markers."""
    if _CASE not in metafunc.fixturenames:
        return
    lab = _lab(metafunc.config)
    if lab is None:
        return
    from labctl.errors import UserError
    from labctl.testing.cases import cases

    try:
        found = cases(lab, _markers_of(metafunc.definition))
    except (UserError, TypeError) as error:
        pytest.fail(f"{metafunc.definition.nodeid}: {error}", pytrace=False)
    shares = "shared_guest" in metafunc.fixturenames and metafunc.config.pluginmanager.hasplugin(
        "xdist"
    )
    parameters = []
    for case in found:
        # With --dist loadgroup, tests that share a guest run in the process that owns it.
        group = f"{metafunc.definition.path.stem}-{case.id}"
        marks = [pytest.mark.xdist_group(group)] if shares else []
        parameters.append(pytest.param(case, id=case.id, marks=marks))
    metafunc.parametrize(_CASE, parameters, indirect=True, scope="module")


def _markers_of(definition: pytest.Item) -> Markers:
    from labctl.testing.cases import Markers

    kernels = definition.get_closest_marker("kernels")
    guest: str | None = None
    topology: dict[str, Any] = {}
    tunables: dict[str, Any] = {}
    for mark in reversed(list(definition.iter_markers())):  # the closest marker wins
        if mark.name == "topology":
            guest = mark.args[0] if mark.args else mark.kwargs.get("guest", guest)
            topology |= {k: v for k, v in mark.kwargs.items() if k != "guest"}
        elif mark.name == "tunables":
            tunables |= mark.kwargs
    names = tuple(kernels.args) if kernels else ()
    return Markers(kernels=names, guest=guest, topology=topology, tunables=tunables)


def case_of(item: pytest.Item) -> Case | None:
    """Return the case of a test, None if it needs no guest."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get(_CASE) if callspec else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Report errors of the lab; deselect tests for kernels other than those of `--kernel`."""
    _message(config)
    asked = config.getoption("--kernel")
    cases = {item: case_of(item) for item in items} if asked else {}
    left = [item for item, case in cases.items() if case is not None and case.kernel not in asked]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the kernels before the first test, so that builds do not use up test timeouts."""
    kernels = [case.kernel for item in session.items if (case := case_of(item))]
    if not kernels or session.config.option.collectonly:
        return
    from labctl import progress

    with _on_screen(session.config), progress.Building() as building:
        _watch(session.config).bench.prepare(kernels, building)


@contextlib.contextmanager
def _on_screen(config: pytest.Config) -> Iterator[None]:
    """Disable pytest's capture of stderr for the block."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        yield


def _watch(config: pytest.Config) -> Watch:
    """Return the `Watch` of this process; create and register it if necessary."""
    if _WATCH not in config.stash:
        from labctl import parent_death
        from labctl.testing.bench import Bench
        from labctl.testing.watch import Watch
        from labctl.units import UnitError, size

        lab = _lab(config)
        if lab is None:
            pytest.fail(config.stash[_WRONG], pytrace=False)
        memory = config.getoption("--lab-memory")
        try:
            limit = size(memory) if memory else None
        except UnitError as error:
            raise pytest.UsageError(f"--lab-memory: {error}; {error.hint}") from error
        _keep_state(config, lab)
        if hasattr(config, "workerinput"):
            # xdist lets a test go on for some seconds after the death of its main process.
            parent_death.interrupt_this()
        bench = Bench(lab, keep=config.getoption("--lab-keep-failed"), memory_bytes=limit)
        watch = Watch(bench, case_of)
        config.stash[_WATCH] = watch
        config.pluginmanager.register(watch, "labctl-watch")
    return config.stash[_WATCH]


def _keep_state(config: pytest.Config, lab: Lab) -> None:
    """Lock the lab's state folder against `labctl clean` until this process ends."""
    from labctl.errors import LabError
    from labctl.host import state

    stack = contextlib.ExitStack()
    try:
        stack.enter_context(state.used(lab.state))
    except LabError as error:
        raise pytest.UsageError(*str(error).splitlines()) from error
    config.add_cleanup(stack.close)


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Lab:
    """The loaded lab.yaml."""
    return _watch(request.config).bench.lab


@pytest.fixture(scope="module")
def _lab_case(request: pytest.FixtureRequest) -> Case:
    if not hasattr(request, "param"):
        pytest.fail("the fixture must be an argument of the test itself", pytrace=False)
    case: Case = request.param
    return case


@pytest.fixture(scope="module")
def _lab_room(request: pytest.FixtureRequest) -> Iterator[None]:
    """Reserve memory for all guests of a module at once, to rule out deadlocks."""
    watch = _watch(request.config)
    with watch.without_traceback(), watch.bench.room(_needed(request.session, request.path)):
        yield


def _needed(session: pytest.Session, module: Path) -> Room:
    """Return the most that the tests of a module need at the same time."""
    from labctl.testing.leases import Room

    shared, fresh = Room(), Room()
    for item in session.items:
        case = case_of(item)
        if case is not None and item.path == module:
            names = getattr(item, "fixturenames", ())
            shared |= Room.of(case.topology) if "shared_guest" in names else Room()
            fresh |= Room.of(case.topology) if "guest" in names else Room()
    return shared + fresh


@pytest.fixture(scope="module")
def kernel(_lab_case: Case) -> str:
    """The kernel name of this test; the marker `kernels` selects the kernels."""
    return _lab_case.kernel


@pytest.fixture
def guest(
    _lab_case: Case,
    _lab_room: None,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LabGuest]:
    """A guest of the kernel, booted for this test only."""
    watch = _watch(request.config)
    yield from watch.lend(_lab_case, watch.name_of(request.node), tmp_path_factory)


@pytest.fixture(scope="module")
def shared_guest(
    _lab_case: Case,
    _lab_room: None,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LabGuest]:
    """A guest shared by the tests of a module with the same kernel, topology and tunables."""
    name = f"{request.path.stem}-{_lab_case.id}"
    yield from _watch(request.config).lend(_lab_case, name, tmp_path_factory)


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Measure:
    """Measure a workload in this test's guest; `measure.compare` measures an experiment."""
    from labctl import progress
    from labctl.testing.measuring import Measure

    own = next((n for n in ("guest", "shared_guest") if n in request.fixturenames), None)
    shown = progress.Measuring()

    @contextlib.contextmanager
    def on_screen() -> Iterator[None]:
        with _on_screen(request.config), shown:
            yield

    return Measure(
        bench=_watch(request.config).bench,
        guest=request.getfixturevalue(own) if own else None,
        events=shown.events(),
        shown=on_screen,
    )
