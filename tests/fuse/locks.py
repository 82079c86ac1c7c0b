"""Locks that hold on all nodes: rows of the table, of flock(2) and fcntl(2). A is one node's mount, B another's."""

import fcntl
import os
import signal
import struct
import time

from actor import row
from coherence import OPEN, error_of, get, hold, let_go, put

# Time in which a lock that is waited for is still not granted; and one in which it must be, once it is free.
WAIT, WAKE = 0.3, 5.0
KINDS = {"flock": fcntl.flock, "fcntl": fcntl.lockf}
SHARED, ALONE, NOW, FREE = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_NB, fcntl.LOCK_UN


def lock(kind, key, how, *of):
    """`of`: length and start, of fcntl's."""
    KINDS[kind](OPEN[key], how, *of)


def try_lock(kind, key, how, *of):
    """Whether it was granted at once."""
    seen = error_of(lock, kind, key, how | NOW, *of)
    assert seen in (None, "EAGAIN", "EACCES"), seen
    return seen is None


def opened(*actors):
    actors[0].do(put, "file", b"0" * 100)
    for actor in actors:
        actor.do(hold, "file", "file", os.O_RDWR)


def both_kinds(claim):
    """A row for each kind of lock."""

    def add(function):
        for kind in KINDS:

            def play(a, b, kind=kind):
                return function(kind, a, b)

            play.__name__ = f"{function.__name__}_{kind}"
            row(f"{kind}: {claim}")(play)
        return function

    return add


@both_kinds("refused while another node has it, granted once it is free")
def refused(kind, a, b):
    opened(a, b)
    for turn in range(20):
        a.do(lock, kind, "file", ALONE)
        assert not b.do(try_lock, kind, "file", ALONE), f"both have it, turn {turn}"
        assert not b.do(try_lock, kind, "file", SHARED), f"both have it, turn {turn}"
        a.do(lock, kind, "file", FREE)
        assert b.do(try_lock, kind, "file", ALONE), f"nobody has it, and it is refused, turn {turn}"
        assert not a.do(try_lock, kind, "file", ALONE), f"both have it, turn {turn}"
        b.do(lock, kind, "file", FREE)
    return "20 of 20"


@both_kinds("shared by both, made exclusive by none of them, and by one once it is alone")
def shared(kind, a, b):
    opened(a, b)
    assert a.do(try_lock, kind, "file", SHARED) and b.do(try_lock, kind, "file", SHARED)
    assert not b.do(try_lock, kind, "file", ALONE)
    # flock(2) may lose the old lock when it cannot be made another.
    b.do(lock, kind, "file", FREE)
    assert a.do(try_lock, kind, "file", ALONE) and not b.do(try_lock, kind, "file", SHARED)
    assert a.do(try_lock, kind, "file", SHARED) and b.do(try_lock, kind, "file", SHARED)
    return ""


@both_kinds("the same between two processes of one node")
def one_node(kind, a, b):
    other = a.another()
    opened(a, other)
    assert a.do(try_lock, kind, "file", ALONE) and not other.do(try_lock, kind, "file", SHARED)
    wait_and_wake(kind, a, other)
    assert not a.do(try_lock, kind, "file", SHARED)
    other.kill()
    a.do(lock, kind, "file", ALONE)
    return ""


def wait_and_wake(kind, holder, waiter, release=None):
    """Seconds from the release to the grant."""
    assert not waiter.begin(lock, kind, "file", ALONE).is_done(WAIT), "granted while another has it"
    started = time.monotonic()
    (release or (lambda: holder.do(lock, kind, "file", FREE)))()
    waiter.result(WAKE)
    return time.monotonic() - started


@both_kinds("waits until the other node lets go, and wakes")
def waits(kind, a, b):
    opened(a, b)
    took = []
    a.do(lock, kind, "file", ALONE)
    for turn in range(10):
        holder, waiter = (a, b) if turn % 2 == 0 else (b, a)
        took.append(wait_and_wake(kind, holder, waiter))
    return f"woken after {max(took) * 1000:.0f} ms at most"


