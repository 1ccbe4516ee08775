"""`labctl pack` and `labctl import`: the layout of a pack, and results that are rejected."""

import ast
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import World

from labctl import parent_death
from labctl.cli.packed_start import fault
from labctl.errors import ConfigError, HostError, UserError
from labctl.experiments.description import Facts
from labctl.experiments.plan import plan
from labctl.experiments.record import document_of
from labctl.experiments.runner import Runner
from labctl.guests import initramfs
from labctl.guests.initramfs import Initramfs
from labctl.guests.prepare import Prepared
from labctl.host import identity
from labctl.host.facts import read_facts
from labctl.kernels.images import Image
from labctl.lab.load import load
from labctl.lab.use import Use
from labctl.packing import build, packages, place, records, zipped
from labctl.packing.bring import bring
from labctl.packing.measure import Pack
from labctl.packing.result import write
from labctl.reports.report import report_of
from labctl.runs import folder as run_folder
from labctl.workloads.supply import Supply

LAB = """\
version: 1
defaults: {accel: tcg, guest: small}
guests:
  small: {nodes: 1, memory_per_node: 64MiB}
kernels:
  stock: {source: debian:linux-source-6.1}
  patched: {base: stock}
workloads:
  free: {command: freebench, parameters: {op: free, size: 1MiB}, metric: elapsed}
experiments:
  e: {workload: free, kernels: [stock, patched]}
  other: {workload: free, kernels: [stock, patched], statistics: {minimum_effect: 5%}}
statistics: {blocks: {min: 2, max: 2}, repetitions: 1, warmup: 0, stop_at_half_width: none}
"""


def lab_in(folder, text=LAB):
    folder.mkdir()
    (folder / "lab.yaml").write_text(text)
    return load(folder / "lab.yaml", use=Use.READS)


def prepared_in(folder, lab):
    """What `prepare` would return for a lab, with files that are no kernel."""
    images = {}
    for name in lab.kernels:
        bzimage = folder / f"bzImage-{name}"
        bzimage.write_bytes(b"image of " + name.encode())
        digest = hashlib.sha256(name.encode()).hexdigest()
        series = None if name == "stock" else digest[::-1]
        images[name] = Image(
            name, bzimage, digest, digest, series, (), None, "6.1", "gcc",
            bzimage_sha256=hashlib.sha256(bzimage.read_bytes()).hexdigest(),
        )  # fmt: skip
    archive = folder / "initramfs.cpio"
    archive.write_bytes(b"archive")
    found = Initramfs(archive, hashlib.sha256(b"archive").hexdigest(), folder)
    host = identity.Host("h0", "a CPU", 2, 1 << 30, "6.1", "7.2", "boot")
    return Prepared(lab=lab, host=host, accel="tcg", images=images, initramfs=found)


