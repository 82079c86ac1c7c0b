"""The suites before, during and after fail-overs of a group: the node that leads, which is not the clients' own, is killed, frozen
and cut off again and again; once the clients' own node is killed too. At the end the three mirrors on the disks are compared.
"""

import os
import signal
import statistics
import subprocess
import time

from group import PATIENCE, until

# A fault lasts so long beyond the moment when another leads; and there is so much load between two.
LASTS = 3
BETWEEN = 3
ROUNDS = 5
# The bound of the design is 5 s; the machine is busy with several kernels.
STALL = 15


class Kill:
    name = "killed"

    def strike(self, group, node):
        node.process.kill()
        node.process.wait()

    def undo(self, group, node):
        node.start()


class Freeze:
    name = "frozen"

    def strike(self, group, node):
        node.signal(signal.SIGSTOP)

    def undo(self, group, node):
        node.signal(signal.SIGCONT)


class Cut:
    name = "cut off"

    def strike(self, group, node):
        group.network.cut(node.number, True)

    def undo(self, group, node):
        group.network.cut(node.number, False)


FAULTS = [Kill(), Freeze(), Cut()]


def distribution(seconds):
    """Of waits, in seconds."""
    if not seconds:
        return "none"
    ordered = sorted(seconds)
    return f"{len(ordered)}, shortest {ordered[0]:.2f}, median {statistics.median(ordered):.2f}, longest {ordered[-1]:.2f} s"


class Again:
    """A suite that is run in one guest after the other, until it shall end."""

    def __init__(self, name, begin, finish):
        self.name, self.begin, self.finish = name, begin, finish
        self.runs = 0
        self.guest = None
        self.next()

    def next(self):
        self.runs += 1
        self.guest = self.begin(self.runs)

    def look(self):
        """Begins the next run where one has ended."""
        if not self.guest.is_running():
            self.end()
            self.next()

    def end(self):
        self.finish(f"{self.name}, during ({self.runs})", self.guest)


class Failover:
    def __init__(self, run):
        self.run, self.group, self.table = run, run.server, run.table
        self.files = run.options.files
        self.stalls = {}
        self.seen = 0

    def all(self):
        self.group.lead_elsewhere()
        self.calm("before")
        self.group.lead_elsewhere()
        self.trouble()
        self.calm("after")
        # What was copied before and during is still there after all of it, for a client that has none of it in memory.
        trees = {name: self.run.guest("tree", self.files, name, "again") for name in ["before", "during"]}
        for name, one in trees.items():
            self.run.finish(f"tree of {name}, again", one, 900)
        self.compare()

    def calm(self, when):
        tree, suite = self.run.guest("tree", self.files, when), self.pjdfstest(when)
        operations = self.fsx(1 if when == "before" else 101)
        self.run.judge(f"pjdfstest, {when}", suite)
        self.run.finish(f"fsx, {when}", operations, 600)
        self.run.finish(f"tree, {when}", tree, 2400)

    def pjdfstest(self, name):
        return self.run.guest("pjdfstest", self.run.programs / "pjdfstest", f"pjdfstest-{name}")

    def fsx(self, seed):
        return self.run.guest("fsx", self.run.programs / "fsx", 2000, seed, seed + 1, seed + 2)

    def trouble(self):
        tree, writer = self.run.guest("tree", self.files, "during"), self.run.guest("writer", 3600, "writer")
        again = [
            Again("pjdfstest", lambda number: self.pjdfstest(f"during{number}"), self.run.judge),
            Again("fsx", lambda number: self.fsx(10 + 3 * number), lambda name, one: self.run.finish(name, one, 600)),
        ]
        self.writer, self.tree_guest = writer, tree
        blows = 0
        # The whole tree is copied and read under faults.
        while blows < ROUNDS * len(FAULTS) or tree.is_running():
            self.blow(FAULTS[blows % len(FAULTS)])
            blows += 1
            for suite in again:
                suite.look()
        self.own_door()
        (writer.share / "stop").touch()
        for suite in again:
            suite.end()
        self.run.finish("tree, during", tree, 3600)
        self.run.finish("writer, during", writer, 300)
        self.report(blows)

    def blow(self, fault):
        """One fault of the leader, after progress; it is taken back when another has led and the writer has gone on."""
        self.group.lead_elsewhere()
        self.progress()
        self.take_stalls("between")
        leader, term = self.group.whole()
        others = [node for node in self.group.nodes if node is not leader]
        started = time.monotonic()
        fault.strike(self.group, leader)
        _, report = until("another leads", lambda: self.group.leader(others))
        elected = time.monotonic() - started
        self.progress(LASTS)
        during = self.take_stalls(f"leader {fault.name}")
        fault.undo(self.group, leader)
        self.group.whole()
        after = self.take_stalls("when it is back")
        print(
            f"          leader {fault.name}: another leads after {elected:.1f} s, terms +{report['term'] - term};"
            f" stalls of the writer {words(during)}, when it is back {words(after)}",
            flush=True,
        )

    def own_door(self):
        self.progress()
        self.take_stalls("between")
        self.group.fail()
        self.progress()
        self.group.whole()
        print(f"          own node killed; stalls of the writer {words(self.take_stalls('own node killed'))}", flush=True)

    def progress(self, least=BETWEEN):
        """Writer and tree go on, and so much time passes."""
        loads = [one for one in (self.writer, self.tree_guest) if one.is_running()]
        if self.writer not in loads:
            raise RuntimeError(f"the writer has ended: {self.writer.lines()}")
        before, began = [one.read("progress") for one in loads], time.monotonic()

        def look():
            moved = (not one.is_running() or one.read("progress") != old for one, old in zip(loads, before))
            self.watch()
            return all(moved) and time.monotonic() - began > least

        until("the guests go on", look)

    def watch(self):
        """No node ends by itself."""
        ended = [node.name for node in self.group.nodes if node.process.returncode is None and node.has_ended()]
        if ended:
            raise RuntimeError(f"{ended} ended by themselves:\n{self.group.log()}")

    def take_stalls(self, when):
        """The writer's stalls since this was last asked."""
        lines = self.writer.read("stalls").splitlines()
        new = [float(line) for line in lines[self.seen :]]
        self.seen += len(new)
        self.stalls.setdefault(when, []).extend(new)
        return new

    def report(self, blows):
        self.take_stalls("between")
        for when, stalls in self.stalls.items():
            print(f"          stalls of the writer, {when}: {distribution(stalls)}", flush=True)
        longest = max((stall for stalls in self.stalls.values() for stall in stalls), default=0)
        self.table.row("fail-overs", longest < STALL, f"{blows} of the leader, 1 of the clients' own node; longest stall {longest:.1f} s")

    def compare(self):
        """The mirrors of all nodes come to hold the same names with the same bytes."""
        first, *others = [node.folder / "data/storage/state/tree" for node in self.group.nodes]
        count = sum(len(names) for _, _, names in os.walk(first))
        bad, end = ["not compared"], time.monotonic() + PATIENCE
        while bad and time.monotonic() < end:
            bad = [line for other in others for line in differences(first, other)]
        self.table.row("copies on the disks", not bad and count > self.files, f"{count} files on {1 + len(others)} nodes", bad[:20])


def differences(one, other):
    words = ["diff", "-rq", "--no-dereference", str(one), str(other)]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace")
    return (done.stdout + done.stderr).splitlines()


def words(stalls):
    return " ".join(f"{stall:.1f}" for stall in stalls) or "none"
