"""Kernels and guests of another architecture than the host's."""

import itertools
import os
import shlex
import subprocess
from pathlib import Path

import faketree
import pytest

from labctl.arch import ARCHITECTURES, ARM64, X86_64
from labctl.doctor import building
from labctl.errors import ConfigError, HostError, UserError
from labctl.experiments import preview
from labctl.guests import accelerator, busybox, initramfs, launchers, prepare
from labctl.guests.qemu import GuestSpec
from labctl.host import identity
from labctl.kernels import images, kconfig, toolchain
from labctl.kernels.build import Builder, Image
from labctl.kernels.configuration import Configuration
from labctl.kernels.kconfig import Option
from labctl.lab.load import load
from labctl.lab.models import Kernel
from labctl.lab.topology import Topology
from labctl.reports import kcidb, words
from labctl.stats import report_types
from labctl.targets.prepare import prepare_target
from labctl.transports.console import scan

CROSS = ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-ld")
CROSS_GCC = """\
[ "$1" = --version ] && exec echo cross 1.0
until [ "$1" = -o ]; do shift; done
printf cross >"$2"
"""
LAB = """\
kernels:
  stock: {source: dir:tree}
  mine: {base: stock, series: patches}
experiments: {one: {workload: free, kernels: [stock, mine]}}
workloads: {free: {command: freebench}}
"""


