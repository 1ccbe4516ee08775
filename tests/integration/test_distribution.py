"""A distribution's kernel as `image:`: boots with labctl's initramfs and its own modules."""

from pathlib import Path

import pytest
from program import Labctl

from labctl.guests import needs
from labctl.guests.modules import folder_of
from labctl.kernels import kconfig
from labctl.kernels.images import given
from labctl.lab.models import Kernel

LAB = """\
version: 1
defaults: {{transport: ssh, guest: two}}
guests:
  two: {{nodes: 2, cpus_per_node: 1, memory_per_node: 512MiB}}
kernels:
  distribution: {{source: "image:{image}"}}
"""


def usable(path):
    """Return the image at a path, None if its config or modules are missing."""
    image = given(Kernel(name="distribution", source=f"image:{path}"))
    return image if image.config is not None and folder_of(image) is not None else None


@pytest.fixture
def image():
    """The newest kernel of this host, as a package installs it."""
    found = [one for one in map(usable, sorted(Path("/boot").glob("vmlinuz-*"))) if one]
    if not found:
        pytest.skip("no distribution kernel with its modules in /boot")
    return found[-1]


@pytest.fixture
def labctl(tmp_path, image):
    (tmp_path / "lab.yaml").write_text(LAB.format(image=image.bzimage))
    program = Labctl(tmp_path)
    yield program
    program("down", check=False)
    program.end()


def test_it_boots_and_loads_its_modules_for_ssh(labctl, image):
    labctl("up", "distribution")
    assert labctl("exec", "distribution", "uname -r").stdout == f"{image.release}\n"
    loaded = labctl("exec", "distribution", "cat /proc/modules").stdout.splitlines()
    values = kconfig.read_values(image.config)
    needed = ("CONFIG_VIRTIO_PCI", "CONFIG_VIRTIO_NET")
    modules = {needs.MODULES[option] for option in needed if values[option] == "m"}
    assert modules <= {line.split()[0] for line in loaded}
    assert labctl("exec", "distribution", "cat /sys/devices/system/node/online").stdout == "0-1\n"
