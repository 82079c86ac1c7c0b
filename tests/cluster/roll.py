#!/usr/bin/env python3
"""A whole cluster goes over to another executable, node by node, while clients ask it: nobody may notice. Then to executables that nobody
vouches for, or that do not come up. Prints a table; the exit code is 1 when anything fails.

    roll.py EXECUTABLE [--keep]

All runs in namespaces of its own, as in `run.py`.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

# First: the other beds have one of that name.
from run import INSIDE, inside, outside  # isort: skip

from cluster import FLOATING, PLAIN, Cluster
from shared import HERE, Table, now, set_namespace, until

sys.path.append(str(HERE.parent / "machines"))
import load as browser  # noqa: E402

# Three nodes share this machine's processors; whoever waits as long as a browser has not been failed.
browser.PACE, browser.TIMEOUT = 0.3, 30

NODES = 3
# By PHP with database, cache and files; a file.
PAGES = ["/check.json", f"/{PLAIN}"]
# Seconds of load around the roll: connections that are kept over it end before the last are cut.
BEFORE, AFTER = 3, 8
# Of one roll, on a busy machine.
ROLL = 300
# Nobody waits longer for an answer, in seconds.
STALL = 2.0
# How long a new executable has to come up.
UPGRADE = """
[upgrade]
key = "{key}"
patience = "30s"
"""
# Looks like the next version until it shall run.
BROKEN = """#!/bin/sh
case $1 in
upgrade-probe) exec {good} "$@" ;;
run) exit 1 ;;
*) exec {good} "$@" ;;
esac
"""


class Clients(browser.Load):
    """At the machine of the clients."""

    handle = None

    def ask(self, number):
        set_namespace(self.handle)
        super().ask(number)


class Roll:
    def __init__(self, options, folder):
        self.folder, self.table = folder, Table()
        self.cluster = Cluster(folder, options.executable, NODES, os.environ[INSIDE])
        # What is under test is passed from node to node.
        subprocess.run(["strip", "--strip-debug", self.cluster.executable], check=True)

    def all(self):
        try:
            self.found()
            self.good()
            self.unsigned()
            self.distrusted()
            self.paused()
            self.back()
            self.broken()
        except Exception as error:
            self.table.row("the bed", False, repr(error), [f"{node.name}: {node.log()[-2500:]}" for node in self.cluster.nodes])
        finally:
            self.cluster.stop()
        return self.table.failed

    def found(self):
        cluster = self.cluster
        cluster.make()
        self.key, public = self.pair("release")
        for node in cluster.nodes:
            # Each machine has its own.
            place = node.folder / "bin"
            place.mkdir()
            node.executable = shutil.copy2(cluster.executable, place / "bitrix-node")
            shutil.copy2(public, place / "release.pem")
            node.config.write_text(node.config.read_text() + UPGRADE.format(key=place / "release.pem"))
        began = now()
        cluster.found()
        cluster.install()
        self.first = cluster.nodes[0]
        self.table.row("cluster", True, f"{NODES} nodes and the portal after {now() - began:.0f} s")

    def pair(self, name):
        """Of keys: the private one, and the public one."""
        private, public = self.folder / f"{name}.key", self.folder / f"{name}.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
        subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
        return private, public

    def version(self, mark, text=None):
        """The same program with a mark at its end, which makes it another file; signed. Returns its path."""
        path = self.folder / mark
        path.write_bytes(text.encode() if text else self.cluster.executable.read_bytes() + f"\n{mark}\n".encode())
        path.chmod(0o755)
        self.sign(path, path)
        return path

    def sign(self, what, path):
        signature = path.with_name(path.name + ".sig")
        subprocess.run(["openssl", "pkeyutl", "-sign", "-inkey", self.key, "-rawin", "-in", what, "-out", signature], check=True)

    def run_by(self, path):
        """Names of the nodes that run this file, with all their modules, and are well."""
        wanted = hashlib.sha256(path.read_bytes()).hexdigest()
        return [node.name for node in self.cluster.nodes if self.is_run_by(node, wanted)]

    def is_run_by(self, node, wanted):
        pid = self.supervisor(node)
        try:
            with open(f"/proc/{pid}/exe", "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == wanted
        except OSError:
            return False

    def supervisor(self, node):
        return int((node.folder / "data/lock").read_text())

    def plan(self, node=None):
        text = (node or self.first).launch("upgrade", "plan", "--output", "json").communicate(timeout=60)[0]
        return json.loads(text or "{}")

    def apply(self, path):
        self.first.command("upgrade", "apply", "--from", path)

    def until_state(self, state):
        def look():
            return self.plan().get("state", "").startswith(state)

        until(f"the roll is {state}", look, ROLL)

    def under_load(self, name, act):
        """Whatever `act` does, nobody who asks notices."""
        Clients.handle = self.cluster.network.handle(self.cluster.client)
        targets = {"floating": FLOATING[0].split("/")[0], **{node.name: node.address for node in self.cluster.nodes}}
        with ExitStack() as stack:
            loads = {}
            for target, address in targets.items():
                loads[f"{target}, new"] = stack.enter_context(Clients(address, PAGES, workers=1))
                loads[f"{target}, kept"] = stack.enter_context(Clients(address, PAGES, workers=1, keep=True))
            time.sleep(BEFORE)
            began = now()
            act()
            took = now() - began
            time.sleep(AFTER)
        lost = [f"{name}: {one.fault}" for name, load in loads.items() for one in load.faults()]
        slowest = max(load.slowest() for load in loads.values())
        figures = [f"{name}: {load.summary()}" for name, load in loads.items()]
        figures += [f"{name}, {at - began:.1f} s after it began: {fault}" for name, load in loads.items() for at, fault in slow(load)]
        count = sum(len(load.answers) for load in loads.values())
        self.table.row(name, not lost, f"{took:.0f} s, {count} requests, {len(lost)} failed, slowest {slowest:.2f} s", lost[:10] + figures)

    def good(self):
        path = self.version("second")
        before = [self.supervisor(node) for node in self.cluster.nodes]

        def roll():
            self.apply(path)
            self.until_state("done")

        self.under_load("a roll", roll)
        after, new = [self.supervisor(node) for node in self.cluster.nodes], self.run_by(path)
        self.table.row("process ids", before == after and len(new) == NODES, f"{before} {after}, new: {new}")
        self.whole("rolled")

    def whole(self, what):
        def is_well(node):
            return all(node.overview(path).get("verdict") == "healthy" for path in ["/v1/status", "/v1/cluster"])

        until(f"all are healthy ({what})", lambda: all(map(is_well, self.cluster.nodes)))

    def unsigned(self):
        path = self.version("third")
        path.write_bytes(path.read_bytes() + b"!")
        one = self.first.launch("upgrade", "apply", "--from", path)
        errors = one.communicate(timeout=60)[1]
        self.table.row("a wrong signature", one.returncode != 0 and "is no signature of" in errors, errors.strip()[:100])

    def distrusted(self):
        """What reaches a node through its cluster is judged by the key of this node."""
        path, (_, other) = self.version("fourth"), self.pair("other")
        for node in self.cluster.nodes[1:]:
            shutil.copy2(other, node.folder / "bin/release.pem")
        self.apply(path)
        self.until_state("failed")
        state, new = self.plan()["state"], self.run_by(path)
        self.table.row("another node's key", "is no signature of" in state and set(new) <= {self.first.name}, f"{state[:100]}; new: {new}")
        for node in self.cluster.nodes[1:]:
            shutil.copy2(self.folder / "release.pem", node.folder / "bin/release.pem")
        self.whole("refused")

    def paused(self):
        path = self.version("fifth")
        self.apply(path)
        until("one has its turn", lambda: self.plan().get("turn"), ROLL)
        self.first.command("upgrade", "pause")
        until("its turn has ended", lambda: not self.plan().get("turn"), ROLL)
        time.sleep(AFTER)
        new, turn = self.run_by(path), self.plan().get("turn")
        self.table.row("a pause", len(new) <= 1 and not turn, f"new: {new}, turn: {turn!r}")
        self.first.command("upgrade", "resume")
        self.until_state("done")
        new = self.run_by(path)
        self.table.row("and on", len(new) == NODES, f"new: {new}")
        self.whole("resumed")

    def back(self):
        node = self.cluster.nodes[-1]
        before = self.folder / "second"
        self.under_load("one goes back", lambda: node.command("upgrade", "rollback"))
        new = self.run_by(before)
        self.table.row("the version before", new == [node.name], f"run by {new}")

    def broken(self):
        """It is tried on one node, which goes back; nobody else tries."""
        before = {node.name: node.executable.read_bytes() for node in self.cluster.nodes}
        path = self.version("broken", BROKEN.format(good=self.cluster.executable))
        self.apply(path)
        self.until_state("failed")
        plan = self.plan()
        is_as_before = all(node.executable.read_bytes() == before[node.name] for node in self.cluster.nodes)
        self.table.row("one that does not come up", is_as_before and not plan["turn"], plan["state"])
        self.whole("gone back")


def slow(load):
    return [(one.begun, f"{one.ended - one.begun:.2f} s {one.fault}") for one in load.answers if one.ended - one.begun > STALL]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("executable")
    parser.add_argument("--keep", action="store_true", help="keep the folder also on success")
    parser.add_argument("--seed", default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if os.environ.get(INSIDE):
        inside(options, Roll)
    outside(options)


if __name__ == "__main__":
    main()
