"""The cluster under test: a bridge with a machine per node, one for its clients and one for a stranger; founded by the lines that an
operator types."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import machine
from member import CONTROL, Member
from shared import HERE, Network, ip, until

BRIDGE = "br0"
NETWORK, NETWORK6 = "10.77.0", "fd00:77:"
FLOATING = [f"{NETWORK}.100/24", f"{NETWORK6}:100/64"]
DEMO = HERE.parents[1] / "assets/demo"
CRON = "bitrix/modules/main/tools/cron_events.php"
PAGE = "nemesis.php"
# A joining node copies the files first.
PATIENCE = 240
PLAIN = "nemesis.txt"


class Cluster:
    def __init__(self, folder, executable, count, group_name):
        self.folder, self.count = Path(folder), count
        self.executable = self.folder / "bitrix-node"
        # A build that goes on beside the run does not change what is under test.
        shutil.copy2(executable, self.executable)
        self.acts = self.folder / "acts"
        self.groups = machine.Groups(group_name)
        self.nodes, self.network = [], None

    @property
    def client(self):
        """Number of the clients' machine."""
        return self.count + 1

    @property
    def stranger(self):
        return self.count + 2

    def make(self):
        CONTROL.mkdir()
        subprocess.run(["mount", "-t", "fusectl", "none", CONTROL], check=True)
        ip("link", "set", "lo", "up")
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("link", "set", BRIDGE, "up")
        ip("address", "add", f"{NETWORK}.254/24", "dev", BRIDGE)
        ip("address", "add", f"{NETWORK6}:254/64", "dev", BRIDGE, "nodad")
        numbers = range(1, self.count + 3)
        self.network = Network(BRIDGE, [f"{NETWORK}.{number}" for number in numbers])
        for number in numbers:
            machine.prepare_link(self.network, number, f"{NETWORK6}:{number}")
        for number in range(1, self.count + 1):
            one = machine.Machine(number, f"{NETWORK}.{number}", self.groups, self.network, self.folder / f"n{number}")
            self.nodes.append(Member(one, str(self.executable), 5 if self.count > 3 else 3))
        self.acts.mkdir()
        os.chmod(self.acts, 0o777)

    def node(self, name):
        return next(node for node in self.nodes if node.name == name)

    def addresses(self, name):
        """Of a node."""
        number = self.node(name).machine.number
        return [f"{NETWORK}.{number}", f"{NETWORK6}:{number}"]

    # Founding

    def found(self):
        """What an operator types: `init` before the node runs and after, then a token and a line for each further machine."""
        first, *others = self.nodes
        floating = [word for address in FLOATING for word in ("--vip", address)]
        founding = ["init", "--yes", "--name", first.name, "--address", first.address, *floating]
        first.command(*founding)
        first.start()
        until("the first leads", lambda: first.report().get("role") == "leader")
        first.command(*founding)
        for node in others:
            self.join(node)
        self.whole()

    def join(self, node):
        first = self.nodes[0]
        token = json.loads(first.command("token", "create", "--output", "json"))["token"]
        joining = ["join", first.address, "--token", token, "--yes", "--name", node.name, "--address", node.address]
        node.command(*joining)
        node.start()
        node.command(*joining, seconds=PATIENCE)

    def whole(self):
        """Waits until all copies are in sync and vote, by what all nodes say; of two one votes."""
        voters = 1 if self.count == 2 else self.count

        def is_whole(node):
            members = node.report().get("members", [])
            return sum(one["in_sync"] for one in members) >= self.count and sum(one["votes"] for one in members) >= voters

        def look():
            return all(is_whole(node) for node in self.nodes)

        until(f"{self.count} copies in sync", look)
        for node in self.nodes:
            node.until_mounted()

    def leader(self):
        """Name of the node whose storage leads, as a node says that has a quorum; None where nobody knows."""
        for node in self.nodes:
            if not node.machine.is_frozen and node.report(2).get("role") == "leader":
                return node.name
        return None

    # The portal

    def install(self):
        """The demo portal, with pages of the bed's own in place of its jobs."""
        first = self.nodes[0]
        first.command("portal", "install", "--from", DEMO)
        first.command("portal", "settings")
        root = first.files / "portal"
        for name, target in [("page.php", PAGE), ("cron.php", CRON)]:
            text = (HERE / "portal" / name).read_text().replace("@ACTS@", str(self.acts))
            (root / target).write_text(text)
        (root / PLAIN).write_text("as it is\n" * 100)
        ledger = first.files / "ledger"
        for node in self.nodes:
            (ledger / node.name).mkdir(parents=True)

    def stop(self):
        for node in self.nodes:
            node.machine.freeze(False)
            node.machine.empty()
            node.is_wanted = False
            if node.process and node.process.poll() is None:
                node.process.terminate()
        for node in self.nodes:
            node.stop()
        for node in self.nodes:
            subprocess.run(["umount", "-l", node.machine.disk], check=False)
