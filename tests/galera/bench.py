#!/usr/bin/python3
"""The way to the database through the node's own port beside haproxy, in one session on the same MariaDB: both lead from 127.0.0.1 to its
unix socket, have one processor, and take turns round by round. Prints medians and the ratio of bitrix-node to haproxy: answers per second,
and processor time per answer. Then a connection per request for a while: nothing may fail, and closed connections may not use up the
ports. The exit code is 1 when something fails.

    bench.py EXECUTABLE LOAD [--rounds 5] [--seconds 3] [--minutes 2] [--rate 1000] [--only WORD]

LOAD is `tests/bench/db_load.rs`. All runs in namespaces of its own, as in `tests/cluster/run.py`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "cluster"))

# First: the other beds have one of that name.
from run import INSIDE, inside, outside  # isort: skip

import pymysql
from cluster import Cluster
from shared import Table, children, until, words

READY = 180
PORTS = {"ours": 3306, "haproxy": 3316}
# Name, what the load does, clients.
CASES = [
    ("connect, SELECT 1, close; 1 client", "connect", 1),
    ("connect, SELECT 1, close; 8 clients", "connect", 8),
    ("row by its key, 1 client", "select", 1),
    ("row by its key, 8 clients", "select", 8),
]
ROWS = 10_000
TICKS = os.sysconf("SC_CLK_TCK")
HAPROXY = """
global
    nbthread 1
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 10m
    timeout server 10m
listen db
    bind 127.0.0.1:{port}
    server db unix@{socket}
"""


def cpu(pid):
    """Seconds that the process has used, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def pin(pid, processor):
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {processor})


class Bench:
    def __init__(self, options, folder):
        self.options, self.folder, self.table = options, Path(folder), Table()
        self.cluster = Cluster(folder, options.executable, 1, os.environ[INSIDE])
        self.haproxy, self.pids = None, {}

    def all(self):
        try:
            self.found()
            for case in CASES:
                if self.options.only in case[0]:
                    self.compare(*case)
            if self.options.minutes and self.options.only in "churn":
                self.churn()
        except Exception as error:
            self.table.row("the bench", False, repr(error), [node.log()[-1500:] for node in self.cluster.nodes])
        finally:
            if self.haproxy:
                self.haproxy.terminate()
                self.haproxy.wait()
            self.cluster.stop()
        return self.table.failed

    def found(self):
        self.cluster.make()
        node = self.node = self.cluster.nodes[0]
        founding = ["init", "--yes", "--galera", "--name", node.name, "--address", node.address]
        node.command(*founding)
        node.start()
        until("it leads", lambda: node.report().get("role") == "leader", READY)
        node.command(*founding)
        self.socket = node.folder / "run/db/mariadb.sock"
        until("the database can be written", lambda: (node.folder / "run/db.writer").exists(), READY)
        self.fill()
        configuration = self.folder / "haproxy.cfg"
        configuration.write_text(HAPROXY.format(port=PORTS["haproxy"], socket=self.socket))
        line = ["haproxy", "-db", "-f", configuration]
        self.haproxy = subprocess.Popen(list(map(str, line)), preexec_fn=node.machine.enter_network, stdin=subprocess.DEVNULL)
        until("haproxy listens", lambda: self.loaded("haproxy", "connect", 1, 0.1)[1] == 0, READY)
        self.pids = {"ours": node.pid("db"), "haproxy": self.haproxy.pid, "mariadb": self.server()}
        for name, pid in self.pids.items():
            pin(pid, 0 if name == "mariadb" else 1)

    def server(self):
        return next(pid for pid in children(self.node.process.pid) if words(pid)[0].endswith(b"mariadbd"))

    def fill(self):
        connection = pymysql.connect(unix_socket=str(self.socket), user="root", autocommit=True)
        with connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE bench")
            cursor.execute("CREATE TABLE bench.points (id INT PRIMARY KEY, text CHAR(120)) ENGINE=InnoDB")
            cursor.execute(f"INSERT INTO bench.points SELECT seq, REPEAT('x', 120) FROM mysql.seq_0_to_{ROWS - 1}")
            # Without a password, so that the load needs no cryptography.
            cursor.execute("CREATE USER bench@localhost IDENTIFIED BY ''")
            cursor.execute("GRANT ALL ON bench.* TO bench@localhost")

    def loaded(self, name, kind, clients, seconds, *rate):
        """Answers, failures, seconds, and microseconds: median, 99th of a hundred, longest."""
        line = ["taskset", "-c", "0", self.options.load, f"127.0.0.1:{PORTS[name]}", kind, clients, seconds, *rate]
        done = subprocess.run(list(map(str, line)), preexec_fn=self.node.machine.enter_network, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-500:])
        return [float(word) for word in done.stdout.split()]

    def compare(self, title, kind, clients):
        rounds = {name: [] for name in PORTS}
        for number in range(self.options.rounds):
            for name in PORTS if number % 2 else reversed(PORTS):
                before = cpu(self.pids[name])
                answers, failed, seconds, middle, *_ = self.loaded(name, kind, clients, self.options.seconds)
                if failed or not answers:
                    raise RuntimeError(f"{title}, {name}: {failed:.0f} of {answers + failed:.0f} failed")
                rounds[name].append((answers / seconds, (cpu(self.pids[name]) - before) / answers * 1e6, middle))
        ours, theirs = ([statistics.median(values) for values in zip(*rounds[name])] for name in PORTS)
        text = f"{ours[0]:.0f}/s beside {theirs[0]:.0f}/s: {ours[0] / theirs[0]:.2f}; processor {ours[1]:.1f} µs beside {theirs[1]:.1f} µs: "
        text += f"{ours[1] / theirs[1]:.2f}; median {ours[2]:.0f} µs beside {theirs[2]:.0f} µs"
        self.table.row(title, True, text)

    def churn(self):
        options, most, is_over = self.options, [0], threading.Event()

        def watch():
            # Of this namespace alone.
            text = f"/proc/{self.node.process.pid}/net/sockstat"
            while not is_over.wait(1):
                fields = next(line for line in Path(text).read_text().splitlines() if line.startswith("TCP:")).split()
                most[0] = max(most[0], int(fields[fields.index("tw") + 1]))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            answers, failed, seconds, middle, late, longest = self.loaded("ours", "connect", 32, options.minutes * 60, options.rate)
        finally:
            is_over.set()
            watcher.join()
        text = f"{answers / seconds:.0f}/s for {seconds / 60:.1f} min, {failed:.0f} failed, at most {most[0]} in TIME_WAIT; "
        text += f"median {middle:.0f} µs, p99 {late / 1000:.1f} ms, longest {longest / 1000:.0f} ms"
        self.table.row(f"a connection per request, {options.rate}/s wanted", not failed and answers > 0.9 * options.rate * seconds, text)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("executable")
    parser.add_argument("load")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--minutes", type=float, default=2, help="of a connection per request; 0: none")
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--only", default="", help="cases whose name holds this word; `churn` for a connection per request")
    parser.add_argument("--keep", action="store_true", help="keep the folder also on success")
    # The other beds begin with one; nothing here is left to chance.
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = arguments()
    if os.environ.get(INSIDE):
        inside(options, Bench)
    outside(options)


if __name__ == "__main__":
    main()
