#!/usr/bin/python3
"""Three real nodes whose databases are one Galera cluster: faults in rounds, writers and readers that keep what they were told, and a judge.
Prints a table; the exit code is 1 when a row is lost, two servers write at a time, what is read is old, or the cluster does not heal by
itself.

    run.py EXECUTABLE [--rounds 2] [--only NAME,...] [--keep]

All runs in namespaces of its own, as in `tests/cluster/run.py`. Times are of this machine, which does the work of all nodes.
"""

import os
import signal
import time

from bed import HEALED, Bed, arguments, now, run, until

# How long a fault of the network or a frozen server lasts: longer than the group waits, and than a role.
FAULT = 12
# A head start.
STALE = 4
# What is left of a disk that is full, and of one that soon will be.
LEFT, LITTLE = 64 << 10, 600 << 20
# Until a node says that it has room again.
AGAIN = 30
# The last one of the group is told that it counts twice.
TOLD = 3


class Three(Bed):
    def rounds(self):
        return {
            "kill": self.kill, "freeze": self.freeze, "cut": self.cut, "switch": self.switch, "filling": self.filling, "full": self.full,
            "power": self.power, "staggered": self.staggered, "force": self.force,
        }

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
        stale, *rest = [node for node in self.data if node != holder] + [holder]
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

    def filling(self, holder):
        """The disk of the writer takes what is written still, and will not for long."""
        return self.fill(holder, LITTLE)

    def full(self, holder):
        """The disk of the writer, with all that its node has on it."""
        return self.fill(holder, LEFT)

    def fill(self, holder, left):
        """Another one is written to while it is so, and afterwards, too: nothing goes back by itself."""
        at = now()
        holder.machine.fill(left)

        def undo():
            others = [node for node in self.data if node != holder]
            moved = self.writer(others)
            time.sleep(max(0, at + FAULT - now()))
            holder.machine.empty()
            until(f"{holder.name} has room again", lambda: self.has_room(holder), AGAIN)
            time.sleep(FAULT)
            now_at = self.writer(others)
            said = [node for node in self.data if f"the disk of {holder.name} is full" in node.command("events")]
            is_so = moved not in (None, holder.name) and now_at == moved and bool(said)
            self.table.row("the seat moves once", is_so, f"{holder.name} → {moved}, later {now_at}; {len(said)} nodes tell why")

        return at, undo

    @staticmethod
    def has_room(node):
        return node.overview().get("facts", {}).get("is_database_full") is False

    def force(self, holder):
        """The one that acknowledged last is lost with what it alone has; the others wait for it until the operator gives that up. It comes
        back, and must not bring it with it."""
        first, second = [node for node in self.data if node != holder]
        first.kill()
        died = now()
        until("writes go on", lambda: sum(1 for one in self.said() if one["begun"] > died and "acknowledged" in one) > 50, HEALED)
        time.sleep(TOLD)
        second.kill()
        died = now()
        time.sleep(FAULT)
        holder.kill()
        begun = sum(map(self.begun, self.data))
        first.start()
        second.start()
        time.sleep(FAULT)
        wrong = sum(map(self.begun, self.data)) - begun
        newer = {(one["node"], one["number"]) for one in self.said() if one.get("acknowledged", 0) > died}
        at = now()
        said = until("the operator is heard", lambda: self.forced(second), HEALED)
        until("the second begins", lambda: self.rows(second) is not None, HEALED)
        self.given_up |= newer - self.rows(second)
        more = f"{wrong} wrong begins; {len(newer)} rows acknowledged by the last one alone, {len(self.given_up)} given up"
        self.table.row("the newest is lost", wrong == 0 and "LOST" in said, more, said.splitlines())
        holder.start()
        return at, None

    @staticmethod
    def forced(node):
        try:
            return node.command("db", "bootstrap", "--force", node.name, "--yes")
        except RuntimeError:
            return None


if __name__ == "__main__":
    run(arguments(__doc__.splitlines()[0]).parse_args(), Three)
