import pytest

from labctl.kernels.kbuild import switched_off

SMP, ZSWAP, MMU = "CONFIG_SMP", "CONFIG_ZSWAP", "CONFIG_MMU"


@pytest.fixture
def off(tmp_path):
    """Return a function that says which option leaves mm/a.c out, by Makefiles and a .config."""

    def off(makefile, config=(), top="obj-y += mm/\n", name="mm/a.c"):
        for file, text in {"mm/Makefile": makefile, "Kbuild": top}.items():
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_text(text)
        return switched_off(tmp_path, dict.fromkeys(config, "y"), name)

    return off


@pytest.mark.parametrize(
    "makefile",
    [
        "obj-$(CONFIG_SMP) += a.o\n",
        "obj-${CONFIG_SMP}+=b.o a.o c.o # a.o\n",
        "ifdef CONFIG_X\n\tobj-$(CONFIG_SMP)\t+= a.o\nendif\n",
        "obj-$(CONFIG_SMP) := b.o \\\n\t\ta.o\n",
        "mmu-$(CONFIG_SMP) := a.o\n",
    ],
)
def test_an_option_that_is_off_leaves_a_file_out(off, makefile):
    assert off(makefile) == SMP
    assert off(makefile, [SMP]) is None
    assert off(makefile, [ZSWAP]) == SMP


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
    ],
)
def test_a_file_is_compiled_if_no_makefile_says_otherwise(off, makefile):
    assert off(makefile) is None


def test_one_option_of_several_is_enough(off):
    makefile = "obj-$(CONFIG_SMP) += a.o\nobj-$(CONFIG_ZSWAP) += a.o\n"
    assert off(makefile, [ZSWAP]) is None
    assert off(makefile) == SMP


def test_a_folder_can_be_left_out(off):
    assert off("obj-y += a.o\n", top="obj-$(CONFIG_MMU) += mm/\n") == MMU
    assert off("obj-y += a.o\n", [MMU], top="obj-$(CONFIG_MMU) += mm/\n") is None


def test_a_folder_without_a_makefile_leaves_nothing_out(off):
    assert off("", name="drivers/b/c.c") is None
