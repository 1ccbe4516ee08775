from pathlib import Path

import faketree
import pytest
from linear_time import assert_linear

from labctl.errors import UserError
from labctl.kernels import kconfig, kconfig_expression


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


def test_an_invalid_option_line_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"1.config:2: invalid kconfig line 'CONFIG_B y'"):
        options(tmp_path, "CONFIG_A=y\nCONFIG_B y\n")


def test_a_missing_fragment_is_reported(tmp_path):
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
        ("CONFIG_KALLSYMS=n", "CONFIG_KALLSYMS=n became y: another option selects it"),
        ("CONFIG_NUMMA=y", "no Kconfig file of this source defines it; did you mean CONFIG_NUMA?"),
        ("CONFIG_PLUMBING=y", "it cannot be set directly"),
        ('CONFIG_NAME="b"', 'CONFIG_NAME="b" became "a"'),
    ],
)
def test_options_missing_from_the_final_config_have_a_line_and_a_reason(tmp_path, text, message):
    with pytest.raises(UserError) as caught:
        check(tmp_path, f"# first\n{text}\n")
    assert message in str(caught.value)
    assert f"{tmp_path}/1.config:2: " in str(caught.value)


def test_all_options_missing_from_the_final_config_are_reported_at_once(tmp_path):
    with pytest.raises(
        UserError, match="2 requested kconfig options missing from the final"
    ) as caught:
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
    assert "an enclosing block is off" in x86


def test_a_config_is_read_by_the_same_rules():
    found = kconfig.parse("#\n# Automatic\n#\nCONFIG_A=y\n# CONFIG_B is not set\n", Path("c"))
    assert [(o.name, o.value) for o in found] == [("CONFIG_A", "y"), ("CONFIG_B", "n")]


# What is read of a fragment.


@pytest.mark.parametrize(
    "value",
    [
        "Y",
        "yes",
        "",
        "console=ttyS0",
        '"no end',
        '"a" b',
        "y#why",
        "yes # why",
        '"a\\"',
        "0x",
        "1.5",
    ],
)
def test_a_value_that_kconfig_would_misread_is_reported(tmp_path, value):
    with pytest.raises(UserError, match=r"invalid value .* of CONFIG_A") as caught:
        options(tmp_path, f"CONFIG_B=y\nCONFIG_A={value}\n")
    assert "1.config:2: " in str(caught.value)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("CONFIG_A=y # why", "y"),
        ("CONFIG_A=0x10\t#why", "0x10"),
        ('CONFIG_A="a # b" # "c"', '"a # b"'),
        ("# CONFIG_A is not set # why", "n"),
    ],
)
def test_a_comment_may_follow_an_option(tmp_path, line, value):
    (found,) = options(tmp_path, f"{line}\n")
    assert (found.name, found.value) == ("CONFIG_A", value)


@pytest.mark.parametrize("value", ["y", "m", "-1", "0x1F", "ff", '""', r'"a#b \" c"', '"a\x0cb"'])
def test_every_value_of_kconfig_is_one(tmp_path, value):
    (found,) = options(tmp_path, f"CONFIG_A={value}\n")
    assert found.value == value


def test_fragments_of_other_systems_are_read(tmp_path):
    path = tmp_path / "dos.config"
    lines = (b"\xef\xbb\xbfCONFIG_A=y", b"#CONFIG_B is not set", b"# caf\xe9", b'CONFIG_C="\xe9"')
    path.write_bytes(b"\r\n".join(lines) + b"\r\n")
    found = kconfig.merge([path])
    assert [(o.name, o.value) for o in found[:2]] == [("CONFIG_A", "y"), ("CONFIG_B", "n")]
    assert kconfig.render(found).encode("utf-8", "surrogateescape").endswith(b'CONFIG_C="\xe9"\n')
    assert kconfig.digest(found)


def test_overridden_lines_are_reported(tmp_path):
    found = options(
        tmp_path, "CONFIG_A=y\nCONFIG_B=y\nCONFIG_A=m\n", "CONFIG_B=y\n# CONFIG_A is not set\n"
    )
    assert kconfig.overridden(found) == (
        f"labctl: {tmp_path}/1.config:3: CONFIG_A=m is overridden"
        f" by {tmp_path}/2.config:2: CONFIG_A=n\n"
    )


# Choices, what Kconfig computes, and reasons.

