"""A QEMU whose guest is hostile: it plays the game that its kernel's command line names.

Installed on PATH as qemu-system-x86_64. What is not the game is answered as in `fake_qemu`.
"""

import contextlib
import os
import re
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "unit"), str(HERE.parent), str(HERE.parents[1])]

import fake_qemu  # noqa: E402
import hostile  # noqa: E402
import hostilessh  # noqa: E402
import sshserver  # noqa: E402

WORKLOAD, COPY = b"freebench", b"gzip"
PIECE_BYTES, PIECE_SECONDS = 1 << 20, 0.05
FORWARDED = "  TCP[HOST_FORWARD]  12       127.0.0.1 {port:5}       10.0.2.15    22     0     0\r\n"


def of_output(text):
    return hostile.exits_with(text.encode())


# For each way into labctl, what is played by the name of the game.
COMMANDS = {
    "command line": {name: play for name, (play, _) in hostile.RUN.items()},
    "greeting": hostile.GREETINGS | {"silence": hostile.silence},
    "gzip": {name: play for name, (play, _) in hostile.GET.items()},
    "output": {name: of_output(text) for name, text in hostile.OUTPUTS.items()},
}
CONSOLE = {name: text for name, (text, _, _) in hostile.CONSOLES.items()}
GAMES = [
    *((way, name) for way, games in COMMANDS.items() for name in games),
    *(("console", name) for name in (*CONSOLE, *hostile.NODES)),
    *(("SSH", name) for name in (*hostilessh.BEFORE, *hostilessh.AFTER)),
]


class Agent(fake_qemu.Agent):
    """Keeps the request that a game is played for."""

    def __init__(self, way):
        super().__init__(100)
        self.way = way
        self.request = None

    def take(self, wire):
        if self.way == "greeting" and wire[:1] == b"H":
            self.request = wire[1:9]
            return b""
        return super().take(wire)

    def ended(self, request):
        if self.way in ("command line", "output", "gzip") and is_played(self.words):
            self.request = request
            return b""
        if self.way == "console" and is_played(self.words):
            time.sleep(1)
        return super().ended(request)


def is_played(words):
    return WORKLOAD in words or COPY in words


def serve_line(client, way, play):
    agent = Agent(way)
    with client, contextlib.suppress(OSError):
        while data := client.recv(65536):
            client.sendall(agent.feed(data))
            if agent.request:
                for piece in play(agent.request):
                    client.sendall(piece)
                if play not in hostile.QUIET:
                    return


class Monitor(fake_qemu.Monitor):
    port = 0

    def answer(self, request):
        answer = super().answer(request)
        if request["execute"] != "human-monitor-command":
            return answer
        text = FORWARDED.format(port=self.port).replace("\r\n", "\\r\\n")
        return answer.replace(b'{"return": {}', f'{{"return": "{text}"'.encode())


def serve_monitor(client):
    monitor = Monitor()
    with client, contextlib.suppress(OSError):
        client.sendall(Monitor.GREETING)
        while data := client.recv(65536):
            client.sendall(monitor.feed(data))


def accept(server, serve, *more):
    while True:
        client, _ = server.accept()
        threading.Thread(target=serve, args=(client, *more), daemon=True).start()


def flood(text):
    """Write to the console until its limit, faster than a serial port of QEMU."""
    log = os.open("console.log", os.O_WRONLY | os.O_APPEND)
    piece = text * (PIECE_BYTES // len(text) + 1)
    with contextlib.suppress(OSError):
        while True:
            os.write(log, piece)
            time.sleep(PIECE_SECONDS)


def main():
    words = sys.argv[1:]
    number = re.search(r"game=(\d+)", words[words.index("-append") + 1])
    way, name = GAMES[int(number[1])]
    with Path(words[words.index("-kernel") + 1]).with_name("boots").open("a") as boots:
        boots.write("x")
    monitor, line = (fake_qemu.listening(words, one) for one in ("monitor", "line"))
    fake_qemu.listening(words, "console")
    lines = [f"[    1.0] {each}" for each in fake_qemu.console(words)]
    if way == "SSH":
        key = sshserver.new_key(Path("host-key"))
        server = hostilessh.Hostile(key, name, is_played)
        Monitor.port = server.port
        lines.insert(0, f"[    1.0] labctl: ssh host key {sshserver.public(key)}")
    if name in hostile.NODES:
        lines[:-1] = [hostile.NODES[name]] * 2000
    Path("console.log").write_text("".join(f"{each}\n" for each in lines))
    if way == "console" and name in CONSOLE:
        threading.Thread(target=flood, args=(CONSOLE[name],), daemon=True).start()
    play = COMMANDS.get(way, {}).get(name)
    threading.Thread(target=accept, args=(line, serve_line, way, play), daemon=True).start()
    accept(monitor, serve_monitor)


if __name__ == "__main__":
    main()
