"""The text of `labctl plan`, which fits on one screen."""

import pytest
import yaml

from labctl.experiments.preview import preview
from labctl.guests import accelerator
from labctl.host import identity
from labctl.lab.load import load
from labctl.reports.plan import text

REASON = "/dev/kvm can be opened, but QEMU was killed by SIGABRT"


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """Return a function that returns the preview of an experiment."""

    def show(kernels=2, values=1, accel="auto", reason=""):
        monkeypatch.setattr(accelerator, "open_failure", lambda _=None: "")
        monkeypatch.setattr(accelerator, "kvm_failure", lambda _=None: reason)
        names = [f"kernel-number-{n}" for n in range(kernels)]
        content = {
            "version": 1,
            "defaults": {"accel": accel},
            "guests": {"numa": {"nodes": 2, "cpus_per_node": 1, "memory_per_node": "512MiB"}},
            "kernels": {name: {"source": f"dir:{tmp_path}"} for name in names},
            "workloads": {
                "free": {"command": "freebench", "parameters": {"size": 1}, "metric": "elapsed"}
            },
            "experiments": {
                "one": {
                    "workload": "free",
                    "kernels": names,
                    "matrix": {"size": [f"{n + 1}MiB" for n in range(values)]},
                }
            },
        }
        path = tmp_path / "lab.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return preview(load(path), "one", 0)

    return show


@pytest.mark.parametrize(("kernels", "values"), [(2, 1), (2, 60), (40, 1), (30, 9)])
def test_it_fits_on_one_screen(shown, kernels, values):
    lines = text(shown(kernels, values, reason=REASON)).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 96
    assert not any("qemu-system" in line for line in lines)


def test_what_is_left_out_is_counted(shown):
    lines = text(shown(2, 60)).splitlines()
    assert lines[-1].strip().startswith("... ")
    assert lines[-1].endswith("more lines in --json")


def test_the_commands_of_the_guests_are_printed_if_asked_for(shown):
    document = shown()
    lines = text(document, commands=True).splitlines()
    for guest in document.guests:
        assert f"  {guest.name}: {guest.command}" in lines


@pytest.mark.parametrize(
    ("accel", "reason", "accel_taken", "line"),
    [
        ("auto", "", "kvm", "accelerator: kvm"),
        ("auto", REASON, "tcg", f"accelerator: tcg (KVM does not work: {REASON})"),
        ("tcg", REASON, "tcg", "accelerator: tcg"),
        ("kvm", "", "kvm", "accelerator: kvm"),
    ],
)
def test_the_accelerator_is_the_one_that_a_run_takes(shown, accel, reason, accel_taken, line):
    document = shown(accel=accel, reason=reason)
    assert line in text(document).splitlines()
    assert document.accel == accel_taken
    assert all(f"-accel {accel_taken}" in guest.command for guest in document.guests)


def test_a_run_that_would_fail_for_lack_of_kvm_is_announced(shown):
    lines = " ".join(line.strip() for line in text(shown(accel="kvm", reason=REASON)).splitlines())
    assert f"accelerator: kvm (KVM does not work: {REASON}); `run` would fail" in lines


def test_the_probe_guest_boots_once_and_only_an_existing_state_folder_keeps_it(
    tmp_path, monkeypatch
):
    probed = []
    monkeypatch.setattr(accelerator, "open_failure", lambda _=None: "")
    monkeypatch.setattr(accelerator, "kvm_failure", lambda _=None: probed.append(1) or REASON)
    host, cache = identity.describe(), tmp_path / "state" / "accelerator.json"
    assert accelerator.expected("auto", host=host, cache=cache) == ("tcg", REASON)
    assert list(tmp_path.iterdir()) == []
    cache.parent.mkdir()
    for _ in range(3):
        assert accelerator.expected("auto", host=host, cache=cache) == ("tcg", REASON)
    assert len(probed) == 2
