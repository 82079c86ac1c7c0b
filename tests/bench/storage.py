#!/usr/bin/env python3
"""The storage beside nfs-ganesha, in one session on one disk: the two take turns round by round, case by case.

Servers run on processor 0, the load on processor 1. Prints medians and the ratio of bitrix-node to ganesha, of rates and of
work per second of the server's processor time; above 1 is faster than ganesha. Both make data durable before they say so.

With three copies there are three nodes on loopback addresses, all of them on processor 0 and on the same disk. The load asks the
door of the leader, and in turn that of another node, which has to ask the leader itself. Processor time is that of all nodes,
memory that of the largest.

Three copies on one disk write everything six times. With --apart the other two lie in memory and run on the load's processor: as near
as one machine comes to three.

    storage.py EXECUTABLE LOAD [--rounds N] [--seconds N] [--copies 1|3] [--apart] [--only CASE,...] [--files N]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "kernel"))
import server  # noqa: E402
from group import Group  # noqa: E402
from session import enter_namespaces  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
ADDRESS = "127.0.0.1"
NODES = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
OTHER = "ganesha"

CASES = [
    ("getattr /s", "getattr"),
    ("lookup /s", "lookup"),
    ("4k random read /s", "read4k"),
    ("readdirplus 10k names /s", "list"),
    ("create+1k+commit /s", "create"),
    ("sequential read MB/s", "read"),
    ("sequential write+commit MB/s", "write"),
]
CONNECTIONS = [1, 16]


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("executable")
    parser.add_argument("load")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--copies", type=int, choices=[1, 3], default=1)
    parser.add_argument("--apart", action="store_true", help="the second and third copy elsewhere")
    parser.add_argument("--only", default="")
    parser.add_argument("--files", type=int, default=0, help="also: memory with so many files in the store")
    return parser.parse_args()


class Contender:
    """A server and what was measured of it, through one of its doors."""

    is_apart = False

    def __init__(self, name, one, load, door=lambda: ADDRESS):
        self.name, self.server, self.load, self.door = name, one, os.path.abspath(load), door

    def prepare(self):
        self.server.start()
        self.pin()
        self.run("prepare")
        self.pin()

    def pin(self):
        for number, pid in enumerate(self.server.pids()):
            processor = "1" if self.is_apart and number > 0 else "0"
            subprocess.run(["taskset", "-a", "-c", "-p", processor, str(pid)], check=True, stdout=subprocess.DEVNULL)

    def processor_seconds(self):
        ticks = 0
        for pid in self.server.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS

    def memory(self):
        return max(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE for pid in self.server.pids()) >> 20

    def run(self, case, connections=1, seconds=1.0, *rest, door=None):
        where = [door or self.door(), self.server.port, self.server.mount_port, self.server.export]
        words = ["taskset", "-c", "1", self.load, *where, case, connections, seconds, *rest]
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}, {case}: {done.stderr[-2000:]}\n{self.server.log()[-2000:]}")
        return done.stdout.strip()

    def measure(self, case, connections, seconds):
        """Rate, and what it would be with the whole processor for the server."""
        # Asked before: who leads is asked of the servers.
        door, before = self.door(), self.processor_seconds()
        rate, real = map(float, self.run(case, connections, seconds, door=door).split())
        used = self.processor_seconds() - before
        return rate, rate * real / max(used, 1 / TICKS)


def compare(contenders, options):
    wanted = options.only.split(",") if options.only else [case for _, case in CASES]
    results = {}
    for turn in range(options.rounds):
        for _, case in CASES:
            for connections in CONNECTIONS:
                for one in contenders if case in wanted else []:
                    found = one.measure(case, connections, options.seconds)
                    results.setdefault((case, connections), {}).setdefault(one.name, []).append(found)
        print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
    return results


def show(results, ours, other=OTHER):
    names = [ours, other]
    print(f"{ours:30} {'calls':>5} {'rate':>12} {other:>12} {'ratio':>6} {'per cpu s':>10}   (lowest and highest)")
    for label, case in CASES:
        for connections in CONNECTIONS:
            found = results.get((case, connections))
            if not found:
                continue
            rates = {name: [rate for rate, _ in found[name]] for name in names}
            costs = {name: statistics.median(cost for _, cost in found[name]) for name in names}
            middle = {name: statistics.median(rates[name]) for name in names}
            print(
                f"{label:30} {connections:5} {middle[ours]:12.1f} {middle[other]:12.1f} {middle[ours] / middle[other]:6.2f}"
                f" {costs[ours] / costs[other]:10.2f}   ({min(rates[ours]):.1f}, {max(rates[ours]):.1f})"
            )


def alone(folder, options):
    one = server.Bitrix(folder, options.executable, address=ADDRESS)
    return [Contender("bitrix-node", one, options.load)]


def three(folder, options):
    """One group, asked at two of its doors: which ones goes by who leads then."""
    group = Group(folder, options.executable, NODES)

    def leader():
        return group.whole()[0].mount

    def follower():
        led = leader()
        return next(node.mount for node in group.nodes if node.mount != led)

    doors = {"3 copies, leader's door": leader, "3 copies, another's door": follower}
    contenders = [Contender(name, group, options.load, door) for name, door in doors.items()]
    for number in [2, 3] if options.apart else []:
        os.makedirs(f"{folder}/n{number}")
        subprocess.run(["mount", "-t", "tmpfs", "none", f"{folder}/n{number}"], check=True)
    for one in contenders:
        one.is_apart = options.apart
    return contenders


def main():
    enter_namespaces()
    options = arguments()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    with tempfile.TemporaryDirectory(prefix="bitrix-storage-", dir="/tmp") as folder, server.Portmapper():
        ours = (three if options.copies == 3 else alone)(f"{folder}/ours", options)
        other = Contender(OTHER, server.Ganesha(f"{folder}/ganesha", address=ADDRESS, port=3049), options.load)
        try:
            ours[0].prepare()
            other.prepare()
            results = compare([*ours, other], options)
            for one in ours:
                show(results, one.name)
            if options.files:
                ours[0].run("fill", 16, 1, options.files)
            for one in [ours[0], other]:
                print(f"memory of {one.name}: {one.memory()} MiB")
        finally:
            ours[0].server.stop()
            other.server.stop()
            for number in [2, 3] if options.apart else []:
                subprocess.run(["umount", "--lazy", f"{folder}/ours/n{number}"], check=True)


if __name__ == "__main__":
    main()