def packed(lab, folder, output):
    """Pack experiment `e`, with no program and a single package."""
    prepared = prepared_in(folder, lab)
    (folder / "data").write_text("data")
    supplies = {"free": Supply(files={"/labctl/free/data": folder / "data"}, folder="/labctl/free")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_built", lambda *_: (prepared, supplies))
        patch.setattr(build, "_programs", lambda *_, **__: {})
        patch.setattr(packages, "NEEDED", ("tabulate",))
        options = {"with_qemu": False, "with_statistics": False, "building": None}
        return build.pack(lab, ["e"], output, say=lambda _: None, **options)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A pack in lab.pyz, also unpacked in `machine`, and a result that it wrote."""
    folder = tmp_path_factory.mktemp("packing")
    done = packed(lab_in(folder / "home"), folder, folder / "lab.pyz")
    with zipfile.ZipFile(done.path) as archive:
        archive.extractall(folder / "machine")
    pack = Pack.found(folder / "machine" / "site-packages")
    run = measured(pack, folder / "there")
    write(run, pack, folder / f"{run.id}{place.RESULT_SUFFIX}")
    return folder


@pytest.fixture
def home(shared, tmp_path):
    """The lab that made the pack."""
    lab = lab_in(tmp_path / "home")
    shutil.copytree(shared / "home" / ".labctl", lab.state)
    return lab


@pytest.fixture
def machine(shared):
    """The unpacked pack on the machine that measures."""
    return Pack.found(shared / "machine" / "site-packages")


@pytest.fixture
def changing(shared, tmp_path):
    """The unpacked pack, for a test that changes it; its labctl and packages are missing."""
    site = tmp_path / "machine"
    shutil.copytree(shared / "machine" / "site-packages" / place.FOLDER, site / place.FOLDER)
    return Pack.found(site)


def measured(pack, state):
    """Measure a pack's experiment `e` in synthetic guests; return the run."""
    lab, world = pack.lab(state), World()
    contents = pack._contents(state)
    found = Initramfs(pack.folder / place.INITRAMFS, contents.initramfs, pack.folder)
    host = identity.Host("h1", "another CPU", 72, 1 << 38, "6.1", "7.2", "boot")
    ready = Prepared(lab=lab, host=host, accel="tcg", images=contents.images, initramfs=found)
    plans = [plan(lab, "e", 7)]
    run = run_folder.create(lab.state_folder.runs)
    document = document_of(lab, run.id, plans, ready, 7, contents.supplies)
    run.write(document | {"finished": True})
    images = {name: (one.hash, one.series_hash) for name, one in contents.images.items()}
    Runner(
        lab=lab,
        plan=plans[0],
        store=run.store,
        boot=world.boot,
        facts=Facts(run=run.id, host="h1", accel="tcg", images=images),
        clock=world.clock,
        load=world.load,
    ).run()
    (run.path / "guests" / "e-000-stock").mkdir(parents=True)
    (run.path / "guests" / "e-000-stock" / "console.log").write_text("console\n")
    return run


@pytest.fixture
def result(shared, tmp_path):
    (path,) = shared.glob(f"*{place.RESULT_SUFFIX}")
    return Path(shutil.copy(path, tmp_path))


def nothing_stored(lab):
    assert not list(lab.state_folder.runs.glob("*"))
    assert all(path.suffix == ".json" for path in lab.state_folder.packs.iterdir())


def refused(lab, path):
    with pytest.raises(UserError) as caught:
        bring(lab, path)
    nothing_stored(lab)
    assert caught.value.hint
    return f"{caught.value.where}: {caught.value.what}"


def members(path):
    with tarfile.open(path) as archive:
        return {one.name: archive.extractfile(one).read() for one in archive}


def rewritten(path, inside, *, manifest=None, extra=()):
    """Write a result again with other files; the manifest has their checksums."""
    if manifest is None:
        manifest = json.loads(inside[place.MANIFEST])
        manifest["files"] = {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in inside.items()
            if name != place.MANIFEST
        }
    rest = {name: one for name, one in inside.items() if name != place.MANIFEST}
    inside = {place.MANIFEST: json.dumps(manifest).encode(), **rest}
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", place.GZIP_LEVEL, fileobj=raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for name, content in inside.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info)
    return path


def test_a_pack_is_one_executable_with_the_lab_beside_labctl(shared, home):
    path = shared / "lab.pyz"
    assert os.access(path, os.X_OK)
    assert path.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        environment = json.loads(archive.read("environment.json"))
        start = archive.read("labctl_start.py").decode()
        record = archive.read(f"site-packages/{place.FOLDER}/{place.RECORD}")
    ast.parse(start, feature_version=(3, 4))  # an old Python prints an error, no traceback
    assert {"__main__.py", "labctl_start.py", "labctl_checks.py", "_bootstrap/__init__.py"} <= names
    inside = {name.removeprefix("site-packages/") for name in names}
    image = f"{place.FOLDER}/images/{hashlib.sha256(b'stock').hexdigest()[:32]}/bzImage-stock"
    lab = {f"{place.FOLDER}/{name}" for name in (place.LAB, place.CONTENTS, place.INITRAMFS)}
    assert {"labctl/cli/packed.py", "tabulate/__init__.py", image, *lab} <= inside
    assert not [name for name in inside if name.startswith(("numpy", "scipy", "labctl/_guest"))]
    assert environment["root"] == place.UNPACKED
    (kept,) = home.state_folder.packs.iterdir()
    assert kept.read_bytes() == record
    assert kept.name == records.file_name(records.id_of(record))
    assert list(shared.glob("*.tmp")) == []


def test_a_file_that_is_no_pack_is_not_overwritten(shared, tmp_path):
    zipped.check(tmp_path / "new.pyz")
    zipped.check(shared / "lab.pyz")
    (tmp_path / "lab.yaml").write_text(LAB)
    with pytest.raises(UserError, match="file exists and is not a packed lab"):
        zipped.check(tmp_path / "lab.yaml")
    with pytest.raises(UserError, match="no such folder"):
        zipped.check(tmp_path / "missing" / "lab.pyz")


def test_the_record_has_the_checksum_of_every_other_file(machine):
    files = {
        str(path.relative_to(machine.site))
        for path in machine.site.rglob("*")
        if path.is_file() and path.name != place.RECORD
    }
    assert files == machine.record.files.keys()
    assert not list(machine.damaged())


def test_a_changed_file_of_the_pack_is_found(changing):
    changed = changing.folder / place.INITRAMFS
    changed.write_bytes(b"other")
    assert changed in changing.damaged()
    assert changing.folder / place.LAB not in changing.damaged()


def test_a_packed_lab_is_the_lab_at_other_paths(shared, machine, tmp_path):
    lab, home = machine.lab(tmp_path / "there"), load(shared / "home" / "lab.yaml", use=Use.READS)
    own = {"path": home.path, "root": home.root, "state": home.state}
    assert lab.model_copy(update=own) == home
    assert lab.path.read_text() == LAB
    assert lab.marks == home.marks  # an error names the line
    contents = machine._contents(tmp_path / "there")
    assert all(file.holds() for image in contents.images.values() for file in image.files())
    assert contents.supplies["free"].folder == "/labctl/free"
    assert contents.supplies["free"].has("./data")


def test_a_damaged_lab_is_not_loaded(changing, tmp_path):
    (changing.folder / place.CONTENTS).write_bytes(b"other")
    with pytest.raises(HostError, match="file changed"):
        changing.lab(tmp_path / "there")


def test_guests_that_do_not_fit_are_an_error_with_its_line(machine, tmp_path, monkeypatch):
    lab = machine.lab(tmp_path / "there")
    facts = replace(read_facts(), memory_bytes=1 << 20)
    monkeypatch.setattr("labctl.packing.measure.read_facts", lambda: facts)
    with pytest.raises(ConfigError, match=r"lab\.yaml:4:.*memory_per_node"):
        machine.ready(lab, [plan(lab, "e", 0)])


def test_numpy_is_packed_only_for_runs_that_need_it(tmp_path):
    assert packages.statistics_for(lab_in(tmp_path / "a"), ["e", "other"]) == {}
    text = LAB.replace("stop_at_half_width: none", "stop_at_half_width: 3%")
    found = packages.statistics_for(lab_in(tmp_path / "b", text), ["e"])
    assert found == {"e": "stop_at_half_width"}
    text = LAB.replace("repetitions: 1", "repetitions: auto")
    assert packages.statistics_for(lab_in(tmp_path / "c", text), ["e"]) == {
        "e": "repetitions: auto"
    }


def test_packages_come_with_what_they_need():
    found = packages.versions(["pydantic", "pyyaml"])
    assert {"pydantic", "pydantic-core", "pyyaml", "typing-extensions"} <= found.keys()
    assert not {"numpy", "scipy", "matplotlib", "cryptography"} & found.keys()
    names = [path for path, _ in packages.files_of("pydantic-core")]
    assert any(name.endswith(".so") for name in names)
    assert not [name for name in names if name.endswith(".pyc") or ".." in name]
    with pytest.raises(HostError, match="no-such-package is not installed"):
        packages.versions(["no-such-package"])


def test_what_is_needed_covers_every_import_of_a_run():
    blocked = "{'numpy', 'scipy', 'matplotlib', 'fabric', 'paramiko', 'cryptography', 'shiv'}"
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import labctl.cli.packed, labctl.doctor.host_tests, labctl.experiments.session
import labctl.packing.measure, labctl.packing.result, labctl.progress
print(*{{name.split(".")[0] for name, one in sys.modules.items()
         if "site-packages" in str(getattr(one, "__file__", ""))}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    have = {
        Path(path).parts[0].removesuffix(".py").partition(".")[0]
        for name in packages.versions(packages.NEEDED)
        for path, _ in packages.files_of(name)
    }
    assert {name for name in done.stdout.split() if not name.startswith("_")} <= have | {"labctl"}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (LAB.replace("{accel: tcg,", "{transport: ssh,"), "defaults.transport"),
        (LAB.replace("{accel: tcg,", "{launcher: virtme-ng,"), "defaults.launcher"),
        (
            LAB.replace("kernels: [stock, patched]}", "kernels: [stock, patched], target: t}", 1)
            + "targets: {t: {kind: ssh, host: example.org}}\n",
            "experiments.e.target",
        ),
    ],
)
def test_what_needs_more_than_qemu_cannot_be_packed(tmp_path, text, key):
    with pytest.raises(ConfigError) as caught:
        build.check(lab_in(tmp_path / "lab", text), ["e"])
    (problem,) = caught.value.problems
    assert problem.key == key
    assert problem.line > 1
    assert problem.hint


def test_a_result_comes_home_and_names_its_host(home, result):
    done = bring(home, result)
    assert done.statuses == {"ok": 6}
    assert done.folder.id == result.name.removesuffix(place.RESULT_SUFFIX)
    assert (done.folder.path / "guests/e-000-stock/console.log").read_text() == "console\n"
    document, text = report_of(home.state_folder.runs, "latest", "terminal")
    assert document.host.id == "h1"
    assert document.imported.pack == done.pack
    assert "another CPU, 72 cores" in text
    assert f"imported: measured there by pack {done.pack[:12]}" in text
    assert all(path.suffix == ".json" for path in home.state_folder.packs.iterdir())


def test_an_unfinished_run_comes_home_too(home, machine, tmp_path):
    run = measured(machine, tmp_path / "there")
    run.write(run.document() | {"finished": False})
    with run.store.path.open("ab") as file:
        file.write(b'{"torn')
    done = bring(home, write(run, machine, tmp_path / "result").path)
    assert not done.record.finished
    text = report_of(home.state_folder.runs, "latest", "terminal")[1]
    assert f"not finished: ./lab.pyz run --resume {run.id}" in text


def test_a_run_is_imported_once(home, result):
    bring(home, result)
    with pytest.raises(UserError, match="exists already"):
        bring(home, result)
    assert len(list(home.state_folder.runs.iterdir())) == 1


def test_every_flipped_byte_is_found(home, result):
    content = result.read_bytes()
    steps = {*range(0, len(content), max(1, len(content) // 60)), *range(12), len(content) - 1}
    for at in sorted(steps):
        damaged = bytearray(content)
        damaged[at] ^= 0x10
        result.write_bytes(damaged)
        refused(home, result)
    result.write_bytes(content)
    bring(home, result)


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.7, 0.99, 1])
def test_a_truncated_result_is_found(home, result, share):
    content = result.read_bytes()
    result.write_bytes(content[: min(int(len(content) * share), len(content) - 1)])
    assert "damaged" in refused(home, result)


def test_data_after_the_end_is_found(home, result):
    result.write_bytes(result.read_bytes() + b"more")
    refused(home, result)


@pytest.mark.parametrize(
    "name",
    ["run/../../escaped", "/etc/escaped", "escaped", "run", "run//x", "run/./x", "../run/x"],
)
def test_a_path_that_leaves_the_folder_is_refused(home, result, tmp_path, name):
    inside = members(result)
    rewritten(result, {**inside, name: b"x"})
    assert "path leaves the run's folder" in refused(home, result)
    assert not list(tmp_path.rglob("escaped"))


def test_an_entry_beside_the_manifest_is_refused(home, result, tmp_path):
    link = tarfile.TarInfo("run/link")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    rewritten(result, members(result), extra=[link])
    assert "unexpected entry in the archive: 'run/link'" in refused(home, result)


def test_a_link_in_place_of_a_file_is_refused(home, result, tmp_path):
    inside = members(result)
    manifest = json.loads(inside[place.MANIFEST])
    del inside["run/samples.jsonl"]
    link = tarfile.TarInfo("run/samples.jsonl")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    rewritten(result, inside, manifest=manifest, extra=[link])
    assert "unexpected entry" in refused(home, result)


def test_a_missing_or_changed_file_is_refused(home, result):
    inside = members(result)
    manifest = json.loads(inside[place.MANIFEST])
    fewer = {name: one for name, one in inside.items() if not name.endswith("console.log")}
    rewritten(result, fewer, manifest=manifest)
    assert "1 files are missing" in refused(home, result)
    changed = {**inside, "run/guests/e-000-stock/console.log": b"CONSOLE\n"}
    rewritten(result, changed, manifest=manifest)
    assert "checksum mismatch: run/guests/e-000-stock/console.log" in refused(home, result)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("lab", LAB + "# more\n", "lab.yaml"),
        ("initramfs", "0" * 64, "initramfs"),
        ("accel", "native", "accelerator"),
        ("run", "20200101-000000-0000", "run"),
        ("kernels", {"stock": {"image": "0" * 64, "series": None}}, "images"),
        ("experiments", None, "plan"),
    ],
)
def test_a_run_of_something_else_is_refused(home, result, key, value, what):
    inside = members(result)
    document = json.loads(inside["run/run.json"])
    if value is None:
        document["experiments"][0]["blocks_max"] = 3
    else:
        document[key] = value
    rewritten(result, {**inside, "run/run.json": json.dumps(document).encode()})
    assert f"{what} in run.json is not that of the pack" in refused(home, result)


