"""A packed lab on a machine with nothing but Python, and its result at home."""

import shutil

import pytest
from bare import Bare

pytestmark = pytest.mark.xdist_group("measuring")


@pytest.fixture
def bare(tmp_path):
    machine = Bare(tmp_path / "machine")
    why = machine.refusal()
    if why:
        pytest.skip(f"no empty root on this host: {why}")
    return machine


def test_a_packed_lab_measures_where_nothing_is_installed(labctl, bare):
    text = (labctl.folder / "lab.yaml").read_text()
    text = text.replace("kernels: [stock, parallel-free]\n    set", "kernels: [stock]\n    set")
    text = text.replace("{thp: never, batch_pages: 8Ki}", "{thp: never}")
    text = text.replace("repetitions: 2", "repetitions: 1\n      stop_at_half_width: none")
    (labctl.folder / "lab.yaml").write_text(text)
    packed = labctl.json("pack", "tiny", "--with-qemu", "--json")
    assert "numpy" not in packed["packages"]
    shutil.copy(packed["path"], bare.home)
    assert not any((bare.root / f"bin/{name}").exists() for name in ("sh", "setpriv", "env"))

    found = {one["name"]: one for one in bare.json("lab.pyz", "doctor", "--json")["diagnoses"]}
    assert [found[name]["status"] for name in ("pack", "qemu", "tcg")] == ["ok"] * 3
    run = bare.json("lab.pyz", "run", "tiny", "--json")
    assert (run["pack"], run["accel"], run["finished"]) == (packed["pack"], "tcg", True)
    assert run["samples"].keys() == {"ok"}

    result = bare.root / run["result"].lstrip("/")
    imported = labctl.json("import", result, "--json")
    assert (imported["run"], imported["samples"]) == (run["run"], run["samples"])
    report = labctl.json("report", run["run"], "--json", check=False)
    assert report["imported"]["pack"] == packed["pack"]
    assert report["kernels"]["stock"]["image"] == packed["kernels"]["stock"]
    assert "qemu_as_root" not in report["host"]  # an ordinary user measured
    again = labctl("import", result, check=False)
    assert again.returncode == 2
    assert "exists already" in again.stderr
