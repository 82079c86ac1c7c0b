"""What clients may do that is hard on a server: many of them idle, some that do not read, values and keys at the limits. One test each, for
ours and for memcached; figures are printed, and only what must hold is judged."""

import resource
import socket
import struct
import time

from server import Server

PORT = 11211
IDLE = 10_000
# Of a connection that was used once and idles; the kernel's buffers are not in it.
IDLE_KIB = 8
MIB = 1 << 20


class Client:
    def __init__(self, server):
        self.socket = server.connect()
        self.file = self.socket.makefile("rb")

    def ask(self, data, lines=1):
        self.socket.sendall(data)
        return b"".join(self.file.readline() for _ in range(lines))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()


def expect(what, seen, wanted):
    if seen != wanted:
        raise AssertionError(f"{what}: {seen[:120]!r} instead of {wanted[:120]!r}")


def idle(server):
    """Ten thousand clients that asked once; one more is answered."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (IDLE + 1000, IDLE + 1000))
    empty = server.memory_kib()
    sockets = []
    try:
        for number in range(IDLE):
            # A loopback address has 28 000 ports to call from; the same client address is enough.
            one = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            sockets.append(one)
            one.sendall(b"get nothing\r\n")
            if number % 100 == 99:
                for waiting in sockets[-100:]:
                    expect("an idle client's first get", waiting.recv(100), b"END\r\n")
        each = (server.memory_kib() - empty) / IDLE
        started = time.monotonic()
        with Client(server) as late:
            expect("one more", late.ask(b"set late 0 0 1\r\nx\r\n"), b"STORED\r\n")
        took = time.monotonic() - started
        expect("the first again", talk(sockets[0], b"get late\r\n", 100), b"VALUE late 0 1\r\nx\r\nEND\r\n")
    finally:
        for one in sockets:
            one.close()
    if server.name == "ours" and each > IDLE_KIB:
        raise AssertionError(f"{each:.1f} KiB a connection")
    return f"{each:.2f} KiB a connection, one more answered after {took * 1000:.0f} ms"


def talk(one, data, size):
    one.sendall(data)
    return one.recv(size)


def slow_readers(server):
    """Clients that ask for 64 MiB each and do not read: memory stays, others are served, and all comes in the end."""
    value = b"v" * (512 << 10)
    request = b"get large\r\n" * 128
    reply = b"VALUE large 0 %d\r\n%s\r\nEND\r\n" % (len(value), value)
    with Client(server) as client:
        expect("set", client.ask(b"set large 0 0 %d\r\n%s\r\n" % (len(value), value)), b"STORED\r\n")
        empty = server.memory_kib()
        slow = [server.connect() for _ in range(50)]
        try:
            for one in slow:
                one.sendall(request)
            worst = 0
            for _ in range(100):
                started = time.monotonic()
                expect("another", client.ask(b"get none\r\n"), b"END\r\n")
                worst = max(worst, time.monotonic() - started)
            grown = (server.memory_kib() - empty) / 1024
            seen, wanted = 0, 128 * len(reply)
            while seen < wanted:
                piece = slow[0].recv(MIB)
                if not piece:
                    raise AssertionError(f"ended after {seen} of {wanted} bytes")
                at = seen % len(reply)
                whole = (reply + reply)[at : at + len(piece)] if len(piece) <= len(reply) else (reply * 4)[at : at + len(piece)]
                expect("a late reply", piece, whole)
                seen += len(piece)
        finally:
            for one in slow:
                one.close()
    if server.name == "ours" and grown > 64:
        raise AssertionError(f"grown by {grown:.0f} MiB")
    return f"50 clients with 64 MiB each to read: grown by {grown:.1f} MiB, others waited {worst * 1000:.0f} ms at most"


def large_values(server):
    """One byte too many: refused, the old value gone, the connection lives."""
    for size in (MIB + 1, 2 * MIB):
        with Client(server) as client:
            expect("set", client.ask(b"set k 0 0 3\r\nold\r\n"), b"STORED\r\n")
            seen = client.ask(b"set k 0 0 %d\r\n%s\r\n" % (size, b"x" * size))
            expect(f"{size} bytes", seen, b"SERVER_ERROR object too large for cache\r\n")
            expect("old value", client.ask(b"get k\r\n"), b"END\r\n")
            client.socket.sendall(b"version\r\n")
            expect("after it", client.file.readline()[:7], b"VERSION")
    with Client(server) as client:
        client.socket.sendall(binary_set(b"k", b"x" * (MIB + 1)))
        header = client.file.read(24)
        status, length = struct.unpack(">H", header[6:8])[0], struct.unpack(">I", header[8:12])[0]
        client.file.read(length)
        expect("binary", str(status), "3")
        client.socket.sendall(struct.pack(">BBHBBHIIQ", 0x80, 0x0A, 0, 0, 0, 0, 0, 7, 0))
        expect("noop after it", client.file.read(24)[:2], b"\x81\x0a")
    return "1 MiB + 1 and 2 MiB refused in text and binary, connections live"


def binary_set(key, value):
    body = 8 + len(key) + len(value)
    return struct.pack(">BBHBBHIIQ", 0x80, 1, len(key), 8, 0, 0, body, 7, 0) + bytes(8) + key + value


def odd_keys(server):
    """250 bytes pass and 251 do not; a space splits; binary keys may hold anything."""
    with Client(server) as client:
        longest, longer = b"k" * 250, b"k" * 251
        expect("250 bytes", client.ask(b"set %s 0 0 1\r\nx\r\n" % longest), b"STORED\r\n")
        expect("get of 250", client.ask(b"get %s\r\n" % longest, 3), b"VALUE %s 0 1\r\nx\r\nEND\r\n" % longest)
        expect("get of 251", client.ask(b"get %s\r\n" % longer), b"CLIENT_ERROR bad command line format\r\n")
        expect("a space", client.ask(b"get a b\r\n"), b"END\r\n")
        if server.name == "ours":
            # memcached takes control bytes in text keys, whatever they do to a line-based client.
            for byte in (b"\x00", b"\x01", b"\x1f", b"\x7f"):
                expect(f"key with {byte!r}", client.ask(b"get a%sb\r\n" % byte), b"CLIENT_ERROR bad command line format\r\n")
        expect("bytes above 127", client.ask(b"set \xff\xfe 0 0 1\r\nx\r\n"), b"STORED\r\n")
    for key in (b"with space", b"line\r\nend", b"\x00\x01", bytes(range(128, 250))):
        with Client(server) as client:
            client.socket.sendall(binary_set(key, b"value"))
            header = client.file.read(24)
            expect(f"binary key {key!r}", header[6:8], b"\0\0")
            client.socket.sendall(struct.pack(">BBHBBHIIQ", 0x80, 0, len(key), 0, 0, 0, len(key), 7, 0) + key)
            header = client.file.read(24)
            expect("its value", client.file.read(struct.unpack(">I", header[8:12])[0])[4:], b"value")
    with Client(server) as client:
        client.socket.sendall(struct.pack(">BBHBBHIIQ", 0x80, 0, 251, 0, 0, 0, 251, 7, 0) + b"k" * 251)
        header = client.file.read(24)
        expect("binary key of 251", header[6:8], b"\0\4")
    return "250 and 251 bytes, spaces, control bytes, text and binary"


def limits(kind, folder):
    found = {}
    for test, flags in [(idle, ["-c", "12000"]), (slow_readers, []), (large_values, []), (odd_keys, [])]:
        try:
            with Server(kind, PORT, "-m", "256", *flags) as server:
                note, is_good = test(server), True
        except (AssertionError, OSError, struct.error) as error:
            note, is_good = f"{type(error).__name__}: {error}", False
        found[test.__name__] = {"passed": int(is_good), "of": 1, "failed": [] if is_good else ["*"], "note": note, "shows": True}
    return found
