import contextlib
import errno
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from samples import sample

from labctl.errors import BadOutput, HostError, UserError
from labctl.runs import folder as run_folder
from labctl.runs.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_samples_come_back_as_they_were_written(store):
    written = [
        sample(block=0, value=0.1 + 0.2, measurements={"pages_per_node": [1, 2], "thp": "never"}),
        sample(block=1, status="panic", message='line one\nline "two" é \u2028'),
        sample(block=1, warmup=True, setting={"max_active": 4}, counters={"handovers": 12}),
    ]
    for each in written:
        store.append(each)

    assert Store(store.folder).samples() == written
    assert store.keys() == {each.key for each in written}


def test_the_name_of_the_host_is_stored_if_there_is_one(store):
    store.append(sample(block=0))
    store.append(sample(block=1, host="f00", host_name="big"))
    local, remote = store.path.read_text().splitlines()
    assert "host_name" not in local
    assert '"host":"f00","host_name":"big"' in remote
    assert [(s.host, s.host_name) for s in store.samples()][1] == ("f00", "big")


def test_a_store_without_a_file_is_empty(store):
    assert store.samples() == []
    assert store.keys() == set()


def test_a_line_is_on_the_disk_before_append_returns(store, monkeypatch):
    synced = []
    fsync = os.fsync

    def watched(descriptor):
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    store.append(sample())
    assert {str(store.path), str(store.folder)} <= set(synced)

    synced.clear()
    store.append(sample(block=1))
    assert str(store.path) in synced

    # A labctl may have been killed between the two.
    store.path.write_bytes(b"")
    synced.clear()
    Store(store.folder).append(sample(block=0))
    assert {str(store.path), str(store.folder)} <= set(synced)


@pytest.mark.parametrize("torn", [b'{"schema":1,"ru', b"\0\0\0\0\n", b"{", b"\xff\xfe"])
@pytest.mark.parametrize("is_same_store", [True, False])
def test_a_torn_last_line_is_dropped_and_cut_off(store, torn, is_same_store):
    store.append(sample(block=0))
    with store.path.open("ab") as file:
        file.write(torn)

    assert [s.block for s in store.samples()] == [0]
    writer = store if is_same_store else Store(store.folder)
    writer.append(sample(block=1))
    assert [s.block for s in Store(store.folder).samples()] == [0, 1]
    assert torn.strip(b"\n") not in store.path.read_bytes().split(b"\n")


@pytest.mark.parametrize("which", [1, 2])
def test_a_flipped_newline_costs_no_sample(store, which):
    for block in range(3):
        store.append(sample(block=block))
    whole = store.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    at = sum(map(len, lines[: which + 1])) - 1  # the end of the last line, or of the one before
    for bit in range(8):
        changed = bytearray(whole)
        changed[at] ^= 1 << bit
        store.path.write_bytes(changed)
        with pytest.raises(UserError, match=rf"samples\.jsonl:{which + 1}: invalid sample"):
            store.samples()
        with contextlib.suppress(HostError):
            Store(store.folder).append(sample(block=3))
        assert store.path.read_bytes().startswith(changed)


def test_a_file_that_is_one_torn_line_is_begun_anew(store):
    store.path.write_bytes(b'{"schema":1')
    assert store.samples() == []
    store.append(sample())
    assert len(store.samples()) == 1


@pytest.mark.parametrize("long", [10, 70_000, 300_000])
@pytest.mark.parametrize("torn", [b"", b'{"run":', b"\0" * 100])
def test_a_new_store_reads_only_the_end_of_the_file(store, monkeypatch, long, torn):
    for block in range(20):
        store.append(sample(block=block, message="x" * (long if block > 17 else 100)))
    before = store.path.read_bytes()
    with store.path.open("ab") as file:
        file.write(torn)
    read, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda *of: read.append(of[1]) or pread(*of))
    Store(store.folder).append(sample(block=20))
    assert store.path.read_bytes().startswith(before)
    assert [one.block for one in Store(store.folder).samples()] == list(range(21))
    assert sum(read) < 2 * (64 << 10) + 10 * long


