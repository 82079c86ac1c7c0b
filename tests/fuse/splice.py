#!/usr/bin/env python3
"""The contract with the kernel by which no request is lost when its reader is killed, without bitrix-node: a process takes writes from
/dev/fuse through a pipe into shared memory, is killed with SIGKILL again and again, wherever that meets it, and its successor goes on
with the same device, pipe and memory.

    splice.py SECONDS [read]

No write may fail, arrive damaged, or be taken twice. With `read` the device is read without a pipe, for comparison: then some fail where
the kernel has no fast way to the reader's pages (User-mode Linux). As root, in a namespace of its own for mounts."""

import ctypes
import fcntl
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "kernel"))
from session import Table  # noqa: E402

LIBC = ctypes.CDLL(None, use_errno=True)
OPTIONS = "fd={},rootmode=40000,user_id=0,group_id=0,allow_other"
DETACH = 2
MIB = 1 << 20
# As in the door: pages of the largest request, where it lies, and a pipe that has just room for it.
PAGES = 255
LANDING, PIPE = MIB + 8192, MIB
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, WRITE, RELEASE, INIT, INTERRUPT, BATCH_FORGET = 1, 2, 3, 4, 14, 16, 18, 26, 36, 42
HEAD, DATA = 40, 80
BIG_WRITES, MAX_PAGES, DIRECT_IO = 1 << 5, 1 << 22, 1 << 0
ENOSYS, EBADMSG = 38, 74
# Names in the mount: one whose pages the kernel keeps, and one that is written from its caller's.
CACHED, DIRECT = 2, 3
NAMES = {b"cached": CACHED, b"direct": DIRECT}
SIZES = [1, 100, 4096, 5000, 65536, 300_000, PAGES * 4096]
WRITERS = 4
# In memory that all share: the writers end; the reader has begun.
STOP, READS = 0, 1
# A write that takes longer is lost.
PATIENCE = 20


