"""What one mount sees of what was done on the other: rows of the table about names, attributes and contents."""

import errno
import os

from actor import row

# Two names of one number.
NOT_HERE = ["EOPNOTSUPP", "ENOTSUP"]
# Open descriptors and mappings of an actor, by name.
OPEN = {}


def put(name, data, flags=os.O_CREAT | os.O_TRUNC):
    fd = os.open(name, os.O_WRONLY | flags, 0o644)
    try:
        assert os.write(fd, data) == len(data)
    finally:
        os.close(fd)


def get(name):
    with open(name, "rb") as file:
        return file.read()


def hold(key, name, flags=os.O_RDONLY):
    OPEN[key] = os.open(name, flags | os.O_CLOEXEC, 0o644)


def let_go(key):
    os.close(OPEN.pop(key))


def read_at(key, count, at):
    return os.pread(OPEN[key], count, at)


def write_at(key, data, at):
    return os.pwrite(OPEN[key], data, at)


def links(key):
    return os.fstat(OPEN[key]).st_nlink


def size(name):
    return os.stat(name).st_size


def inode(name):
    return os.stat(name).st_ino


def exists(name):
    """By stat(2): anything but "there" and "not there" is an error."""
    try:
        os.stat(name)
        return True
    except FileNotFoundError:
        return False


def replace(name, data):
    put(f"{name}.new", data)
    os.rename(f"{name}.new", name)


def error_of(function, *arguments):
    """Name of the error, or what it returned."""
    try:
        return function(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]


def none_of(count, bad):
    assert not bad, f"{len(bad)} of {count}, first {bad[:3]}"
    return f"0 of {count}"


@row("write on A, close, open on B: stale")
def close_to_open(a, b):
    bad = []
    for turn in range(200):
        data = f"{turn} ".encode() * (1 + turn * 7 % 90)
        a.do(put, "file", data)
        if (seen := b.do(get, "file")) != data:
            bad.append((turn, seen[:8]))
    return none_of(200, bad)


@row("the same in turns, from both sides")
def back_and_forth(a, b):
    bad = []
    for turn in range(200):
        writer, reader = (a, b) if turn % 2 else (b, a)
        writer.do(put, "file", b"%06d" % turn)
        if (seen := reader.do(get, "file")) != b"%06d" % turn:
            bad.append((turn, seen))
    return none_of(200, bad)


@row("written through a descriptor that stays open, synced, opened on B: stale")
def synced(a, b):
    bad = []
    a.do(hold, "log", "log", os.O_RDWR | os.O_CREAT)
    for turn in range(100):
        a.do(write_at, "log", b"%05d" % turn, 5 * turn)
        a.do(sync, "log")
        if not b.do(get, "log").endswith(b"%05d" % turn) or b.do(size, "log") != 5 * turn + 5:
            bad.append(turn)
    return none_of(100, bad)


def sync(key):
    os.fsync(OPEN[key])


@row("atomic replace on A, open on B: old content or an error")
def replaced(a, b):
    bad = []
    for turn in range(100):
        a.do(replace, "file", b"turn %d" % turn)
        if (seen := b.do(error_of, get, "file")) != b"turn %d" % turn:
            bad.append((turn, seen))
    return none_of(100, bad)


def replace_often(count):
    for turn in range(count):
        replace("file", b"%06d" % turn * 500)


def look_often(last):
    """Until the last one is seen; what was neither old nor new, and what went back."""
    bad, newest, looks = [], -1, 0
    while newest < last:
        looks += 1
        seen = error_of(get, "file")
        if not isinstance(seen, bytes) or len(seen) != 3000 or seen != seen[:6] * 500:
            bad.append(str(seen[:12]))
            continue
        if int(seen[:6]) < newest:
            bad.append(f"{int(seen[:6])} after {newest}")
        newest = int(seen[:6])
    return looks, bad


@row("replaced in turns, from both sides, read at once by both: stale")
def replaced_in_turns(a, b):
    bad = []
    for turn in range(100):
        writer = (a, b)[turn % 2]
        writer.do(replace, "file", b"turn %d" % turn)
        for reader in (a, b):
            if (seen := reader.do(error_of, get, "file")) != b"turn %d" % turn:
                bad.append((turn, "AB"[reader is b], seen))
    return none_of(200, bad)


@row("made on A, removed on B at once, made again: wrong on A")
def made_and_removed(a, b):
    bad = []
    for turn in range(50):
        a.do(put, "file", b"%d" % turn)
        b.do(os.unlink, "file")
        if a.do(exists, "file"):
            bad.append((turn, "is there"))
        b.do(put, "file", b"")
        if not a.do(exists, "file"):
            bad.append((turn, "is not there"))
        a.do(os.unlink, "file")
        if b.do(exists, "file"):
            bad.append((turn, "is there on B"))
    return none_of(150, bad)


@row("mode changed on A and at once on B, seen on A: differs")
def changed_in_turns(a, b):
    bad = []
    a.do(put, "file", b"0")
    for turn in range(50):
        a.do(os.chmod, "file", 0o600)
        b.do(os.chmod, "file", 0o640)
        if a.do(look_of, "file") != b.do(look_of, "file"):
            bad.append(turn)
    return none_of(50, bad)


