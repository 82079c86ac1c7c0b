#!/usr/bin/python3
"""Three real nodes whose databases are one Galera cluster: faults in rounds, writers that keep what was acknowledged, and a judge. Prints a
table; the exit code is 1 when a row is lost, two servers write at a time, or the cluster does not heal by itself.

    run.py EXECUTABLE [--rounds 2] [--only NAME,...] [--keep]

All runs in namespaces of its own, as in `tests/cluster/run.py`. Times are of this machine, which does the work of all nodes.
"""

import argparse
import json
import os
import signal
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
# How long a fault of the network or a frozen server lasts: longer than the group waits, and than a role.
FAULT = 12
QUIET = 2
# A head start.
STALE = 4
# How often all must be well in a row, and the time between.
LOOKS, PAUSE = 4, 0.4


class Bed:
    def __init__(self, options, folder):
        self.options, self.folder = options, Path(folder)
        self.table = Table()
        self.cluster = Cluster(folder, options.executable, 3, os.environ[INSIDE])
        self.writers, self.times, self.lost, self.mixed = [], {}, [], []
        self.errors = {}

    def all(self):
        rounds = {
            "kill": self.kill, "freeze": self.freeze, "cut": self.cut, "switch": self.switch,
            "power": self.power, "staggered": self.staggered,
        }
        only = set(filter(None, self.options.only.split(",")))
        try:
            self.found()
            for number in range(1, self.options.rounds + 1):
                for name, fault in rounds.items():
                    if not only or name in only:
                        self.round(f"{name}", number, fault)
        except Exception as error:
            logs = [f"{node.name}: {node.log()[-1500:]}" for node in self.cluster.nodes]
            self.table.row("the bed", False, repr(error), logs)
        finally:
            self.end_writers()
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
            joining = ["join", first.address, "--token", token, "--yes", "--galera", "--name", node.name, "--address", node.address]
            node.command(*joining)
            node.start()
            node.command(*joining, seconds=PATIENCE)
        cluster.whole()
        began = now()
        until("three databases are one", self.is_whole, HEALED)
        self.table.row("founded", True, f"three databases, the last one {now() - began:.1f} s after its node")
        for node in cluster.nodes:
            self.begin_writer(node)

    def begin_writer(self, node):
        line = [sys.executable, str(HERE / "writer.py"), node.name, str(self.record(node))]
        one = subprocess.Popen(line, preexec_fn=node.machine.enter_network, stdin=subprocess.PIPE)
        self.writers.append(one)

    def record(self, node):
        return self.folder / f"writer-{node.name}.jsonl"

    def end_writers(self):
        for one in self.writers:
            one.stdin.close()
        for one in self.writers:
            try:
                one.wait(60)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()
        self.writers = []

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
            if not (len(rows) == 3 and all(row["state"] == "synced" for row in rows) and any(row["writer"] for row in rows)):
                return False
            time.sleep(PAUSE)
        return True

    def server(self, node):
        """The process of its MariaDB."""
        for pid in children(node.process.pid):
            if words(pid)[0].endswith(b"mariadbd"):
                return pid
        raise RuntimeError(f"{node.name} has no MariaDB")

    # Rounds

    def round(self, name, number, fault):
        until("three databases are one", self.is_whole, HEALED)
        time.sleep(QUIET)
        holder = self.cluster.node(self.writer())
        begun = now()
        at, undo = fault(holder)
        flows = self.until_written(at, None if name in ("power", "staggered") else holder.name)
        self.times.setdefault(name, []).append(flows)
        if undo:
            undo()
        healing = now()
        until("three databases are one again", self.is_whole, HEALED)
        healed = now() - healing
        time.sleep(QUIET)
        lost, mixed, failed = self.judge(begun)
        self.errors[name] = self.errors.get(name, 0) + failed
        detail = f"writes flow after {flows:.2f} s, whole after {healed:.1f} s more, {holder.name} → {self.writer()}, {failed} failed attempts"
        self.table.row(f"{name} {number}", not lost and not mixed, detail, lost[:10] + mixed[:10])

    def said(self):
        return [one for node in self.cluster.nodes for one in lines(self.record(node))]

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
        acknowledged = {(one["node"], one["number"]) for one in said if "acknowledged" in one}
        bad = []
        for node in self.cluster.nodes:
            rows = until(f"{node.name} can be read", lambda: self.rows(node), HEALED)
            missing = acknowledged - rows
            if missing:
                bad.append(f"{node.name} lacks {len(missing)} acknowledged rows, such as {sorted(missing)[:3]}")
        lately = sorted((one for one in said if one.get("acknowledged", 0) > since), key=lambda one: one["acknowledged"])
        return bad, side_by_side(lately), sum(1 for one in said if one["ended"] > since and "acknowledged" not in one)

    def rows(self, node):
        try:
            return set(self.sql(node, "SELECT writer, number FROM bench.rows_written"))
        except pymysql.err.Error:
            return None

    def kill(self, holder):
        at = now()
        os.kill(self.server(holder), signal.SIGKILL)
        return at, None

    def freeze(self, holder):
        pid, at = self.server(holder), now()
        os.kill(pid, signal.SIGSTOP)

        def undo():
            time.sleep(max(0, at + FAULT - now()))
            os.kill(pid, signal.SIGCONT)

        return at, undo

    def cut(self, holder):
        at = now()
        holder.machine.cut(True)

        def undo():
            time.sleep(max(0, at + FAULT - now()))
            holder.machine.cut(False)

        return at, undo

    def switch(self, holder):
        other = next(node for node in self.cluster.nodes if node != holder)
        at = now()
        other.command("db", "failover", other.name)
        return at, None

    def power(self, _):
        for node in self.cluster.nodes:
            node.machine.freeze()
        for node in self.cluster.nodes:
            node.kill()
        at = now()
        for node in self.cluster.nodes:
            node.start()
        return at, None

    def staggered(self, holder):
        """One is lost, the others go on and are lost later. The stale one comes back first, then one of those that may have acknowledged
        less than the other: neither may begin."""
        stale, *rest = [node for node in self.cluster.nodes if node != holder] + [holder]
        stale.kill()
        died = now()
        until("writes go on", lambda: sum(1 for one in self.said() if one["begun"] > died and "acknowledged" in one) > 50, HEALED)
        for node in rest:
            node.machine.freeze()
        for node in rest:
            node.kill()
        begun = sum(map(self.begun, self.cluster.nodes))
        stale.start()
        time.sleep(STALE)
        rest[0].start()
        time.sleep(FAULT)
        wrong = sum(map(self.begun, self.cluster.nodes)) - begun
        self.table.row("stale ones first", wrong == 0, f"{wrong} wrong begins; {[row['why'] for row in self.snapshot(rest[0])]}")
        at = now()
        rest[1].start()
        return at, None

    @staticmethod
    def begun(node):
        """How often a node has begun the cluster."""
        return node.log().count("starts by order how=Bootstrap")


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


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("executable")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", action="store_true", help="keep the folder also on success")
    # The other beds begin with one; nothing here is left to chance.
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = arguments()
    if os.environ.get(INSIDE):
        inside(options, Bed)
    outside(options)


if __name__ == "__main__":
    main()
