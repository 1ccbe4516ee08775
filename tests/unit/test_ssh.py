"""Commands over SSH, through a real server on loopback and the shells of this host."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sshserver import Server, alive, new_key, public

from labctl.errors import (
    BadOutput,
    DeadlineExceeded,
    GuestError,
    GuestHung,
    GuestLost,
    GuestPanic,
    HostError,
    UserError,
)
from labctl.transports.shell import Reply, Request
from labctl.transports.ssh import SshAddress
from labctl.transports.ssh.transport import SshTransport

SECONDS = 60.0  # a deadline that no healthy test reaches


def fine() -> None:
    """A guest that lives."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("client", "host", "other"):
        new_key(folder / name)
    return folder


@pytest.fixture(params=[False, True], ids=["dropbear-like", "openssh-like"])
def server(request: pytest.FixtureRequest, keys: Path) -> Iterator[Server]:
    server = serve(keys)
    server.groups = request.param
    yield server
    server.close()


def serve(keys: Path) -> Server:
    import paramiko

    host, client = (
        paramiko.Ed25519Key.from_private_key_file(str(keys / name)) for name in ("host", "client")
    )
    return Server(host, client)


def address(server: Server, keys: Path, **other: Any) -> SshAddress:
    facts: dict[str, Any] = {
        "user": "root",
        "key": keys / "client",
        "host_key": public(server.host_key),
    }
    return SshAddress("127.0.0.1", server.port, **(facts | other))


def connect(server: Server, keys: Path, owner: object = "", **other: Any) -> SshTransport:
    facts: dict[str, Any] = {"alive": fine, "owner": f"{keys}{owner}"}
    return SshTransport(address(server, keys), **(facts | other))


@pytest.fixture
def transport(server: Server, keys: Path) -> Iterator[SshTransport]:
    transport = connect(server, keys)
    yield transport
    transport.close()


# --- a healthy machine ---------------------------------------------------------------------------


def test_both_outputs_and_the_status_come_back_exactly(transport: SshTransport) -> None:
    outcome = transport.run("printf out; printf err >&2; exit 3", SECONDS)
    assert (outcome.stdout, outcome.stderr, outcome.status) == (b"out", b"err", 3)
    assert 0 <= outcome.seconds < SECONDS
    assert outcome.command == "printf out; printf err >&2; exit 3"


def test_an_argument_vector_is_not_interpreted(transport: SshTransport) -> None:
    words = ["a b", "", "$HOME", "'\"\\", "ü", "*", "\udcff", "-n", "new\nline"]
    outcome = transport.run(["printf", "%s|", *words], SECONDS)
    assert outcome.stdout == b"".join(os.fsencode(word) + b"|" for word in words)


def test_a_word_of_the_shell_is_still_a_program(transport: SshTransport) -> None:
    assert transport.run(["false"], SECONDS).status == 1
    assert transport.run(["exit", "3"], SECONDS).status == 127


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_is_128_plus_its_number_without_a_message(
    transport: SshTransport, number: int
) -> None:
    outcome = transport.run(["sh", "-c", f"kill -{int(number)} $$"], SECONDS)
    assert (outcome.status, outcome.stderr) == (128 + number, b"")


def test_a_missing_program_is_127_and_named(transport: SshTransport) -> None:
    outcome = transport.run(["no-such-program"], SECONDS)
    assert outcome.status == 127
    assert b"no-such-program" in outcome.stderr


def test_every_byte_passes_both_ways(transport: SshTransport) -> None:
    data = bytes(range(256)) * 40 + os.urandom(1 << 20)
    assert transport.run(["cat"], SECONDS, data).stdout == data
    assert transport.run("cat >&2", SECONDS, data).stderr == data


def test_input_that_nobody_reads_is_no_obstacle(transport: SshTransport) -> None:
    assert transport.run("exec <&-; echo done", SECONDS, b"x" * (4 << 20)).stdout == b"done\n"


def test_input_ends(transport: SshTransport) -> None:
    assert transport.run(["wc", "-c"], SECONDS).text.strip() == "0"


def test_a_long_command_arrives_and_so_does_its_input(transport: SshTransport) -> None:
    words = ["printf", "%s|", *("it's\n" * 20 for _ in range(1000))]
    outcome = transport.run(words, SECONDS)
    assert outcome.text == "".join(f"{word}|" for word in words[2:])
    script = "cat; : " + "x" * 50_000
    assert transport.run(script, SECONDS, b"input\n").stdout == b"input\n"


def test_what_a_command_left_in_its_group_is_killed(transport: SshTransport) -> None:
    began = time.monotonic()
    outcome = transport.run("sleep 1000 & echo $!", SECONDS)
    assert time.monotonic() - began < SECONDS / 2
    assert outcome.status == 0
    wait_until(lambda: not alive(int(outcome.text)))


