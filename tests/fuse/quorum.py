"""Two of three nodes stand still: on the third, what was read before can still be read, what changes anything waits and can be killed, and
all goes on when the others are back."""

import multiprocessing
import os
import signal
import time

from actor import Actor, Failed, Late
from coherence import OPEN, error_of, get, hold, put
from locks import ALONE, lock
from node import state

PLACE = "quorum"
FILES = 50
# What is changed meanwhile is not what is read: a file's own reader would wait for its writer.
OTHERS = ["log", "locked", "written", "appended", "renamed", "unlinked", "cut", "changed", "linked"]
# A killed process is gone by then.
DEATH = 2.0
# The lease runs out, and nobody who leads is found; then all that was read before is answered at once.
FIRST, LATER = 10.0, 2.0
SETTLED = 10.0
# A process in D at so many looks in a row is stuck.
LOOKS, BETWEEN = 10, 0.5
BREATH = 0.1


# What the reader is at.
STEP = multiprocessing.Array("c", 80)


def make_files():
    os.makedirs(PLACE, exist_ok=True)
    os.chdir(PLACE)
    for number in range(FILES):
        put(f"{number}", b"%d" % number * 5000)
    os.mkdir("folder")
    for name in OTHERS:
        put(name, b"x")


def read_all():
    """Each step timed: its name, when it began and how long it took."""
    steps = []

    def timed(name, function, *arguments):
        STEP.value = f"{name} {arguments[-1]}".encode()
        started = time.monotonic()
        result = function(*arguments)
        steps.append((name, started, time.monotonic() - started))
        return result

    assert len(timed("list", os.listdir, ".")) == FILES + 1 + len(OTHERS)
    assert timed("miss", error_of, os.stat, "none") == "ENOENT"
    for number in range(FILES):
        assert timed("look-up", os.stat, f"{number}").st_size == len(b"%d" % number * 5000)
        assert timed("read", get, f"{number}") == b"%d" % number * 5000
    return steps


def drop_caches():
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


def write_on(key, count):
    """What it wrote is in the file, and durable, when it returns."""
    for number in range(count):
        os.write(OPEN[key], b"%06d\n" % number)
        os.fsync(OPEN[key])


def append_and_close(name):
    fd = os.open(name, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"more")
    os.close(fd)


def write_and_sync(name):
    fd = os.open(name, os.O_WRONLY)
    os.write(fd, b"other")
    os.fsync(fd)
    os.close(fd)


def wait_for_lock(kind):
    hold("file", "locked", os.O_RDWR)
    lock(kind, "file", ALONE)


# What waits while there is no quorum; each must die when it is told to.
WAITERS = {
    "create": (put, "new", b"x"),
    "write, fsync": (write_and_sync, "written"),
    "append, close": (append_and_close, "appended"),
    "rename": (os.rename, "renamed", "moved"),
    "mkdir": (os.mkdir, "made"),
    "rmdir": (os.rmdir, "folder"),
    "unlink": (os.unlink, "unlinked"),
    "truncate": (os.truncate, "cut", 0),
    "chmod": (os.chmod, "changed", 0o600),
    "symlink": (os.symlink, "x", "symlink"),
    "link": (os.link, "linked", "link"),
    "flock": (wait_for_lock, "flock"),
    "fcntl": (wait_for_lock, "fcntl"),
}


