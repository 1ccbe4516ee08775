"""Packages of a workload, with a fake apt and a fake dpkg-deb whose packages are tar archives."""

import subprocess

import pytest
import yaml

from labctl.arch import ARM64, X86_64
from labctl.errors import ConfigError, HostError
from labctl.experiments import early
from labctl.experiments.plan import plan
from labctl.lab.load import load
from labctl.workloads import packages
from labctl.workloads.closure import Fault

APT = """\
#!/bin/sh
echo "$*" >> {place}/calls
case "$*" in
*nothing*) echo "E: Unable to locate package nothing" >&2; exit 100 ;;
*" -s "*) echo "Inst bench (1:2.0-1 Debian:12 [amd64])"
          echo "Inst libc6 [2.36-9] (2.36-10 Debian:12 [amd64])"
          echo "Inst libused (1.0 Debian:12 [amd64]) []" ;;
*download*) [ -e {place}/online ] || {{ echo "E: Failed to fetch: no network" >&2; exit 100; }}
            for last in "$@"; do :; done; cp {place}/${{last%%=*}}.tar ./x.deb ;;
esac
"""


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Install the fakes; the folder of the archive has `online`, `calls` and the packages."""
    place = tmp_path / "archive"
    libraries = place / "libused" / "usr" / "lib" / "x86_64-linux-gnu"
    programs = place / "bench" / "usr" / "bin"
    for folder in (libraries, programs, place / "bin"):
        folder.mkdir(parents=True)
    (place / "used.c").write_text("int used(void) { return 0; }\n")
    (place / "main.c").write_text("int used(void); int main(void) { return used(); }\n")
    library = libraries / "libused.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, "used.c"], cwd=place, check=True)
    words = ["gcc", "-o", programs / "hackbench", "main.c", f"-L{libraries}", "-lused"]
    subprocess.run(words, cwd=place, check=True)
    (programs / "plot").write_text("#!/usr/bin/env no-such-language\n")
    (programs / "plot").chmod(0o755)
    for name in ("bench", "libused"):
        subprocess.run(["tar", "-cf", f"{name}.tar", "-C", name, "."], cwd=place, check=True)
    for name, text in (
        ("apt-get", APT.format(place=place)),
        ("dpkg-deb", '#!/bin/sh\ntar -xf "$2" -C "$3"\n'),
    ):
        (place / "bin" / name).write_text(text)
        (place / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}/bin", prepend=":")
    (place / "online").touch()
    return place


@pytest.fixture
def checked(tmp_path):
    def check(**workload):
        content = {
            "guests": {"numa": {"nodes": 2, "cpus_per_node": 1, "memory_per_node": "512MiB"}},
            "kernels": {"stock": {"source": "debian:linux-source-6.1"}},
            "workloads": {"one": workload},
            "experiments": {"one": {"workload": "one", "kernels": ["stock"]}},
        }
        path = tmp_path / "lab.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        lab = load(path)
        return early.check_commands(lab, [plan(lab, "one", 0)])["one"]

    return check


def test_programs_of_a_package_come_with_libraries_of_its_dependencies(archive, checked):
    supply = checked(command="hackbench -l 10", packages=["bench"], metric="wall_time")
    assert supply.files["/labctl/one/.bin/hackbench"].name == "hackbench"
    assert supply.files["/labctl/one/.lib/libused.so"].name == "libused.so"
    assert "/labctl/one/.bin/plot" in supply.files
    argv = supply.argv(["hackbench", "-l", "10"])
    assert "/labctl/one:/labctl/one/.bin" in argv
    assert argv[-3:] == ["/labctl/one/.bin/hackbench", "-l", "10"]


def test_a_package_is_downloaded_once_per_version(archive, checked):
    checked(command="hackbench", packages=["bench"])
    (archive / "online").unlink()
    checked(command="hackbench", packages=["bench"])
    calls = (archive / "calls").read_text().splitlines()
    assert [call.split()[-1] for call in calls if "download" in call] == [
        "bench=1:2.0-1",
        "libused=1.0",
    ]


def test_a_host_without_network_gets_an_error(archive, checked):
    (archive / "online").unlink()
    with pytest.raises(HostError, match=r"bench 1:2\.0-1 cannot be downloaded.*no network"):
        checked(command="hackbench", packages=["bench"])


def test_an_unknown_package_is_reported_with_its_line(archive, checked):
    with pytest.raises(ConfigError, match=r"workloads.one.packages: package nothing not found"):
        checked(command="hackbench", packages=["nothing"])


def test_a_script_that_is_the_command_needs_its_interpreter(archive, checked):
    with pytest.raises(ConfigError, match="interpreter no-such-language is not on this host"):
        checked(command="plot", packages=["bench"])


def test_packages_are_for_the_architecture_of_the_host(archive, tmp_path):
    with pytest.raises(Fault, match="but the guest is arm64"):
        packages.unpacked(["bench"], tmp_path, ARM64)
    assert "hackbench" in packages.unpacked(["bench"], tmp_path, X86_64).programs


def test_a_name_that_is_an_option_is_rejected(archive, checked):
    with pytest.raises(ConfigError, match=r"packages\[0\]"):
        checked(command="hackbench", packages=["-o"])
