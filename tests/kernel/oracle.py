#!/usr/bin/env python3
"""The same script of NFSv3 calls to our export and to nfs-ganesha's; the outcomes are compared, one by one.

    oracle.py EXECUTABLE

Where they differ, `ALLOWED` says why ours is right; any other difference fails.
"""

import re
import subprocess
import sys
import tempfile

import server
from nfs import Client, attributes, mount, opaque, place, u32, u64
from session import enter_namespaces

ADDRESS = "127.0.0.1"
NOBODY = 65534

# Steps by pattern, our outcome, ganesha's outcomes, and why ours is right.
ALLOWED = [
    (".* name slash|lookup name empty", "INVAL", {"NOENT"}, "such a name cannot be, whatever is there"),
    (".* name zero", "INVAL", {"OK", "EXIST", "NOENT"}, "a name with a zero is not cut at it"),
    ("symlink with zero", "INVAL", {"OK"}, "a target with a zero is not cut at it"),
    ("create name dot.*", "EXIST", {"ISDIR"}, "RFC 1813 §3.3.8 lets either"),
    ("remove name dot.*", "INVAL", {"ISDIR"}, "RFC 1813 §3.3.12 lets either"),
    ("mknod unknown", "GARBAGE_ARGS", {"BADTYPE"}, "not a value of ftype3"),
    ("write no such stability", "GARBAGE_ARGS", {"OK"}, "not a value of stable_how"),
    ("setattr wrong time", "GARBAGE_ARGS", {"INVAL"}, "not an nfstime3"),
    ("link of folder", "PERM", {"BADTYPE"}, "what link(2) says"),
    ("setattr size of folder", "ISDIR", {"BADTYPE"}, "what truncate(2) says"),
    ("setattr size of link", "INVAL", {"BADTYPE"}, "what truncate(2) says"),
    ("setattr huge size", "FBIG", {"INVAL"}, "what truncate(2) says"),
    ("commit of folder", "OK", {"ISDIR"}, "RFC 1813 §3.3.21 has no ISDIR; names are durable already"),
    ("readdir.* too small", "TOOSMALL", {"OK"}, "RFC 1813 §3.3.16: the reply may not be longer than asked"),
    ("unknown RPC version", "RPC_MISMATCH", {"CLOSED"}, "RFC 5531 §9"),
]


class Script:
    """Runs the steps against one server and keeps what came of each."""

    def __init__(self, one):
        self.one = one
        self.root = mount(ADDRESS, one.mount_port, one.export)
        self.admin = self.client()
        self.outcomes = {}

    def client(self, **who):
        return Client(ADDRESS, self.one.port, **who)

    def step(self, label, name, arguments, client=None):
        reply = (client or self.admin).call(name, arguments)
        assert label not in self.outcomes, label
        self.outcomes[label] = str(reply)
        return reply

    def bytes(self, label, message):
        """Something that is no good call, on a connection of its own."""
        client = self.client()
        self.outcomes[label] = str(client.raw(message(client)))
        client.close()

    def folder(self, name):
        return self.step(f"folder {name}", "mkdir", place(self.root, name) + attributes(mode=0o777)).handle()

    def file(self, folder, name, mode=0o644):
        return self.admin.call("create", place(folder, name) + u32(0) + attributes(mode=mode)).handle()

    def run(self):
        for part in [names, creations, folders, renames, links, changes, reads, writes, listings, rights, handles, rubbish]:
            part(self, self.folder(part.__name__))
        return self.outcomes


def names(run, here):
    for label, name in [
        ("empty", b""), ("slash", b"a/b"), ("zero", b"a\0b"), ("255 bytes", b"x" * 255), ("256 bytes", b"y" * 256),
        ("1000 bytes", b"z" * 1000), ("not utf-8", b"\xff\xfe"), ("dot", b"."), ("dot dot", b".."), ("new line", b"a\nb"),
    ]:  # fmt: skip
        run.step(f"create name {label}", "create", place(here, name) + u32(0) + attributes(mode=0o644))
        run.step(f"lookup name {label}", "lookup", place(here, name))
        run.step(f"mkdir name {label}", "mkdir", place(here, name) + attributes(mode=0o755))
        run.step(f"remove name {label}", "remove", place(here, name))
        run.step(f"rmdir name {label}", "rmdir", place(here, name))
    run.step("lookup none", "lookup", place(here, "none"))
    run.step("lookup in file", "lookup", place(run.file(here, "file"), "a"))
    run.step("lookup parent in file", "lookup", place(run.file(here, "file"), ".."))
    run.step("lookup parent of root", "lookup", place(run.root, ".."))


