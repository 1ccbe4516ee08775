"""A tunable that a kernel cannot have is found before the kernel is built."""

import subprocess

import faketree
import pytest
import yaml

from labctl.errors import ConfigError
from labctl.experiments.plan import plan
from labctl.experiments.tunable_files import GuestChecks
from labctl.kernels import mentions
from labctl.kernels.build import Builder
from labctl.lab.load import load

DECLARES = faketree.changed("int line2;", "KSM_ATTR(scan_sleep);")


def matches(file, text):
    wanted = mentions.pattern(file)
    done = subprocess.run(["grep", "-qE", wanted], input=text.encode(), check=False)
    return done.returncode == 0


@pytest.mark.parametrize(
    "text",
    [
        'static ctl = { .procname = "scan_sleep" };',
        "KSM_ATTR(scan_sleep);",
        "#define ATTR(name) name##_sleep",
        "#define ATTR(name) name ## _sleep",
        "#define ATTR(name) scan_##name",
        'sprintf(text, "%s_sleep", "scan");',
        'sprintf(text, "scan_%s", "sleep");',
    ],
)
def test_a_source_that_may_name_the_file_passes(text):
    assert matches("/sys/kernel/mm/ksm/scan_sleep", text)


@pytest.mark.parametrize(
    "text", ["scan_sleeper", "rescan_sleep", "scan sleep", "a_sleep", "scan_a", "a##b", "%s"]
)
def test_a_source_that_cannot_name_the_file_does_not(text):
    assert not matches("/sys/kernel/mm/ksm/scan_sleep", text)


@pytest.mark.parametrize(
    "file", ["/tmp/scan_sleep", "/proc/self/scan_sleep", "/sys/kernel/mm/node0", "/sys/a/b.c"]
)
def test_of_other_files_nothing_is_said(file):
    assert mentions.pattern(file) is None


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Return the fake source as a package, a folder, and a commit."""
    package = faketree.pack(tmp_path, monkeypatch)
    folder = faketree.write(tmp_path / "folder")
    git = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "all"], check=True)
    return {"debian": package, "dir": f"dir:{folder}", "git": f"git:{folder}@HEAD"}


@pytest.fixture
def build(tmp_path, sources):
    """Return a function that builds stock and topic, with a tunable on some of them."""

    def run(kind, file, kernels=("stock", "topic"), series=None):
        source = sources[kind]
        content = {
            "version": 1,
            "guests": {"numa": {"nodes": 1, "cpus_per_node": 1, "memory_per_node": "512MiB"}},
            "kernels": {"stock": {"source": source}, "topic": {"source": source}},
            "tunables": {"sleep": {"file": file, "kernels": list(kernels)}},
            "workloads": {"free": {"command": "freebench", "metric": "elapsed"}},
            "experiments": {
                "one": {"workload": "free", "kernels": ["stock", "topic"], "set": {"sleep": 1}}
            },
        }
        path = tmp_path / "lab.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        lab = load(path)
        checks = GuestChecks.of(lab, [plan(lab, "one", 0)])
        more = {"kconfig": (faketree.fragment(tmp_path / "base.config"),)}
        stock, topic = (faketree.kernel(name, source, **more) for name in ("stock", "topic"))
        if series is not None:
            topic = topic.model_copy(update={"series": str(series)})
        return Builder(tmp_path / ".labctl", lambda _: None, checks).images([stock, topic])

    return run


def built(tmp_path):
    return list(tmp_path.glob(".labctl/images/*/image.json"))


@pytest.mark.parametrize("kind", ["debian", "dir", "git"])
def test_a_tunable_that_the_kernels_lack_stops_before_the_first_build(build, tmp_path, kind):
    with pytest.raises(ConfigError) as caught:
        build(kind, "/sys/kernel/mm/ksm/scan_sleep")
    (problem,) = caught.value.problems
    assert problem.key == "tunables.sleep.file"
    assert "scan_sleep" in (tmp_path / "lab.yaml").read_text().splitlines()[problem.line - 1]
    assert problem.what == (
        "kernel stock does not have /sys/kernel/mm/ksm/scan_sleep: "
        "its source does not contain scan_sleep"
    )
    assert not built(tmp_path)


@pytest.mark.parametrize("kind", ["debian", "dir", "git"])
def test_a_tunable_of_the_source_or_of_a_series_is_built(build, tmp_path, kind):
    images = build(kind, "/sys/kernel/mm/zap_pte_range")
    assert set(images) == {"stock", "topic"}
    series = faketree.series(tmp_path / "series", DECLARES)
    assert build(kind, "/sys/kernel/mm/ksm/scan_sleep", ["topic"], series)
    assert len(built(tmp_path)) == 2


def test_a_tunable_that_only_the_second_kernel_lacks_also_stops_the_first(build, tmp_path):
    series = faketree.series(tmp_path / "series", faketree.changed())
    with pytest.raises(ConfigError, match="kernel topic does not have"):
        build("debian", "/sys/kernel/mm/ksm/scan_sleep", ["topic"], series)
    assert not built(tmp_path)


def test_a_kernel_that_is_built_is_not_checked(build, tmp_path):
    build("debian", "/sys/kernel/mm/zap_pte_range")
    assert build("debian", "/sys/kernel/mm/ksm/scan_sleep")


def test_kernels_of_one_source_are_searched_once(build, monkeypatch):
    searches = []
    search = mentions.in_folder
    monkeypatch.setattr(mentions, "in_folder", lambda *args: searches.append(args) or search(*args))
    build("debian", "/sys/kernel/mm/zap_pte_range")
    assert len(searches) == 1
