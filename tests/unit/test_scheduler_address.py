import json
import os
import threading
from pathlib import Path

import pytest

from labctl.errors import UserError
from labctl.scheduler import address
from labctl.scheduler.address import address_of


@pytest.mark.parametrize(
    "given",
    ["tcp://127.0.0.1:8786", "tcp://localhost:1", "tcp://[::1]:8786", "tls://big.example:8786"],
)
def test_an_address_with_tls_or_on_loopback_is_accepted(given, tmp_path):
    assert address_of(given, tmp_path) == given
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": given}))
    assert address_of("scheduler.json", tmp_path) == given
    assert address_of(str(file), Path("/")) == given


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "big.example", "0.0.0.0", "localhost.example", "[::2]"]
)
def test_another_host_needs_tls(host, tmp_path):
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": f"tcp://{host}:8786"}))
    for given in (f"tcp://{host}:8786", str(file)):
        with pytest.raises(UserError, match=r"scheduler tcp://.*:8786 has no TLS") as caught:
            address_of(given, tmp_path)
        assert "tls://HOST:PORT" in caught.value.hint


@pytest.mark.parametrize(
    "given",
    ["", "big:8786", "tcp://big", "tls://big:0", "tls://big:99999", "ucx://big:1", "tls://a b:1",
     "tls://user@big/x:1:2", "tcp://127.0.0.1@evil:1"],
)  # fmt: skip
def test_what_is_not_an_address_is_reported(given, tmp_path):
    with pytest.raises(UserError, match=r"invalid scheduler|has no TLS"):
        address_of(given, tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"address": 5}', '{"address": '])
def test_a_damaged_scheduler_file_is_reported(content, tmp_path):
    file = tmp_path / "s.json"
    file.write_text(content)
    os.utime(file, (0, 0))  # no scheduler is writing it
    with pytest.raises(UserError, match="not a scheduler file") as caught:
        address_of("s.json", tmp_path)
    assert caught.value.where == str(file)


@pytest.mark.parametrize("begun", ["", '{"address": "tcp://local'])
def test_a_scheduler_file_that_is_being_written_is_waited_for(begun, tmp_path):
    file = tmp_path / "s.json"
    file.write_text(begun)
    rest = threading.Timer(0.3, file.write_text, ['{"address": "tcp://localhost:1"}'])
    rest.start()
    assert address_of("s.json", tmp_path) == "tcp://localhost:1"
    rest.join()


def test_a_new_scheduler_file_that_stays_damaged_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(address, "_WRITTEN_SECONDS", 0.3)
    (tmp_path / "s.json").write_text("{")
    with pytest.raises(UserError, match="not a scheduler file"):
        address_of("s.json", tmp_path)


def test_a_missing_scheduler_file_is_reported(tmp_path):
    with pytest.raises(UserError, match="scheduler file not found"):
        address_of("s.json", tmp_path)