@row("replaced on A again and again while B opens and reads: torn, gone, gone back")
def replaced_under_a_reader(a, b):
    a.do(replace, "file", b"%06d" % 0 * 500)
    b.begin(look_often, 299)
    a.do(replace_often, 300)
    looks, bad = b.result()
    return none_of(looks, bad)


@row("name made on A after B saw that there is none: unseen")
def negative(a, b):
    bad = []
    for turn in range(50):
        assert not b.do(exists, f"{turn}")
        a.do(put, f"{turn}", b"")
        if not b.do(exists, f"{turn}"):
            bad.append(turn)
    return none_of(50, bad)


@row("stat on B after unlink on A: still there")
def unlinked(a, b):
    bad = []
    for turn in range(50):
        a.do(put, f"{turn}", b"x")
        assert b.do(exists, f"{turn}")
        a.do(os.unlink, f"{turn}")
        if b.do(exists, f"{turn}"):
            bad.append(turn)
    return none_of(50, bad)


@row("size in stat on B after an append on A: old")
def size_in_stat(a, b):
    bad = []
    for turn in range(100):
        a.do(put, "file", b"0123456789", os.O_CREAT | os.O_APPEND)
        if b.do(size, "file") != 10 * turn + 10:
            bad.append(turn)
    return none_of(100, bad)


def look_of(name):
    found = os.lstat(name)
    return found.st_mode, found.st_uid, found.st_gid, found.st_nlink, found.st_size, found.st_mtime_ns


@row("mode, owner, links, length and times on B after a change on A: differ")
def attributes(a, b):
    a.do(put, "file", b"0123456789")
    changes = [
        (os.chmod, "file", 0o600), (os.chown, "file", 33, 34), (os.link, "file", "other"), (os.truncate, "file", 3),
        (os.utime, "file", (1000, 2000)), (os.unlink, "other"), (os.truncate, "file", 30), (os.chmod, "file", 0o755),
    ]  # fmt: skip
    bad = []
    for change in changes * 5:
        before = b.do(look_of, "file")
        a.do(*change)
        seen, right = b.do(look_of, "file"), a.do(look_of, "file")
        if seen != right or seen == before and change[0] is not os.chown:
            bad.append((change[0].__name__, seen, right))
    return none_of(40, bad)


@row("listing on B after names came and went on A: wrong")
def listing(a, b):
    bad, wanted = [], set()
    for turn in range(60):
        a.do(put, f"{turn}", b"")
        wanted.add(f"{turn}")
        if turn % 3 == 2:
            a.do(os.unlink, f"{turn - 1}")
            wanted.remove(f"{turn - 1}")
        if set(b.do(os.listdir, ".")) != wanted:
            bad.append(turn)
    return none_of(60, bad)


@row("listing of many pages after names came and went in it: wrong")
def long_listing(a, b):
    wanted = a.do(fill, 300)
    bad = []
    for turn in range(10):
        actor = (a, b)[turn % 2]
        actor.do(put, f"new {turn}", b"")
        a.do(os.unlink, f"{turn * 29}")
        wanted = wanted - {f"{turn * 29}"} | {f"new {turn}"}
        for looker in (a, b):
            found = looker.do(os.listdir, ".")
            if len(found) != len(wanted) or set(found) != wanted:
                bad.append((turn, sorted(set(found) ^ wanted)[:3]))
    return none_of(20, bad)


def fill(count):
    names = {f"{number}" for number in range(count)}
    for name in names:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    return names


@row("folder renamed on A: B finds its files under the new name only, at once")
def folder_renamed(a, b):
    a.do(os.makedirs, "0/deep")
    a.do(put, "0/deep/file", b"x")
    b.do(hold, "folder", "0/deep", os.O_DIRECTORY)
    bad = []
    for turn in range(50):
        assert b.do(get, f"{turn}/deep/file") == b"x"
        a.do(os.rename, f"{turn}", f"{turn + 1}")
        if b.do(exists, f"{turn}/deep/file") or not b.do(exists, f"{turn + 1}/deep/file"):
            bad.append(turn)
    assert b.do(names_of, "folder") == ["file"]
    return none_of(50, bad)


def names_of(key):
    return os.listdir(OPEN[key])


@row("extended attributes, room and limits are answered")
def other_answers(a, _b):
    a.do(put, "file", b"x")
    assert a.do(error_of, os.getxattr, "file", "user.none") in ("ENODATA", *NOT_HERE)
    assert a.do(error_of, os.listxattr, "file") in ([], *NOT_HERE)
    assert a.do(error_of, os.setxattr, "file", "security.x", b"1") in (None, "EPERM", *NOT_HERE)
    room = a.do(room_of)
    assert 0 < room[0] <= room[1] and room[2] == 255, room
    return ""


def room_of():
    found = os.statvfs(".")
    return found.f_bavail, found.f_blocks, found.f_namemax
