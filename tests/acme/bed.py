#!/usr/bin/env python3
"""Three nodes that get certificates from pebble, which takes its time and refuses half of all nonces. The node that does so is killed or frozen in
the middle of an order, again and again: another one goes on with the same order, and all nodes serve what comes of it. Prints a table; the exit
code is 1 when not.

    bed.py EXECUTABLE [--rounds 8] [--seed N] [--keep]

All runs in namespaces of its own, as in `tests/cluster/run.py`.
"""

import argparse
import json
import os
import random
import re
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "cluster"))
# First: the other beds have one of that name.
from run import INSIDE, inside, outside  # isort: skip

from cluster import FLOATING, NETWORK, Cluster
from shared import Table, now, until

DIRECTORY = f"{NETWORK}.254"
PORTAL = "portal.example"
SETTING = "cert.of."
# pebble thinks so long about a challenge at most, in seconds.
THINKS = 6
# From the loss of a node to the certificate: four seconds until its seat is free, what pebble thinks, and nonces.
ISSUED = 60
MORE = """
[acme]
directory = "https://{directory}:14000/dir"
ca = "{ca}"
names = ["{portal}"]
"""


class Pebble:
    """The directory and its name server, for which every name is the floating address."""

    def __init__(self, folder):
        self.folder, self.running = folder / "pebble", []
        self.folder.mkdir()
        self.ca = self.folder / "own.pem"
        line = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        line += ["-subj", "/CN=pebble", "-addext", f"subjectAltName=IP:{DIRECTORY}", "-addext", "basicConstraints=critical,CA:FALSE"]
        subprocess.run([*line, "-keyout", self.folder / "own.key", "-out", self.ca], check=True, capture_output=True)
        os.chmod(self.folder, 0o755)

    def run(self):
        names = ["-management", "127.0.0.1:8055", "-dns01", "127.0.0.1:8053", "-defaultIPv4", FLOATING[0].split("/")[0], "-defaultIPv6", ""]
        self.launch("names", ["pebble-challtestsrv", *names, "-http01", "", "-https01", "", "-tlsalpn01", ""])
        config = {
            "listenAddress": f"{DIRECTORY}:14000",
            "managementListenAddress": "127.0.0.1:15000",
            "certificate": str(self.ca),
            "privateKey": str(self.folder / "own.key"),
            "httpPort": 80,
            "tlsPort": 443,
        }
        (self.folder / "config.json").write_text(json.dumps({"pebble": config}))
        self.launch("pebble", ["pebble", "-config", self.folder / "config.json", "-dnsserver", "127.0.0.1:8053"])
        until("pebble answers", self.root, 20)
        (self.folder / "root.pem").write_text(self.root())

    def launch(self, name, line):
        chaos = {"PEBBLE_WFE_NONCEREJECT": "50", "PEBBLE_VA_SLEEPTIME": str(THINKS), "PEBBLE_AUTHZREUSE": "0"}
        with open(self.folder / f"{name}.log", "wb") as log:
            self.running.append(subprocess.Popen(line, env={**os.environ, **chaos}, stdout=log, stderr=log))

    def root(self):
        try:
            context = ssl._create_unverified_context()
            with urllib.request.urlopen("https://127.0.0.1:15000/roots/0", context=context, timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def orders(self):
        """How many were placed."""
        return len(re.findall(r"Added order", (self.folder / "pebble.log").read_text(errors="replace")))

    def stop(self):
        for one in self.running:
            one.terminate()
            one.wait()


class Bed:
    def __init__(self, options, folder):
        self.options, self.table = options, Table()
        self.random = random.Random(options.seed)
        self.cluster = Cluster(folder, options.executable, 3, os.environ[INSIDE])
        self.pebble = Pebble(Path(folder))
        self.went_on = 0

    def all(self):
        try:
            self.found()
            for number in range(self.options.rounds):
                self.round(number)
            self.table.row("in all", self.went_on > 0, f"{self.went_on} orders were gone on with by another node")
        except Exception as error:
            logs = [f"{node.name}: {node.log()[-2500:]}" for node in self.cluster.nodes]
            pebble = (self.pebble.folder / "pebble.log").read_text(errors="replace")[-1500:]
            self.table.row("the bed", False, repr(error), [*logs, f"pebble: {pebble}"])
        finally:
            self.cluster.stop()
            self.pebble.stop()
        return self.table.failed

    def found(self):
        cluster, began = self.cluster, now()
        cluster.make()
        self.pebble.run()
        for node in cluster.nodes:
            text = node.config.read_text().replace("https = []", 'https = ["0.0.0.0:443"]')
            text = text.replace("[storage]", '[storage]\nengine = "replicated"')
            node.config.write_text(text + MORE.format(directory=DIRECTORY, ca=self.pebble.ca, portal=PORTAL))
        cluster.found()
        self.table.row("cluster", True, f"3 nodes after {now() - began:.0f} s")
        began = now()
        leaf = self.served(PORTAL, cluster.nodes)
        self.table.row("the portal's own", leaf is not None, f"all nodes serve one certificate after {now() - began:.1f} s more")

    def round(self, number):
        """Odd ones: the node is also where the directory comes to, which may then find nobody, and another order is needed."""
        name, is_door = f"r{number}.example", number % 2 == 1
        holder = self.place(is_door)
        asker = self.random.choice([node for node in self.cluster.nodes if node is not holder])
        before = self.pebble.orders()
        asked = asker.launch("cert", "issue", name, "--timeout", f"{ISSUED}s")
        until(f"the order of {name} is under way", lambda: self.is_under_way(asker, name), 30)
        time.sleep(self.random.random() * THINKS / 2)
        is_open = self.is_under_way(asker, name)
        began = now()
        fault = [self.kill, self.freeze][number // 2 % 2]
        mend = fault(holder)
        leaf = self.served(name, [node for node in self.cluster.nodes if node is not holder])
        took = now() - began
        out, errors = asked.communicate(timeout=ISSUED)
        placed = self.pebble.orders() - before
        mend()
        self.cluster.whole()
        everywhere = leaf is not None and self.served(name, self.cluster.nodes) == leaf
        # One that was looked for at the node that was lost may fail.
        is_smooth = placed == 1 and asked.returncode == 0
        said = f"{took:.1f} s, orders placed: {placed}, then {self.holder().name} has the seat"
        kind = f"{fault.__name__} {holder.name}{', the door' if is_door else ''}{'' if is_open else ', who was ready'}"
        self.went_on += is_open and is_smooth
        self.table.row(f"{number + 1}: {kind}", everywhere and (is_smooth or is_door), said, [] if is_smooth else [out + errors])

    def place(self, is_door):
        """Has the seat at the node that has the floating address, or at another one; returns it."""
        rows = json.loads(self.cluster.nodes[0].command("role", "list", "--output", "json"))
        door = next(row["holder"] for row in rows if row["seat"] == FLOATING[0])
        if (self.holder().name == door) != is_door:
            wanted = door if is_door else self.random.choice([node.name for node in self.cluster.nodes if node.name != door])
            until(f"{wanted} takes the seat", lambda: self.is_moved(wanted), 60)
        return self.holder()

    def is_moved(self, wanted):
        """A node that has just come back is not fit for it at once."""
        try:
            self.cluster.nodes[0].command("role", "transfer", "acme", wanted)
        except RuntimeError:
            return False
        return True

    # Faults, and how to mend them

    def kill(self, node):
        node.kill()
        return node.start

    def freeze(self, node):
        node.machine.freeze(True)
        return lambda: node.machine.freeze(False)

    # What is seen

    def holder(self):
        """The node that gets the certificates."""

        def look():
            for node in self.cluster.nodes:
                rows = json.loads(node.command("role", "list", "--output", "json"))
                for row in rows:
                    if row["role"] == "acme" and row["holder"] and row["live"]:
                        return self.cluster.node(row["holder"])
            return None

        found = []
        until("a node has the seat", lambda: found.append(look()) or found[-1], 30)
        return found[-1]

    def is_under_way(self, node, name):
        """The directory was told where to look."""
        rows = json.loads(node.command("cert", "list", "--output", "json"))
        if not any(row["names"] == [name] and row["ordered"] for row in rows):
            return False
        settings = json.loads(node.command("registry", "show", "--output", "json"))["settings"]
        entries = [json.loads(one["value"]) for one in settings if one["key"].startswith(SETTING)]
        return any(one["names"] == [name] and (one.get("order") or {}).get("challenges") for one in entries)

    def served(self, name, nodes):
        """The one certificate that all these nodes show for the name; None where they do not in time."""
        context = ssl.create_default_context(cafile=str(self.pebble.folder / "root.pem"))
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)

        def shown(node):
            try:
                with socket.create_connection((node.address, 443), 3) as stream:
                    with context.wrap_socket(stream, server_hostname=name) as session:
                        return session.getpeercert(binary_form=True)
            except OSError:
                return None

        found = set()

        def look():
            found.clear()
            found.update(shown(node) for node in nodes)
            return len(found) == 1 and None not in found

        try:
            until(f"{name} is served", look, ISSUED)
        except Exception:
            return None
        return found.pop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("executable")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument("--keep", action="store_true", help="keep the folder also on success")
    options = parser.parse_args()
    if os.environ.get(INSIDE):
        inside(options, Bed)
    outside(options)


if __name__ == "__main__":
    main()