def test_every_cut_of_the_last_line_leaves_the_samples_before_it(store):
    store.append(sample(block=0))
    kept = store.path.stat().st_size
    store.append(sample(block=1))
    whole = store.path.read_bytes()
    for end in range(kept, len(whole)):
        store.path.write_bytes(whole[:end])
        assert [s.block for s in store.samples()] == [0]


def edit(line, **changes):
    return json.dumps(json.loads(line) | changes)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda line: line[:40], "invalid sample"),
        (lambda line: edit(line, status="great"), "great"),
        (lambda line: edit(line, schema=2), "schema: expected 1, got 2"),
        (lambda line: edit(line, colour="red"), "colour"),
        (lambda line: edit(line, value="1.0"), "'1.0'"),
        (lambda line: edit(line, value=None), "value is missing"),
        (lambda line: edit(line, value=-1.0), "above 0, got -1.0"),
        (lambda line: edit(line, value=0), "above 0, got 0"),
        (lambda line: line.replace('"value":1.0', '"value":NaN'), "NaN"),
        (lambda line: edit(line, block="1"), "block"),
        (lambda line: edit(line, counters={"handovers": "x"}), "counters"),
        (lambda line: line.replace('"value":1.0', '"value":-Infinity'), "-Infinity"),
        (lambda line: line.replace('"value":1.0', '"value":1e999'), "got inf"),
        (lambda line: "[]", "object"),
        (lambda line: '{"schema":1}', "run"),
    ],
)
def test_a_damaged_line_in_the_middle_is_named(store, damage, says):
    for block in range(3):
        store.append(sample(block=block))
    lines = store.path.read_text().splitlines()
    lines[1] = damage(lines[1])
    store.path.write_text("\n".join(lines) + "\n")

    with pytest.raises(UserError) as caught:
        store.samples()
    assert caught.value.where == f"{store.path}:2"
    assert says in caught.value.what


def test_a_flipped_bit_is_reported_with_its_line(store):
    for block in range(4):
        store.append(sample(block=block))
    whole = store.path.read_bytes()
    first, second, *_ = whole.splitlines(keepends=True)
    begin, end = len(first), len(first) + len(second)
    flips = [(at, at % 8) for at in range(begin, end)]
    flips += [(at, bit) for at in range(end - 25, end) for bit in range(8)]
    for at, bit in flips:
        changed = bytearray(whole)
        changed[at] ^= 1 << bit
        store.path.write_bytes(changed)
        # A flip may also make two lines of one.
        with pytest.raises(UserError, match=r"samples\.jsonl:[23]: invalid sample"):
            store.samples()


def test_a_changed_digit_is_a_checksum_mismatch(store):
    store.append(sample(block=0))
    store.append(sample(block=1))
    text = store.path.read_text()
    store.path.write_text(text.replace('"value":1.0', '"value":1.5', 1))
    with pytest.raises(UserError, match=r"samples\.jsonl:1: .*checksum mismatch"):
        store.samples()


def test_lines_without_a_checksum_are_read(store):
    each = [sample(block=block) for block in range(2)]
    store.path.write_text("".join(f"{one.to_json()}\n" for one in each))
    store.append(sample(block=2))
    assert [one.block for one in store.samples()] == [0, 1, 2]


def test_equal_values_are_kept_once(store):
    for block in range(3):
        store.append(sample(block=block, setting={"max_active": 4}))
    store.append(sample(block=3, setting={"max_active": 4}, counters={"handovers": 1}))
    first, second, _, last = store.samples()
    assert first.run is second.run
    assert first.setting is second.setting is last.setting
    assert (first.counters, last.counters) == ({}, {"handovers": 1})


def test_text_that_is_no_unicode_is_read_back(store):
    written = sample(status="panic", message="torn \ud83d in two")
    store.append(written)
    store.append(sample(block=1))
    assert store.samples()[0] == written


