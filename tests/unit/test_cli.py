"""The command line: exit statuses, messages, no traceback."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

import labctl
from labctl.cli import labctl as program
from labctl.cli.root import DURATION, WHOLE_SECONDS

ROOT = Path(labctl.__file__).parent.parent


def run(*words, cwd=ROOT):
    done = subprocess.run(
        [sys.executable, "-m", "labctl", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def lab(tmp_path):
    assert run("init", str(tmp_path)).returncode == 0
    return tmp_path


def test_help_lists_every_command():
    text = run("--help").stdout
    for command in (
        "init",
        "plan",
        "build",
        "up",
        "status",
        "exec",
        "console",
        "ssh",
        "gdb",
        "run",
        "report",
        "down",
    ):
        assert f"\n  {command} " in text
        assert run(command, "--help").returncode == 0
    assert "Exit status" in text


def test_help_imports_no_heavy_module():
    heavy = "{'numpy', 'scipy', 'pydantic', 'fabric', 'pexpect', 'asyncio'}"
    program = f"import sys; from labctl import cli; sys.exit(str({heavy} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_up_imports_only_what_it_needs(lab):
    program = """
import sys
from pathlib import Path
from labctl import cli, progress
from labctl.lab import load
from labctl.guests import fleet, prepare
load.load(Path(sys.argv[1]))
with progress.Building():
    pass
heavy = {'numpy', 'scipy', 'fabric', 'paramiko', 'pexpect', 'asyncio', 'rich', 'tabulate'}
sys.exit(str(heavy & set(sys.modules) or ''))
"""
    words = [sys.executable, "-c", program, lab / "lab.yaml"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_init_writes_a_lab_that_is_valid(lab):
    done = run("plan", "smoke", "--json", cwd=lab)
    assert done.returncode == 0, done.stderr
    (experiment,) = json.loads(done.stdout)["experiments"]
    assert experiment["cells"] == ["stock", "stock+aa", "parallel-free"]
    assert len(experiment["guests"]) == 3


def test_init_overwrites_only_with_force(lab):
    (lab / "lab.yaml").write_text("mine")
    done = run("init", str(lab))
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert (lab / "lab.yaml").read_text() == "mine"
    assert run("init", "--force", str(lab)).returncode == 0
    assert (lab / "lab.yaml").read_text() != "mine"


def test_schema_is_json():
    assert json.loads(run("schema").stdout)["properties"]["kernels"]


def test_the_error_for_a_missing_lab_has_a_hint(tmp_path):
    done = run("plan", cwd=tmp_path)
    assert done.returncode == 2
    assert "labctl init" in done.stderr


def test_a_lab_is_found_from_a_subfolder(lab):
    (lab / "deep/er").mkdir(parents=True)
    assert run("plan", "smoke", cwd=lab / "deep/er").returncode == 0


def test_unknown_names_are_reported_with_the_known_ones(lab):
    done = run("run", "smok", cwd=lab)
    assert done.returncode == 2
    assert "headline" in done.stderr
    assert run("build", "nokernel", cwd=lab).returncode == 2
    assert run("exec", "stock", "true", cwd=lab).returncode == 2
    assert run("nocommand", cwd=lab).returncode == 2
    assert run("run", "smoke", "--resume", "latest", cwd=lab).returncode == 2


def test_every_error_in_a_lab_has_its_line(lab):
    text = (lab / "lab.yaml").read_text()
    broken = text.replace("  max_active:  #", "  maxactive:  #").replace(
        "repetitions: 3  #", "repetitions: -3  #"
    )
    (lab / "lab.yaml").write_text(broken)
    done = run("plan", cwd=lab)
    assert done.returncode == 2
    lines = broken.splitlines()
    place = next(i for i, line in enumerate(lines, 1) if "repetitions: -3" in line)
    assert f"lab.yaml:{place}:" in done.stderr
    assert "did you mean" in done.stderr
    assert "3 errors" in done.stderr


def test_reports_without_a_run(lab):
    done = run("report", cwd=lab)
    assert done.returncode == 2
    assert "labctl run" in done.stderr
    status = run("status", "--json", cwd=lab)
    assert json.loads(status.stdout) == {"schema": 1, "guests": []}
    assert run("down", cwd=lab).returncode == 0


def test_the_plan_follows_its_seed(lab):
    def order(seed):
        document = json.loads(run("plan", "max-active", "--json", "--seed", seed, cwd=lab).stdout)
        return document["experiments"][0]["first_block"]

    assert order("1") == order("1")
    assert order("1") != order("2")


def test_clean_keeps_results(lab):
    for name in ("images", "trees", "runs", "nightly"):
        (lab / ".labctl" / name / "x").mkdir(parents=True)

    def left():
        return sorted(path.name for path in (lab / ".labctl").iterdir() if path.is_dir())

    assert run("clean", cwd=lab).returncode == 0
    assert left() == ["nightly", "runs"]
    assert run("clean", "--runs", cwd=lab).returncode == 0
    assert left() == []
    assert run("clean", cwd=lab).returncode == 0


def test_clean_without_a_state_folder_creates_none(lab):
    assert run("clean", cwd=lab).returncode == 0
    assert not (lab / ".labctl").exists()


def test_clean_removes_only_files_of_labctl(lab):
    documents = lab / "home" / "documents"
    documents.mkdir(parents=True)
    (documents / "thesis").write_text("years of work")
    text = (lab / "lab.yaml").read_text()
    for state in ("home", "."):
        (lab / "lab.yaml").write_text(f"{text}\nstate: {state}\n")
        done = run("clean", cwd=lab)
        assert done.returncode == 2
        assert f"lab.yaml:{len(text.splitlines()) + 2}:8: state: " in done.stderr
        assert (documents / "thesis").read_text() == "years of work"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("10min", 600), ("10m", 600), ("2h", 7200),
     ("1.5 min", 90), ("500ms", 0.5)],
)  # fmt: skip
def test_a_duration_is_a_number_with_a_unit_or_seconds(text, seconds):
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "nan", "inf", "1e9", "soon", "-5", "0", "0s", "5 weeks"])
def test_other_durations_are_rejected(text):
    with pytest.raises(click.BadParameter, match=r"expected a duration .*got"):
        DURATION.convert(text, None, None)


def test_a_guests_program_gets_whole_seconds():
    seconds = WHOLE_SECONDS.convert("1.5min", None, None)
    assert (seconds, type(seconds)) == (90, int)
    with pytest.raises(click.BadParameter, match=r"expected whole seconds, got '1\.5'"):
        WHOLE_SECONDS.convert("1.5", None, None)


def test_every_option_for_a_time_has_the_same_form():
    options = {
        (name, option.opts[0]): option.metavar or option.type.name.upper()
        for name, command in program.commands.items()
        for option in command.params
        if name != "schema" and option.opts[0] in ("--timeout", "--seconds", "--budget", "--verify")
    }
    assert set(options.values()) == {"DURATION"}
    assert len(options) == 6


def test_the_package_is_the_program():
    assert run("--version").stdout.endswith(f"version {labctl.__version__}\n")
