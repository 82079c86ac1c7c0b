"""NFSv3 calls in bytes, made by hand, so that wrong ones can be made too (RFC 1813, RFC 5531, RFC 4506)."""

import os
import socket
import struct

NFS, MOUNT = 100003, 100005
PATIENCE = 20

STATUS = {
    0: "OK", 1: "PERM", 2: "NOENT", 5: "IO", 6: "NXIO", 13: "ACCES", 17: "EXIST", 18: "XDEV", 19: "NODEV", 20: "NOTDIR",
    21: "ISDIR", 22: "INVAL", 27: "FBIG", 28: "NOSPC", 30: "ROFS", 31: "MLINK", 63: "NAMETOOLONG", 66: "NOTEMPTY",
    69: "DQUOT", 70: "STALE", 71: "REMOTE", 10001: "BADHANDLE", 10002: "NOT_SYNC", 10003: "BAD_COOKIE", 10004: "NOTSUPP",
    10005: "TOOSMALL", 10006: "SERVERFAULT", 10007: "BADTYPE", 10008: "JUKEBOX",
}  # fmt: skip
ACCEPTED = {1: "PROG_UNAVAIL", 2: "PROG_MISMATCH", 3: "PROC_UNAVAIL", 4: "GARBAGE_ARGS", 5: "SYSTEM_ERR"}
REJECTED = {0: "RPC_MISMATCH", 1: "AUTH_ERROR"}

PROCEDURES = (
    "null getattr setattr lookup access readlink read write create mkdir symlink mknod remove rmdir rename link"
    " readdir readdirplus fsstat fsinfo pathconf commit"
).split()


def u32(*numbers):
    return b"".join(struct.pack(">I", number) for number in numbers)


def u64(number):
    return struct.pack(">Q", number)


def opaque(data):
    return u32(len(data)) + data + bytes(-len(data) % 4)


def optional(value, pack=u32):
    return u32(0) if value is None else u32(1) + pack(value)


def set_time(value):
    """None: leave; "now": the server's; (seconds, nanoseconds): this one."""
    if value is None:
        return u32(0)
    return u32(1) if value == "now" else u32(2, *value)


def attributes(mode=None, uid=None, gid=None, size=None, accessed=None, modified=None):
    return (
        optional(mode) + optional(uid) + optional(gid) + optional(size, u64) + set_time(accessed) + set_time(modified)
    )


def place(folder, name):
    return opaque(folder) + opaque(name if isinstance(name, bytes) else name.encode())


class Reply:
    """Outcome of a call by name, and the bytes behind the status."""

    def __init__(self, outcome, body=b""):
        self.outcome, self.body = outcome, body

    def __str__(self):
        return self.outcome

    def handle(self, is_optional=True):
        """The handle at the start of the body: LOOKUP's, or that of a creation behind its TRUE."""
        if self.outcome != "OK":
            return b""
        at = 4 if is_optional else 0
        length = struct.unpack_from(">I", self.body, at)[0]
        return self.body[at + 4 : at + 4 + length]


class Client:
    def __init__(self, address, port, uid=0, gid=0, groups=()):
        self.credential = u32(0) + opaque(b"oracle") + u32(uid, gid, len(groups), *groups)
        self.xid = int.from_bytes(os.urandom(3), "big")
        self.address, self.port = address, port
        self.stream = self.connect()

    def connect(self):
        for port in range(1000, 600, -1):
            stream = socket.socket()
            stream.settimeout(PATIENCE)
            try:
                stream.bind(("", port))
                stream.connect((self.address, self.port))
                return stream
            except OSError:
                stream.close()
        raise RuntimeError("no privileged port is free")

    def close(self):
        self.stream.close()

    def message(self, program, procedure, arguments, version=3, rpc_version=2):
        self.xid += 1
        head = u32(self.xid, 0, rpc_version, program, version, procedure, 1) + opaque(self.credential) + u32(0, 0)
        return head + arguments

    def send(self, message):
        self.stream.sendall(u32(len(message) | 1 << 31) + message)

    def receive(self):
        """The next record; None where the server closed."""
        try:
            mark = self.exactly(4)
            return mark and self.exactly(struct.unpack(">I", mark)[0] & 0x7FFFFFFF)
        except ConnectionError:
            return None

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.stream.recv(count - len(data))
            if not more:
                return None
            data += more
        return data

    def raw(self, message):
        self.send(message)
        return self.outcome(self.receive())

    def outcome(self, record):
        """Of RPC: an error's name, or `OK` with the results."""
        if record is None:
            return Reply("CLOSED")
        _, _, status = struct.unpack_from(">III", record)
        if status == 1:
            return Reply(REJECTED.get(struct.unpack_from(">I", record, 12)[0], "REJECTED"))
        length = struct.unpack_from(">I", record, 16)[0]
        accepted = struct.unpack_from(">I", record, 20 + length)[0]
        return Reply(ACCEPTED.get(accepted, "OK"), record[24 + length :])

    def call(self, name, arguments=b"", **versions):
        """Of NFS: the status by name, and the body behind it."""
        reply = self.raw(self.message(NFS, PROCEDURES.index(name), arguments, **versions))
        if reply.outcome != "OK" or name == "null":
            return reply
        status = struct.unpack_from(">I", reply.body)[0]
        return Reply(STATUS.get(status, str(status)), reply.body[4:])


def mount(address, port, export):
    """Root handle of an export; None where it cannot be mounted."""
    client = Client(address, port)
    reply = client.raw(client.message(MOUNT, 1, opaque(export.encode())))
    client.close()
    return Reply("OK", reply.body[4:]).handle(False) if reply.body[:4] == u32(0) else None
