"""docs/tutorials as written: in a project outside the checkout, with the wheel only."""

import difflib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import KCONFIG, ROOT, link_state
from program import Labctl

EXIT = "kernel/exit.c"
# A line of exit_mm(), and a bug inserted before it that hits processes of 256 MiB.
PLACE = "\tsync_mm_rss(mm);\n"
WRONG = "\tif (mm->total_vm > 65536)\n\t\tWRITE_ONCE(*READ_ONCE(nothing), 1);\n"
NOTHING = "static int *nothing;\n\nstatic void exit_mm(void)\n"


def oopsing():
    """Return a patch whose kernel oopses when a large process exits."""
    (archive,) = Path("/usr/src").glob("linux-source-6.1.tar.xz")
    found = subprocess.run(
        ["tar", "-xOf", archive, "--wildcards", f"linux-source-*/{EXIT}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    before = found.stdout
    assert before.count(PLACE) == before.count("\nstatic void exit_mm(void)\n") == 1
    after = before.replace(PLACE, WRONG + PLACE).replace("static void exit_mm(void)\n", NOTHING)
    lines = (text.splitlines(keepends=True) for text in (before, after))
    return "".join(difflib.unified_diff(*lines, f"a/{EXIT}", f"b/{EXIT}"))


@pytest.fixture
def project(tmp_path, prepared):
    """A project with the tutorial's files; `mine` is a series of ours."""
    text = (ROOT / "docs/tutorials/pytest.md").read_text()
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL))
    assert blocks["yaml"].count("\n") == 15
    text = re.sub(r"(source: debian:[\w.-]+)", rf"\1, kconfig: {KCONFIG}", blocks["yaml"])
    (tmp_path / "lab.yaml").write_text(text)
    (tmp_path / "test_exit.py").write_text(blocks["python"])
    shutil.copytree(ROOT / "patches/parallel-free/6.1", tmp_path / "patches/mine")
    link_state(tmp_path)
    return tmp_path


def pytest_in(project, python, *words):
    argv = [python, "-m", "pytest", "-v", "-p", "no:cacheprovider", *words]
    return subprocess.run(argv, cwd=project, capture_output=True, text=True, check=False)


def test_the_wheel_has_all_that_init_and_plan_need(python, tmp_path):
    where = subprocess.run(
        [python, "-c", "import labctl; print(labctl.__file__)"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(python.parents[1]))
    labctl = Labctl(tmp_path, python)
    labctl("init")
    plan = labctl.json("plan", "smoke", "--json")["experiments"][0]
    assert plan["cells"] == ["stock", "stock+aa", "parallel-free"]


def test_the_wheel_lists_its_trials(python, tmp_path):
    tree = tmp_path / "linux"
    tree.mkdir()

    def git(*words):
        identity = ("-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgSign=false")
        subprocess.run(["git", *identity, *words], cwd=tree, check=True, capture_output=True)

    git("init", "-q", "-b", "master")
    for branch, name in (("master", "Makefile"), ("topic", "mm/memory.c")):
        git("checkout", "-q", "-B", branch)
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text("one\n")
        git("add", "-A")
        git("commit", "-q", "-m", f"{name}: change")
    text = (ROOT / "docs/tutorials/try.md").read_text()
    (command,) = re.findall(r"^\$ labctl (try --dry-run)$", text, re.MULTILINE)
    argv = [python, "-m", "labctl", *command.split()]
    done = subprocess.run(argv, cwd=tree, capture_output=True, text=True, check=True)
    assert "changes:  1 commit: mm/memory.c" in done.stderr
    assert "merge base with master" in done.stderr


def test_the_tutorials_tests_pass(project, python):
    done = pytest_in(project, python)
    assert done.returncode == 0, done.stdout
    promised, passed = (
        re.findall(r"^ *test_exit.py::(\S+) PASSED", text, re.MULTILINE)
        for text in ((ROOT / "docs/tutorials/pytest.md").read_text(), done.stdout)
    )
    assert len(promised) == 3
    assert sorted(passed) == sorted(promised)


@pytest.mark.long("compiles a kernel")
@pytest.mark.timeout(1800)
def test_a_patch_that_oopses_fails_them_with_the_oops(project, python):
    folder = project / "patches/mine"
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "series").write_text("oops.patch\n")
    (folder / "oops.patch").write_text(oopsing())
    done = pytest_in(project, python, "-k", "memory")
    assert done.returncode == 1
    assert "[stock-thp=never] PASSED" in done.stdout
    assert "[mine-thp=never] FAILED" in done.stdout
    output = done.stdout.partition("kernel warnings of")[2]
    assert "BUG: kernel NULL pointer dereference" in output
    assert re.search(r"RIP: 0010:(?:do_exit|exit_mm)", output)
    assert "Traceback" not in done.stdout + done.stderr


@pytest.fixture
def first_lab(tmp_path, prepared, python):
    """The lab that `labctl init` writes, with `smoke` as small as possible."""
    labctl = Labctl(tmp_path, python)
    labctl("init")
    path = tmp_path / "lab.yaml"
    lab = yaml.safe_load(path.read_text())
    smoke = lab["experiments"]["smoke"]
    lab["experiments"] = {"smoke": smoke}
    lab["guests"]["numa4"]["memory_per_node"] = "512MiB"
    lab["kernels"]["stock"]["kconfig"] = yaml.safe_load(KCONFIG)
    # Lists of 32 MiB: several of them in 256 MiB.
    smoke["set"] |= {"size": "256MiB", "batch_pages": "8Ki"}
    smoke["statistics"] = {"blocks": {"min": 2, "max": 2}, "repetitions": 1}
    path.write_text(yaml.safe_dump(lab))
    link_state(tmp_path)
    yield labctl
    labctl.end()


@pytest.mark.xdist_group("measuring")
def test_the_commands_of_the_first_run_work(first_lab):
    text = (ROOT / "docs/tutorials/first-run.md").read_text()
    commands = [line.split()[2:] for line in text.splitlines() if line.startswith("$ labctl ")]
    assert [words[0] for words in commands] == ["doctor", "plan", "run", *["report"] * 3]
    assert first_lab("doctor", check=False).returncode in (0, 3)  # 3: not enough memory now
    printed = {" ".join(words): first_lab(*words).stdout for words in commands[1:]}
    assert "stock+aa" in printed["plan smoke"]
    for style in ("run smoke", "report", "report --format markdown"):
        assert "A/A control:" in printed[style]
    (smoke,) = json.loads(printed["report --json"])["experiments"]
    assert {cell["kernel"] for cell in smoke["cells"]} >= {"parallel-free"}
    assert "aa_control" in smoke
    (record,) = first_lab.folder.glob(".labctl/runs/*/run.json")
    described = (ROOT / "docs/reference/run.md").read_text()
    assert all(f"| `{key}` |" in described for key in json.loads(record.read_text()))
