"""Three nodes that keep one copy each: the storage module of the real executable, three times, founded and joined by its own
commands. With a `Network` each is in a network namespace of its own, with a link that can be cut; without, on an own loopback address.

Clients talk to the door of one node, as in production to that of their own machine. Here that is the last node: of replicas that
stand alike the first is elected, so leaders are mostly the other ones.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import server
from server import Bitrix, listener

COUNT = 3
LIBC = ctypes.CDLL(None, use_errno=True)
NEW_NET = 0x40000000
MESH = 7400
# No step takes longer on the busiest machine.
PATIENCE = 120
LOOK = 0.05
LOOKING = 10

# Accounts that every Debian has; the module is started as root here.
CLUSTER = """
[portal]
user = "www-data"
[cluster]
address = "{address}"
port = {port}
"""


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def until(what, look, patience=PATIENCE):
    """Looks until there is something to see."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if seen := look():
            return seen
        time.sleep(LOOK)
    raise RuntimeError(f"never: {what}")


def set_namespace(descriptor):
    if LIBC.setns(descriptor, NEW_NET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Network:
    """Namespaces on a bridge. All ends with the namespaces that the caller runs in."""

    def __init__(self, bridge, addresses):
        self.handles = []
        for number, address in enumerate(addresses, 1):
            name = f"n{number}"
            ip("netns", "add", name)
            ip("link", "add", self.link(number), "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", self.link(number), "master", bridge, "up")
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ["lo", "eth0"]:
                ip("-n", name, "link", "set", device, "up")
            self.handles.append(os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC))

    @staticmethod
    def link(number):
        return f"node{number}"

    def handle(self, number):
        return self.handles[number - 1]

    def inside(self, number, make):
        """What `make` makes in the namespace of a node."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            set_namespace(self.handle(number))
            return make()
        finally:
            set_namespace(own)
            os.close(own)

    def remove(self):
        """Before others take the names."""
        for number, handle in enumerate(self.handles, 1):
            os.close(handle)
            ip("netns", "delete", f"n{number}")
        self.handles = []

    def cut(self, number, is_cut):
        """The cable is pulled, or put back."""
        ip("link", "set", self.link(number), "down" if is_cut else "up")


class Node(Bitrix):
    def __init__(self, number, folder, executable, address, network, port=server.PORT):
        self.number, self.name, self.network = number, f"n{number}", network
        super().__init__(folder, executable, address=address, port=port)

    def settings(self):
        text = super().settings().replace('"storage-test"', f'"{self.name}"\nuser = "nobody"\ndaemons = "child"')
        return text + CLUSTER.format(address=self.mount, port=MESH)

    def open(self):
        run = self.folder / "run"

        def make():
            return {
                "nfs": listener(self.mount, self.port),
                "nfs-unix": listener(run / "nfs.sock", None),
                "storage": listener(run / "storage.sock", None),
                "storage-mesh": listener(self.mount, MESH + 1),
            }

        return self.network.inside(self.number, make) if self.network else make()

    def enter(self):
        if self.network:
            set_namespace(self.network.handle(self.number))

    def start(self):
        """Returns at once: whether it serves depends on the others."""
        self.launch(subprocess.DEVNULL)

    def command(self, *words, seconds=PATIENCE):
        done = subprocess.run(
            [self.executable, *map(str, words), "--config", str(self.config)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        # `storage status` says by its code how the group does.
        if done.returncode != 0 and not done.stdout:
            raise RuntimeError(f"{self.name}: {' '.join(map(str, words))}: {done.stderr.strip()}")
        return done.stdout

    def found(self):
        self.command("init", "--yes")
        # MariaDB's empty folder comes with it.
        shutil.rmtree(self.folder / "data/db", ignore_errors=True)

    def report(self, seconds=1):
        """How it does, if it answers soon; else nothing."""
        try:
            return json.loads(self.command("storage", "status", "--output", "json", seconds=seconds))
        except (RuntimeError, subprocess.TimeoutExpired):
            return {}

    def has_ended(self):
        return self.process.poll() is not None

    def signal(self, number):
        self.process.send_signal(number)


class Group:
    """Shaped like the servers with one process; `mount` is the door that clients use."""

    member = Node
    export = "/portal"
    # Of hosts on the bridge: the nodes bring their own.
    addresses = ()

    def __init__(self, folder, executable, addresses, bridge=None, port=server.PORT):
        self.folder, self.port, self.mount_port = Path(folder), port, port
        self.executable, self.nodes_addresses, self.bridge = executable, addresses, bridge
        self.mount = addresses[-1]
        self.nodes, self.network = [], None

    def start(self):
        if self.bridge:
            self.network = Network(self.bridge, self.nodes_addresses)
        for number, address in enumerate(self.nodes_addresses, 1):
            place = self.folder / f"n{number}"
            self.nodes.append(self.member(number, place, self.executable, address, self.network, self.port))
        first, *others = self.nodes
        first.found()
        for node in others:
            first.command("node", "issue", node.name, "--into", node.folder / "data/trust")
        for node in self.nodes:
            node.start()
        until("the first leads", lambda: first.report().get("role") == "leader")
        for node in others:
            # It looks at its files, too, which are not there yet.
            until("the others wait", lambda: node.report(LOOKING).get("role") == "waiting")
            first.command("storage", "add", node.name, f"{node.mount}:{MESH + 1}")
        self.whole()

    @property
    def door(self):
        """The node that clients use."""
        return next(node for node in self.nodes if node.mount == self.mount)

    def leader(self, among=None):
        """Who leads, as it says itself, with its report; None where nobody does."""
        for node in among or self.nodes:
            report = node.report()
            if report.get("role") == "leader":
                return node, report
        return None

    def whole(self):
        """Waits until all copies are in sync and all nodes know the same leader; returns it, and the term."""

        def look():
            reports = [node.report() for node in self.nodes]
            in_sync = [sum(one["votes"] and one["in_sync"] for one in report.get("members", [])) for report in reports]
            known = {(report.get("leader"), report.get("term")) for report in reports}
            if min(in_sync) < COUNT or len(known) != 1:
                return None
            leader, term = known.pop()
            return next(((node, term) for node in self.nodes if node.name == leader), None)

        return until("three copies in sync", look)

    def lead_elsewhere(self):
        """Has another node lead than the clients' own; that one stands still meanwhile."""
        while self.whole()[0] is self.door:
            self.door.signal(signal.SIGSTOP)
            try:
                others = [node for node in self.nodes if node is not self.door]
                until("another leads", lambda: self.leader(others))
            finally:
                self.door.signal(signal.SIGCONT)

    def fail(self):
        """The clients' own node is killed and comes back."""
        self.door.process.kill()
        self.door.process.wait()
        self.door.start()

    def pids(self):
        return [node.process.pid for node in self.nodes]

    def stop(self):
        for node in self.nodes:
            node.stop()

    def log(self):
        return "\n".join(f"{node.name}:\n{node.log()[-2000:]}" for node in self.nodes)
