"""The plugin without guests: options, markers, collection, error messages."""

import subprocess
import sys

import pytest

# Imported here once, since modules that an inner pytest imports are dropped after it.
import labctl.lab.load
import labctl.testing.watch  # noqa: F401

pytest_plugins = ["pytester"]
LAB = """\
guests: {numa4: {nodes: 4, memory_per_node: 512MiB}}
kernels:
  stock: {source: image:bzImage}
  mine: {source: image:bzImage}
tunables:
  max_active: {file: /sys/kernel/debug/x/max_active, kernels: [mine]}
"""
TESTS = """\
import pytest

@pytest.mark.kernels("mine")
@pytest.mark.tunables(max_active=4)
def test_one(guest): pass

@pytest.mark.topology(nodes=4)
class TestMany:
    @pytest.mark.topology(nodes=[1, 2])
    def test_two(self, shared_guest): pass

def test_kernel(kernel): pass
def test_plain(): pass
"""


@pytest.fixture
def project(pytester):
    (pytester.path / "bzImage").touch()
    (pytester.path / "lab.yaml").write_text(LAB)
    pytester.makepyfile(test_it=TESTS)
    return pytester


def collected(project, *words):
    done = project.runpytest("--collect-only", "-q", "--strict-markers", *words)
    assert done.ret == 0
    return {line.partition("::")[2] for line in done.outlines if "::" in line}


def test_no_clean_while_tests_run(project):
    project.makepyfile(
        test_it="""
        import pytest
        from labctl.errors import UserError
        from labctl.guests.prepare import remove_built

        def test_it(lab):
            with pytest.raises(UserError, match="in use by another labctl"):
                remove_built(lab, runs_too=True)
        """
    )
    project.runpytest("-q").assert_outcomes(passed=1)


def test_markers_make_the_cases(project):
    assert collected(project) == {
        "test_one[mine-max_active=4]",
        "TestMany::test_two[stock-nodes=1]",
        "TestMany::test_two[stock-nodes=2]",
        "TestMany::test_two[mine-nodes=1]",
        "TestMany::test_two[mine-nodes=2]",
        "test_kernel[stock]",
        "test_kernel[mine]",
        "test_plain",
    }


def test_kernels_can_be_chosen(project):
    assert collected(project, "--kernel", "stock", "-k", "(two and not 2]) or kernel") == {
        "TestMany::test_two[stock-nodes=1]",
        "test_kernel[stock]",
    }
    assert len(collected(project, "--kernel", "stock", "--kernel", "mine")) == 8


def test_a_strict_pytest_runs_with_the_plugin(project):
    project.makeini("[pytest]\nstrict = true\nfilterwarnings = error\nlab = lab.yaml")
    project.makepyfile(
        test_it=TESTS
        + """
def test_fixtures(lab, measure): assert "mine" in lab.kernels
"""
    )
    done = project.runpytest_subprocess("-W", "error", "-k", "test_kernel or plain or fixtures")
    done.assert_outcomes(passed=4, deselected=5)
    assert str(done.stderr) == ""


def test_an_unknown_kernel_is_a_usage_error(project):
    done = project.runpytest("--kernel", "stok")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: --kernel: unknown kernel stok; available: stock, mine"])


@pytest.mark.parametrize("words", [(), ("--lab", "lab.yaml"), ("-n2",)])
def test_errors_in_the_lab_are_reported_with_their_lines(project, words):
    (project.path / "lab.yaml").write_text(LAB.replace("nodes: 4", "nodes: four"))
    done = project.runpytest_subprocess(*words)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(
        ["ERROR: *lab.yaml:1:*guests.numa4.nodes: expected a whole number, got 'four'*"]
    )
    assert "Traceback" not in str(done.stderr) + str(done.stdout)


def test_a_wrong_marker_names_the_test(project):
    project.makepyfile(
        test_wrong="""
        import pytest
        @pytest.mark.kernels("stok")
        def test_it(guest): pass
    """
    )
    done = project.runpytest("test_wrong.py")
    assert done.ret == pytest.ExitCode.INTERRUPTED
    done.stdout.fnmatch_lines(["*test_it*the lab has no kernel 'stok'", "*did you mean stock?"])
    assert "Traceback" not in str(done.stdout)


def test_without_a_lab_only_tests_with_guests_fail(project):
    (project.path / "lab.yaml").unlink()
    assert project.runpytest("-k", "plain").ret == pytest.ExitCode.USAGE_ERROR
    project.makepyfile(test_it="def test_plain(): pass")
    assert project.runpytest().ret == 0


def test_the_ini_file_can_name_the_lab(project):
    (project.path / "labs").mkdir()
    (project.path / "lab.yaml").rename(project.path / "labs" / "small.yaml")
    (project.path / "labs" / "bzImage").touch()
    project.makeini("[pytest]\nlab = labs/small.yaml")
    assert len(collected(project)) == 8


def test_a_kernel_that_cannot_be_built_fails_its_tests_without_a_traceback(project):
    done = project.runpytest("-k", "test_one")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*is not a bzImage"])
    assert "Traceback" not in str(done.stdout)


def test_a_project_without_a_lab_imports_nothing_heavy():
    heavy = ("pydantic", "numpy", "yaml", "rich", "pexpect", "labctl.lab")
    code = f"""
import sys, pytest
import labctl.pytest_plugin
print([name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_worker_of_xdist_is_interrupted_when_its_main_process_dies(project):
    project.makepyfile(
        test_it="""
import ctypes, signal

def test_signal(lab):
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(number))  # PR_GET_PDEATHSIG
    assert number.value == signal.SIGINT
"""
    )
    done = project.runpytest_subprocess("-q", "-n1")
    done.assert_outcomes(passed=1)
    assert project.runpytest_subprocess("-q").ret == 1, "the user's own process"
