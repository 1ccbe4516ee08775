"""A user without a home folder gets an error that says what to do, and no traceback."""

import pwd
from pathlib import Path

import pytest
from click.testing import CliRunner

from labctl.cli import labctl
from labctl.errors import HostError, LabError
from labctl.host.home import expanded, xdg_folder
from labctl.scheduler.place import Place
from labctl.trial import place


@pytest.fixture
def homeless(monkeypatch):
    def unknown(_):
        raise KeyError

    for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.parametrize("path", ["~/x", "~no-such-user/x"])
def test_a_home_that_does_not_exist_stays_in_the_path(homeless, path):
    assert expanded(path) == Path(path)


def test_a_variable_replaces_a_missing_home(homeless, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert xdg_folder("XDG_CACHE_HOME", ".cache") == tmp_path
    assert Place().folder.is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("folder", "variable"),
    [(place.home, "XDG_STATE_HOME"), (lambda: Place().folder, "XDG_CACHE_HOME")],
)
def test_the_error_names_the_variable(homeless, folder, variable):
    with pytest.raises(HostError) as caught:
        folder()
    assert variable in caught.value.hint


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [("~/s.json", "scheduler file not found"), ("tcp://127.0.0.1:9", "no home folder")],
)
def test_a_worker_without_a_home_says_so(homeless, scheduler, message):
    result = CliRunner().invoke(labctl, ["worker", "--scheduler", scheduler])
    assert isinstance(result.exception, LabError)
    assert message in str(result.exception)