@pytest.mark.parametrize(
    "changes", [{"image": "0" * 64}, {"host": "h2"}, {"accel": "kvm"}, {"cell": "x"}]
)
def test_a_sample_of_something_else_is_refused(home, result, changes):
    inside = members(result)
    lines = inside["run/samples.jsonl"].splitlines()
    sample = json.loads(lines[2]) | changes
    del sample["crc"]
    lines[2] = json.dumps(sample).encode()
    rewritten(result, {**inside, "run/samples.jsonl": b"\n".join(lines) + b"\n"})
    assert "sample 3 is not of this run and pack" in refused(home, result)


def test_a_run_without_a_record_is_refused(home, result):
    inside = members(result)
    del inside["run/run.json"]
    rewritten(result, inside)
    assert "invalid run: run.json not found" in refused(home, result)


def test_a_foreign_lab_refuses_the_result(result, tmp_path):
    other = lab_in(tmp_path / "other")
    other.state_folder.packs.mkdir(parents=True)
    assert "a pack that this lab did not make" in refused(other, result)


def test_a_changed_record_of_the_pack_is_found(home, result):
    (kept,) = home.state_folder.packs.iterdir()
    kept.write_bytes(kept.read_bytes() + b"\n")
    with pytest.raises(HostError, match="record of the pack changed"):
        bring(home, result)