@both_kinds("freed by close, by the end of a process, by kill -9 of one")
def freed(kind, a, b):
    opened(b)
    for release in [lambda holder: holder.do(let_go, "file"), lambda holder: holder.kill(signal.SIGTERM), lambda holder: holder.kill()]:
        holder = a.another()
        holder.do(hold, "file", "file", os.O_RDWR)
        holder.do(lock, kind, "file", ALONE)
        assert not b.do(try_lock, kind, "file", SHARED)
        wait_and_wake(kind, holder, b, lambda: release(holder))
        b.do(lock, kind, "file", FREE)
    return ""


def share_with_child(seconds):
    """A child that keeps all descriptors that long."""
    if os.fork() == 0:
        time.sleep(seconds)
        os._exit(0)


@row("flock: stays with the last of a descriptor's copies; fcntl: goes with any of a file's")
def copies(a, b):
    opened(a, b)
    a.do(lock, "flock", "file", ALONE)
    a.do(share_with_child, 1.0)
    a.do(let_go, "file")
    assert not b.do(try_lock, "flock", "file", SHARED), "the child still has it"
    b.do(lock, "flock", "file", ALONE, seconds=10)
    a.do(hold, "file", "file", os.O_RDWR)
    a.do(hold, "again", "file", os.O_RDWR)
    a.do(lock, "fcntl", "file", ALONE)
    assert not b.do(try_lock, "fcntl", "file", SHARED)
    a.do(let_go, "again")
    assert b.do(try_lock, "fcntl", "file", SHARED), "closed: POSIX has it freed"
    return ""


@row("flock and fcntl do not meet")
def apart(a, b):
    opened(a, b)
    for one, other in [("flock", "fcntl"), ("fcntl", "flock")]:
        a.do(lock, one, "file", ALONE)
        assert b.do(try_lock, other, "file", ALONE), f"{other} is refused for a {one}"
        assert not b.do(try_lock, one, "file", ALONE)
        a.do(lock, one, "file", FREE)
        b.do(lock, other, "file", FREE)
    return ""


@row("fcntl: ranges meet only where they overlap, are split and joined, and reach the end")
def ranges(a, b):
    opened(a, b)
    a.do(lock, "fcntl", "file", ALONE, 10, 0)
    assert not b.do(try_lock, "fcntl", "file", ALONE, 5, 5) and b.do(try_lock, "fcntl", "file", ALONE, 5, 10)
    a.do(lock, "fcntl", "file", ALONE, 100, 20)
    a.do(lock, "fcntl", "file", FREE, 20, 50)
    assert b.do(try_lock, "fcntl", "file", ALONE, 20, 50), "the middle was let go"
    assert not b.do(try_lock, "fcntl", "file", SHARED, 1, 49) and not b.do(try_lock, "fcntl", "file", SHARED, 1, 70)
    a.do(lock, "fcntl", "file", SHARED, 5, 20)
    assert b.do(try_lock, "fcntl", "file", SHARED, 5, 20), "a part was made shared"
    a.do(lock, "fcntl", "file", ALONE, 0, 1000)
    assert not b.do(try_lock, "fcntl", "file", SHARED, 1, 1 << 40), "to the end, however far"
    assert a.do(try_lock, "fcntl", "file", ALONE, 0, 1000), "one's own"
    return ""


