"""Files that are open, appended to and mapped on two mounts: rows of the table in which no locks take part."""

import mmap
import os
import subprocess
import time

from actor import row
from coherence import OPEN, error_of, exists, get, hold, let_go, links, none_of, put, read_at, replace, write_at

# Between two appends, so that all who append are at it for the same time, also on one processor.
PACE = 0.001


def big(letter):
    """Larger than what is read ahead."""
    return letter * (3 << 20)


@row("unlinked while open on the same node: reads and writes go on, gone after close")
def unlinked_while_open(a, b):
    a.do(put, "file", big(b"x"))
    a.do(hold, "file", "file", os.O_RDWR)
    a.do(os.unlink, "file")
    assert not b.do(exists, "file") and a.do(os.listdir, ".") == []
    assert a.do(links, "file") == 0
    assert a.do(read_at, "file", 10, 2 << 20) == b"x" * 10
    a.do(write_at, "file", b"new", 5)
    assert a.do(read_at, "file", 4, 5) == b"newx"
    a.do(let_go, "file")
    assert a.do(os.listdir, ".") == [] and b.do(os.listdir, ".") == []
    return ""


@row("unlinked on A while open on B: B reads old data that it never had, and writes")
def unlinked_elsewhere(a, b):
    for turn in range(10):
        a.do(put, "file", big(b"%d" % turn))
        b.do(hold, "file", "file", os.O_RDWR)
        assert b.do(read_at, "file", 4, 0) == b"%d" % turn * 4
        a.do(os.unlink, "file")
        assert not b.do(exists, "file")
        assert b.do(read_at, "file", 10, (3 << 20) - 10) == b"%d" % turn * 10, "the old data's end"
        assert b.do(links, "file") == 0
        b.do(write_at, "file", b"new", 0)
        assert b.do(read_at, "file", 4, 0) == b"new%d" % turn
        b.do(let_go, "file")
    return "10 of 10"


@row("the same, and B holds it for two minutes", is_long=True)
def unlinked_elsewhere_for_long(a, b):
    # Longer than what nobody has open is kept.
    a.do(put, "file", big(b"x"))
    b.do(hold, "file", "file", os.O_RDWR)
    a.do(os.unlink, "file")
    # Nobody tells it anything meanwhile.
    assert not b.begin(read_later, "file", 120, 1 << 20).is_done(0)
    assert b.result(150) == b"x" * 10
    b.do(write_at, "file", b"new", 0)
    assert b.do(read_at, "file", 4, 0) == b"newx"
    return ""


def read_later(key, seconds, at):
    # The time itself is what is tried here.
    time.sleep(seconds)
    return os.pread(OPEN[key], 10, at)


@row("renamed over while open on the same node: old data is kept")
def renamed_over(a, b):
    return over_open(a, a, b)


@row("renamed over on A while open on B: old data is kept")
def renamed_over_elsewhere(a, b):
    return over_open(a, b, a)


def over_open(changer, holder, other):
    for turn in range(20):
        changer.do(put, "file", b"old" * 100_000)
        holder.do(hold, "file", "file", os.O_RDWR)
        changer.do(replace, "file", b"new %d" % turn)
        assert holder.do(read_at, "file", 6, 299_994) == b"oldold"
        assert holder.do(get, "file") == other.do(get, "file") == b"new %d" % turn
        holder.do(write_at, "file", b"more", 0)
        assert other.do(get, "file") == b"new %d" % turn
        assert holder.do(read_at, "file", 6, 0) == b"moreld"
        holder.do(let_go, "file")
    return "20 of 20"


@row("folder removed on A while B is in it")
def folder_removed(a, b):
    a.do(os.mkdir, "d")
    b.do(os.chdir, "d")
    a.do(os.rmdir, "d")
    assert b.do(error_of, put, "file", b"") == "ENOENT"
    assert b.do(error_of, os.listdir, ".") in ("ENOENT", [])
    return ""