RICH = """
config CC_VERSION_TEXT
\tstring
\tdefault "$(CC_VERSION_TEXT)"
\thelp
\t  Not a definition:

\t  config NOWHERE

config PAHOLE_VERSION
\tint
\tdefault $(shell,$(srctree)/scripts/pahole-version.sh $(PAHOLE))

config PAHOLE_HAS_BTF
\tdef_bool PAHOLE_VERSION >= 119

config MODULES
\tbool "Modules"

choice
\tprompt "Preemption"
\tdefault NONE
config NONE
\tbool "None"
config VOLUNTARY
\tbool "Voluntary"
config FULL
\tbool "Full"
\tdepends on !NO_PREEMPT
endchoice

config NO_PREEMPT
\tbool "No preemption"

config BTF
\tbool "BTF"
\tdepends on MODULES && PAHOLE_HAS_BTF

config NEVER
\tdef_bool n

config OFF
\tbool "Off"
\tdepends on NEVER

config COUNT
\tint "Count" if \\
\t\tMODULES
\trange 2 8

config START
\thex "Start"

config TEXT
\tstring "Text"

config DRIVER
\ttristate "Driver"

if MODULES
menu "Inner"
\tdepends on DRIVER || !TEXT
source "drivers/$(SRCARCH)/Kconfig"
endmenu
endif
"""


@pytest.fixture
def rich(tmp_path):
    source = tmp_path / "src"
    (source / "drivers/x86").mkdir(parents=True)
    (source / "Kconfig").write_text(RICH)
    (source / "drivers/x86/Kconfig").write_text('config LEAF\n\tbool "Leaf"\n')
    return source


def outcome(tmp_path, source, config, *texts):
    """Return the error about options missing from the final .config, or an empty text."""
    try:
        kconfig.check(options(tmp_path, *texts), config, source)
    except UserError as error:
        return str(error)
    return ""


def test_a_later_fragment_takes_a_choice(tmp_path, rich):
    config = "# CONFIG_NONE is not set\nCONFIG_VOLUNTARY=y\n# CONFIG_FULL is not set\n"
    both = "CONFIG_NONE=y\n", "CONFIG_VOLUNTARY=y\n"
    assert outcome(tmp_path, rich, config, *both) == ""
    result = outcome(tmp_path, rich, config, *reversed(both))
    assert "2.config:1: CONFIG_NONE=y became n: CONFIG_VOLUNTARY of the same choice is on" in result


def test_a_choice_that_needs_one_says_which(tmp_path, rich):
    result = outcome(tmp_path, rich, "CONFIG_NONE=y\n", "# CONFIG_NONE is not set\n")
    assert "set another one (CONFIG_VOLUNTARY, CONFIG_FULL)" in result


def test_a_choice_that_depends_on_something_says_on_what(tmp_path, rich):
    config = "CONFIG_NONE=y\nCONFIG_NO_PREEMPT=y\n"
    result = outcome(tmp_path, rich, config, "CONFIG_FULL=y\n")
    assert "it depends on !NO_PREEMPT (CONFIG_NO_PREEMPT is y)" in result


def test_the_member_that_was_asked_for_last_is_rendered_last(tmp_path):
    found = options(tmp_path, "CONFIG_NONE=y\n", "CONFIG_FULL=y\n", "CONFIG_NONE=y\n")
    assert kconfig.render(found) == "CONFIG_FULL=y\nCONFIG_NONE=y\n"


COMPUTED = 'CONFIG_CC_VERSION_TEXT="gcc-12"\nCONFIG_PAHOLE_VERSION=124\n'


def test_what_kconfig_computes_is_taken_as_it_comes(tmp_path, rich):
    config = 'CONFIG_CC_VERSION_TEXT="gcc-14"\nCONFIG_PAHOLE_VERSION=0\n'
    assert outcome(tmp_path, rich, config, COMPUTED) == ""
    has = f"{COMPUTED}CONFIG_PAHOLE_HAS_BTF=y\n"
    head = "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86 6.1 Configuration\n#\n"
    assert outcome(tmp_path, rich, config, head + has) == ""
    assert "3: CONFIG_PAHOLE_HAS_BTF=y became n: it cannot" in outcome(tmp_path, rich, config, has)