def conflict(key, at, length):
    """F_GETLK: who is in the way."""
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, at, length, 0)
    kind, _, start, count, pid = struct.unpack("hhqqi4x", fcntl.fcntl(OPEN[key], fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else (kind, start, count, pid)


@row("fcntl: F_GETLK names the range that is in the way")
def asked(a, b):
    opened(a, b)
    a.do(lock, "fcntl", "file", ALONE, 10, 20)
    assert b.do(conflict, "file", 0, 20) is None and a.do(conflict, "file", 0, 0) is None
    seen = b.do(conflict, "file", 0, 0)
    assert seen and seen[:3] == (fcntl.F_WRLCK, 20, 10), seen
    other = a.another()
    other.do(hold, "file", "file", os.O_RDWR)
    assert other.do(conflict, "file", 0, 0) == (fcntl.F_WRLCK, 20, 10, a.pid), "on one node the process is known"
    return ""


def count_up(kind, turns):
    for _ in range(turns):
        fd = os.open("counter", os.O_RDWR)
        KINDS[kind](fd, ALONE)
        value = int(os.read(fd, 20))
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b"%d" % (value + 1))
        if kind == "fcntl":
            os.lseek(fd, 0, os.SEEK_SET)
        KINDS[kind](fd, FREE)
        os.close(fd)


@both_kinds("a counter, read, raised and written under the lock from both nodes")
def counter(kind, a, b):
    a.do(put, "counter", b"0")
    a.begin(count_up, kind, 100)
    started = time.monotonic()
    b.do(count_up, kind, 100)
    a.result()
    took = time.monotonic() - started
    assert a.do(get, "counter") == b.do(get, "counter") == b"200", (a.do(get, "counter"), b.do(get, "counter"))
    return f"200 of 200, {took / 200 * 1e6:.0f} us each"


class Alarm(Exception):
    pass


def wait_for_alarm(kind, seconds):
    """A lock that is waited for until a signal comes; seconds from the signal to the end of the wait."""

    def ring(*_):
        raise Alarm

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    started = time.monotonic()
    try:
        lock(kind, "file", ALONE)
    except Alarm:
        return time.monotonic() - started - seconds
    raise AssertionError("granted")


@both_kinds("a wait ends with a signal and leaves nothing behind")
def interrupted(kind, a, b):
    opened(a, b)
    other = a.another()
    other.do(hold, "file", "file", os.O_RDWR)
    a.do(lock, kind, "file", ALONE)
    took = [one.do(wait_for_alarm, kind, WAIT, seconds=10) for one in (b, other)]
    # Had the waits been left behind, one of them would have the lock now.
    a.do(lock, kind, "file", FREE)
    assert a.do(try_lock, kind, "file", ALONE)
    return f"after {max(took) * 1000:.0f} ms at most"


@both_kinds("a waiting process dies by kill -9, and the lock goes to the next")
def killed_waiter(kind, a, b):
    opened(a)
    waiters = [b.another(), b.another()]
    for one in waiters:
        one.do(hold, "file", "file", os.O_RDWR)
    a.do(lock, kind, "file", ALONE)
    assert not waiters[0].begin(lock, kind, "file", ALONE).is_done(WAIT)
    took = waiters[0].kill()
    assert wait_and_wake(kind, a, waiters[1]) < WAKE
    return f"dead after {took * 1000:.0f} ms"


@both_kinds("four processes on two nodes, one lock: never two at once")
def crowd(kind, a, b):
    a.do(put, "file", b"")
    crew = [a, b, a.another(), b.another()]
    for number, one in enumerate(crew):
        one.begin(enter_often, kind, 30, number)
    assert [one.result() for one in crew] == [30] * 4
    return "120 entries"


def enter_often(kind, turns, number):
    """Each makes a name inside that no other may have left there."""
    for turn in range(turns):
        fd = os.open("file", os.O_RDWR)
        KINDS[kind](fd, ALONE)
        os.close(os.open("inside", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.pwrite(fd, b"%d:%06d" % (number, turn), 0)
        os.sched_yield()
        assert (seen := os.pread(fd, 20, 0)) == b"%d:%06d" % (number, turn), f"{seen} is inside, too"
        os.unlink("inside")
        KINDS[kind](fd, FREE)
        os.close(fd)
    return turns