class Outage:
    def __init__(self, table, group, seconds):
        self.table, self.group, self.seconds = table, group, seconds
        self.others = [node for node in group.nodes if node is not group.door]
        self.bad = []

    def claim(self, name, holds, detail="", lines=()):
        self.table.row(f"quorum: {name}", bool(holds), detail, lines)

    def all(self):
        folder = self.group.door.files
        maker = Actor(folder)
        maker.do(make_files)
        reader, writer = Actor(folder / PLACE), Actor(folder / PLACE)
        reader.do(read_all)
        writer.do(hold, "log", "log", os.O_WRONLY | os.O_APPEND)
        writer.do(write_on, "log", 1)
        for node in self.others:
            node.signal(signal.SIGSTOP)
        try:
            writer.begin(write_on, "log", 5)
            self.outage(reader, writer)
        finally:
            for node in self.others:
                node.signal(signal.SIGCONT)
        self.afterwards(reader, writer)

    def outage(self, reader, writer):
        end = time.monotonic() + self.seconds
        began = time.monotonic()
        steps, errors = [], []
        rounds = 0
        waited = False
        while time.monotonic() < end:
            try:
                steps += reader.do(read_all, seconds=FIRST * 3)
                rounds += 1
            except (AssertionError, Failed, OSError) as error:
                errors = [f"at {STEP.value.decode()}", *str(error).splitlines()[-5:]]
                break
            if not waited and time.monotonic() > began + SETTLED:
                waited = True
                self.waiters()
                # Page and name caches of the kernel have answered until here.
                drop_caches()
            # There are others on this machine.
            time.sleep(BREATH)
        self.reads(steps, errors, rounds, began)
        while time.monotonic() < end and not writer.is_done(0.1):
            pass
        self.claim("a writer waits", not writer.is_done(), f"for {time.monotonic() - began:.0f} s")

    def reads(self, steps, errors, rounds, began):
        early = [took for _, started, took in steps if started < began + SETTLED]
        late = [took for _, started, took in steps if started >= began + SETTLED]
        longest = [max(took, default=0) for took in (early, late)]
        is_good = not errors and late and longest[0] < FIRST and longest[1] < LATER
        text = f"{rounds} rounds, {len(steps)} steps; longest {longest[0]:.2f} s in the first {SETTLED:.0f} s, {longest[1]:.2f} s later"
        self.claim("what was read before is read", is_good, text, errors)

    def waiters(self):
        """Half of them get SIGTERM."""
        folder, bad, took, crew = self.group.door.files / PLACE, [], [], {}
        for name in WAITERS:
            crew[name] = Actor(folder)
        for name, (function, *arguments) in WAITERS.items():
            crew[name].begin(function, *arguments)
        end = time.monotonic() + 3
        for name, one in crew.items():
            if one.is_done(max(0, end - time.monotonic())):
                try:
                    bad.append(f"{name}: did not wait, but returned {one.result()}")
                except (Failed, OSError) as error:
                    bad.append(f"{name}: did not wait, but failed: {error}")
        # All at once: who waits for a folder that another changes waits for that one, in the kernel, and cannot die before it.
        signals = {name: [signal.SIGKILL, signal.SIGTERM][number % 2] for number, name in enumerate(crew)}
        for name, one in crew.items():
            one.tell(signals[name])
        told = time.monotonic()
        for name, one in crew.items():
            try:
                one.death(signals[name])
                took.append(time.monotonic() - told)
                if took[-1] > DEATH:
                    bad.append(f"{name}: died after {took[-1]:.1f} s")
            except Late as error:
                bad.append(f"{name}: {error}")
        slowest = f"{len(took)} of {len(crew)} died, after {max(took, default=0) * 1000:.0f} ms at most"
        self.claim("all that wait can be killed", not bad and len(took) == len(crew), f"{', '.join(crew)}: {slowest}", bad)

    def afterwards(self, reader, writer):
        started = time.monotonic()
        self.group.whole()
        lines = []
        try:
            writer.result(60)
            content = Actor(self.others[0].files / PLACE).do(get, "log")
            wanted = b"x000000\n" + b"".join(b"%06d\n" % number for number in range(5))
            lines = [] if content == wanted else [f"the log holds {content}"]
        except (Failed, OSError) as error:
            lines = str(error).splitlines()[-5:]
        took = time.monotonic() - started
        self.claim("the writer that was left alone goes on", not lines, f"{took:.1f} s after the others are back", lines)
        self.agree()
        stuck = in_d_state()
        self.claim("nothing is stuck", not stuck, f"{len(stuck)} processes in D", stuck)

    def agree(self):
        """No node keeps what is not so any more."""
        lines = []
        try:
            one, other = (Actor(node.files / PLACE) for node in (self.group.door, self.others[0]))
            for number in range(20):
                one.do(put, f"{number}", b"changed %d" % number)
                if (seen := other.do(get, f"{number}")) != b"changed %d" % number:
                    lines.append(f"{number} is {seen[:20]} on another node")
                other.do(put, f"{number}", b"again %d" % number)
                if (seen := one.do(get, f"{number}")) != b"again %d" % number:
                    lines.append(f"{number} is {seen[:20]} here")
            if sorted(one.do(os.listdir, ".")) != sorted(other.do(os.listdir, ".")):
                lines.append("the listings differ")
        except (AssertionError, Failed, OSError) as error:
            lines = str(error).splitlines()[-5:]
        self.claim("both see what the other writes", not lines, "", lines)


def in_d_state():
    """Processes that are in D at each look."""
    stuck = None
    for _ in range(LOOKS):
        now = {pid for pid in os.listdir("/proc") if pid.isdigit() and state(pid) == "D"}
        stuck = now if stuck is None else stuck & now
        if not stuck:
            return []
        time.sleep(BETWEEN)
    return [f"{pid}: {os.path.basename(command(pid))}" for pid in stuck]


def command(pid):
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return "gone"


def outage(table, group, seconds=60):
    try:
        Outage(table, group, seconds).all()
    finally:
        for one in list(Actor.everyone):
            one.kill()