def creations(run, here):
    def create(label, name, mode, more, **how):
        return run.step(label, "create", place(here, name) + u32(mode) + more, **how)

    create("create guarded", "a", 1, attributes(mode=0o644))
    create("create guarded again", "a", 1, attributes(mode=0o644))
    create("create unchecked again", "a", 0, attributes(mode=0o600, size=0))
    create("create exclusive over other", "a", 2, b"verifier")
    create("create exclusive", "b", 2, b"verifier")
    create("create exclusive repeated", "b", 2, b"verifier")
    create("create exclusive by another", "b", 2, b"other ve")
    create("create no such way", "c", 3, attributes())
    run.admin.call("mkdir", place(here, "d") + attributes(mode=0o755))
    create("create over folder unchecked", "d", 0, attributes())
    create("create over folder guarded", "d", 1, attributes())
    create("create over folder exclusive", "d", 2, b"verifier")
    create("create with size", "sized", 1, attributes(mode=0o644, size=10))
    file = run.file(here, "file")
    run.step("create in file", "create", place(file, "x") + u32(0) + attributes())
    run.step("mkdir in file", "mkdir", place(file, "x") + attributes())
    run.step("mkdir over file", "mkdir", place(here, "file") + attributes())
    run.step("mkdir over folder", "mkdir", place(here, "d") + attributes())
    for kind, label in [(1, "file"), (2, "folder"), (5, "link"), (8, "unknown")]:
        run.step(f"mknod {label}", "mknod", place(here, f"n{kind}") + u32(kind) + attributes())
    for kind, label in [(6, "socket"), (7, "fifo")]:
        run.step(f"mknod {label}", "mknod", place(here, f"n{kind}") + u32(kind) + attributes(mode=0o644))
    run.step("mknod device", "mknod", place(here, "n4") + u32(4) + attributes(mode=0o644) + u32(1, 3))
    run.step("mknod over name", "mknod", place(here, "n7") + u32(7) + attributes(mode=0o644))
    user = run.client(uid=1000, gid=1000)
    run.step("mknod device by user", "mknod", place(here, "n9") + u32(4) + attributes(mode=0o644) + u32(1, 3), user)
    user.close()


def folders(run, here):
    run.admin.call("mkdir", place(here, "d") + attributes(mode=0o755))
    inner = run.admin.call("lookup", place(here, "d")).handle(False)
    run.file(inner, "f")
    run.step("rmdir with names", "rmdir", place(here, "d"))
    run.step("remove folder", "remove", place(here, "d"))
    run.step("remove last name", "remove", place(inner, "f"))
    run.step("remove again", "remove", place(inner, "f"))
    run.step("rmdir", "rmdir", place(here, "d"))
    run.step("rmdir again", "rmdir", place(here, "d"))
    run.file(here, "file")
    run.step("rmdir file", "rmdir", place(here, "file"))
    run.step("getattr of removed folder", "getattr", opaque(inner))
    run.step("create in removed folder", "create", place(inner, "x") + u32(0) + attributes(mode=0o644))
    run.step("lookup in removed folder", "lookup", place(inner, "x"))
    run.step("remove in file", "remove", place(run.file(here, "file"), "x"))


def renames(run, here):
    def rename(label, old, new, to=here):
        run.step(label, "rename", place(here, old) + place(to, new))

    for name in ["a", "b"]:
        run.file(here, name)
    inside = {}
    for name in ["d", "empty", "full"]:
        run.admin.call("mkdir", place(here, name) + attributes(mode=0o755))
        inside[name] = run.admin.call("lookup", place(here, name)).handle(False)
    run.file(inside["full"], "f")
    rename("rename", "a", "new")
    rename("rename none", "none", "x")
    rename("rename to itself", "new", "new")
    rename("rename over file", "new", "b")
    rename("rename file over folder", "b", "empty")
    rename("rename folder over file", "d", "b")
    rename("rename folder over full one", "d", "full")
    rename("rename folder into itself", "d", "x", inside["d"])
    rename("rename folder over empty one", "d", "empty")
    rename("rename dot", ".", "x")
    rename("rename to dot dot", "b", "..")
    rename("rename to empty name", "b", "")
    rename("rename to long name", "b", "x" * 256)
    rename("rename into file", "b", "x", run.file(here, "file"))
    run.step("rename from file", "rename", place(run.file(here, "file"), "x") + place(here, "y"))


