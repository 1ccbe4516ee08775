"""The pytest plugin: tests that run in guests of the lab's kernels.

Loaded by every pytest of an environment that has labctl: what it needs is imported
when a test asks for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from labctl.lab_models import Lab
    from labctl.testing.cases import Asked, Case
    from labctl.testing.guest import LabGuest
    from labctl.testing.leases import Room
    from labctl.testing.measuring import Measure
    from labctl.testing.watch import Watch

_CASE = "_lab_case"
_MARKERS = (
    "kernels(*names): the kernels of lab.yaml to run on; all of them without it",
    "topology(guest=None, **keys): a guest of lab.yaml, or keys of one: nodes, cpus_per_node, "
    "memory_per_node, distances; a list of values runs the test with each",
    "tunables(**values): tunables of lab.yaml to set; a list of values runs the test with each",
)
_LAB = pytest.StashKey["Lab"]()
_WRONG = pytest.StashKey[str]()
_WATCH = pytest.StashKey["Watch"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("labctl", "tests in guests (labctl)")
    group.addoption(
        "--lab",
        metavar="FILE",
        help="the lab's description [default: `lab` of the ini-file, or lab.yaml in this folder "
        "or above]",
    )
    group.addoption(
        "--kernel",
        action="append",
        default=[],
        metavar="NAME",
        help="run only on this kernel of the lab; may be given several times",
    )
    group.addoption(
        "--lab-keep-failed",
        action="store_true",
        help="leave the guests of failed tests up, for `labctl exec` and `labctl down`",
    )
    group.addoption(
        "--lab-memory",
        metavar="SIZE",
        help="what the guests of all processes together may have, such as 12GiB "
        "[default: three quarters of the host's]",
    )
    parser.addini("lab", "the lab's description, from the folder of this file", type="string")


def pytest_configure(config: pytest.Config) -> None:
    """Add the markers; a lab that was named must be right."""
    for line in _MARKERS:
        config.addinivalue_line("markers", line)
    distributes = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    # With xdist this process collects nothing, and a worker could not tell it well.
    if config.getoption("--lab") or (distributes and _lab_path(config)):
        _lab(config)
        _message(config)


def _lab_path(config: pytest.Config) -> Path | None:
    """Return the lab's file; None if none is named and there is none."""
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
    """Return the lab; None if it is wrong, which `_message` tells once all is collected."""
    if _LAB not in config.stash and _WRONG not in config.stash:
        from labctl import host
        from labctl.errors import LabError
        from labctl.lab import load

        path = _lab_path(config)
        try:
            if path is None:
                config.stash[_WRONG] = (
                    "the tests need a lab, and there is no lab.yaml in "
                    f"{config.invocation_params.dir} or above: `labctl init` writes one, "
                    "`--lab FILE` names one"
                )
            else:
                config.stash[_LAB] = load(path, host_memory_bytes=host.memory_bytes())
        except LabError as error:
            config.stash[_WRONG] = str(error)
    return config.stash.get(_LAB, None)