def test_the_same_sample_twice_is_an_error_naming_both_lines(store):
    store.append(sample(block=0))
    store.append(sample(block=1))
    store.append(sample(block=0, status="panic"))
    with pytest.raises(UserError, match="line 1") as caught:
        store.samples()
    assert caught.value.where.endswith(":3")


def test_warmups_and_repetitions_are_counted_apart(store):
    store.append(sample(warmup=True))
    store.append(sample(warmup=False))
    assert len(store.keys()) == 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_a_number_is_refused_and_leaves_no_trace(store, bad):
    store.append(sample(block=0))
    before = store.path.read_bytes()
    for changes in ({"value": bad}, {"measurements": {"deep": [{"x": bad}]}}):
        with pytest.raises(BadOutput, match="block 1"):
            store.append(sample(block=1, **changes))
    assert store.path.read_bytes() == before


def test_a_sample_has_a_status_of_the_closed_list_and_an_ok_one_a_value():
    with pytest.raises(ValueError, match="great"):
        sample(status="great")
    with pytest.raises(ValueError, match="value"):
        sample(value=None)


def test_equal_samples_are_equal_lines(store):
    one = sample(setting={"a": 1, "b": 2})
    other = sample(setting={"b": 2, "a": 1})
    assert one.to_json() == other.to_json()
    assert list(json.loads(one.to_json())) == sorted(json.loads(one.to_json()))


@pytest.mark.parametrize("fits", [0, 1, 200])
def test_a_full_disk_is_a_host_error_and_the_torn_line_is_cut_off(store, monkeypatch, fits):
    store.append(sample(block=0))
    before = store.path.read_bytes()
    write = os.write

    def full(descriptor, data):
        if not fits:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:fits])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(HostError, match="No space") as caught:
        store.append(sample(block=1))
    assert caught.value.exit_status == 3
    assert "--resume" in caught.value.hint
    assert store.path.read_bytes() == before

    monkeypatch.undo()
    store.append(sample(block=1))
    assert [s.block for s in store.samples()] == [0, 1]


