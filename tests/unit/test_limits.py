"""What a kernel's configuration allows, before it is built and before it boots."""

from pathlib import Path

import pytest

from labctl.errors import UserError
from labctl.guests import limits
from labctl.guests.limits import Limits
from labctl.kernels import kconfig
from labctl.lab.topology import Topology

FINE = {
    "CONFIG_NUMA": "y",
    "CONFIG_ACPI_NUMA": "y",
    "CONFIG_NODES_SHIFT": "6",
    "CONFIG_SMP": "y",
    "CONFIG_NR_CPUS": "64",
    "CONFIG_SWAP": "y",
    "CONFIG_VIRTIO_PCI": "y",
}


@pytest.mark.parametrize(
    ("topology", "change", "instead"),
    [
        ({"nodes": 66}, {"CONFIG_NR_CPUS": "128"}, "CONFIG_NODES_SHIFT=7"),
        ({"nodes": 64, "cpus_per_node": 2}, {}, "CONFIG_NR_CPUS=128"),
        ({"nodes": 2}, {"CONFIG_NUMA": "n"}, "CONFIG_NUMA=y"),
        ({"nodes": 2}, {"CONFIG_ACPI_NUMA": "n"}, "CONFIG_ACPI_NUMA=y"),
        ({"nodes": 1, "cpus_per_node": 2}, {"CONFIG_SMP": "n"}, "CONFIG_SMP=y"),
        ({"nodes": 1, "latency": ["1ns"]}, {"CONFIG_ACPI_HMAT": "n"}, "CONFIG_ACPI_HMAT=y"),
        ({"nodes": 1, "swap": {"zram": "1GiB"}}, {"CONFIG_ZRAM": "n"}, "CONFIG_ZRAM=y"),
        ({"nodes": 1, "disks": ["1GiB"]}, {"CONFIG_VIRTIO_BLK": "n"}, "CONFIG_VIRTIO_BLK=y"),
    ],
)
def test_an_option_that_allows_too_little_is_named(topology, change, instead):
    asked, config = Topology(**topology), FINE | change
    off = {name: value for name, value in config.items() if value != "n"}
    for found in (
        limits.of_config(asked, off, "x86_64"),
        limits.of_options(asked, config, "x86_64"),
    ):
        assert [limit.instead for limit in found] == [instead]


def test_listed_nodes_count_too():
    asked = Topology(nodes=[{"cpus": 9, "memory": "64MiB"}, {"cpus": 0, "memory": "64MiB"}])
    found = limits.of_config(asked, FINE | {"CONFIG_NUMA": "n", "CONFIG_NR_CPUS": "8"}, "x86_64")
    assert [limit.instead for limit in found] == ["CONFIG_NUMA=y", "CONFIG_NR_CPUS=9"]


@pytest.mark.parametrize(
    "topology", [{"nodes": 64}, {"nodes": 1}, {"nodes": 2, "cpus_per_node": 32}]
)
def test_a_config_that_is_large_enough(topology):
    assert limits.of_config(Topology(**topology), FINE, "x86_64") == []


def test_one_cpu_needs_no_option():
    assert limits.of_config(Topology(nodes=1), {}, "x86_64") == []


def test_arm64_finds_its_nodes_in_the_device_tree():
    config = {"CONFIG_NUMA": "y", "CONFIG_SMP": "y", "CONFIG_NR_CPUS": "64"}
    assert limits.of_config(Topology(nodes=2), config, "arm64") == []


def test_fragments_leave_other_options_alone():
    assert limits.of_options(Topology(nodes=4), {"CONFIG_EXPERT": "y"}, "x86_64") == []


def test_a_fragment_is_named_with_its_line():
    text = "CONFIG_NUMA=y\n# CONFIG_SMP is not set\n"
    options = kconfig.parse(text, Path("mine.config"))
    asked = Limits({"stock": [Topology(nodes=1), Topology(nodes=2)]})
    with pytest.raises(UserError, match=r"^mine\.config:2: CONFIG_SMP is off"):
        asked.check_options("stock", options, "x86_64")
    asked.check_options("another", options, "x86_64")