def links(run, here):
    file = run.file(here, "a")
    run.step("link", "link", opaque(file) + place(here, "b"))
    run.step("link over name", "link", opaque(file) + place(here, "b"))
    run.step("link of folder", "link", opaque(here) + place(here, "c"))
    run.step("link in file", "link", opaque(file) + place(file, "c"))
    run.step("link with long name", "link", opaque(file) + place(here, "x" * 256))
    run.step("link as dot", "link", opaque(file) + place(here, "."))
    symlink = lambda name, target: place(here, name) + attributes() + opaque(target)  # noqa: E731
    made = run.step("symlink", "symlink", symlink("l", b"target"))
    run.step("symlink over name", "symlink", symlink("l", b"target"))
    run.step("symlink to nothing", "symlink", symlink("l0", b""))
    run.step("symlink to 4095 bytes", "symlink", symlink("l1", b"x" * 4095))
    run.step("symlink to 4096 bytes", "symlink", symlink("l2", b"x" * 4096))
    run.step("symlink with zero", "symlink", symlink("l3", b"a\0b"))
    run.step("readlink", "readlink", opaque(made.handle()))
    run.step("readlink of file", "readlink", opaque(file))
    run.step("readlink of folder", "readlink", opaque(here))
    run.step("read of link", "read", opaque(made.handle()) + u64(0) + u32(10))
    run.step("write of link", "write", opaque(made.handle()) + u64(0) + u32(1, 2) + opaque(b"x"))
    run.step("lookup in link", "lookup", place(made.handle(), "x"))


def changes(run, here):
    file = run.file(here, "a")

    def change(label, of, guard=None, client=None, **what):
        run.step(label, "setattr", opaque(of) + attributes(**what) + (u32(0) if guard is None else u32(1, *guard)), client)

    change("setattr nothing", file)
    change("setattr mode", file, mode=0o640)
    change("setattr owner", file, uid=1000, gid=1000)
    change("setattr size", file, size=100)
    change("setattr size of folder", here, size=1)
    change("setattr huge size", file, size=1 << 63)
    change("setattr times", file, accessed=(5, 6), modified=(7, 8))
    change("setattr wrong time", file, modified=(7, 2_000_000_000))
    change("setattr wrong guard", file, guard=(1, 1), mode=0o600)
    user, owner = run.client(uid=2000, gid=2000), run.client(uid=1000, gid=1000, groups=[77])
    change("setattr mode by another", file, client=user, mode=0o777)
    change("setattr owner by another", file, client=user, uid=2000)
    change("setattr size by another", file, client=user, size=0)
    change("setattr times by another", file, client=user, modified=(1, 1))
    change("setattr now by another", file, client=user, modified="now")
    change("setattr mode by owner", file, client=owner, mode=0o600)
    change("setattr owner by owner", file, client=owner, uid=2000)
    change("setattr own group by owner", file, client=owner, gid=77)
    change("setattr foreign group by owner", file, client=owner, gid=78)
    change("setattr size by owner of read-only file", file, client=owner, mode=0o400)
    change("setattr size by owner without write", file, client=owner, size=1)
    link = run.admin.call("symlink", place(here, "l") + attributes() + opaque(b"x")).handle()
    change("setattr size of link", link, size=0)
    user.close()
    owner.close()


def reads(run, here):
    file = run.file(here, "a")
    run.admin.call("write", opaque(file) + u64(0) + u32(5, 2) + opaque(b"hello"))
    for label, offset, count in [("", 0, 5), (" beyond", 100, 5), (" nothing", 0, 0), (" far", 1 << 62, 5)]:
        run.step(f"read{label}", "read", opaque(file) + u64(offset) + u32(count))
    run.step("read of folder", "read", opaque(here) + u64(0) + u32(5))
    run.step("commit", "commit", opaque(file) + u64(0) + u32(0))
    run.step("commit of folder", "commit", opaque(here) + u64(0) + u32(0))
    for name in ["getattr", "fsstat", "fsinfo", "pathconf"]:
        run.step(f"{name} of file", name, opaque(file))
    run.step("access of file", "access", opaque(file) + u32(0x3F))


def writes(run, here):
    file = run.file(here, "a")

    def write(label, offset, data, count=None, stable=2):
        count = len(data) if count is None else count
        run.step(label, "write", opaque(file) + u64(offset) + u32(count, stable) + opaque(data))

    write("write", 0, b"hello")
    write("write nothing", 0, b"")
    write("write far", 1 << 40, b"x")
    write("write beyond all", (1 << 63) - 1, b"xy")
    write("write unstable", 0, b"x", stable=0)
    write("write no such stability", 0, b"x", stable=7)
    run.step("write of folder", "write", opaque(here) + u64(0) + u32(1, 2) + opaque(b"x"))


def listings(run, here):
    for number in range(20):
        run.file(here, f"file{number}")
    verifier = bytes(8)
    run.step("readdir", "readdir", opaque(here) + u64(0) + verifier + u32(4096))
    run.step("readdirplus", "readdirplus", opaque(here) + u64(0) + verifier + u32(4096, 8192))
    run.step("readdir too small", "readdir", opaque(here) + u64(0) + verifier + u32(20))
    run.step("readdirplus too small", "readdirplus", opaque(here) + u64(0) + verifier + u32(20, 20))
    file = run.file(here, "file")
    run.step("readdir of file", "readdir", opaque(file) + u64(0) + verifier + u32(4096))
    run.step("readdirplus of file", "readdirplus", opaque(file) + u64(0) + verifier + u32(4096, 8192))


