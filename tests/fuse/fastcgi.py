"""A FastCGI client that gets one page (FastCGI specification 1.0)."""

import socket
import struct

BEGIN, END, PARAMS, STDIN, STDOUT, STDERR = 1, 3, 4, 5, 6, 7
RESPONDER = 1
PATIENCE = 60


def record(kind, body=b""):
    return struct.pack(">BBHHBx", 1, kind, 1, len(body), 0) + body


def pair(name, value):
    def length(text):
        return bytes([len(text)]) if len(text) < 128 else struct.pack(">I", len(text) | 1 << 31)

    name, value = name.encode(), value.encode()
    return length(name) + length(value) + name + value


def exactly(stream, count):
    data = bytearray()
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise ConnectionError("closed in the middle")
        data += more
    return bytes(data)


def get(path, script):
    """Body of the page; what PHP complains about is an error."""
    params = {"SCRIPT_FILENAME": script, "REQUEST_METHOD": "GET", "SCRIPT_NAME": script, "REQUEST_URI": script}
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(PATIENCE)
        stream.connect(str(path))
        text = b"".join(pair(name, value) for name, value in params.items())
        stream.sendall(record(BEGIN, struct.pack(">HB5x", RESPONDER, 0)) + record(PARAMS, text) + record(PARAMS) + record(STDIN))
        out, complaints = b"", b""
        while True:
            _, kind, _, length, padding = struct.unpack(">BBHHBx", exactly(stream, 8))
            body = exactly(stream, length)
            exactly(stream, padding)
            if kind == STDOUT:
                out += body
            elif kind == STDERR:
                complaints += body
            elif kind == END:
                break
    if complaints:
        raise RuntimeError(complaints.decode(errors="replace"))
    return out.split(b"\r\n\r\n", 1)[-1]
