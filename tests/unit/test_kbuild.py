import pytest

from labctl.kernels.kbuild import left_out

SMP, ZSWAP, MMU = "CONFIG_SMP", "CONFIG_ZSWAP", "CONFIG_MMU"
NO_SMP, NO_MMU = f"{SMP} is off", f"{MMU} is off"


@pytest.fixture
def off(tmp_path):
    """Return a function that says why mm/a.c is left out, by Makefiles and a .config."""

    def off(makefile, config=(), top="obj-y += mm/\n", name="mm/a.c"):
        for file, text in {"mm/Makefile": makefile, "Kbuild": top}.items():
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_text(text)
        return left_out(tmp_path, dict.fromkeys(config, "y"), name)

    return off


@pytest.mark.parametrize(
    "makefile",
    [
        "obj-$(CONFIG_SMP) += a.o\n",
        "obj-${CONFIG_SMP}+=b.o a.o c.o # a.o\n",
        "ifndef CONFIG_X\n\tobj-$(CONFIG_SMP)\t+= a.o\nendif\n",
        "ifdef CONFIG_X\nendif\nobj-$(CONFIG_SMP) += a.o\n",
        "ifdef CONFIG_SMP\nobj-y += a.o\nendif\n",
        "ifdef CONFIG_SMP # why\n  obj-y += a.o\nendif # end\n",
        "ifndef CONFIG_SMP\nobj-y += b.o\nelse\nobj-y += a.o\nendif\n",
        "ifeq ($(CONFIG_SMP),y)\nobj-y += a.o\nendif\n",
        "ifeq ($(CONFIG_SMP), y)\nobj-y += a.o\nendif\n",
        'ifeq ("$(CONFIG_SMP)", "y")\nobj-y += a.o\nendif\n',
        'ifneq "$(CONFIG_SMP)" ""\nobj-y += a.o\nendif\n',
        "ifneq ($(CONFIG_SMP),)\nobj-y += a.o\nendif\n",
        "ifdef CONFIG_SMP\nifeq ($(call f,1),y)\nobj-y += a.o\nendif\nendif\n",
        "obj-$(CONFIG_SMP) := b.o \\\n\t\ta.o\n",
        "mmu-$(CONFIG_SMP) := a.o\n",
    ],
)
def test_an_option_that_is_off_leaves_a_file_out(off, makefile):
    assert off(makefile) == NO_SMP
    assert off(makefile, [SMP]) is None
    assert off(makefile, [ZSWAP]) == NO_SMP


@pytest.mark.parametrize(
    "makefile",
    [
        "",
        "obj-y += a.o\n",
        "obj-$(CONFIG_SMP) += aa.o a.o.o\n",
        "obj-$(CONFIG_SMP) += a.o\nobj-y += a.o\n",
        "# obj-$(CONFIG_SMP) += a.o\n",
        "obj-$(CONFIG_SMP)$(CONFIG_MMU) += a.o\n",
        "CFLAGS_a.o := -$(CONFIG_SMP)\n",
        "ifdef CONFIG_SMP\nendif\nobj-y += a.o\n",
        "ifndef CONFIG_SMP\nobj-y += a.o\nendif\n",
        "ifdef CONFIG_SMP\nobj-y += b.o\nelse\nobj-y += a.o\nendif\n",
        "ifeq ($(call test-lt, $(CONFIG_SMP), 1),y)\nobj-y += a.o\nelse\nobj-y += a.o\nendif\n",
        "ifdef SMP\nobj-y += a.o\nendif\n",
        "endif\nelse\nobj-y += a.o\n",
        "ifeq (a\nobj-y += a.o\nendif\n",
    ],
)
def test_a_file_is_compiled_if_no_makefile_says_otherwise(off, makefile):
    assert off(makefile) is None


def test_one_option_of_several_is_enough(off):
    makefile = "obj-$(CONFIG_SMP) += a.o\nobj-$(CONFIG_ZSWAP) += a.o\n"
    assert off(makefile, [ZSWAP]) is None
    assert off(makefile) == NO_SMP


def test_a_folder_can_be_left_out(off):
    assert off("obj-y += a.o\n", top="obj-$(CONFIG_MMU) += mm/\n") == NO_MMU
    assert off("obj-y += a.o\n", [MMU], top="obj-$(CONFIG_MMU) += mm/\n") is None


def test_a_folder_without_a_makefile_leaves_nothing_out(off):
    assert off("", name="drivers/b/c.c") is None


def test_only_the_first_branch_that_holds_is_read(off):
    makefile = (
        "ifeq ($(CONFIG_SMP),y)\nobj-y += b.o\n"
        "else ifdef CONFIG_MMU\nobj-y += a.o\n"
        "else\nobj-y += c.o\nendif\n"
    )
    assert off(makefile, [MMU]) is None
    assert off(makefile) == NO_MMU
    assert off(makefile, [SMP, MMU]) == f"{SMP} is on"
    assert off(makefile, [MMU], name="mm/c.c") == f"{MMU} is on"
    assert off(makefile, [SMP], name="mm/c.c") == f"{SMP} is on"
    assert off(makefile, name="mm/c.c") is None


def test_all_options_of_a_condition_are_named(off):
    makefile = "ifeq ($(CONFIG_SMP)$(CONFIG_MMU),yy)\nobj-y += a.o\nendif\n"
    assert off(makefile, [MMU]) == f"{SMP} is off, {MMU} is on"
    assert off(makefile, [MMU, SMP]) is None
