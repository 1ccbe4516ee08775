from pathlib import Path

import faketree
import pytest

from labctl.errors import UserError
from labctl.kernels import kconfig


def options(tmp_path, *texts):
    paths = [faketree.fragment(tmp_path / f"{n}.config", text) for n, text in enumerate(texts, 1)]
    return kconfig.merge(paths)


def test_the_last_fragment_wins_and_says_where(tmp_path):
    found = options(tmp_path, "# why\nCONFIG_A=y\nCONFIG_B=m\n", "\n# CONFIG_A is not set\n")
    assert [(o.name, o.value, o.file.name, o.line) for o in found] == [
        ("CONFIG_A", "n", "2.config", 2),
        ("CONFIG_B", "m", "1.config", 3),
    ]


def test_options_are_given_to_kconfig_in_its_own_form(tmp_path):
    text = 'CONFIG_A=y\nCONFIG_B=n\nCONFIG_C="a b"\nCONFIG_D=0x10\n'
    rendered = kconfig.render(options(tmp_path, text))
    assert rendered == 'CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="a b"\nCONFIG_D=0x10\n'


def test_a_line_that_is_no_option_is_told(tmp_path):
    with pytest.raises(UserError, match=r"1.config:2: 'CONFIG_B y' is not a kconfig line"):
        options(tmp_path, "CONFIG_A=y\nCONFIG_B y\n")


def test_a_missing_fragment_is_told(tmp_path):
    with pytest.raises(UserError, match=r"none.config"):
        kconfig.merge([tmp_path / "none.config"])


CONFIG = '# CONFIG_NUMA_BALANCING is not set\nCONFIG_NUMA=y\nCONFIG_KALLSYMS=y\nCONFIG_NAME="a"\n'


def check(tmp_path, text):
    kconfig.check(options(tmp_path, text), CONFIG, faketree.write(tmp_path / "src"))


@pytest.mark.parametrize(
    "text",
    [
        "CONFIG_NUMA=y\n",
        "CONFIG_NUMA_BALANCING=n\n",
        "# CONFIG_NOWHERE is not set\n",
        'CONFIG_NAME="a"\n',
    ],
)
def test_what_holds_passes(tmp_path, text):
    check(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CONFIG_NUMA_BALANCING=y", "CONFIG_NUMA_BALANCING=y became n: it depends on NUMA"),
        ("CONFIG_NUMA=m", "CONFIG_NUMA=m became y"),
        ("CONFIG_KALLSYMS=n", "CONFIG_KALLSYMS=n became y: something selects it"),
        ("CONFIG_NUMMA=y", "no Kconfig file of this source has it; did you mean CONFIG_NUMA?"),
        ("CONFIG_PLUMBING=y", "it cannot be asked for"),
        ('CONFIG_NAME="b"', 'CONFIG_NAME="b" became "a"'),
    ],
)
def test_what_did_not_hold_is_told_with_its_line_and_a_reason(tmp_path, text, message):
    with pytest.raises(UserError) as caught:
        check(tmp_path, f"# first\n{text}\n")
    assert message in str(caught.value)
    assert f"{tmp_path}/1.config:2: " in str(caught.value)


def test_all_that_did_not_hold_is_told_at_once(tmp_path):
    with pytest.raises(UserError, match="2 requested kconfig options did not hold") as caught:
        check(tmp_path, "CONFIG_NOWHERE=y\nCONFIG_NUMA=y\nCONFIG_NR_CPUS=4\n")
    assert "CONFIG_NUMA=y" not in str(caught.value)


def test_options_of_other_architectures_are_not_known(tmp_path):
    source = faketree.write(tmp_path / "src")
    for name, option in (("arch/arm64/Kconfig", "ARM_ONE"), ("arch/x86/mm/Kconfig", "X86_ONE")):
        path = source / name
        path.parent.mkdir(parents=True)
        path.write_text(f'config {option}\n\tbool "words"\n')
    found = options(tmp_path, "CONFIG_ARM_ONE=y\nCONFIG_X86_ONE=y\n")
    with pytest.raises(UserError) as caught:
        kconfig.check(found, "", source)
    arm, x86 = str(caught.value).splitlines()[1:3]
    assert "no Kconfig file" in arm
    assert "what stands around it is off" in x86


def test_a_config_is_read_by_the_same_rules():
    found = kconfig.parse("#\n# Automatic\n#\nCONFIG_A=y\n# CONFIG_B is not set\n", Path("c"))
    assert [(o.name, o.value) for o in found] == [("CONFIG_A", "y"), ("CONFIG_B", "n")]
