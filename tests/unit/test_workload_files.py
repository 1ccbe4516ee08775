"""What a workload brings: programs with libraries, scripts with interpreters, folders."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from labctl.arch import ARM64, X86_64
from labctl.errors import BuildError, ConfigError
from labctl.experiments import early
from labctl.experiments.plan import plan
from labctl.guests import copied, initramfs
from labctl.lab.load import load
from labctl.transports import Outcome
from labctl.units import MIB
from labctl.workloads.closure import Fault, closure
from labctl.workloads.supply import Supply, merged

MAIN = "int used(void); int main(void) { return used(); }\n"
USED = "int used(void) { return 0; }\n"


def compiled(path, text, *flags):
    source = path.with_suffix(".c")
    source.write_text(text)
    subprocess.run(["gcc", "-o", path, source, *flags], check=True)
    return path


def script(path, first_line):
    path.write_text(f"{first_line}\necho 1\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def dynamic(tmp_path):
    """Return a program that finds a library of its own next to itself."""
    compiled(tmp_path / "libused.so", USED, "-shared", "-fPIC")
    return compiled(tmp_path / "mybench", MAIN, f"-L{tmp_path}", "-lused", "-Wl,-rpath,$ORIGIN")


@pytest.fixture
def planned(tmp_path):
    """Return a function that writes a lab with workloads and returns it with its plans."""

    def write(launcher="qemu", target=None, arch="x86_64", **workloads):
        content = {
            "version": 1,
            "defaults": {"launcher": launcher, "arch": arch},
            "guests": {"numa": {"nodes": 2, "cpus_per_node": 1, "memory_per_node": "512MiB"}},
            "kernels": {"stock": {"source": "debian:linux-source-6.1"}},
            "workloads": workloads,
            "experiments": {n: {"workload": n, "kernels": ["stock"]} for n in workloads},
        }
        path = tmp_path / "lab.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        lab = load(path)
        return lab, [plan(lab, name, 0) for name in workloads]

    return write


def brought(planned, check=early.check_commands, **keys):
    lab, plans = planned(**keys)
    return next(iter(check(lab, plans).values()))


def problem_of(lab_and_plans, check=early.check_commands):
    lab, plans = lab_and_plans
    with pytest.raises(ConfigError) as caught:
        check(lab, plans)
    (problem,) = caught.value.problems
    return problem, lab.path.read_text().splitlines()[problem.line - 1]


def test_a_program_of_the_lab_comes_with_its_libraries(planned, dynamic):
    supply = brought(planned, one={"command": "./mybench --size 1GiB"})
    assert supply.files["/labctl/one/mybench"] == dynamic
    assert supply.files["/labctl/one/.lib/libused.so"] == dynamic.with_name("libused.so")
    assert supply.files["/lib64/ld-linux-x86-64.so.2"].is_file()
    assert any(Path(path).name == "libc.so.6" for path in supply.files)
    argv = supply.argv(["./mybench", "--size", "1GiB"])
    assert argv[4:6] == ["/labctl/one", "/labctl/one"]
    assert argv[6:] == [
        "env",
        "LD_LIBRARY_PATH=/labctl/one/.lib",
        "/labctl/one/mybench",
        "--size",
        "1GiB",
    ]


def test_a_command_starts_in_the_folder_of_its_files(planned, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "input").write_text("7\n")
    supply = brought(
        planned, one={"command": "sh -c 'cat d/input'", "files": {"d": "data"}, "metric": "time"}
    )
    assert list(supply.files) == ["/labctl/one/d/input"]
    there = [word.replace("/labctl/one", f"{tmp_path}/guest") for word in supply.argv(["pwd"])]
    (tmp_path / "guest").mkdir()
    done = subprocess.run(there, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path}/guest\n"


def test_a_program_that_comes_along_is_used_in_place_of_busybox_s(planned, tmp_path):
    script(tmp_path / "sort", "#!/bin/sh")
    supply = brought(planned, one={"command": "sort -n", "files": {"sort": "sort"}})
    assert supply.argv(["sort", "-n"])[-2:] == ["/labctl/one/sort", "-n"]
    assert supply.argv(["cat", "-n"])[-2:] == ["cat", "-n"]


def test_a_workload_without_files_starts_as_before(planned):
    supply = brought(planned, one={"command": "freebench"})
    assert supply.argv(["freebench", "--op", "free"]) == ["freebench", "--op", "free"]
    assert supply.digest() is None


def test_a_static_program_comes_alone(tmp_path):
    program = compiled(tmp_path / "alone", "int main(void) { return 0; }\n", "-static")
    assert closure(program, X86_64).system == {}


def test_a_shell_script_uses_the_shell_of_the_guest(planned, tmp_path):
    script(tmp_path / "run.sh", "#!/bin/sh")
    assert list(brought(planned, one={"command": "./run.sh"}).files) == ["/labctl/one/run.sh"]


def test_a_script_comes_with_its_interpreter(planned, tmp_path):
    script(tmp_path / "run.sh", "#!/bin/bash -e")
    supply = brought(planned, one={"command": "./run.sh"})
    assert supply.files["/bin/bash"] == Path("/bin/bash").resolve()
    assert any("libc.so" in path for path in supply.files)


def test_python_comes_with_its_library_but_not_its_tests(planned, tmp_path):
    script(tmp_path / "bench.py", f"#!{sys.executable}")
    supply = brought(planned, one={"command": "./bench.py"})
    names = set(supply.files)
    library = Path(os.__file__).resolve().parent
    assert f"{library}/json/__init__.py" in names
    assert not any(path.startswith(f"{library}/test/") for path in names)
    assert supply.size_bytes < 64 * 2**20
    link = supply.files[sys.executable]
    assert isinstance(link, str) == (Path(sys.executable).resolve() != Path(sys.executable))


def test_workloads_share_libraries_but_not_their_folders(planned, dynamic):
    lab, plans = planned(one={"command": "./mybench"}, two={"command": "./mybench"})
    files = merged(early.check_commands(lab, plans))
    assert files["/labctl/one/mybench"] == files["/labctl/two/mybench"] == dynamic


def test_two_files_at_one_path_are_an_error(planned, tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
    keys = {one: {"command": "freebench", "files": {"/etc/x.conf": one}} for one in ("a", "b")}
    problem, line = problem_of(planned(**keys))
    assert problem.what == "workload a brings another file to /etc/x.conf"
    assert "/etc/x.conf: b" in line


@pytest.mark.parametrize(
    ("workload", "what"),
    [
        ({"command": "../nobench"}, "../nobench not found"),
        ({"command": "./data"}, "./data is a folder"),
        ({"command": "./plain"}, "plain is not executable"),
        ({"command": "./broken.sh"}, "interpreter /no/such is not on this host"),
        ({"command": "./empty.sh"}, "`#!` without an interpreter"),
        ({"command": "freebench", "files": {"x": "nothing"}}, "nothing not found"),
        ({"command": "freebench", "files": {"x": "pipe"}}, "pipe is a special file"),
        ({"command": "freebench", "files": {"/tmp/x": "plain"}}, "/tmp/x is in use by the guest"),
        ({"command": "freebench", "files": {"/init": "plain"}}, "/init is in use by the guest"),
        ({"command": "data/../run.sh", "files": {"run.sh": "plain"}}, "have the same name"),
    ],
)
def test_what_cannot_be_brought_is_reported_with_its_line(planned, tmp_path, workload, what):
    (tmp_path / "data").mkdir()
    (tmp_path / "plain").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    script(tmp_path / "run.sh", "#!/bin/sh")
    script(tmp_path / "broken.sh", "#!/no/such")
    script(tmp_path / "empty.sh", "#!")
    problem, line = problem_of(planned(one=workload))
    assert what in problem.what
    key = list(workload)[-1] if "run.sh" not in workload["command"] else "command"
    value = workload["command"] if key == "command" else next(iter(workload["files"].values()))
    assert value in line


def test_a_missing_library_is_named(planned, dynamic):
    dynamic.with_name("libused.so").unlink()
    problem, line = problem_of(planned(one={"command": "./mybench"}))
    assert "shared libraries not found: libused.so" in problem.what
    assert "command: ./mybench" in line


def test_a_path_with_dots_is_rejected_when_the_lab_is_read(planned):
    with pytest.raises(ConfigError, match=r"contains \. or \.\."):
        planned(one={"command": "freebench", "files": {"../x": "lab.yaml"}})


def test_a_program_of_another_architecture_is_rejected(tmp_path):
    program = compiled(tmp_path / "mine", "int main(void) { return 0; }\n", "-static")
    with pytest.raises(Fault, match="is an x86_64 program, but the guest is arm64"):
        closure(program, ARM64)


def test_virtme_ng_gets_copies_and_uses_the_libraries_of_the_host(planned, dynamic):
    supply = brought(planned, launcher="virtme-ng", one={"command": "./mybench"})
    folder = "/run/labctl-files/one"
    assert set(supply.files) == {f"{folder}/mybench", f"{folder}/.lib/libused.so"}


def test_virtme_ng_refuses_paths_that_it_cannot_create(planned, tmp_path):
    (tmp_path / "x").write_text("x")
    keys = {"command": "freebench", "files": {"/data/x": "x"}}
    assert "cannot be created" in problem_of(planned(launcher="virtme-ng", one=keys))[0].what


def test_the_files_of_virtme_ng_are_copied_by_a_script(tmp_path):
    source = tmp_path / "my bench"
    source.write_text("x")
    source.chmod(0o755)
    inside = f"{tmp_path}/root/it's/mine"
    beside = copied.beside_programs(tmp_path / "state", {inside: source})
    place = tmp_path / "share" / "files" / inside.lstrip("/")
    place.parent.mkdir(parents=True)
    place.write_bytes(beside[f"files{inside}"].read_bytes())
    place.chmod(0o755)
    subprocess.run(["sh", beside["files-start"], tmp_path / "share"], check=True)
    assert Path(inside).read_text() == "x"
    assert os.access(inside, os.X_OK)
    assert copied.beside_programs(tmp_path, {}) == {}


class Box:
    """A target with these programs."""

    name = "box"

    def __init__(self, *programs):
        self.programs = programs

    def run(self, command, *, timeout_seconds):
        found = any(f"-- {name} " in command for name in self.programs)
        return Outcome(command, status=0 if found else 1, stdout=b"", stderr=b"", seconds=0.1)


def test_a_target_starts_a_program_with_its_own_loader(planned, dynamic):
    supply = brought(planned, early.supplies_of_target, one={"command": "./mybench"})
    folder = "/run/labctl/files/one"
    assert supply.files[f"{folder}/.program/mybench"] == dynamic
    assert f"{folder}/.lib/libc.so.6" in supply.files
    assert supply.scripts[f"{folder}/mybench"].startswith(f"#!/bin/sh\nexec {folder}/.lib/ld-")
    assert supply.argv(["./mybench", "-x"])[-2:] == [f"{folder}/mybench", "-x"]


def test_a_program_runs_on_a_target_without_its_libraries(planned, dynamic, tmp_path):
    supply = brought(planned, early.supplies_of_target, one={"command": "./mybench"})
    moved = moved_to(supply, tmp_path / "target")
    dynamic.with_name("libused.so").unlink()
    argv = [moved(word) for word in supply.argv(["./mybench"])]
    assert subprocess.run(argv, check=False).returncode == 0


def moved_to(supply, there):
    """Put what a target gets into a folder, and return a function that changes its paths."""

    def moved(text):
        return text.replace("/run/labctl/files", str(there))

    for path, source in supply.files.items():
        place = Path(moved(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, place)
    for path, text in supply.scripts.items():
        Path(moved(path)).parent.mkdir(parents=True, exist_ok=True)
        Path(moved(path)).write_text(moved(text))
        Path(moved(path)).chmod(0o755)
    return moved


REPORTS = "import json, decimal, sys; print(json.dumps([decimal.__file__, sys.executable]))"


@pytest.mark.parametrize("form", ["env", "absolute", "program"])
def test_a_target_gets_python_with_its_library(planned, tmp_path, form):
    system = shutil.which("python3", path="/usr/bin") or sys.executable
    first = "/usr/bin/env python3" if form == "env" else f"{system} -B"
    (tmp_path / "bench.py").write_text(f"#!{first}\n{REPORTS}\n")
    (tmp_path / "bench.py").chmod(0o755)
    keys = {"command": "./bench.py"}
    if form == "program":
        keys = {"command": "python3 bench.py", "files": {"python3": system, "bench.py": "bench.py"}}
    supply = brought(planned, early.supplies_of_target, one=keys)
    there = tmp_path / "target"
    moved = moved_to(supply, there)
    for path in there.rglob("bench.py"):
        path.write_text(moved(path.read_text()))
    argv = [moved(word) for word in supply.argv(keys["command"].split())]
    done = subprocess.run(argv, check=True, capture_output=True, env={"PATH": "/bin"}, text=True)
    module, executable = json.loads(done.stdout)
    assert Path(module).is_relative_to(there)
    assert Path(executable).is_relative_to(there)


def test_python_as_a_file_finds_its_library_in_a_guest(planned, tmp_path):
    system = shutil.which("python3", path="/usr/bin") or sys.executable
    keys = {"command": "python3 -V", "files": {"python3": system}}
    supply = brought(planned, one=keys)
    real = str(Path(system).resolve())
    assert supply.files["/labctl/one/python3"] == real
    assert supply.files[real] == Path(real)
    assert any(path.endswith("/json/__init__.py") for path in supply.files)
    supply = brought(planned, launcher="virtme-ng", one=keys)
    assert f"exec {real} " in supply.files["/run/labctl-files/one/python3"].read_text()


def test_a_target_needs_the_interpreter_of_a_script(planned, tmp_path):
    script(tmp_path / "bench.py", "#!/usr/bin/env perl")
    lab, plans = planned(one={"command": "./bench.py"})
    supplies = early.supplies_of_target(lab, plans)
    early.check_commands_of(Box("perl"), lab, plans, supplies)
    with pytest.raises(ConfigError, match="perl not found on target box"):
        early.check_commands_of(Box(), lab, plans, supplies)


def test_files_of_a_target_stay_in_the_folder_of_the_lab(planned, tmp_path):
    (tmp_path / "x").write_text("x")
    keys = {"command": "freebench", "files": {"/etc/x": "x"}}
    problem, _ = problem_of(planned(one=keys), early.supplies_of_target)
    assert "would change the target's own files" in problem.what


def test_a_changed_program_has_another_hash(planned, tmp_path):
    program = script(tmp_path / "run.sh", "#!/bin/sh")
    before = brought(planned, one={"command": "./run.sh"}).digest()
    program.write_text("#!/bin/sh\necho 2\n")
    assert before != brought(planned, one={"command": "./run.sh"}).digest()


def test_the_initramfs_has_folders_links_and_modes(tmp_path):
    program = script(tmp_path / "run.sh", "#!/bin/sh")
    files = {"/labctl/one/run.sh": program, "/usr/bin/other": "/labctl/one/run.sh"}
    entries = {entry.name: entry for entry in initramfs._extra(files)}
    assert stat.S_ISDIR(entries["labctl/one"].mode)
    assert entries["labctl/one/run.sh"].mode & 0o777 == 0o755
    assert stat.S_ISLNK(entries["usr/bin/other"].mode)
    assert "usr/bin" not in entries


def test_sources_are_compiled_into_one_static_program(planned, tmp_path):
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "size.h").write_text("#define SIZE 7\n")
    (tmp_path / "main.c").write_text("int size(void); int main(void) { return size(); }\n")
    (tmp_path / "size.c").write_text('#include "size.h"\nint size(void) { return SIZE; }\n')
    keys = {"build": {"sources": ["main.c", "size.c"], "flags": "-Iinclude -lm"}}
    lab, plans = planned(one=keys)
    supply = early.check_commands(lab, plans)["one"]
    program = supply.files["/labctl/one/main"]
    assert list(supply.files) == ["/labctl/one/main"]
    assert subprocess.run([program], check=False).returncode == 7
    assert supply.argv(lab.workloads["one"].argv())[-1] == "/labctl/one/main"
    assert program == early.check_commands(lab, plans)["one"].files["/labctl/one/main"]
    (tmp_path / "include" / "size.h").write_text("#define SIZE 8\n")
    program = early.check_commands(lab, plans)["one"].files["/labctl/one/main"]
    assert subprocess.run([program], check=False).returncode == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int main(void) { return x; }\n", "'x' undeclared"),
        ('#include "nothing.h"\n', "nothing.h: No such file"),
        ("int f(void); int main(void) { return f(); }\n", "undefined reference to `f'"),
    ],
)
def test_errors_of_the_compiler_are_reported(planned, tmp_path, text, message):
    (tmp_path / "mybench.c").write_text(text)
    lab, plans = planned(one={"build": {"sources": ["mybench.c"]}})
    with pytest.raises(BuildError, match="workload one: mybench does not compile") as caught:
        early.check_commands(lab, plans)
    assert message in str(caught.value)
    assert message in Path(caught.value.where).read_text()
    assert early.supplies_of_lab(lab, X86_64) == {}


def test_a_missing_source_is_reported_with_its_line(planned):
    problem, line = problem_of(planned(one={"build": {"sources": ["mybench.c"]}}))
    assert problem.what.endswith("mybench.c not found")
    assert "build:" in line


def test_make_runs_before_its_program_is_brought(planned, tmp_path):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "Makefile").write_text(
        "mybench:\n\tprintf '#!/bin/sh\\n' > $@\n\tchmod +x $@\n"
    )
    supply = brought(planned, one={"make": "bench", "command": "bench/mybench"})
    assert supply.files["/labctl/one/mybench"] == tmp_path / "bench" / "mybench"


def test_errors_of_make_are_reported(planned, tmp_path):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "Makefile").write_text("all:\n\techo 'x.c:1: error: bad' >&2; false\n")
    lab, plans = planned(one={"make": "bench", "command": "bench/mybench"})
    with pytest.raises(BuildError, match=r"make fails in .*bench") as caught:
        early.check_commands(lab, plans)
    assert "x.c:1: error: bad" in str(caught.value)
    problem, line = problem_of(planned(one={"make": "none", "command": "bench/mybench"}))
    assert "none not found" in problem.what
    assert "make: none" in line


def test_large_files_are_reported_and_too_large_ones_rejected(planned, tmp_path):
    with (tmp_path / "data").open("wb") as file:
        file.truncate(100 * MIB)
    keys = {"command": "freebench", "files": {"data": "data"}}
    lab, plans = planned(one=keys)
    supplies, messages = early.check_commands(lab, plans), []
    early.check_sizes(lab, plans, supplies, messages.append)
    assert messages == ["WARNING: the files of the workloads take 100 MiB of each guest's memory"]
    with (tmp_path / "data").open("r+b") as file:
        file.truncate(600 * MIB)
    with pytest.raises(ConfigError, match="of which guest numa has 1 GiB"):
        early.check_sizes(lab, plans, supplies, messages.append)
    lab, plans = planned(launcher="virtme-ng", one=keys)
    early.check_sizes(lab, plans, early.check_commands(lab, plans), messages.append)
    assert len(messages) == 1


def test_a_command_starts_in_its_folder_also_if_no_file_is_there(tmp_path):
    supply = Supply({"/usr/bin/x": Path("/bin/ls")}, folder=str(tmp_path / "labctl" / "free"))
    done = subprocess.run(supply.argv(["pwd"]), capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path}/labctl/free\n"