@pytest.fixture(autouse=True)
def on_x86(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A folder that is first on PATH; programs are put there by their names and scripts."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(name, script='echo "$(basename "$0") (fake) 1.0"'):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
        return folder / name

    return put


@pytest.fixture
def no_tools(tmp_path, monkeypatch):
    """Nothing of arm64 is installed, whatever this host has."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setattr("sys.executable", str(empty / "python"))
    names = ("env", "make", "flock", "gcc", "ld", "flex", "bison", "bc")
    folder = tmp_path / "some"
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(folder))


@pytest.fixture
def lab_of(tmp_path):
    faketree.write(tmp_path / "tree")
    faketree.series(tmp_path / "patches", faketree.changed())

    def read(text, more=LAB):
        path = tmp_path / "lab.yaml"
        path.write_text(f"{text}\n{more}")
        return load(path)

    return read


def mistakes(lab_of, *text):
    with pytest.raises(ConfigError) as caught:
        lab_of(*text)
    return [(one.key, one.what, one.hint) for one in caught.value.problems]


def values(command, option):
    return [b for a, b in itertools.pairwise(command) if a == option]


# --- lab.yaml ---


def test_a_lab_is_of_x86_64_unless_it_says_otherwise(lab_of):
    assert {k.arch for k in lab_of("").kernels.values()} == {"x86_64"}
    assert {k.arch for k in lab_of("defaults: {arch: arm64}").kernels.values()} == {"arm64"}


def test_a_kernel_has_an_architecture_of_its_own_and_hands_it_down(lab_of):
    lab = lab_of(
        "",
        "kernels:\n  a: {source: dir:tree, arch: arm64}\n  b: {base: a}\n  c: {source: dir:tree}\n",
    )
    assert {name: k.arch for name, k in lab.kernels.items()} == {
        "a": "arm64", "b": "arm64", "c": "x86_64",
    }  # fmt: skip


def test_an_architecture_beside_a_base_is_a_mistake(lab_of):
    text = LAB.replace("base: stock,", "base: stock, arch: arm64,")
    ((key, what, hint),) = mistakes(lab_of, "", text)
    assert key == "kernels.mine.arch"
    assert "conflicts with `base:`" in what
    assert "architecture of its base" in hint


def test_an_unknown_architecture_is_reported(lab_of):
    ((key, what, _),) = mistakes(lab_of, "defaults: {arch: riscv}")
    assert key == "defaults.arch"
    assert "x86_64" in what
    assert "arm64" in what


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [("launcher", "virtme-ng", "qemu"), ("transport", "ssh", "serial"), ("accel", "kvm", "auto")],
)
def test_features_missing_on_arm64_are_reported_before_a_build(lab_of, key, value, instead):
    lab_of(f"defaults: {{{key}: {value}}}")
    ((path, what, hint),) = mistakes(lab_of, f"defaults: {{arch: arm64, {key}: {value}}}")
    assert path == f"defaults.{key}"
    assert f"{value} is not supported on arm64" in what
    assert hint == f"{key}: {instead}"


def test_an_experiment_is_on_one_architecture(lab_of):
    text = LAB.replace("[stock, mine]", "[stock, arm]")
    text = text.replace("kernels:\n", "kernels:\n  arm: {source: dir:tree, arch: arm64}\n", 1)
    ((key, what, _),) = mistakes(lab_of, "", text)
    assert key == "experiments.one.kernels"
    assert "stock is x86_64, arm is arm64" in what


def test_guests_of_one_command_are_of_one_architecture(lab_of):
    lab = lab_of("", "kernels:\n  a: {source: dir:tree, arch: arm64}\n  b: {source: dir:tree}\n")
    assert prepare.arch_of(lab, ["a"]) is ARM64
    assert prepare.arch_of(lab, ["b"]) is X86_64
    with pytest.raises(UserError, match="a is arm64, b is x86_64"):
        prepare.prepare(lab, ["a", "b"], lambda _: None)


def test_a_target_takes_no_kernel_of_another_architecture(lab_of):
    more = "targets: {box: {kind: ssh, host: nowhere.invalid}}\n"
    lab = lab_of(f"defaults: {{arch: arm64}}\n{more}")
    with (
        pytest.raises(UserError, match="targets must be x86_64"),
        prepare_target(lab, lab.targets["box"], ["stock"], lambda _: None),
    ):
        pass


# --- kconfig ---


def test_an_arm64_kernel_takes_the_fragment_of_its_own_beside_another(tmp_path):
    both, own = tmp_path / "base.config", tmp_path / "base.arm64.config"
    only = tmp_path / "more.config"
    for path in (both, own, only):
        path.write_text("")
    assert kconfig.of_arch([both, only], ARM64) == [own, only]
    assert kconfig.of_arch([both, only], X86_64) == [both, only]
    assert kconfig.of_arch([own], ARM64) == [own]


def test_the_architectures_do_not_share_a_build_folder(tmp_path):
    options = [Option("CONFIG_NUMA", "y", tmp_path, 1)]
    assert kconfig.digest(options, X86_64) == kconfig.digest(options)
    assert kconfig.digest(options, ARM64) == f"{kconfig.digest(options)}-arm64"


def test_a_lost_option_is_looked_for_in_the_kernels_own_kconfig_files(tmp_path):
    source = faketree.write(tmp_path / "src")
    for arch in ("arm64", "x86"):
        path = source / "arch" / arch / "Kconfig"
        path.parent.mkdir(parents=True)
        path.write_text(f'config {arch.upper()}_ONE\n\tbool "words"\n')
    asked = kconfig.parse("CONFIG_ARM64_ONE=y\nCONFIG_X86_ONE=y\n", tmp_path / "asked")
    with pytest.raises(UserError) as caught:
        kconfig.check(asked, "", source, ARM64)
    arm, x86 = str(caught.value).splitlines()[1:3]
    assert "an enclosing block is off" in arm
    assert "no Kconfig file" in x86


def test_the_fragments_that_are_shipped_ask_both_architectures_for_the_same():
    """What base.config asks for beside hardware must not be missing on arm64."""
    folder = initramfs.source_folder() / "kconfig"
    x86, arm = (
        {(o.name, o.value) for o in kconfig.merge([folder / name])}
        for name in ("base.config", "base.arm64.config")
    )
    of_hardware = {
        "64BIT", "SMP",  # there is no other kind of arm64
        "ACPI", "ACPI_NUMA", "X86_64_ACPI_NUMA", "X86_LOCAL_APIC", "X86_X2APIC",
        "HYPERVISOR_GUEST", "PARAVIRT", "KVM_GUEST", "UNWINDER_ORC",
        "SERIAL_8250_CONSOLE", "SERIAL_8250_PNP",
        "CPU_MITIGATIONS",  # mitigations=off, on the command line
    }  # fmt: skip
    assert {name.removeprefix("CONFIG_") for name, _ in x86 - arm} == of_hardware


# --- images ---


def test_the_address_of_an_image_changes_only_with_the_builders_version():
    image = Image("stock", Path(), "", "s0", None, ("p1", "p2"), None, "", "gcc 12, ld 2.40")
    options = (Option("CONFIG_B", "y", Path("f"), 1), Option("CONFIG_A", "n", Path("f"), 2))
    assert images._BUILDER == 3
    assert images.address(image, Configuration(options)) == (
        "1a7e5b9a128f5939d02f1bc8f252fd184203fffa0975213a39992b2bcaf00b6e"
    )


def test_an_arm64_kernel_is_cross_compiled_and_has_an_address_of_its_own(tmp_path, tools):
    for name in CROSS:
        tools(name)
    tree = faketree.write(tmp_path / "mine")
    faketree.fragment(tmp_path / "base.config", "CONFIG_NUMA=y\n")
    faketree.fragment(tmp_path / "base.arm64.config", "CONFIG_NR_CPUS=64\n")
    builder = Builder(tmp_path / ".labctl", lambda _: None)
    x86 = faketree.kernel("x86", f"dir:{tree}", kconfig=(tmp_path / "base.config",))
    arm = x86.model_copy(update={"name": "arm", "arch": "arm64"})
    built = builder.images([x86, arm])
    image = built["arm"]
    assert image.bzimage.name == "Image"
    assert b"ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-\n" in image.bzimage.read_bytes()
    assert image.config.read_text().splitlines() == [
        "# CONFIG_NUMA is not set", "# CONFIG_NUMA_BALANCING is not set", "CONFIG_NR_CPUS=64",
        "# CONFIG_PLUMBING is not set", "# CONFIG_PROBES is not set",
        "# CONFIG_KALLSYMS is not set",
    ]  # fmt: skip
    assert (image.arch, built["x86"].arch) == ("arm64", "x86_64")
    assert image.hash != built["x86"].hash
    assert image.compiler == "aarch64-linux-gnu-gcc (fake) 1.0, aarch64-linux-gnu-ld (fake) 1.0"
    assert builder.image(arm) == image
    assert faketree.compiled(image) == faketree.compiled(built["x86"])


def test_a_record_without_an_architecture_is_of_x86_64(tmp_path):
    tree = faketree.write(tmp_path / "mine")
    kernel = faketree.kernel("k", f"dir:{tree}", kconfig=(faketree.fragment(tmp_path / "c"),))
    builder = Builder(tmp_path / ".labctl", lambda _: None)
    built = builder.image(kernel)
    record = built.bzimage.with_name("image.json")
    text = record.read_text()
    assert '"arch": "x86_64"' in text
    record.write_text(text.replace('"arch": "x86_64",\n', ""))
    assert builder.image(kernel) == built


def test_a_ready_image_must_be_of_the_kernels_architecture(tmp_path):
    path = tmp_path / "vmlinuz-6.1.0"
    path.write_bytes(b"\0" * 56 + b"ARMd" + b"\0" * 600 + b"Linux version 6.1.0-arm (us) #1")
    kernel = Kernel(name="k", source=f"image:{path}", arch="arm64")
    image = images.given(kernel)
    assert (image.release, image.arch) == ("6.1.0-arm", "arm64")
    with pytest.raises(
        UserError, match="expected an image for x86_64, got one for arm64"
    ) as caught:
        images.given(kernel.model_copy(update={"arch": "x86_64"}))
    assert "arch: arm64" in caught.value.hint
    path.write_bytes(b"compressed")
    with pytest.raises(UserError, match="is not an uncompressed arm64 Image"):
        images.given(kernel)


@pytest.mark.usefixtures("no_tools")
def test_a_missing_cross_compiler_is_reported_with_the_command_that_installs_it():
    for looked_for in (toolchain.check_tools, toolchain.compiler):
        with pytest.raises(HostError, match="aarch64-linux-gnu-gcc") as caught:
            looked_for(ARM64)
        assert "`make arm64`" in caught.value.hint
    toolchain.check_tools(X86_64)


@pytest.mark.usefixtures("no_tools")
def test_files_missing_for_guests_are_reported_before_a_build(lab_of, tools):
    lab = lab_of("defaults: {arch: arm64}")
    for gone, mended in (
        ("qemu-system-aarch64", 'echo "QEMU emulator version 7.2.0"'),
        ("busybox-arm64", None),
    ):
        with pytest.raises(HostError, match=f"{gone} is not installed") as caught:
            prepare.prepare(lab, ["stock"], lambda _: None)
        assert "`make arm64`" in caught.value.hint
        tools(gone, mended)
    assert not (lab.state / "trees").exists()


def test_on_a_host_of_its_own_kind_the_usual_tools_are_taken(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert ARM64.cross_compile == ""
    assert X86_64.cross_compile == "x86_64-linux-gnu-"


# --- guests ---


def spec(tmp_path, arch="arm64", config=None, accel="tcg", **more):
    path = Path("/k/Image")
    image = Image("stock", path, "", "", None, (), config, "6.1", "", ARCHITECTURES[arch].name)
    return GuestSpec("stock", image, Topology(), Path("initramfs"), accel, tmp_path, **more)


def test_an_arm64_guest_is_a_virt_machine_with_the_nodes_of_any_other(tmp_path):
    words = launchers.command(spec(tmp_path, command_line="quiet"))
    x86 = launchers.command(spec(tmp_path, "x86_64", command_line="quiet"))
    assert words[0] == "qemu-system-aarch64"
    assert values(words, "-machine") == ["virt,gic-version=3"]
    assert values(words, "-accel") == ["tcg,thread=multi"]
    assert values(words, "-cpu") == ["max"]
    for option in ("-smp", "-m", "-numa", "-object", "-initrd", "-mon", "-nic"):
        assert values(words, option) == values(x86, option)
    (line,) = values(words, "-append")
    assert line.startswith("console=ttyAMA0,115200 panic=-1 oops=panic ")
    assert line.endswith(" quiet")


@pytest.mark.parametrize(
    ("accel", "asked"), [("tcg", "tcg,thread=single"), ("kvm", "kvm")], ids=["tcg", "kvm"]
)
def test_cpus_that_run_by_turns_share_a_thread(tmp_path, accel, asked):
    words = launchers.command(spec(tmp_path, "x86_64", accel=accel, one_thread=True))
    assert values(words, "-accel") == [asked]


def test_the_line_of_an_arm64_guest_is_a_16550_on_its_pci_bus(tmp_path):
    words = launchers.command(spec(tmp_path))
    assert values(words, "-serial") == ["chardev:console"]
    assert values(words, "-device") == ["pci-serial,chardev=line"]
    assert values(words, "-chardev") == values(
        launchers.command(spec(tmp_path, "x86_64")), "-chardev"
    )


def test_a_guest_of_x86_64_is_unchanged(tmp_path):
    words = shlex.join(launchers.command(spec(tmp_path, "x86_64")))
    assert words.startswith("qemu-system-x86_64 -name labctl-stock ")
    assert " -machine pc -nic none -accel tcg,thread=multi -cpu max,-erms " in words
    line = "console=ttyS0,115200 panic=-1 oops=panic ignore_loglevel printk.time=1 no_timer_check"
    assert f"'{line}'" in words
    assert words.count("-serial") == 2


@pytest.mark.parametrize("own", ["", "quiet", "loglevel=1 quiet", "quiet -- for init"])
@pytest.mark.parametrize(
    ("arch", "launcher"), [("x86_64", "qemu"), ("arm64", "qemu"), ("x86_64", "virtme-ng")]
)
def test_the_console_has_all_that_the_kernel_says(tmp_path, arch, launcher, own):
    words = launchers.command(spec(tmp_path, arch, command_line=own, launcher=launcher))
    (line,) = values(words, "-append" if launcher == "qemu" else "--append")
    # `quiet` and `loglevel=` only set the level that `ignore_loglevel` makes void.
    assert {"ignore_loglevel", "printk.time=1"} <= set(line.partition(" -- ")[0].split())


def test_guests_of_another_architecture_run_under_tcg_and_nothing_is_probed(tmp_path):
    facts, cache = identity.describe(), tmp_path / "accelerator.json"
    more = {"host": facts, "cache": cache, "device": tmp_path / "none"}
    assert accelerator.choose("auto", arch=ARM64, **more) == "tcg"
    assert accelerator.expected("auto", host=facts, cache=cache, arch=ARM64) == ("tcg", "")
    assert not cache.exists()


def test_the_plan_shows_the_guests_of_the_architecture(lab_of):
    lab = lab_of("defaults: {arch: arm64}")
    for guest in preview.preview(lab, "one", 0).guests:
        assert guest.command.startswith("qemu-system-aarch64 ")
        assert "/Image'" in guest.command


def test_a_program_is_compiled_once_for_each_architecture(tmp_path, tools):
    tools(CROSS[0], CROSS_GCC)
    elf = b"\x7fELF" + b"\0" * 14 + (183).to_bytes(2, "little")
    path = tools("busybox-arm64")
    path.write_bytes(elf + b"\0[\0[[\0cat\0sh\0\0")
    source = tmp_path / "source"
    for program in ("init", "agent", "freebench", "integrity"):
        (source / program).mkdir(parents=True)
        (source / program / "main.c").write_text("int main(void) { return 0; }\n")
    x86 = initramfs.build(tmp_path / "lab", source=source)
    arm = initramfs.build(tmp_path / "lab", source=source, arch=ARM64)
    assert arm.hash != x86.hash
    assert (arm.programs / "freebench").read_text() == "cross"
    assert (x86.programs / "freebench").read_bytes().startswith(b"\x7fELF")
    assert b"bin/cat\0" in arm.path.read_bytes()
    assert initramfs.build(tmp_path / "lab", source=source, arch=ARM64) == arm


def test_the_applets_of_a_busybox_are_read_as_it_lists_them_itself():
    path = busybox.find(X86_64)
    listed = subprocess.run([path, "--list"], capture_output=True, check=True, text=True)
    assert busybox.applets_in(path.read_bytes()) == listed.stdout.split()


@pytest.mark.usefixtures("no_tools")
@pytest.mark.parametrize(
    ("machine", "more", "message"),
    [
        (62, b"", "not an arm64 executable"),
        (183, b"/lib/ld-linux-aarch64.so.1", "not statically linked"),
    ],
)
def test_a_busybox_that_would_not_run_in_the_guest_is_refused(tools, machine, more, message):
    elf = b"\x7fELF" + b"\0" * 14 + machine.to_bytes(2, "little") + more
    tools("busybox-arm64").write_bytes(elf)
    with pytest.raises(HostError, match=message) as caught:
        busybox.find(ARM64)
    assert "`make arm64`" in caught.value.hint


@pytest.mark.parametrize(
    "line",
    [
        "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000",
        "[    1.5] Internal error: Oops: 0000000096000044 [#1] SMP",
    ],
)
def test_an_oops_of_arm64_is_known(line):
    assert scan(line) == "oops"


# --- reports, doctor ---


def test_a_report_names_an_architecture_that_is_not_the_usual_one():
    assert words.release(report_types.Kernel(release="6.1.192")) == "6.1.192"
    assert words.release(report_types.Kernel(release="6.1.192", arch="x86_64")) == "6.1.192"
    assert words.release(report_types.Kernel(release="6.1.192", arch="arm64")) == "6.1.192 arm64"
    assert (
        kcidb._build("k", report_types.Kernel(image="1", arch="arm64"))["architecture"] == "arm64"
    )


def test_the_doctor_rates_tools_by_the_failed_step():
    good = building.arch("arm64", "7.2.0", ["", ""], ARM64.setup)
    assert (good.name, good.status) == ("arm64", "ok")
    bad = building.arch("arm64", "", ["busybox-arm64 is not installed", ""], ARM64.setup)
    assert (bad.status, bad.mend) == ("fail", "make arm64")
    assert bad.what == "busybox-arm64 is not installed"


@pytest.mark.parametrize(
    ("arch", "accel", "config", "message"),
    [
        ("x86_64", "tcg", "CONFIG_HZ_250=y\nCONFIG_HZ=250\n", ["lpj=20000000"]),
        ("x86_64", "tcg", "CONFIG_HZ=1000\n", ["lpj=5000000"]),
        ("x86_64", "tcg", "# of a kernel that reports nothing\n", []),
        ("x86_64", "kvm", "CONFIG_HZ=250\n", []),  # the hypervisor reports it
        ("arm64", "tcg", "CONFIG_HZ=250\n", []),  # the timer does
    ],
)
def test_a_translated_kernel_need_not_time_its_delay_loop(tmp_path, arch, accel, config, message):
    (tmp_path / "config").write_text(config)
    own = spec(tmp_path, arch, tmp_path / "config", accel, command_line="lpj=7")
    (line,) = values(launchers.command(own), "-append")
    # The user's own word is the last one, which the kernel takes.
    assert [word for word in line.split() if word.startswith("lpj=")] == [*message, "lpj=7"]