@pytest.mark.parametrize("what", ["missing", "folder", "text", "gzip"])
def test_what_is_no_result_is_refused(home, machine, tmp_path, what):
    path = tmp_path / "file"
    if what == "folder":
        path.mkdir()
    elif what == "text":
        path.write_text("text")
    elif what == "gzip":
        rewritten(path, {"a": b"b"}, manifest={})
    assert str(path) in refused(home, path)


def test_a_full_disk_leaves_no_result(machine, tmp_path, monkeypatch):
    run = measured(machine, tmp_path / "there")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("labctl.files.sync", full)
    with pytest.raises(HostError, match="No space left on device"):
        write(run, machine, tmp_path / "result")
    assert not list(tmp_path.glob("result*"))


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (("CPython", "3.11", "x86_64", "glibc"), None),
        (("CPython", "3.9", "x86_64", "glibc"), "packed for CPython 3.11, but this is CPython 3.9"),
        (("PyPy", "3.11", "x86_64", "glibc"), "this is PyPy 3.11"),
        (("CPython", "3.11", "aarch64", "glibc"), "this host is aarch64"),
        (("CPython", "3.11", "x86_64", ""), "another C library"),
    ],
)
def test_a_host_that_cannot_run_the_pack_is_told_why(found, says):
    why = fault("3.11", "x86_64", found)
    assert why is None if says is None else says in why


def test_a_program_starts_only_for_its_parent(tmp_path, monkeypatch):
    program = initramfs.program(tmp_path, "start")
    monkeypatch.setattr(parent_death, "_packed", [])
    parent_death.use(program)
    argv = parent_death.command(["sh", "-c", "echo $PPID"])
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{os.getpid()}\n")
    done = subprocess.run([argv[0], "1", *argv[2:]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    missing = subprocess.run([*argv[:2], "no-such-program"], capture_output=True, check=False)
    assert missing.returncode == 127