def test_a_disk_that_cannot_sync_confirms_nothing(store, monkeypatch):
    store.append(sample(block=0))

    def broken(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(HostError):
        store.append(sample(block=1))
    assert [s.block for s in store.samples()] == [0]


def test_a_missing_folder_is_a_host_error(tmp_path):
    with pytest.raises(HostError):
        Store(tmp_path / "gone").append(sample())


def test_two_writers_do_not_mix_their_lines(tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from samples import sample\n"
        "from labctl.runs.store import Store\n"
        "for block in range(40):\n"
        "    Store(Path(sys.argv[2])).append(sample(cell=sys.argv[3], block=block))\n"
    )
    here = str(Path(__file__).parent)
    writers = [
        subprocess.Popen([sys.executable, "-c", program, here, str(tmp_path), name])
        for name in ("a", "b")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert len(Store(tmp_path).samples()) == 80


RECORD = {"schema": 1, "run": "x", "accel": "tcg", "seed": 3, "experiments": []}
NOON = datetime(2026, 11, 24, 1, 55, 1, tzinfo=UTC)


def began(folder, name):
    run = run_folder.RunFolder(folder / name)
    run.path.mkdir(parents=True)
    run.write(RECORD | {"run": name})
    return run


def test_a_run_is_named_by_its_time_and_found_again(tmp_path):
    folder = tmp_path / "a" / "runs"
    run = run_folder.create(folder, now=NOON)
    stamp, _, digits = run.id.rpartition("-")
    assert stamp == "20261124-015501"
    assert len(digits) == 4
    assert int(digits, 16) >= 0
    assert run_folder.list_runs(folder) == []  # it has not begun

    run.write(RECORD)
    assert run_folder.list_runs(folder) == [run]
    assert run.document() == RECORD
    assert run.read().run == RECORD["run"]
    run.store.append(sample())
    assert len(run.store.samples()) == 1


def test_two_runs_of_one_second_have_two_folders(tmp_path, monkeypatch):
    digits = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr(run_folder.secrets, "token_hex", lambda _: next(digits))
    assert run_folder.create(tmp_path, now=NOON).id.endswith("aaaa")
    assert run_folder.create(tmp_path, now=NOON).id.endswith("bbbb")


def test_runs_are_listed_newest_first(tmp_path):
    names = ["20261124-015501-3fa2", "20251124-015501-ffff", "20261124-015502-0000"]
    for name in names:
        began(tmp_path, name)
    assert [run.id for run in run_folder.list_runs(tmp_path)] == sorted(names, reverse=True)
    assert run_folder.resolve(tmp_path, "latest").id == "20261124-015502-0000"


def test_a_run_is_named_by_id_or_by_a_prefix_of_its_own(tmp_path):
    for name in ("20261124-015501-3fa2", "20261124-015502-0000", "2026"):
        began(tmp_path, name)
    assert run_folder.resolve(tmp_path, "20261124-015501").id == "20261124-015501-3fa2"
    assert run_folder.resolve(tmp_path, "2026").id == "2026"
    with pytest.raises(UserError) as caught:
        run_folder.resolve(tmp_path, "20261124")
    assert "20261124-015501-3fa2" in str(caught.value)
    assert "20261124-015502-0000" in str(caught.value)
    for unknown in ("1999", "", "../x"):
        with pytest.raises(UserError, match="not found") as caught:
            run_folder.resolve(tmp_path, unknown)
        assert "20261124-015501-3fa2" in str(caught.value)


def test_a_lab_without_runs_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no runs found"):
        run_folder.resolve(tmp_path / "runs", "latest")


def test_the_record_is_replaced_as_a_whole(tmp_path, monkeypatch):
    run = began(tmp_path, "r")
    old = run.read()

    def broken(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(HostError):
            run.write(RECORD | {"seed": 4})
    assert run.read() == old
    assert [path.name for path in run.path.iterdir()] == ["run.json"]
    with pytest.raises(ValueError, match="JSON"):
        run.write(RECORD | {"seed": float("nan")})
    assert run.read() == old


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 9}'])
def test_a_damaged_record_is_the_users_to_know(tmp_path, content):
    run = began(tmp_path, "r")
    (run.path / "run.json").write_text(content)
    with pytest.raises(UserError) as caught:
        run.read()
    assert "run.json" in caught.value.where


def test_a_kept_store_reads_what_was_added_by_itself_and_by_others(store):
    first, second, third = (sample(block=block) for block in range(3))
    store.append(first)
    assert store.samples() == [first]
    Store(store.folder).append(second)
    found = store.samples()
    found.clear()  # of the caller
    assert store.samples() == [first, second]
    with store.path.open("ab") as file:
        file.write(b'{"run":"torn')
    assert store.samples() == [first, second]
    assert f"{store.path}:3: last line is incomplete (12 bytes)" in store.torn
    store.append(third)
    assert store.samples() == [first, second, third]
    assert store.torn == ""


def test_a_kept_store_refuses_a_duplicate_of_a_line_read_before(store):
    store.append(sample())
    store.samples()
    store.append(sample(value=2.0))
    with pytest.raises(UserError, match="duplicate of the sample in line 1") as raised:
        store.samples()
    assert raised.value.where == f"{store.path}:2"


def test_a_kept_store_whose_file_was_replaced_by_a_shorter_one_is_read_anew(store):
    store.append(sample(block=0, message="long" * 100))
    assert len(store.samples()) == 1
    store.path.unlink()
    assert store.samples() == []
    Store(store.folder).append(sample(block=7))
    assert [one.block for one in store.samples()] == [7]


def test_a_block_is_stored_as_a_whole_after_a_crash(store, monkeypatch):
    store.append(sample(block=0))
    block = [sample(block=1, repetition=number) for number in range(4)]
    append = Store.append

    def killed(self, one):
        if one.repetition == 2:
            raise KeyboardInterrupt
        append(self, one)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            store.append_block(block)
    again = Store(store.folder)
    again.recover()
    assert again.samples() == [sample(block=0), *block]
    again.recover()
    assert again.samples() == [sample(block=0), *block]
    assert [path.name for path in store.folder.iterdir()] == ["samples.jsonl"]