def test_files_go_in_and_out(transport: SshTransport, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    (tmp_path / "local").write_bytes(content)
    (tmp_path / "local").chmod(0o755)
    remote = tmp_path / "a 'remote' $file"
    transport.put(tmp_path / "local", str(remote))
    assert remote.read_bytes() == content
    assert os.access(remote, os.X_OK)
    assert transport.get(str(remote)) == content


def test_a_file_that_is_not_there(transport: SshTransport, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        transport.put(tmp_path / "none", "/tmp/none")
    with pytest.raises(GuestError, match="cannot read /nowhere"):
        transport.get("/nowhere")
    with pytest.raises(GuestError, match="cannot write /nowhere/file"):
        transport.put(Path(__file__), "/nowhere/file")


def test_many_commands_in_a_row(transport: SshTransport) -> None:
    output = [transport.run(["echo", str(n)], SECONDS).text for n in range(30)]
    assert output == [f"{n}\n" for n in range(30)]


@pytest.mark.parametrize("argv", [[], [""], ["a\0b"], ["x" * (1 << 20)]])
def test_a_command_that_cannot_be_sent(transport: SshTransport, argv: list[str]) -> None:
    with pytest.raises(UserError):
        transport.run(argv, SECONDS)


# --- trouble -------------------------------------------------------------------------------------


def wait_until(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_command_past_its_deadline_is_killed_with_its_children(
    transport: SshTransport, tmp_path: Path
) -> None:
    script = f"sleep 1000 & echo $! >{tmp_path}/child; echo $$ >{tmp_path}/shell; wait"
    with pytest.raises(DeadlineExceeded):
        transport.run(script, 5.0)
    pids = [int((tmp_path / name).read_text()) for name in ("child", "shell")]
    wait_until(lambda: not any(map(alive, pids)))
    assert transport.run(["echo", "well"], SECONDS).text == "well\n"


def test_a_command_that_floods_is_ended_in_time(transport: SshTransport) -> None:
    transport.output_bytes = 1 << 32  # the time is to end it, not the output
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        transport.run("yes", 1.0)
    assert time.monotonic() - began < SECONDS / 2


def test_what_a_killed_command_still_prints_counts_for_nothing() -> None:
    reply = Reply(Request("yes", b"mark", b""), most_bytes=10)
    reply.take(1, b"y\n")
    reply.drop()
    for number in (1, 2):
        reply.take(number, b"mark 12\n" + b"y\n" * 100)


def test_too_much_output_ends_a_command_but_not_the_connection(transport: SshTransport) -> None:
    transport.output_bytes = 100_000
    with pytest.raises(BadOutput, match=r"output of `yes` is larger than 97.7 KiB"):
        transport.run("yes", SECONDS)
    assert transport.run(["echo", "well"], SECONDS).text == "well\n"


def test_a_connection_that_breaks_is_reported_and_its_command_ended_by_the_next(
    server: Server, keys: Path, tmp_path: Path
) -> None:
    transport = connect(server, keys, tmp_path)
    pid = tmp_path / "pid"

    def drop() -> None:
        wait_until(pid.exists)
        server.drop()

    cut = threading.Thread(target=drop)
    cut.start()
    with pytest.raises(GuestLost, match=r"no exit status|connection lost"):
        transport.run(f"echo $$ >{pid}.new; mv {pid}.new {pid}; exec sleep 1000", SECONDS)
    cut.join(60)
    left = int(pid.read_text())
    assert alive(left)
    assert transport.run(["echo", "well"], SECONDS).text == "well\n"
    wait_until(lambda: not alive(left))
    transport.close()


def test_a_connection_that_broke_between_commands_is_made_anew(
    server: Server, transport: SshTransport
) -> None:
    assert transport.run(["echo", "one"], SECONDS).text == "one\n"
    server.drop()
    assert transport.run(["echo", "two"], SECONDS).text == "two\n"
    assert len(server.connections) == 2


def test_what_the_watcher_raises_ends_the_wait(server: Server, keys: Path) -> None:
    calls = []

    def panic() -> None:
        calls.append(1)
        if len(calls) > 1:
            raise GuestPanic("Kernel panic")

    transport = connect(server, keys, "panic", alive=panic)
    with pytest.raises(GuestPanic):
        transport.run("sleep 1000", SECONDS)
    transport.close()
    sweep = connect(server, keys, "panic")
    sweep.run(["true"], SECONDS)
    sweep.close()


def test_a_machine_that_answers_nothing_hangs(keys: Path) -> None:
    server = serve(keys)
    server.silent = True
    transport = connect(server, keys, silence_seconds=1.0)
    with pytest.raises(GuestHung):
        transport.run(["true"], SECONDS)
    server.close()


def test_a_machine_that_falls_silent_hangs_and_one_that_works_does_not(
    server: Server, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = connect(server, keys, "silent", silence_seconds=3.0)
    assert transport.run("sleep 5", SECONDS).status == 0
    (connection,) = server.connections
    stop = threading.Event()
    original = connection.packetizer.read_message

    def stuck():
        while stop.is_set():
            time.sleep(0.1)
        return original()

    monkeypatch.setattr(connection.packetizer, "read_message", stuck)
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(GuestHung):
        transport.run("sleep 8", SECONDS)
    transport.close()


def test_nobody_listens(keys: Path) -> None:
    server = serve(keys)
    where = address(server, keys)
    server.close()
    transport = SshTransport(where, alive=fine, owner="x", connect_seconds=0.3)
    with pytest.raises(GuestLost, match="cannot connect by SSH"):
        transport.run(["true"], SECONDS)


# --- who is who ----------------------------------------------------------------------------------


@pytest.fixture
def plain(keys: Path) -> Iterator[Server]:
    server = serve(keys)
    yield server
    server.close()


def attempt(address: SshAddress) -> None:
    transport = SshTransport(address, alive=fine, owner="attempt")
    try:
        transport.run(["true"], SECONDS)
    finally:
        transport.close()


def test_another_host_key_is_refused_and_nothing_is_run(plain: Server, keys: Path) -> None:
    import paramiko

    other = public(paramiko.Ed25519Key.from_private_key_file(str(keys / "other")))
    with pytest.raises(GuestLost, match="host key mismatch"):
        attempt(address(plain, keys, host_key=other))


def test_another_client_is_not_let_in(plain: Server, keys: Path) -> None:
    with pytest.raises(GuestLost, match="authentication failed"):
        attempt(address(plain, keys, key=keys / "other"))


def test_known_hosts_decide_where_no_key_is_given(
    plain: Server, keys: Path, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text("")
    where = address(plain, keys, host_key=None, known_hosts=known)
    with pytest.raises(HostError, match="unknown host key"):
        attempt(where)
    known.write_text(f"[127.0.0.1]:{plain.port} {public(plain.host_key)}\n")
    attempt(where)


def test_an_invalid_host_key_is_reported(plain: Server, keys: Path) -> None:
    with pytest.raises(HostError, match="not an SSH host key"):
        attempt(address(plain, keys, host_key="nonsense"))


@pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is not installed")
def test_the_shell_of_a_guest_does_as_this_one(
    plain: Server, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it by busybox, as in a guest: /bin/sh of the line itself is this host's."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    for tool in ("sh", "setsid", "dd", "grep", "cat", "sleep"):
        (tmp_path / tool).symlink_to(busybox)
    from labctl.transports import shell

    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("_LEAD", "_RUN", "_SWEEP"):
        text = getattr(shell, name).replace("/bin/sh", f"{tmp_path}/sh")
        monkeypatch.setattr(shell, name, text)
    transport = connect(plain, keys, tmp_path)
    long = "x" * 20_000
    outcome = transport.run([f"{tmp_path}/sh", "-c", f"cat; kill -9 $$; : {long}"], SECONDS, b"in")
    assert (outcome.stdout, outcome.stderr, outcome.status) == (b"in", b"", 137)
    with pytest.raises(DeadlineExceeded):
        transport.run(["sleep", "1000"], 1.0)
    assert b"nothing-here" in transport.run(["nothing-here"], SECONDS).stderr
    transport.close()


# --- input and output that are streamed ----------------------------------------------------------


def test_a_command_begins_before_its_input_ends(transport: SshTransport) -> None:
    ours, theirs = os.pipe()
    came: list[tuple[int, bytes]] = []

    def output(number: int, data: bytes) -> None:
        came.append((number, data))
        if b"first" in data:  # it is back before its second half was sent
            os.write(theirs, b"second\n")
            os.close(theirs)

    os.write(theirs, b"first\n")
    outcome = transport.run("cat; echo end >&2", SECONDS, ours, output)
    os.close(ours)
    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, b"", b"")
    assert b"".join(data for number, data in came if number == 1) == b"first\nsecond\n"
    assert b"".join(data for number, data in came if number == 2) == b"end\n"


def test_endless_input_ends_with_its_command(transport: SshTransport) -> None:
    with Path("/dev/zero").open("rb") as zeros:
        outcome = transport.run("head -c 100000 | wc -c", SECONDS, zeros.fileno())
        assert outcome.stdout.split() == [b"100000"]
        assert transport.run("exit 3", SECONDS, zeros.fileno()).status == 3
    assert transport.run(["echo", "next"], SECONDS).stdout == b"next\n"


def test_input_that_stays_open_does_not_keep_a_command(transport: SshTransport) -> None:
    ours, theirs = os.pipe()
    assert transport.run("echo done", SECONDS, ours).stdout == b"done\n"
    with pytest.raises(DeadlineExceeded):
        transport.run("cat", 1.0, ours)
    os.close(theirs)
    assert transport.run("cat", SECONDS, ours).stdout == b""
    os.close(ours)


def test_what_looks_like_the_end_of_a_command_is_its_output() -> None:
    messages: list[bytes] = []
    request = Request.of("true", [b"true"], "owner")
    reply = Reply(request, lambda _, data: messages.append(data))
    quoted = b"a " + request.mark[:9] + b"\n" + request.mark + b" 1\nb " + request.mark[:-1]
    lines = b"motd\n", request.mark + b" 77\n", quoted, request.mark + b" 5 1.00 2.50\n", b"late"
    for byte in b"".join(lines):
        reply.take(2, bytes([byte]))
    outcome = reply.outcome("here")
    assert (reply.group, outcome.status, outcome.seconds, outcome.stderr) == (77, 5, 1.5, b"")
    assert b"".join(messages) == quoted + b"late"
    assert len(messages) > 2  # not all of it at the end
