"""Fail a test if a kernel reports a problem while the test runs."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

import labctl
from labctl.errors import LabError
from labctl.testing.bench import Bench, Stay, slug
from labctl.testing.cases import Case
from labctl.testing.failure import sections
from labctl.testing.guest import LabGuest

# Folders without test code.
_OURS = (str(Path(labctl.__file__).parent), str(Path(contextlib.__file__).parent))
# For each guest of the test: number of console lines at the start of the test.
_HAD = pytest.StashKey[dict[str, tuple[Stay, int]]]()


class Watch:
    """Hooks of a pytest process with guests, registered with the first guest."""

    def __init__(self, bench: Bench, case_of: Callable[[pytest.Item], Case | None]) -> None:
        self.bench = bench
        self._case_of = case_of
        self._item: pytest.Item | None = None
        self._next: pytest.Item | None = None
        self._lent: list[Stay] = []
        self._folders: pytest.TempPathFactory | None = None

    def lend(
        self, case: Case, name: str, folders: pytest.TempPathFactory
    ) -> Generator[LabGuest, None, None]:
        """Boot a guest for a fixture and stop it afterwards; kernel warnings are failures."""
        self._folders = folders
        with self.without_traceback():
            stay = self.bench.boot(case, name, folders.mktemp(slug(name)))
        self._lent.append(stay)
        self._note(stay, 0)
        try:
            with self.without_traceback():
                stay.wait_ready()
            self._note(stay, stay.guest.console.lines)
            yield stay.guest
            self._look(stay)
        finally:
            self._lent.remove(stay)
            stay.end()

    @contextlib.contextmanager
    def without_traceback(self) -> Iterator[None]:
        """Report a LabError without the plugin's traceback."""
        try:
            yield
        except LabError as error:
            pytest.fail(str(error), pytrace=False)

    @staticmethod
    def name_of(item: pytest.Item) -> str:
        """Return the name of a test's guest, before `slug`."""
        owner = getattr(item, "cls", None)
        return "-".join([item.path.stem, *([owner.__name__] if owner else []), item.name])

    def _note(self, stay: Stay, lines: int) -> None:
        """Record that the running test uses a guest, whose console had `lines` lines."""
        if self._item is not None:
            self._item.stash.setdefault(_HAD, {})[stay.guest.name] = (stay, lines)

    @staticmethod
    def _look(stay: Stay) -> None:
        error = stay.guest.look()
        if error is not None:
            stay.failed = True
            pytest.fail(str(error), pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Record the running and the next test."""
        self._item, self._next = item, nextitem
        try:
            return (yield)
        finally:
            self._item = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Fail a passed test if the kernel reported a problem during the test."""
        had = self._of(item)
        for stay in had:
            if not stay.guest.is_well:
                pytest.fail(f"{stay.guest.name} was lost in an earlier test", pytrace=False)
        self._boot_ahead(item)
        result = yield
        for stay in had:
            with self.without_traceback():
                stay.guest.settle()
            self._look(stay)
        return result

    def _of(self, item: pytest.Item) -> list[Stay]:
        """Return the guests of a test; record the shared ones."""
        values = getattr(item, "funcargs", {}).values()
        had = [stay for stay in self._lent if any(value is stay.guest for value in values)]
        known = item.stash.get(_HAD, {})
        for stay in had:
            if stay.guest.name not in known:
                stay.guest.console.poll()
                self._note(stay, stay.guest.console.lines)
        return had

    def _boot_ahead(self, item: pytest.Item) -> None:
        """Start the next test's guest during this test, unless this one measures."""
        following = self._next
        if following is None or self._folders is None or following.path != item.path:
            return
        case = self._case_of(following)
        if (
            case is not None
            and self._case_of(item) is not None
            and "guest" in getattr(following, "fixturenames", ())
            and "measure" not in getattr(item, "fixturenames", ())
        ):
            name = self.name_of(following)
            self.bench.boot_ahead(case, name, self._folders.mktemp(slug(name)))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Fail a test if its shared guest reports a problem during teardown."""
        result = yield
        for stay in self._lent:
            if stay.guest.name in item.stash.get(_HAD, {}):
                self._look(stay)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add the guests' sections to the report of a failed test."""
        had = item.stash.get(_HAD, {})
        if had and call.excinfo is not None and isinstance(call.excinfo.value, LabError):
            _shorten(call.excinfo.value)
        report = yield
        if report.failed:
            for stay, lines in had.values():
                stay.failed = True
                report.sections += sections(stay, self.bench.lab.path, lines)
        return report

    def pytest_sessionfinish(self) -> None:
        """Stop the guest started ahead."""
        self.bench.close()


def _shorten(error: LabError) -> None:
    """Cut the traceback after the last line of test code; drop the duplicate console tail."""
    last: types.TracebackType | None = None
    step = error.__traceback__
    while step is not None:
        if not step.tb_frame.f_code.co_filename.startswith(_OURS):
            last = step
        step = step.tb_next
    if last is not None:
        last.tb_next = None
    error.__cause__, error.__suppress_context__ = None, True
    if hasattr(error, "console_tail"):
        error.console_tail = ()  # it has its own section