def attributes(node):
    mode, size = (0o40755, 0) if node == 1 else (0o100666, 1 << 30)
    return struct.pack("<6Q10I", node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def written(data):
    """Which write it is; None where it is damaged. Short ones have no room for a sum."""
    if len(data) < 20:
        return (0, 0)
    writer, turn, check = struct.unpack_from("<QQI", data)
    return (writer, turn) if zlib.crc32(data[20:]) == check else None


class Server:
    """One process after another; `device`, `pipe` and `landing` outlive them."""

    def __init__(self, device, journal, flags, through_pipe):
        self.device, self.journal, self.flags, self.through_pipe = device, journal, flags, through_pipe
        self.out, self.into = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        if fcntl.fcntl(self.into, fcntl.F_SETPIPE_SZ, PIPE) < PIPE:
            raise RuntimeError("the pipe stays small")
        memory = os.memfd_create("landing")
        os.truncate(memory, LANDING)
        self.landing = mmap.mmap(memory, LANDING)

    def serve(self):
        """In the child; until it is killed, or the mount is gone."""
        self.answers = mmap.mmap(-1, mmap.PAGESIZE)
        for at in range(0, LANDING, mmap.PAGESIZE):
            # Mapped from the beginning.
            self.landing[at] = self.landing[at]
        self.resume()
        self.flags[READS] = 1
        while True:
            try:
                self.take()
            except (InterruptedError, FileNotFoundError, BlockingIOError):
                continue
            self.handle(b"new")

    def noted(self):
        return struct.unpack_from("<I", self.landing)[0]

    def strike(self):
        struct.pack_into("<I", self.landing, 0, 0)

    def resume(self):
        held = struct.unpack("i", fcntl.ioctl(self.out, 0x541B, bytes(4)))[0]  # FIONREAD
        if held:
            length = self.noted()
            self.fetch(length - held if length else 0, held)
        if self.noted():
            self.handle(b"old")

    def take(self):
        if self.through_pipe:
            self.fetch(0, os.splice(self.device, self.into, LANDING))
        else:
            os.readv(self.device, [self.landing])

    def fetch(self, at, count):
        with memoryview(self.landing) as room:
            while count > 0:
                got = os.readv(self.out, [room[at : at + count]])
                at, count = at + got, count - got

    def handle(self, which):
        length, code, unique, node = struct.unpack_from("<IIQQ", self.landing)
        if code not in (FORGET, BATCH_FORGET, INTERRUPT):
            self.answer(unique, *self.reply(which, length, code, unique, node))
        self.strike()

    def reply(self, which, length, code, unique, node):
        if code == INIT:
            return 0, struct.pack("<4I2H2I2HI28x", 7, 31, 0, BIG_WRITES | MAX_PAGES, 16, 12, PAGES * 4096, 1, PAGES, 0, 0)
        if code in (GETATTR, SETATTR):
            return 0, struct.pack("<QII", 3600, 0, 0) + attributes(node)
        if code == LOOKUP:
            found = NAMES[self.landing[HEAD:length].rstrip(b"\0")]
            return 0, struct.pack("<4Q2I", found, 0, 3600, 3600, 0, 0) + attributes(found)
        if code == OPEN:
            return 0, struct.pack("<QII", 0, DIRECT_IO if node == DIRECT else 0, 0)
        if code == WRITE:
            number = written(self.landing[DATA:length])
            os.write(self.journal, b"%s %d %d %d\n" % (which, unique, *(number or (-1, -1))))
            return (0, struct.pack("<II", length - DATA, 0)) if number else (-EBADMSG, b"")
        return (0, b"") if code == RELEASE else (-ENOSYS, b"")

    def answer(self, unique, error, body):
        """In one page: of a process that is being killed the kernel may not look for a second one."""
        bytes_ = struct.pack("<IiQ", 16 + len(body), error, unique) + body
        self.answers[: len(bytes_)] = bytes_
        with memoryview(self.answers) as page:
            try:
                os.write(self.device, page[: len(bytes_)])
            except FileNotFoundError:
                pass  # It was answered by the process before.


def write(path, number, flags, device):
    """In a child: writes until told to stop. Returns what failed."""
    # Held here, it would keep what waits for an answer waiting for ever.
    os.close(device)
    dice, buffer, faults = random.Random(number), mmap.mmap(-1, MIB), []
    with open(path, "r+b", buffering=0) as file, memoryview(buffer) as room:
        turn = 0
        while not flags[STOP]:
            turn += 1
            size = dice.choice(SIZES)
            if size >= 20:
                at = dice.randrange(20, max(size, 21))
                buffer[at : at + 8] = os.urandom(min(8, MIB - at))
                struct.pack_into("<QQI", buffer, 0, number, turn, zlib.crc32(room[20:size]))
            try:
                got = os.pwrite(file.fileno(), room[:size], number * 2 * MIB)
            except OSError as error:
                faults.append(f"writer {number}, turn {turn}, {size} bytes: {error}")
                continue
            if got != size:
                faults.append(f"writer {number}, turn {turn}: {got} of {size} bytes")
    return turn, faults


def fork(work, *arguments):
    """A child without a word at its end; what it returns is in a file."""
    into = tempfile.TemporaryFile()
    if (pid := os.fork()) == 0:
        try:
            into.write(repr(work(*arguments)).encode())
            into.flush()
        finally:
            os._exit(0)
    return pid, into


def ended(pid, seconds):
    end = time.monotonic() + seconds
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def judge(journal, results):
    """Writes, and what is wrong."""
    faults = [fault for _, found in results for fault in found]
    seen, lines = set(), Path(journal).read_bytes().splitlines()
    for line in lines:
        which, unique, writer, _ = line.split()
        if which == b"new" and unique in seen:
            faults.append(f"taken twice: {line.decode()}")
        if writer == b"-1":
            faults.append(f"damaged: {line.decode()}")
        seen.add(unique)
    resumed = sum(line.startswith(b"old") for line in lines)
    return sum(turns for turns, _ in results), resumed, faults


def run(folder, seconds, through_pipe):
    """Kills, writes, requests that a successor found, and faults."""
    place, journal = Path(folder) / "mount", Path(folder) / "journal"
    place.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    journal_end = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    flags = mmap.mmap(-1, mmap.PAGESIZE)
    server = Server(device, journal_end, flags, through_pipe)
    options = OPTIONS.format(device).encode()
    if LIBC.mount(b"splice", os.fsencode(place), b"fuse.splice", 0, options) != 0:
        raise OSError(ctypes.get_errno(), "mount")
    dice, kills = random.Random(), 0
    serving, _ = fork(server.serve)
    try:
        writers = [fork(write, place / ["cached", "direct"][number % 2], number + 1, flags, device) for number in range(WRITERS)]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            while not flags[READS] and time.monotonic() < end:
                time.sleep(0.001)
            time.sleep(dice.uniform(0, 0.02))
            flags[READS] = 0
            os.kill(serving, signal.SIGKILL)
            if os.waitpid(serving, 0)[1] != signal.SIGKILL:
                raise RuntimeError("the reader has ended by itself")
            kills += 1
            serving, _ = fork(server.serve)
        flags[STOP] = 1
        hangs = [f"writer {number + 1} hangs" for number, (pid, _) in enumerate(writers) if not ended(pid, PATIENCE)]
        results = [eval(into.read().decode()) for _, into in writers if into.seek(0) == 0 and not hangs]
    finally:
        LIBC.umount2(os.fsencode(place), DETACH)
        os.kill(serving, signal.SIGKILL)
        os.waitpid(serving, 0)
        os.close(device)
        place.rmdir()
    writes, resumed, faults = judge(journal, results)
    return kills, writes, resumed, faults + hangs


def contract(table, seconds, name="taken through a pipe"):
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        kills, writes, resumed, faults = run(folder, seconds, True)
    text = f"{kills} kills, {writes} writes, {resumed} found by a successor, {len(faults)} lost, twice or damaged"
    table.row(name, not faults and min(kills, writes, resumed) > 0, text, faults[:10])


def compare(seconds):
    """What is lost without a pipe."""
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        kills, writes, resumed, faults = run(folder, seconds, False)
    print(f"by read: {kills} kills, {writes} writes, {resumed} found by a successor, {len(faults)} lost", *faults[:5], sep="\n          ", flush=True)


def main():
    if LIBC.unshare(0x20000) != 0 or LIBC.mount(b"none", b"/", None, 0x4000 | 0x40000, None) != 0:  # CLONE_NEWNS; all private
        sys.exit("as root, please")
    table, seconds = Table(), float(sys.argv[1])
    if sys.argv[2:] == ["read"]:
        compare(seconds)
    else:
        contract(table, seconds)
    sys.exit(1 if table.failed else 0)


if __name__ == "__main__":
    main()
