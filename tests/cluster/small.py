#!/usr/bin/env python3
"""Users' sessions while a cluster grows from two nodes to three, loses one, and is left for good by one: the second of two may go, then any of
three. Prints a table; the exit code is 1 when anything fails.

    small.py EXECUTABLE [--keep]

All runs in namespaces of its own, as in `run.py`.
"""

import argparse
import http.client
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

# First: the other beds have one of that name.
from run import INSIDE, inside, outside  # isort: skip

from cluster import Cluster
from shared import HERE, Table, now, set_namespace, until

PAGE = "visit.php"
# As long as PHP waits for a lock, and more.
TIMEOUT = 10
# In seconds.
CALM = 3
# How long an orderly switch of the cache may take on this machine, with what PHP adds.
BACK = 60


class Visitor:
    """One user, who keeps the cookie and asks one node after the other."""

    def __init__(self):
        self.cookie, self.visits, self.longest = None, 0, 0.0
        self.begun_anew, self.failed = 0, []

    def ask(self, address):
        began = now()
        connection = http.client.HTTPConnection(address, 80, timeout=TIMEOUT)
        try:
            connection.request("GET", f"/{PAGE}", headers={"Cookie": self.cookie} if self.cookie else {})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise ValueError(f"{answer.status}")
            visits = int(body)
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.failed.append(f"{address}: {error!r}")
            return False
        finally:
            connection.close()
            self.longest = max(self.longest, now() - began)
        if cookie := answer.getheader("Set-Cookie"):
            self.cookie = cookie.split(";")[0]
        # What is older than the last visit has come back from a copy that should be gone.
        if visits != self.visits + 1:
            if visits != 1:
                self.failed.append(f"{address}: visit {visits} after {self.visits}")
            self.begun_anew += 1
        self.visits = visits
        return True

    def walk(self, addresses, seconds):
        end = now() + seconds
        while now() < end:
            for address in addresses:
                self.ask(address)

    def rest(self):
        """What happened since the last rest."""
        said = (self.begun_anew, self.failed, self.longest)
        self.begun_anew, self.failed, self.longest = 0, [], 0.0
        return said


class Small:
    def __init__(self, options, folder):
        self.table = Table()
        self.cluster = Cluster(folder, options.executable, 3, os.environ[INSIDE])
        self.visitor = Visitor()

    def all(self):
        try:
            self.found()
            self.second_goes()
            self.second_returns()
            self.voter_returns()
            self.third_comes()
            self.first_goes()
            self.first_returns()
            self.one_leaves()
        except Exception as error:
            self.table.row("the bed", False, repr(error), [f"{node.name}: {node.log()[-2500:]}" for node in self.cluster.nodes])
        finally:
            self.cluster.stop()
        return self.table.failed

    def found(self):
        cluster = self.cluster
        cluster.make()
        handle = cluster.network.handle(cluster.client)
        self.outside = ThreadPoolExecutor(1, initializer=set_namespace, initargs=(handle,))
        self.first, self.second, self.third = cluster.nodes
        cluster.nodes, cluster.count = cluster.nodes[:2], 2
        cluster.found()
        cluster.install()
        (self.first.files / "portal" / PAGE).write_text((HERE / "portal" / PAGE).read_text())
        self.until_shared(2)
        # A front opens the portal's folder anew once a second.
        self.walk(cluster.nodes)
        self.visitor.rest()
        self.row("two nodes", [self.first, self.second])

    def until_shared(self, count):
        def serving(node):
            """How many there are, as this node is told."""
            said = json.loads(node.command("cache", "shards", "--output", "json"))
            return sum(int(one.get("shards_owned", 0)) > 0 for one in said.values())

        def look():
            return all(serving(node) == count for node in self.cluster.nodes if node.is_wanted)

        until(f"{count} caches serve", look)

    def walk(self, nodes, seconds=CALM):
        self.outside.submit(self.visitor.walk, [node.address for node in nodes], seconds).result()

    def both_answer(self):
        return all([self.outside.submit(self.visitor.ask, node.address).result() for node in self.cluster.nodes])

    def row(self, name, nodes):
        """Visits at these nodes; nothing may fail or be forgotten, since the last row."""
        self.walk(nodes)
        anew, failed, longest = self.visitor.rest()
        good = not anew and not failed and self.visitor.visits > 5
        self.table.row(name, good, f"visit {self.visitor.visits}, longest wait {longest:.2f} s, begun anew {anew}, failed {len(failed)}", failed[:10])

    def second_goes(self):
        self.second.kill()
        self.row("the second of two is gone", [self.first])

    def second_returns(self):
        self.second.start()
        self.cluster.whole()
        self.until_shared(2)
        self.row("it is back", [self.first, self.second])

    def voter_returns(self):
        """The one that decides alone ends: sessions begin anew, on both nodes, and nothing old comes back."""
        self.first.signal("cache", signal.SIGKILL)
        began = now()
        until("both answer", self.both_answer, BACK)
        anew, failed, longest = self.visitor.rest()
        old = [one for one in failed if "after" in one]
        said = f"back after {now() - began:.1f} s, longest wait {longest:.2f} s, begun anew {anew}"
        self.table.row("the first one's cache was killed", not old, said, old)
        self.until_shared(2)
        self.row("both go on", self.cluster.nodes)

    def third_comes(self):
        self.cluster.nodes, self.cluster.count = [*self.cluster.nodes, self.third], 3
        self.cluster.join(self.third)
        self.cluster.whole()
        self.until_shared(3)
        self.row("a third has come", self.cluster.nodes)

    def first_goes(self):
        self.first.kill()
        self.row("the first of three is gone", [self.second, self.third])

    def first_returns(self):
        self.first.start()
        self.cluster.whole()
        self.until_shared(3)
        self.row("it is back", self.cluster.nodes)

    def one_leaves(self):
        """For good: of the two that are left one votes."""
        # Who leads the storage is not let go.
        gone = self.second if self.cluster.leader() == self.third.name else self.third
        self.first.command("node", "drain", gone.name)
        self.first.command("node", "remove", gone.name)
        self.cluster.nodes = [node for node in self.cluster.nodes if node is not gone]
        self.row("one has left", self.cluster.nodes)
        gone.stop()
        self.row("and is off", self.cluster.nodes)
        self.until_shared(2)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("executable")
    parser.add_argument("--keep", action="store_true", help="keep the folder also on success")
    parser.add_argument("--seed", default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if os.environ.get(INSIDE):
        inside(options, Small)
    outside(options)


if __name__ == "__main__":
    main()
