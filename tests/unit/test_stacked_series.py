"""A base with a series: its patches are below those of the kernel, in every command."""

import subprocess

import faketree
import pytest
import synthetic

from labctl.bisect.metric import Bisect, begin
from labctl.bisect.steps import patches_of
from labctl.errors import ConfigError, UserError
from labctl.experiments.variants import beside
from labctl.kernels.build import Builder
from labctl.lab.load import load
from labctl.lab.models import Kernel
from labctl.review.steps import check_steps, compile_steps
from labctl.series import reader
from labctl.verify import run as verify_run

LAB = """\
version: 1
guests: {{one: {{nodes: 1, memory_per_node: 64MiB}}}}
kernels:
  stock: {{source: "{source}", kconfig: [numa.config]}}
  low: {{base: stock, series: {low}}}
  middle: {{base: low, series: {middle}}}
  top: {{base: middle, series: {top}}}
  same: {{base: top, command_line: quiet}}
tunables:
  a: {{file: /a, kernels: [low, middle, top]}}
  b: {{file: /b, kernels: [top]}}
  c: {{file: /c}}
workloads: {{w: {{command: "true", metric: elapsed}}}}
experiments: {{e: {{workload: w, kernels: [stock, low, middle, top]}}}}
"""
NAME = "mm/mmu_gather.c"
STOCK = faketree.FILES[NAME]
LOW = STOCK.replace("int line2;", "int low;")
MIDDLE = LOW.replace("int line15;", "int middle;")
TOP = MIDDLE.replace("int middle;", "int top;")  # changes what the middle one brought
HEADER = "From: A <a@example.org>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\nSubject"


def step(old, new, subject="a change"):
    return faketree.diff(NAME, old, new, subject).replace("Subject", HEADER)


PATCHES = {"low": step(STOCK, LOW), "middle": step(LOW, MIDDLE), "top": step(MIDDLE, TOP)}