def rights(run, here):
    """What an ordinary user may not, and what it may."""
    secret = run.file(here, "secret", 0o600)
    readable = run.file(here, "readable", 0o644)
    run.admin.call("mkdir", place(here, "closed") + attributes(mode=0o700))
    closed = run.admin.call("lookup", place(here, "closed")).handle(False)
    run.file(closed, "f")
    user = run.client(uid=1000, gid=1000, groups=[1001])
    as_user = lambda label, name, arguments: run.step(f"user: {label}", name, arguments, user)  # noqa: E731
    as_user("read secret", "read", opaque(secret) + u64(0) + u32(5))
    as_user("write secret", "write", opaque(secret) + u64(0) + u32(1, 2) + opaque(b"x"))
    as_user("write readable", "write", opaque(readable) + u64(0) + u32(1, 2) + opaque(b"x"))
    as_user("read readable", "read", opaque(readable) + u64(0) + u32(5))
    as_user("getattr secret", "getattr", opaque(secret))
    as_user("lookup in closed", "lookup", place(closed, "f"))
    as_user("list closed", "readdir", opaque(closed) + u64(0) + bytes(8) + u32(4096))
    as_user("create in closed", "create", place(closed, "x") + u32(0) + attributes(mode=0o644))
    as_user("remove in closed", "remove", place(closed, "f"))
    as_user("create in open", "create", place(here, "own") + u32(0) + attributes(mode=0o644))
    as_user("create with foreign owner", "create", place(here, "foreign") + u32(1) + attributes(mode=0o644, uid=0))
    as_user("rename secret in open", "rename", place(here, "secret") + place(here, "moved"))
    as_user("link of secret", "link", opaque(secret) + place(here, "linked"))
    run.admin.call("setattr", opaque(here) + attributes(mode=0o1777) + u32(0))
    as_user("remove in sticky", "remove", place(here, "readable"))
    as_user("rename over in sticky", "rename", place(here, "own") + place(here, "readable"))
    as_user("remove own in sticky", "remove", place(here, "own"))
    user.close()


def handles(run, here):
    file = run.file(here, "a")
    run.admin.call("remove", place(here, "a"))
    run.step("getattr of removed", "getattr", opaque(file))
    run.step("read of removed", "read", opaque(file) + u64(0) + u32(5))
    run.step("link of removed", "link", opaque(file) + place(here, "b"))
    run.step("getattr of empty handle", "getattr", opaque(b""))
    run.step("getattr of short handle", "getattr", opaque(b"short"))
    run.step("getattr of forged handle", "getattr", opaque(b"\xa5" * len(here)))
    run.step("getattr of long handle", "getattr", opaque(b"\xa5" * 64))
    run.step("getattr of longer handle than there are", "getattr", opaque(b"\xa5" * 68))


def rubbish(run, here):
    """Calls that are cut, lengthened or of nothing known."""
    program = lambda number, **more: lambda client: client.message(number, 1, b"", **more)  # noqa: E731
    run.bytes("unknown program", program(100999))
    run.bytes("unknown version", program(100003, version=9))
    run.bytes("unknown RPC version", program(100003, rpc_version=3))
    run.bytes("unknown procedure", lambda client: client.message(100003, 99, b""))
    run.bytes("getattr without handle", lambda client: client.message(100003, 1, b""))
    run.bytes("getattr with cut handle", lambda client: client.message(100003, 1, opaque(here)[:-4]))
    run.bytes("lookup with endless name", lambda client: client.message(100003, 3, opaque(here) + u32(0xFFFFFFFF)))
    run.step("the server lives", "getattr", opaque(here))


def differences(ours, other):
    for label, outcome in ours.items():
        expected = other.get(label)
        if outcome != expected:
            found = [
                why
                for pattern, ours_is, other_is, why in ALLOWED
                if re.fullmatch(pattern, label) and outcome == ours_is and expected in other_is
            ]
            yield label, outcome, expected, found[0] if found else None


def main():
    enter_namespaces()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="bitrix-oracle-", dir="/tmp") as folder, server.Portmapper():
        pair = [
            server.Bitrix(f"{folder}/ours", sys.argv[1], address=ADDRESS),
            server.Ganesha(f"{folder}/ganesha", address=ADDRESS, port=3049),
        ]
        try:
            for one in pair:
                one.start()
            ours, other = (Script(one).run() for one in pair)
        finally:
            for one in pair:
                one.stop()
    for label, outcome, expected, why in differences(ours, other):
        failed += why is None
        print(f"{'ok  ' if why else 'FAIL'}  {label:32} {outcome:12} ganesha {expected or 'nothing':8} {why or ''}")
    print(f"{'FAIL' if failed else 'ok  '}  oracle: {len(ours)} calls, {failed} differ that may not")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
