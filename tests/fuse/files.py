"""Plain files on a mount beside ext4 and beside the NFS door: single calls, small files, and long ones in small and large blocks."""

import fcntl
import os
import statistics
import time

from nfs import attributes, opaque, place, u32, u64

ROUNDS = 5
MIB = 1 << 20
LONG = 200 * MIB
# In 8 KiB blocks, as PHP writes.
SMALL_BLOCKS, SMALL = 64 * MIB, 8192
COUNT = 500
DROP_CACHES = "/proc/sys/vm/drop_caches"
UNSTABLE = 0


def timed(function, *arguments):
    started = time.monotonic()
    function(*arguments)
    return time.monotonic() - started


def write_file(path, length, block):
    """Until it is durable."""
    data = os.urandom(block)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for _ in range(length // block):
        os.write(fd, data)
    os.fsync(fd)
    os.close(fd)


def read_file(path, length):
    fd, count = os.open(path, os.O_RDONLY), 0
    while data := os.read(fd, MIB):
        count += len(data)
    os.close(fd)
    assert count == length, count


def drop_caches():
    with open(DROP_CACHES, "w") as file:
        file.write("3")


def create_small(folder):
    """As PHP's file_put_contents does: nothing is waited for but what close() waits for."""
    os.mkdir(folder)
    for number in range(COUNT):
        with open(f"{folder}/{number}", "wb", buffering=0) as file:
            file.write(b"x" * 1000)


def read_small(folder):
    for number in range(COUNT):
        with open(f"{folder}/{number}", "rb", buffering=0) as file:
            assert len(file.read(8192)) == 1000


def stat_small(folder):
    for number in range(COUNT):
        os.stat(f"{folder}/{number}")


def lock_small(folder):
    for number in range(COUNT):
        with open(f"{folder}/{number}", "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            fcntl.flock(file, fcntl.LOCK_UN)


def rewrite_locked(folder):
    for number in range(COUNT):
        with open(f"{folder}/{number}", "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(b"y" * 1000)
            fcntl.flock(file, fcntl.LOCK_UN)


def list_small(folder):
    for _ in range(10):
        assert len(os.listdir(folder)) == COUNT


def remove_small(folder):
    for number in range(COUNT):
        os.unlink(f"{folder}/{number}")
    os.rmdir(folder)


class Here:
    """A folder of this machine."""

    def __init__(self, folder):
        self.folder = folder

    def one_round(self):
        """Each case with how often per second, or MB/s."""
        long, blocks, small = self.folder / "long", self.folder / "blocks", self.folder / "small"
        yield "sequential write, MB/s", LONG / 1e6 / timed(write_file, long, LONG, MIB)
        drop_caches()
        yield "sequential read, cold, MB/s", LONG / 1e6 / timed(read_file, long, LONG)
        yield "sequential read, warm, MB/s", LONG / 1e6 / timed(read_file, long, LONG)
        yield "8 KiB blocks written, MB/s", SMALL_BLOCKS / 1e6 / timed(write_file, blocks, SMALL_BLOCKS, SMALL)
        yield "create + 1 kB + close /s", COUNT / timed(create_small, small)
        yield "stat, warm /s", COUNT / timed(stat_small, small)
        yield "open + read + close, warm /s", COUNT / timed(read_small, small)
        yield "open + flock + unlock + close /s", COUNT / timed(lock_small, small)
        yield "the same and 1 kB written /s", COUNT / timed(rewrite_locked, small)
        yield f"list {COUNT} names /s", 10 / timed(list_small, small)
        drop_caches()
        yield "stat, cold /s", COUNT / timed(stat_small, small)
        drop_caches()
        yield "open + read + close, cold /s", COUNT / timed(read_small, small)
        yield "unlink /s", COUNT / timed(remove_small, small)
        os.unlink(long)
        os.unlink(blocks)


class Door:
    """The same long files through the NFS door, one call at a time."""

    def __init__(self, client, root):
        self.client, self.root = client, root

    def call(self, name, body):
        reply = self.client.call(name, body)
        assert reply.outcome == "OK", f"{name}: {reply}"
        return reply

    def write(self, name, length, block):
        file = self.call("create", place(self.root, name) + u32(0) + attributes(mode=0o644)).handle()
        data = os.urandom(block)
        for number in range(length // block):
            self.call("write", opaque(file) + u64(number * block) + u32(block, UNSTABLE) + opaque(data))
        self.call("commit", opaque(file) + u64(0) + u32(0))
        return file

    def read(self, name):
        file = self.call("lookup", place(self.root, name)).handle(False)
        for at in range(0, LONG, MIB):
            self.call("read", opaque(file) + u64(at) + u32(MIB))

    def one_round(self):
        yield "sequential write, MB/s", LONG / 1e6 / timed(self.write, "long", LONG, MIB)
        yield "sequential read, cold, MB/s", LONG / 1e6 / timed(self.read, "long")
        yield "8 KiB blocks written, MB/s", SMALL_BLOCKS / 1e6 / timed(self.write, "blocks", SMALL_BLOCKS, SMALL)
        for name in ["long", "blocks"]:
            self.call("remove", place(self.root, name))


def measure_files(table, ext4, mount, nfs=None):
    found, contenders = {}, {"ext4": Here(ext4), "mount": Here(mount)}
    if nfs:
        contenders["NFS door"] = Door(*nfs)
    for _ in range(ROUNDS):
        for name, one in contenders.items():
            for case, value in one.one_round():
                found.setdefault(case, {}).setdefault(name, []).append(value)
    for case, by_name in found.items():
        middle = {name: statistics.median(values) for name, values in by_name.items()}
        others = "".join(f", {name} {middle[name]:.0f} (ratio {middle['mount'] / middle[name]:.2f})" for name in middle if name != "mount")
        table.row("files", True, f"{case}: {middle['mount']:.0f}{others}")