def commit(mine):
    """Make a repository of the source, with a branch for each kernel."""
    git = ["git", "-C", mine, "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q", "-b", "stock"], check=True)
    subprocess.run([*git, "add", "-Af"], check=True)
    subprocess.run([*git, "commit", "-qm", "stock"], check=True)
    for name, text in {"low": LOW, "middle": MIDDLE, "top": TOP}.items():
        subprocess.run([*git, "checkout", "-qb", name], check=True)
        (mine / NAME).write_text(text)
        subprocess.run([*git, "commit", "-qam", name], check=True)
    subprocess.run([*git, "checkout", "-q", "stock"], check=True)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Return a function that loads the lab with another source or other series."""
    mine = faketree.write(tmp_path / "mine")
    faketree.fragment(tmp_path / "numa.config")
    for name, text in PATCHES.items():
        faketree.series(tmp_path / name, text)
        mail = text.split("\n", 1)[1]
        (tmp_path / f"{name}.mbox").write_text(f"From x@y Thu Jan  1 00:00:00 1970\n{mail}")
    faketree.series(tmp_path / "both", step(STOCK, LOW), step(LOW, MIDDLE))

    def loaded(source="dir:mine", **series):
        places = {name: name for name in PATCHES} | series
        if "git:" in f"{source}{places}":
            commit(mine)
        if source.startswith("tar:"):
            subprocess.run(
                ["tar", "-cf", tmp_path / "mine.tar", "-C", tmp_path, "mine"], check=True
            )
        if source.startswith("debian:"):
            faketree.pack(tmp_path, monkeypatch)
        path = tmp_path / "lab.yaml"
        path.write_text(LAB.format(source=source, **places))
        return load(path)

    return loaded


@pytest.fixture
def builder(tmp_path):
    return Builder(tmp_path / ".labctl", lambda _: None)


def test_a_kernel_has_the_series_of_all_its_bases(lab, tmp_path):
    kernels = lab().kernels
    places = [str(tmp_path / name) for name in PATCHES]
    assert kernels["stock"].stack == ()
    assert (kernels["low"].below, kernels["low"].series) == ((), places[0])
    assert (kernels["top"].below, kernels["top"].series) == (tuple(places[:2]), places[2])
    assert kernels["same"].stack == kernels["top"].stack == tuple(places)


@pytest.mark.parametrize(
    ("source", "form"),
    [
        ("dir:mine", "mbox:{0}.mbox"),
        ("dir:mine", "git:{1}..{0}"),
        ("git:mine@stock", "git:{1}..{0}"),
        ("git:mine@stock", "{0}"),
        ("tar:mine.tar", "{0}"),
        ("debian:linux-fake", "git:mine@{1}..{0}"),
    ],
)
def test_the_source_is_patched_by_all_series_in_order(lab, builder, source, form):
    under = dict(zip(PATCHES, ("stock", *PATCHES), strict=False))
    kernels = lab(source, **{name: form.format(name, under[name]) for name in PATCHES}).kernels
    images = builder.images(kernels.values())
    texts = {name: image.bzimage.read_text("latin-1") for name, image in images.items()}
    words = ("low", "middle", "top")
    found = {name: [word for word in words if f"int {word};" in texts[name]] for name in texts}
    assert found == {
        "stock": [],
        "low": ["low"],
        "middle": ["low", "middle"],
        "top": ["low", "top"],
        "same": ["low", "top"],
    }
    assert [len(images[name].patch_hashes) for name in images] == [0, 1, 2, 3, 3]
    assert images["top"].patch_hashes[:2] == images["middle"].patch_hashes
    assert images["same"].hash == images["top"].hash


def test_an_image_has_the_address_of_one_series_with_the_same_patches(lab, builder, tmp_path):
    kernels = lab().kernels
    one = kernels["low"].model_copy(update={"name": "one", "series": str(tmp_path / "both")})
    images = builder.images([kernels["middle"], one])
    assert images["middle"].hash == images["one"].hash
    assert images["middle"].series_hash == images["one"].series_hash
    assert images["middle"].patch_hashes == images["one"].patch_hashes


def test_a_changed_patch_of_the_base_is_another_image(lab, builder, tmp_path):
    before = builder.image(lab().kernels["middle"])
    other = LOW.replace("int low;", "int lower;")
    faketree.series(tmp_path / "low", step(STOCK, other))
    faketree.series(tmp_path / "middle", step(other, other.replace("line15", "middle")))
    after = builder.image(lab().kernels["middle"])
    assert before.hash != after.hash
    assert "int lower;" in after.bzimage.read_text("latin-1")


def test_a_patch_that_does_not_apply_is_named_with_its_number_in_its_own_series(lab, builder):
    with pytest.raises(UserError, match=r"patch 1 of 1 .* does not apply") as caught:
        builder.images(lab(low="both").kernels.values())
    assert str(caught.value.where).endswith("middle/0001-change.patch")
    with pytest.raises(UserError, match=r"patch 1 of 2 .* does not apply"):
        builder.image(lab(middle="both").kernels["middle"])


def test_a_cycle_of_bases_with_series_is_reported_with_its_place(lab, tmp_path):
    path = tmp_path / "lab.yaml"
    lab()
    path.write_text(path.read_text().replace("low: {base: stock", "low: {base: top"))
    with pytest.raises(ConfigError) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.key) == (5, 15, "kernels.low.base")
    assert "cycle of bases: low -> top -> middle -> low" in problem.what
    assert problem.file == str(path)


def test_a_series_of_a_base_that_cannot_be_read_is_reported_once(lab):
    with pytest.raises(ConfigError) as caught:
        lab(low="nowhere")
    assert [problem.key for problem in caught.value.problems] == ["kernels.low.series"]


def test_a_built_image_has_no_series_at_any_level(lab, tmp_path):
    (tmp_path / "bzImage").write_bytes(b"")
    with pytest.raises(ConfigError) as caught:
        lab("image:bzImage")
    keys = {problem.key for problem in caught.value.problems}
    assert {f"kernels.{name}.series" for name in PATCHES} <= keys


def test_a_base_with_a_series_gives_its_architecture(lab, tmp_path):
    path = tmp_path / "lab.yaml"
    lab()
    text = path.read_text().replace("kconfig: [numa.config]", "kconfig: [numa.config], arch: arm64")
    path.write_text(text)
    assert {kernel.arch for kernel in load(path).kernels.values()} == {"arm64"}
    path.write_text(text.replace("{base: low, ", "{base: low, arch: x86_64, "))
    with pytest.raises(ConfigError, match=r"kernels\.middle\.arch.*conflicts with `base:`"):
        load(path)


# --- labctl series check ---


def checked(lab, builder, tmp_path, name):
    script = tmp_path / "mine/scripts/checkpatch.pl"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    kernel = lab.kernels[name]
    whole = reader.read_all(kernel.stack)
    with builder.workshop(kernel, tmp_path / "log") as make:
        steps = check_steps(make, whole, ("no-smp",))
    with builder.workshop(kernel, tmp_path / "log") as make:
        compile_steps(make, whole, steps, "no-smp")
    return steps


def failed(step):
    return [name for name, result in step.checks.items() if result]


def test_only_the_steps_of_the_kernels_own_series_are_checked_on_its_base(lab, builder, tmp_path):
    more = step(TOP, TOP.replace("int line28;", "int more;"), "more")
    faketree.series(tmp_path / "top", PATCHES["top"], more)
    steps = checked(lab(), builder, tmp_path, "top")
    assert [(one.number, one.subject, failed(one)) for one in steps] == [
        (1, "a change", []), (2, "more", [])]  # fmt: skip
    assert {"applies", "git am", "W=1", "sparse", "checkpatch", "no-smp"} == set(steps[0].checks)


def test_a_warning_of_the_base_is_not_one_of_the_first_step(lab, builder, tmp_path):
    warns = LOW.replace("int line20;", "#warning old")
    faketree.series(tmp_path / "low", step(STOCK, warns))
    faketree.series(tmp_path / "middle", step(warns, warns.replace("line15", "middle")))
    (only,) = checked(lab(), builder, tmp_path, "middle")
    assert failed(only) == []


def test_a_step_that_needs_no_base_but_does_not_apply_on_it_fails(lab, builder, tmp_path):
    (only,) = checked(lab(middle="low"), builder, tmp_path, "middle")
    assert failed(only) == ["git am", "applies"]


def test_a_base_that_does_not_apply_is_an_error_of_its_patch(lab, builder, tmp_path):
    with pytest.raises(UserError, match="does not apply") as caught:
        checked(lab(low="top"), builder, tmp_path, "middle")
    assert str(caught.value.where).endswith("top/0001-change.patch")


# --- bisect, verify ---


def test_a_bisection_goes_over_the_kernels_own_patches_on_its_base(lab, builder):
    own = lab()
    steps = patches_of(own, "top")
    assert steps.count == 1
    good, bad = steps.kernel(0), steps.kernel(1)
    images = builder.images([good, bad, own.kernels["middle"], own.kernels["top"]])
    assert images["top.step0"].hash == images["middle"].hash
    assert images["top.step1"].hash == images["top"].hash
    assert images["top.step1"].patch_hashes == images["top"].patch_hashes


def test_the_good_end_of_a_bisection_has_the_tunables_of_its_base(lab):
    own = lab()
    answer = begin(patches_of(own, "top"), good=0, bad=None, risk=0.05, what="e")
    seen = []

    def open_run(lab, plans, seed):
        seen.append(lab)
        raise UserError("seen enough")

    with pytest.raises(UserError, match="seen enough"):
        Bisect(lab=own, experiment="e", setting={}, answer=answer, open_run=open_run).run()
    having = {
        name: [kernel for kernel in ("top.step0", "top.step1") if one.applies_to(kernel)]
        for name, one in seen[0].tunables.items()
    }
    assert having == {"a": ["top.step0", "top.step1"], "b": ["top.step1"], "c": having["a"]}


def test_without_a_base_the_good_end_has_no_tunables_of_the_kernel():
    own = synthetic.lab()
    kernels = {name: Kernel(name=name, source="dir:/x") for name in ("good", "bad")}
    changed = beside(own, "e", "patched", kernels, without={"good": None})
    assert changed.tunables["max_active"].kernels == ("patched", "bad")


def test_verify_checks_a_kernel_after_its_base_down_to_one_without_a_series(lab):
    assert verify_run._with_bases(lab(), ["top", "low"]) == ["stock", "low", "middle", "top"]
    assert verify_run._with_bases(lab(), ["low"]) == ["stock", "low"]
    assert verify_run._with_bases(lab(), ["stock"]) == ["stock"]