def win(turns):
    won = []
    for turn in turns:
        try:
            os.close(os.open(f"{turn}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            won.append(turn)
        except FileExistsError:
            pass
    return won


@row("O_EXCL race: exactly one winner")
def exclusive(a, b):
    a.begin(win, range(200))
    b.begin(win, range(200))
    won = [a.result(), b.result()]
    assert sorted(won[0] + won[1]) == list(range(200)), [len(one) for one in won]
    return f"200 of 200 ({len(won[0])} and {len(won[1])})"


def append(letter, count, length):
    fd = os.open("log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    for _ in range(count):
        assert os.write(fd, letter * (length - 1) + b"\n") == length
        time.sleep(PACE)
    os.close(fd)


def whole_lines(actor, lengths):
    """By letter: all lines must be there, unbroken."""
    lines = actor.do(get, "log").split(b"\n")[:-1]
    return {letter: sum(line == letter * (length - 1) for line in lines) for letter, length in lengths.items()}, len(lines)


@row("O_APPEND from both nodes without a lock: lines that survive")
def appends(a, b):
    lengths = {b"a": 100, b"b": 37}
    for actor, (letter, length) in zip([a, b], lengths.items()):
        actor.begin(append, letter, 200, length)
    a.result(), b.result()
    for actor in [a, b]:
        assert whole_lines(actor, lengths) == ({b"a": 200, b"b": 200}, 400), whole_lines(actor, lengths)
    return "400 of 400"


@row("O_APPEND of two processes of one node: lines that survive")
def appends_here(a, _b):
    lengths = {b"a": 100, b"b": 37}
    other = a.another()
    a.begin(append, b"a", 200, 100)
    other.do(append, b"b", 200, 37)
    a.result()
    assert whole_lines(a, lengths) == ({b"a": 200, b"b": 200}, 400), whole_lines(a, lengths)
    return "400 of 400"


APPEND = "for ($i = 0; $i < 200; $i++) if (file_put_contents('log', str_repeat($argv[1], 59).PHP_EOL, FILE_APPEND|LOCK_EX) !== 60) exit(1);"


def append_by_php(letter):
    subprocess.run(["php", "-n", "-r", APPEND, letter], check=True)


@row("PHP's file_put_contents(FILE_APPEND|LOCK_EX) from both nodes: lines that survive")
def appends_by_php(a, b):
    a.begin(append_by_php, "a")
    b.do(append_by_php, "b")
    a.result()
    lengths = {b"a": 60, b"b": 60}
    assert whole_lines(a, lengths) == ({b"a": 200, b"b": 200}, 400), whole_lines(a, lengths)
    return "400 of 400"


def write_mapped(at, data):
    with open("map", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[at : at + len(data)] = data
        memory.flush()


@row("written through a shared mapping on A, msync, read on B")
def mapped_write(a, b):
    a.do(put, "map", bytes(64 << 10))
    for turn in range(20):
        at = turn * 3001
        assert b.do(get, "map")[at : at + 4] == bytes(4)
        a.do(write_mapped, at, b"here")
        assert b.do(get, "map")[at : at + 4] == b"here", turn
    return "20 of 20"


def map_file(key, name):
    with open(name, "rb") as file:
        OPEN[key] = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)


def mapped(key, at, count):
    return OPEN[key][at : at + count]


@row("read through a mapping on B after a change on A: stale")
def mapped_read(a, b):
    a.do(put, "map", b"a" * 20_000)
    b.do(map_file, "map", "map")
    bad = []
    for turn in range(100):
        letter = bytes([ord("a") + turn % 26])
        a.do(put, "map", letter * 20_000, 0)
        if b.do(mapped, "map", 9000, 4) != letter * 4:
            bad.append(turn)
    return none_of(100, bad)


@row("8 KiB blocks written on A, read on B while it is written: never wrong, at last whole")
def grows_under_a_reader(a, b):
    a.do(put, "file", b"")
    b.do(hold, "file", "file")
    a.begin(write_blocks, 256)
    seen = 0
    while seen < 256 * 8192:
        seen = b.do(check_blocks, "file")
        if a.is_done() and seen < 256 * 8192:
            assert b.do(check_blocks, "file") == 256 * 8192, "after close"
            break
    a.result()
    return "2 MiB"


def block(number):
    return b"%08d" % number * 1024


def write_blocks(count):
    with open("file", "wb", buffering=0) as file:
        for number in range(count):
            file.write(block(number))


def check_blocks(key):
    """How much of it is there; what is there is right."""
    data = os.pread(OPEN[key], 4 << 20, 0)
    for number in range(len(data) // 8192):
        assert data[number * 8192 : number * 8192 + 8192] == block(number), f"block {number}"
    return len(data)
