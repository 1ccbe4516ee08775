"""A QEMU without a machine: sockets, a console and an agent that answers at once.

Installed on PATH as qemu-system-x86_64. Nothing of a command is run: files to read are
missing, and each workload prints a time. A kernel whose image has the word `slow` is slower.
"""

import json
import os
import select
import socket
import struct
import sys
import zlib

END, ESCAPE = b"\xc0", b"\xdb"
HEADER, EXIT = struct.Struct("<c8sI"), struct.Struct("<iQQQ")
MILLISECONDS = {"stock": 100, "slow": 140}


def encode(kind, request, payload=b""):
    raw = HEADER.pack(kind, request, len(payload)) + payload
    raw += struct.pack("<I", zlib.crc32(raw))
    return END + raw.replace(ESCAPE, b"\xdb\xdd").replace(END, b"\xdb\xdc") + END


class Agent:
    """The command port: takes a command's words, then prints a result."""

    def __init__(self, milliseconds):
        self.milliseconds = milliseconds
        self.rest = b""
        self.words = b""
        self.size = 0

    def feed(self, data):
        *frames, self.rest = (self.rest + data).split(END)
        return b"".join(self.take(frame) for frame in frames if frame)

    def take(self, wire):
        raw = wire.replace(b"\xdb\xdc", END).replace(b"\xdb\xdd", ESCAPE)
        kind, request, _ = HEADER.unpack_from(raw)
        payload = raw[HEADER.size : -4]
        if kind == b"H":
            return encode(b"h", request)
        if kind == b"R":
            self.words, self.size = b"", struct.unpack("<I", payload)[0]
            return encode(b"s", request)
        if kind == b"I":
            self.words += payload
            return encode(b"a", request, struct.pack("<Q", len(self.words)))
        return self.ended(request) if kind == b"E" else b""

    def ended(self, request):
        output = self.answer(self.words[: self.size].decode().split("\0"))
        end = encode(b"x", request, EXIT.pack(0, len(output), 0, 1_000_000_000))
        return encode(b"o", request, output) + end if output else end

    def answer(self, words):
        if words[0] == "/bin/sh" and "\nr() {" in words[2]:  # reads and writes files
            return b""
        self.milliseconds += 1 - self.milliseconds % 3  # of no sense, but not constant
        return f'{{"elapsed_nanoseconds": {self.milliseconds * 1_000_000}}}\n'.encode()


class Monitor:
    """QMP, as far as labctl pauses and resumes."""

    GREETING = b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7},' \
        b' "package": ""}, "capabilities": []}}\r\n'  # fmt: skip

    def __init__(self):
        self.rest = ""
        self.is_paused = False

    def feed(self, data):
        self.rest += data.decode()
        answers = b""
        while self.rest:  # the client ends its requests with nothing
            try:
                request, end = json.JSONDecoder().raw_decode(self.rest)
            except ValueError:
                break
            self.rest = self.rest[end:].lstrip()
            answers += self.answer(request)
        return answers

    def answer(self, request):
        command = request["execute"]
        self.is_paused = {"stop": True, "cont": False}.get(command, self.is_paused)
        status = "paused" if self.is_paused else "running"
        result = {"status": status} if command == "query-status" else {}
        answer = {"return": result, **({"id": request["id"]} if "id" in request else {})}
        return json.dumps(answer).encode() + b"\r\n"


def listening(words, name):
    path = next(w for w in words if w.startswith(f"socket,id={name},")).split("path=")[1]
    line = socket.socket(socket.AF_UNIX)
    line.bind(path.partition(",")[0])
    line.listen(1)
    return line


def console(words):
    nodes = [w for w in words if w.startswith("node,")]
    for number in range(len(nodes)):
        row = ",".join("10" if number == other else "20" for other in range(len(nodes)))
        yield f"labctl: node {number} cpus={number} memory_kib=262144 distances={row}"
    random = os.urandom(16).hex()
    boot = "-".join((random[:8], random[8:12], random[12:16], random[16:20], random[20:]))
    yield f"labctl: ready boot={boot}"


def main():
    words = sys.argv[1:]
    if "--version" in words or "-version" in words:
        print("QEMU emulator version 7.2.0 (a fake)")
        return
    if "-kernel" not in words:  # the probe guest of an accelerator
        sys.exit(1)
    with open(words[words.index("-kernel") + 1], "rb") as image:  # noqa: PTH123
        name = "slow" if b"slow" in image.read() else "stock"
    ports = {"line": listening(words, "line"), "monitor": listening(words, "monitor")}
    ports["console"] = listening(words, "console")
    with open("console.log", "w") as log:  # noqa: PTH123
        log.writelines(f"[    1.0] {line}\n" for line in console(words))
    serve(ports, MILLISECONDS[name])


def serve(ports, milliseconds):
    monitor = Monitor()
    clients = {}
    while True:
        ready, _, _ = select.select([*ports.values(), *clients], [], [])
        for each in ready:
            if each in clients:
                talk(each, clients)
                continue
            client, _ = each.accept()
            clients[client] = monitor if each is ports["monitor"] else Agent(milliseconds)
            if each is ports["monitor"]:
                monitor.rest = ""
                client.sendall(Monitor.GREETING)


def talk(client, clients):
    try:
        data = client.recv(65536)
        if data:
            client.sendall(clients[client].feed(data))
            return
    except OSError:
        pass
    del clients[client]
    client.close()


if __name__ == "__main__":
    main()
