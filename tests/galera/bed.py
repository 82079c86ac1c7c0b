"""What the beds of this folder have in common: nodes whose databases are one, programs that write and read all the time and keep what
they were told, rounds of faults, and the judge of what is left."""

import argparse
import bisect
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "cluster"))

# First: the other beds have one of that name.
from run import INSIDE, inside, outside  # isort: skip

import pymysql
from cluster import PATIENCE, Cluster
from shared import Table, children, lines, now, until, words

# A restart of all, with a copy of the data.
HEALED = 180
QUIET = 2
# How often all must be well in a row, and the time between.
LOOKS, PAUSE = 4, 0.4
# What is read may be so old: a second until a server that falls behind is known for it, then the word of it, on a busy machine.
OLD = 4


class Bed:
    # Nodes, and how many of them have the data.
    COUNT = DATA = 3
    # Rounds after which the same server may go on.
    SAME = ("power", "staggered", "force")

    def __init__(self, options, folder):
        self.options, self.folder = options, Path(folder)
        self.table = Table()
        self.cluster = Cluster(folder, options.executable, self.COUNT, os.environ[INSIDE])
        # Programs that write and read; what their records said before a round.
        self.programs, self.times, self.errors = [], {}, {}
        # Rows that the operator gave up.
        self.given_up = set()

    @property
    def data(self):
        """Nodes that have the data."""
        return self.cluster.nodes[: self.DATA]

    def all(self):
        only = set(filter(None, self.options.only.split(",")))
        try:
            self.found()
            for number in range(1, self.options.rounds + 1):
                for name, fault in self.rounds().items():
                    if not only or name in only:
                        self.round(name, number, fault)
            self.end_programs()
            self.compare()
        except Exception as error:
            logs = [f"{node.name}: {node.log()[-1500:]}" for node in self.cluster.nodes]
            self.table.row("the bed", False, repr(error), logs)
        finally:
            self.end_programs()
            self.cluster.stop()
        for name, seconds in self.times.items():
            text = f"p50 {statistics.median(seconds):.2f} s, max {max(seconds):.2f} s, {len(seconds)} rounds; {self.errors.get(name, 0)} failed attempts"
            print(f"          {name}: until writes flow again: {text}", flush=True)
        return self.table.failed

    # Founding

    def found(self):
        cluster = self.cluster
        cluster.make()
        first, *others = cluster.nodes
        founding = ["init", "--yes", "--galera", "--name", first.name, "--address", first.address]
        first.command(*founding)
        first.start()
        until("the first leads", lambda: first.report().get("role") == "leader", PATIENCE)
        first.command(*founding)
        until("the first database serves", lambda: self.writer() == first.name, HEALED)
        self.sql(first, "CREATE DATABASE bench")
        self.sql(first, "CREATE TABLE bench.rows_written (writer VARCHAR(16), number INT, PRIMARY KEY (writer, number)) ENGINE=InnoDB")
        self.sql(first, "CREATE USER bench@localhost IDENTIFIED BY 'bench'")
        self.sql(first, "GRANT ALL ON bench.* TO bench@localhost")
        for node in others:
            token = json.loads(first.command("token", "create", "--output", "json"))["token"]
            part = ["--galera"] if node in self.data else [word for one in self.data for word in ("--arbiter", one.address)]
            joining = ["join", first.address, "--token", token, "--yes", *part, "--name", node.name, "--address", node.address]
            node.command(*joining)
            node.start()
            node.command(*joining, seconds=PATIENCE)
        cluster.whole()
        began = now()
        until("all databases are one", self.is_whole, HEALED)
        self.table.row("founded", True, f"{self.DATA} databases, the last one {now() - began:.1f} s after its node")
        for node in cluster.nodes:
            self.begin("writer", node)
        for node in self.data:
            self.begin("reader", node)

    def begin(self, program, node):
        line = [sys.executable, str(HERE / f"{program}.py"), node.name, str(self.record(node, program))]
        one = subprocess.Popen(line, preexec_fn=node.machine.enter_network, stdin=subprocess.PIPE)
        self.programs.append(one)

    def record(self, node, program="writer"):
        return self.folder / f"{program}-{node.name}.jsonl"

    def end_programs(self):
        for one in self.programs:
            one.stdin.close()
        for one in self.programs:
            try:
                one.wait(60)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()
        self.programs = []

    # What is

    def sql(self, node, statement):
        """As root, on that node's own server."""
        connection = pymysql.connect(unix_socket=str(node.folder / "run/db/mariadb.sock"), user="root", autocommit=True, read_timeout=20)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall()
        finally:
            connection.close()

    def snapshot(self, node):
        try:
            return json.loads(node.command("db", "status", "--output", "json", seconds=10))
        except (RuntimeError, ValueError):
            return []

    def live(self):
        return [node for node in self.cluster.nodes if node.process and node.process.poll() is None and not node.machine.is_frozen]

    def writer(self, among=None):
        """Whom PHP writes to, by what a node says; None while nobody knows."""
        for node in among or self.live():
            rows = self.snapshot(node)
            for row in rows:
                if row["writer"]:
                    return row["node"]
        return None

    def is_whole(self):
        """And stays so: a server that wakes up believes for a moment that nothing has happened."""
        for _ in range(LOOKS):
            rows = self.snapshot(self.cluster.nodes[0])
            if not (len(rows) == self.DATA and all(row["state"] == "synced" for row in rows) and any(row["writer"] for row in rows)):
                return False
            time.sleep(PAUSE)
        return True

    def server(self, node):
        """The process of its MariaDB."""
        for pid in children(node.process.pid):
            if words(pid)[0].endswith(b"mariadbd"):
                return pid
        raise RuntimeError(f"{node.name} has no MariaDB")

    @staticmethod
    def begun(node):
        """How often a node has begun the cluster."""
        return node.log().count("starts by order how=Bootstrap")

    # Rounds

    def round(self, name, number, fault):
        until("all databases are one", self.is_whole, HEALED)
        time.sleep(QUIET)
        holder = self.cluster.node(self.writer())
        # What comes before the fault may move it.
        self.since, self.holder = now(), holder
        at, undo = fault(holder)
        holder = self.holder
        flows = self.until_written(at, None if name in self.SAME else holder.name)
        self.times.setdefault(name, []).append(flows)
        if undo:
            undo()
        healing = now()
        until("all databases are one again", self.is_whole, HEALED)
        healed = now() - healing
        time.sleep(QUIET)
        lost, mixed, failed = self.judge(self.since)
        old, reads = self.judge_reads(self.since)
        self.errors[name] = self.errors.get(name, 0) + failed
        detail = f"writes flow after {flows:.2f} s, whole after {healed:.1f} s more, {holder.name} → {self.writer()}, {failed} failed attempts; {reads}"
        self.table.row(f"{name} {number}", not lost and not mixed and not old, detail, lost[:10] + mixed[:10] + old[:10])

    def said(self):
        return [one for node in self.cluster.nodes for one in lines(self.record(node))]

    def acknowledged(self):
        return {(one["node"], one["number"]) for one in self.said() if "acknowledged" in one} - self.given_up

    def until_written(self, at, former):
        """The longest time without an acknowledged row since a fault, once another server than the former one acknowledges them."""

        def look():
            since = [one for one in self.said() if one.get("acknowledged", 0) > at]
            if sum(1 for one in since if one["begun"] > at and one["server"] != former) < 5:
                return None
            times = sorted([at, *(one["acknowledged"] for one in since)])
            return max(later - sooner for sooner, later in zip(times, times[1:]))

        return until("writes flow again", look, HEALED)

    def judge(self, since):
        """Rows that were acknowledged and are not on every node; and servers that wrote side by side since then."""
        said = self.said()
        acknowledged = {(one["node"], one["number"]) for one in said if "acknowledged" in one} - self.given_up
        bad = []
        for node in self.data:
            rows = until(f"{node.name} can be read", lambda: self.rows(node), HEALED)
            missing = acknowledged - rows
            if missing:
                bad.append(f"{node.name} lacks {len(missing)} acknowledged rows, such as {sorted(missing)[:3]}")
        lately = sorted((one for one in said if one.get("acknowledged", 0) > since), key=lambda one: one["acknowledged"])
        return bad, side_by_side(lately), sum(1 for one in said if one["ended"] > since and "acknowledged" not in one)

    def judge_reads(self, since):
        """Reads that lack what was acknowledged long before; and how old what they saw was at most."""
        said = [one for node in self.data for one in lines(self.record(node, "reader")) if one["ended"] > since]
        done = [one for one in said if "seen" in one]
        times = {}
        for one in self.said():
            if "acknowledged" in one and (one["node"], one["number"]) not in self.given_up:
                times.setdefault(one["node"], []).append((one["number"], one["acknowledged"]))
        oldest, bad = 0, []
        for one in done:
            for writer, rows in times.items():
                first = bisect.bisect(rows, (one["seen"].get(writer, 0), float("inf")))
                age = one["begun"] - rows[first][1] if first < len(rows) else 0
                oldest = max(oldest, age)
                if age > OLD:
                    bad.append(f"read {age:.1f} s old: {one}, lacks {rows[first]} of {writer}")
        own = sum(one["server"] == one["node"] for one in done)
        share = 100 * own / max(1, len(done))
        return bad, f"{len(done)} reads, {share:.0f} % on their node, at most {oldest:.1f} s old, {len(said) - len(done)} failed"

    def compare(self):
        """With nobody writing any more, all nodes have the same rows."""
        rows = [self.rows(node) for node in self.data]
        odd = [sorted(one ^ rows[0])[:5] for one in rows if one != rows[0]]
        detail = f"{len(rows[0])} rows on each node, {len(self.acknowledged())} acknowledged, {len(self.given_up)} given up"
        self.table.row("the same everywhere", not odd, detail, odd)

    def rows(self, node):
        try:
            return set(self.sql(node, "SELECT writer, number FROM bench.rows_written"))
        except pymysql.err.Error:
            return None


def side_by_side(acknowledged):
    """A server that acknowledges what was sent after another one had begun to write, and so on back and forth."""
    bad, first, current = [], {}, None
    for one in acknowledged:
        server = one["server"]
        if server != current:
            if server in first and one["sent"] > first[current]:
                bad.append(f"{server} writes again beside {current}: {one}")
            first[server], current = one["acknowledged"], server
    return bad


def arguments(text):
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("executable")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", action="store_true", help="keep the folder also on success")
    # The other beds begin with one; nothing here is left to chance.
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def run(options, bed):
    if os.environ.get(INSIDE):
        inside(options, bed)
    outside(options)