def test_options_disabled_by_the_hosts_tools_are_reported_with_the_tools(tmp_path, rich):
    config = "CONFIG_MODULES=y\nCONFIG_PAHOLE_VERSION=0\n"
    result = outcome(tmp_path, rich, config, "CONFIG_BTF=y\n")
    assert (
        "(CONFIG_PAHOLE_HAS_BTF is not set, because PAHOLE_VERSION >= 119 is false:"
        " CONFIG_PAHOLE_VERSION is 0)"
    ) in result


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ("16", "0x10"),
        ("0x1F", "0x1f"),
        ("1f", "0x1f"),
        ('"a\\b"', '"ab"'),
        ('""', None),
        ("n", None),
    ],
)
def test_another_spelling_of_the_same_value_holds(tmp_path, rich, wanted, got):
    config = "" if got is None else f"CONFIG_START={got}\n"
    assert outcome(tmp_path, rich, config, f"CONFIG_START={wanted}\n") == ""


@pytest.mark.parametrize(
    ("asked", "config", "reason"),
    [
        ("DRIVER=m", "CONFIG_DRIVER=y", "m needs CONFIG_MODULES=y"),
        ("MODULES=m", "CONFIG_MODULES=y", "expected a bool: y or n"),
        ("COUNT=0x4", "CONFIG_MODULES=y\nCONFIG_COUNT=2", "expected an int: a decimal number"),
        ("COUNT=016", "CONFIG_MODULES=y\nCONFIG_COUNT=2", "expected an int: a decimal number"),
        ("COUNT=9", "CONFIG_MODULES=y\nCONFIG_COUNT=8", "its range is 2 8"),
        ("COUNT=4", "CONFIG_COUNT=2", "it depends on MODULES (CONFIG_MODULES is not set)"),
        ("START=y", "CONFIG_START=0x0", "expected a hex"),
        ("TEXT=y", 'CONFIG_TEXT=""', "expected a string"),
        ("LEAF=y", "CONFIG_DRIVER=y", "(CONFIG_MODULES is not set)"),
        (
            "LEAF=y",
            "CONFIG_MODULES=y\nCONFIG_TEXT=y",
            "DRIVER is not set or CONFIG_TEXT is y",
        ),
        ("LEAF=y", "", "it depends on MODULES && (DRIVER || !TEXT) ("),
        ("OFF=y", "", "it depends on NEVER (CONFIG_NEVER is not set)"),
        ("NOWHERE=y", "", "no Kconfig file of this source defines it"),
    ],
)
def test_the_reason_is_the_true_one(tmp_path, rich, asked, config, reason):
    assert reason in outcome(tmp_path, rich, f"{config}\n", f"CONFIG_{asked}\n")


@pytest.mark.parametrize("name", ["x86_64_defconfig", "own.config"])
def test_a_defconfig_is_named_as_what_does_not_do(tmp_path, rich, name):
    (tmp_path / name).write_text("CONFIG_LEAF=y\n")
    with pytest.raises(UserError) as caught:
        kconfig.check(kconfig.merge([tmp_path / name]), "", rich)
    assert ("`make NAME_defconfig`" in str(caught.value)) == (name == "x86_64_defconfig")


def test_only_the_first_of_very_many_are_listed(tmp_path, rich):
    result = outcome(tmp_path, rich, "", "".join(f"CONFIG_X{n}=y\n" for n in range(300)))
    assert result.startswith("300 requested kconfig options missing from the final .config:")
    assert "and 260 more" in result


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("A", 2), ("M", 1), ("!A", 0), ("!M", 1), ("A && M", 1), ("NONE || M", 1),
        ("A && (NONE || !NONE)", 2), ("V >= 119", 2), ("V < 119", 0), ('T = "x"', 2),
        ("T != x", 0), ("$(cc-option,-f(x))", 2), ("A && $(success,a && b)", 2), ("A && (", 2),
        ("", 2),
    ],
)  # fmt: skip
def test_expressions_of_kconfig_are_evaluated(text, level):
    config = {"A": "y", "M": "m", "V": "124", "T": '"x"'}
    assert kconfig_expression.parse(text).level(config) == level


@pytest.mark.parametrize("blank", [" ", "\t", "\u2028"])
def test_blanks_in_an_expression_take_linear_time(blank):
    def work(count):
        for _ in range(3):
            kconfig_expression.parse(f"A {blank * count}@")

    assert_linear(work, 2_000, 16_000)