def _message(config: pytest.Config) -> None:
    """Raise what is wrong with lab or options as a mistake of whoever called pytest."""
    if _WRONG in config.stash:
        raise pytest.UsageError(*config.stash[_WRONG].splitlines())
    lab = config.stash.get(_LAB, None)
    unknown = [n for n in config.getoption("--kernel") if lab is not None and n not in lab.kernels]
    if lab is not None and unknown:
        raise pytest.UsageError(
            f"--kernel: the lab has no {', '.join(unknown)}; there are: {', '.join(lab.kernels)}"
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each of the kernels, topologies and tunables of its markers."""
    if _CASE not in metafunc.fixturenames:
        return
    lab = _lab(metafunc.config)
    if lab is None:
        return
    from labctl.errors import UserError
    from labctl.testing.cases import cases

    try:
        found = cases(lab, _asked(metafunc.definition))
    except (UserError, TypeError) as error:
        pytest.fail(f"{metafunc.definition.nodeid}: {error}", pytrace=False)
    shares = "shared_guest" in metafunc.fixturenames and metafunc.config.pluginmanager.hasplugin(
        "xdist"
    )
    parameters = []
    for case in found:
        # With --dist loadgroup, tests that share a guest go to the process that has it.
        group = f"{metafunc.definition.path.stem}-{case.id}"
        marks = [pytest.mark.xdist_group(group)] if shares else []
        parameters.append(pytest.param(case, id=case.id, marks=marks))
    metafunc.parametrize(_CASE, parameters, indirect=True, scope="module")


def _asked(definition: pytest.Item) -> Asked:
    from labctl.testing.cases import Asked

    kernels = definition.get_closest_marker("kernels")
    guest: str | None = None
    topology: dict[str, Any] = {}
    tunables: dict[str, Any] = {}
    for mark in reversed(list(definition.iter_markers())):  # what stands nearest comes last
        if mark.name == "topology":
            guest = mark.args[0] if mark.args else mark.kwargs.get("guest", guest)
            topology |= {k: v for k, v in mark.kwargs.items() if k != "guest"}
        elif mark.name == "tunables":
            tunables |= mark.kwargs
    names = tuple(kernels.args) if kernels else ()
    return Asked(kernels=names, guest=guest, topology=topology, tunables=tunables)


def case_of(item: pytest.Item) -> Case | None:
    """Return what a test runs on, None if it needs no guest."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get(_CASE) if callspec else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tell what is wrong with the lab; leave out what does not run on the kernels asked for."""
    _message(config)
    asked = config.getoption("--kernel")
    cases = {item: case_of(item) for item in items} if asked else {}
    left = [item for item, case in cases.items() if case is not None and case.kernel not in asked]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the tests need before the first begins, so that no test's time is spent on it."""
    kernels = [case.kernel for item in session.items if (case := case_of(item))]
    if not kernels or session.config.option.collectonly:
        return
    from labctl import screen

    with _on_screen(session.config), screen.Building() as building:
        _watch(session.config).bench.prepare(kernels, building)


@contextlib.contextmanager
def _on_screen(config: pytest.Config) -> Iterator[None]:
    """Let what is printed to stderr be seen."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        yield


def _watch(config: pytest.Config) -> Watch:
    """Return what watches the guests of this process, with its own hooks."""
    if _WATCH not in config.stash:
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
        bench = Bench(lab, keep=config.getoption("--lab-keep-failed"), memory_bytes=limit)
        watch = Watch(bench, case_of)
        config.stash[_WATCH] = watch
        config.pluginmanager.register(watch, "labctl-watch")
    return config.stash[_WATCH]


def _keep_state(config: pytest.Config, lab: Lab) -> None:
    """Keep `labctl clean` out of the lab's state folder until this process is done."""
    from labctl import state
    from labctl.errors import LabError

    stack = contextlib.ExitStack()
    try:
        stack.enter_context(state.used(lab.state))
    except LabError as error:
        raise pytest.UsageError(*str(error).splitlines()) from error
    config.add_cleanup(stack.close)


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Lab:
    """The lab that lab.yaml describes."""
    return _watch(request.config).bench.lab


@pytest.fixture(scope="module")
def _lab_case(request: pytest.FixtureRequest) -> Case:
    if not hasattr(request, "param"):
        pytest.fail("name the fixture in the test's own arguments", pytrace=False)
    case: Case = request.param
    return case


@pytest.fixture(scope="module")
def _lab_room(request: pytest.FixtureRequest) -> Iterator[None]:
    """Room for the guests of a module, taken at once: who holds some never waits for more."""
    watch = _watch(request.config)
    with watch.plainly(), watch.bench.room(_needed(request.session, request.path)):
        yield


def _needed(session: pytest.Session, module: Path) -> Room:
    """Return what the tests of a module need at the same time, at most."""
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
    """The name of the kernel of this test; the marker `kernels` says which."""
    return _lab_case.kernel


@pytest.fixture
def guest(
    _lab_case: Case,
    _lab_room: None,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LabGuest]:
    """A guest of the kernel, booted for this test alone."""
    watch = _watch(request.config)
    yield from watch.lend(_lab_case, watch.name_of(request.node), tmp_path_factory)


@pytest.fixture(scope="module")
def shared_guest(
    _lab_case: Case,
    _lab_room: None,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LabGuest]:
    """A guest of the kernel for all tests of a module that ask for the same."""
    name = f"{request.path.stem}-{_lab_case.id}"
    yield from _watch(request.config).lend(_lab_case, name, tmp_path_factory)


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Measure:
    """Measure a workload in this test's guest, or `measure.compare` an experiment of the lab."""
    from labctl import screen
    from labctl.experiments.session import Events
    from labctl.testing.measuring import Measure

    own = next((n for n in ("guest", "shared_guest") if n in request.fixturenames), None)
    shown = screen.Measuring()

    @contextlib.contextmanager
    def on_screen() -> Iterator[None]:
        with _on_screen(request.config), shown:
            yield

    return Measure(
        bench=_watch(request.config).bench,
        guest=request.getfixturevalue(own) if own else None,
        events=Events(
            building=shown.building,
            waiting=shown.waiting,
            started=shown.started,
            measuring=shown.measuring,
        ),
        shown=on_screen,
    )
