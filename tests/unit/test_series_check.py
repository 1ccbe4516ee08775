import faketree
import pytest

from labctl import progress
from labctl.kernels.build import Builder
from labctl.review.steps import CHECKS, check_steps, compile_steps
from labctl.series import reader

HEADER = "From: A <a@example.org>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\nSubject"
GOOD = faketree.changed().replace("Subject", HEADER)


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Return a function that checks a series given by its patches."""
    mine = faketree.write(tmp_path / "mine")
    script = mine / "scripts" / "checkpatch.pl"
    script.write_text("#!/bin/sh\nif grep -n BAD; then exit 1; fi\n")
    script.chmod(0o755)
    config = faketree.fragment(tmp_path / "config")
    kernel = faketree.kernel("patched", f"dir:{mine}", kconfig=(config,))
    builder = Builder(tmp_path / ".labctl", lambda _: None)

    def check(*patches):
        whole = reader.read(faketree.series(tmp_path / "series", *patches))
        with builder.workshop(kernel, tmp_path / "log") as make:
            steps = check_steps(make, whole, ("no-smp",))
        with builder.workshop(kernel, tmp_path / "log") as make:
            compile_steps(make, whole, steps, "no-smp")
        return steps

    return check


def failed(step):
    return [name for name, result in step.checks.items() if result]


def test_a_good_series_passes_all_that_needs_no_guest(check):
    second = faketree.changed("int line20;", "int more;").replace("Subject", HEADER)
    steps = check(GOOD, second)
    assert [(s.number, s.subject, failed(s)) for s in steps] == [
        (1, "a change", []), (2, "a change", [])]  # fmt: skip
    assert set(CHECKS) - steps[0].checks.keys() == {"builds", "boots"}
    assert steps[0].wanted == (*CHECKS[:-1], "no-smp", "boots")


def test_a_step_not_booted_has_not_passed(check):
    (step,) = check(GOOD)
    assert not step.passed
    assert step.result().checks["boots"] is None


def test_a_new_warning_belongs_to_the_step_that_brings_it(check):
    warns = faketree.changed("int line15;", "#warning careful").replace("Subject", HEADER)
    after = faketree.changed("int line20;", "int more;").replace("Subject", HEADER)
    first, second = check(warns, after)
    assert failed(first) == ["W=1", "no-smp"]
    assert "careful" in first.checks["W=1"][0]
    assert failed(second) == []


OLD = "#warning old\nint zap_pte_range;\nint unmap_page_range;\n"


def test_a_warning_of_the_base_is_not_new_when_its_file_is_compiled_again(
    check, tmp_path, monkeypatch
):
    """A step that does not touch the file does not compile it, and so shows no warning."""
    monkeypatch.setitem(faketree.FILES, "mm/memory.c", OLD)
    (tmp_path / "mine/mm/memory.c").write_text(OLD)
    later = faketree.changed("int unmap_page_range;", "int more;", "mm/memory.c")
    later = later.replace("Subject", HEADER)
    for _ in range(2):
        assert [failed(step) for step in check(GOOD, later)] == [[], []]


def test_the_same_check_again_finds_the_same(check):
    """Also after one that was broken off: then objects are up to date when it begins."""
    warns = faketree.changed("int line15;", "#warning careful").replace("Subject", HEADER)
    assert [failed(step) for _ in range(2) for step in check(warns)] == [["W=1", "no-smp"]] * 2


def test_a_file_that_the_configuration_leaves_out_is_not_compiled(check, tmp_path):
    """It need not compile there: make compiled it, and reported errors of nobody."""
    (tmp_path / "mine/mm/Makefile").write_text("obj-$(CONFIG_PLUMBING) += memory.o\n")
    error = faketree.changed("int unmap_page_range;", "#error no", "mm/memory.c")
    (step,) = check(error.replace("Subject", HEADER))
    assert failed(step) == []
    off = {"mm/memory.c": "CONFIG_PLUMBING is off"}
    assert step.result().left_out == {"W=1": off, "sparse": off, "no-smp": off}
    text = progress.series_steps("mine", [step, step])
    assert text.count("no-smp: mm/memory.c is not compiled, CONFIG_PLUMBING is off") == 1


def test_a_file_of_another_architecture_is_not_compiled(check):
    new = faketree.diff("arch/arm64/mm/new.c", None, "#error no\n").replace("Subject", HEADER)
    (step,) = check(new)
    assert failed(step) == []
    assert step.left_out["no-smp"] == {"arch/arm64/mm/new.c": "it is for arm64"}


def test_a_compile_error_is_reported_as_the_compiler_printed_it(check):
    (step,) = check(faketree.changed("int line15;", "#error broken").replace("Subject", HEADER))
    assert failed(step) == ["W=1", "no-smp"]
    for check_name in failed(step):
        assert any("broken" in line for line in step.checks[check_name])


def test_a_patch_that_does_not_apply_stops_the_steps_after_it(check):
    bad = faketree.diff("mm/memory.c", "int no;\n", "int yes;\n").replace("Subject", HEADER)
    first, second = check(GOOD, bad)
    assert failed(first) == []
    assert failed(second) == ["git am", "applies"]
    assert not {"W=1", "no-smp"} & second.checks.keys()


def test_checkpatch_names_the_patch_it_objects_to(check):
    (step,) = check(faketree.changed(new="int BAD;").replace("Subject", HEADER))
    assert failed(step) == ["checkpatch"]


def test_the_tree_is_stock_again_for_the_next_kernel(check, tmp_path):
    check(GOOD)
    (step,) = check(faketree.changed("int line15;", "int other;").replace("Subject", HEADER))
    assert failed(step) == []


def test_the_table_lists_failures_and_reasons(check):
    (step,) = check(faketree.changed(new="int BAD;").replace("Subject", HEADER))
    text = progress.series_steps("mine", [step])
    assert "FAILED" in text
    assert "| " in text
    assert "int BAD;" in text
