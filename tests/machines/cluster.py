"""What the machines say of their cluster, and what can be seen of it from outside."""

import json
import urllib.request

from bed import NETWORK
from machine import Failed

FLOATING = f"{NETWORK}.10"


def asked(machine, command, seconds=20):
    """What a command prints for programs; its code says how things are, and is not looked at."""
    done = machine.try_run(f"bitrix-node {command} --output json", seconds)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return {}


class Cluster:
    def __init__(self, machines):
        self.machines = machines

    def on(self):
        return [one for one in self.machines.values() if one.is_on()]

    def named(self, name):
        if name not in self.machines:
            raise Failed(f"no machine is called {name!r}")
        return self.machines[name]

    def green(self, address):
        """All checks of the demo, as a browser sees them."""
        try:
            with urllib.request.urlopen(f"http://{address}/check.json", timeout=5) as answer:
                return json.load(answer)["ok"] is True
        except (OSError, ValueError, KeyError):
            return False

    def healthy(self, machine):
        return machine.try_run("bitrix-node status", 20).returncode == 0

    def storage(self, machine):
        return asked(machine, "storage status")

    def copies(self, machine):
        """Data replicas in sync, as this machine's knows it."""
        return sum(one.get("in_sync", False) for one in self.storage(machine).get("members", []))

    def leader(self):
        """The machine whose storage leads."""
        for one in self.on():
            if self.storage(one).get("role") == "leader":
                return one
        return None

    def edges(self):
        """Machines that have the floating address; the kernel is asked, not the node."""
        return [one for one in self.on() if f" {FLOATING}/" in one.try_run("ip -4 -oneline address show").stdout]
