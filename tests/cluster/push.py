#!/usr/bin/env python3
"""Browsers and publishers of the push server on three nodes, one of which is killed, frozen or cut off again and again. Every message that was
acknowledged must reach every browser once and in the order of ids, wherever it comes back. Prints a table; the exit code is 1 when not.

    push.py EXECUTABLE [--rounds 20] [--browsers 1000] [--seed N] [--keep]

All runs in namespaces of its own, as in `run.py`.
"""

import argparse
import http.client
import os
import random
import signal
import statistics
import threading
import time

# First: the other beds have one of that name.
from run import INSIDE, inside, outside  # isort: skip

from cluster import Cluster
from listeners import Crowd, channel
from shared import Table, now, set_namespace, until

CHANNELS = 50
# Of one publisher, in seconds between two messages.
PACE = 0.12
# PHP waits no longer.
TIMEOUT = 5
# Most channels of one message.
TO = 3
# Until all have caught up after a round.
SETTLE = 40
# A whole machine starts anew; a module does by itself.
RETURN = 120


class Publisher(threading.Thread):
    """PHP on one node: publishes over its loopback, whatever comes."""

    def __init__(self, bed, node, handle):
        super().__init__(daemon=True)
        self.bed, self.node, self.handle = bed, node, handle
        self.answers, self.random = [], random.Random(f"{bed.seed}{node.name}")
        self.is_busy = False

    def run(self):
        set_namespace(self.handle)
        while not self.bed.is_over:
            self.bed.goes.wait()
            self.is_busy = self.bed.goes.is_set()
            if self.is_busy:
                self.publish(self.random.sample(range(CHANNELS), self.random.randint(1, TO)))
            self.is_busy = False
            time.sleep(PACE)

    def publish(self, channels):
        number, began = self.bed.number(), now()
        connection = http.client.HTTPConnection("127.0.0.1", 8895, timeout=TIMEOUT)
        try:
            target = f"/bitrix/pub/?CHANNEL_ID={'/'.join(map(channel, channels))}"
            connection.request("POST", target, f'{{"n":{number}}}', {"Message-Expiry": "3600"})
            is_good = connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            is_good = False
        finally:
            connection.close()
        self.answers.append((began, now() - began, is_good))
        if is_good:
            for one in channels:
                self.bed.acknowledged[one].append(number)


class Push:
    def __init__(self, options, folder):
        self.options, self.table, self.seed = options, Table(), options.seed
        self.random = random.Random(options.seed)
        self.cluster = Cluster(folder, options.executable, 3, os.environ[INSIDE])
        self.acknowledged = [[] for _ in range(CHANNELS)]
        self.is_over, self.goes, self.count, self.lock = False, threading.Event(), 0, threading.Lock()
        self.crowd = None

    def number(self):
        with self.lock:
            self.count += 1
            return self.count

    def all(self):
        try:
            self.found()
            self.begin()
            for number in range(self.options.rounds):
                self.round(number)
            self.figures()
        except Exception as error:
            self.table.row("the bed", False, repr(error), [f"{node.name}: {node.log()[-2500:]}" for node in self.cluster.nodes])
        finally:
            self.is_over = True
            self.goes.set()
            if self.crowd:
                self.crowd.end()
            self.cluster.stop()
        return self.table.failed

    def found(self):
        cluster, began = self.cluster, now()
        cluster.make()
        cluster.found()
        keys = {(node.folder / "data/secrets/push.key").read_text().strip() for node in cluster.nodes}
        self.table.row("cluster", len(keys) == 1, f"3 nodes after {now() - began:.0f} s, {len(keys)} key")
        self.publishers = [Publisher(self, node, cluster.network.handle(node.machine.number)) for node in cluster.nodes]
        self.crowd = Crowd(cluster.network.handle(cluster.client), keys.pop().encode(), self.options.browsers, CHANNELS)

    def begin(self):
        crowd = self.crowd
        crowd.open = [node.address for node in self.cluster.nodes]
        began = now()
        crowd.thread.start()
        until("all browsers listen", lambda: all(browser.visits for browser in crowd.browsers), 60)
        took = now() - began
        # Who has had nothing yet has no id to come back with.
        first = self.publishers[0]
        set_apart = threading.Thread(target=self.greet, args=(first,))
        set_apart.start()
        set_apart.join()
        until("all browsers are greeted", lambda: all(browser.mid for browser in crowd.browsers), 60)
        for publisher in self.publishers:
            publisher.start()
        self.goes.set()
        self.table.row("browsers", True, f"{len(crowd.browsers)} listen to {CHANNELS} channels after {took:.1f} s")

    def greet(self, publisher):
        set_namespace(publisher.handle)
        for one in range(CHANNELS):
            publisher.publish([one])

    def orderer(self):
        """Name of the node that orders, as it says itself."""
        for node in self.cluster.nodes:
            services = node.overview().get("services", [])
            if any(one.get("name") == "push" and "orders" in str(one) for one in services):
                return node
        return None

    def round(self, number):
        orderer = self.orderer()
        # Whoever orders as often as the other two together.
        nodes = self.cluster.nodes
        victim = orderer if orderer and self.random.random() < 0.5 else self.random.choice(nodes)
        fault = [self.kill, self.freeze, self.cut, self.hang, self.mute, self.lose][number % 6]
        before = len(self.crowd.ids)
        time.sleep(0.5 + self.random.random())
        began = now()
        self.crowd.open = [node.address for node in nodes if node is not victim]
        mend, is_gone = fault(victim)
        moved = self.crowd.move(victim.address, self.random.choice([0, 0.5, 1]))
        time.sleep(0.5 + self.random.random() * 2.5)
        mend()
        self.crowd.open = [node.address for node in nodes]
        ended = now()
        until(f"all is well after round {number}", self.is_well, RETURN if is_gone else SETTLE)
        self.goes.clear()
        until("nothing is being published", lambda: not any(publisher.is_busy for publisher in self.publishers), 2 * TIMEOUT)
        try:
            until("all have all", lambda: not self.crowd.missing(self.acknowledged), SETTLE)
        except Exception:
            pass
        self.goes.set()
        missing, faults = self.crowd.missing(self.acknowledged), self.crowd.faults()
        stall = max(self.stall(publisher, began, ended) for publisher in self.publishers if publisher.node is not victim)
        name = f"{number + 1}: {fault.__name__} {victim.name}{', who orders' if victim is orderer else ''}"
        said = f"{len(self.crowd.ids) - before} messages, {moved} browsers moved, others publish again after {stall:.2f} s"
        self.table.row(name, not missing and not faults, said, missing[:10] + faults[:10])

    def is_well(self):
        """Each node has taken a message within the last second, at once."""
        for publisher in self.publishers:
            last = publisher.answers[-1:] or [(0, 0, False)]
            if not (last[0][2] and last[0][1] < 1 and now() - last[0][0] < 2):
                return False
        return True

    def stall(self, publisher, began, ended):
        """The longest time without an acknowledgement of this publisher, from the fault on."""
        good = [at + took for at, took, is_good in publisher.answers if is_good and at + took > began]
        times = [began, *good]
        return max([after - before for before, after in zip(times, times[1:]) if before < ended] or [0])

    # Faults: how to mend them, and whether a whole machine has to start.

    def kill(self, node):
        node.signal("push", signal.SIGKILL)
        return (lambda: None), False

    def freeze(self, node):
        node.machine.freeze(True)
        return (lambda: node.machine.freeze(False)), False

    def cut(self, node):
        node.machine.cut(True)
        return (lambda: node.machine.cut(False)), False

    def hang(self, node):
        node.signal("push", signal.SIGSTOP)
        return (lambda: node.signal("push", signal.SIGCONT)), False

    def mute(self, node):
        """Nobody hears it."""
        rule = ("out", ())
        node.machine.drop(rule)
        return (lambda: node.machine.pass_on(rule)), False

    def lose(self, node):
        """Without power, and back."""
        node.kill()
        return (lambda: node.start()), True

    def figures(self):
        took = sorted(took for publisher in self.publishers for _, took, is_good in publisher.answers if is_good)
        refused = sum(not is_good for publisher in self.publishers for _, _, is_good in publisher.answers)
        got = sum(len(browser.got) for browser in self.crowd.browsers)
        visits = statistics.mean(browser.visits for browser in self.crowd.browsers)

        def at(share):
            return 1000 * took[int((len(took) - 1) * share)]

        said = f"{len(took)} acknowledged, {refused} not; {got} received by browsers on {visits:.1f} visits each"
        more = f"acknowledged after p50 {at(0.5):.1f} ms, p99 {at(0.99):.0f} ms, at most {at(1):.0f} ms"
        self.table.row("in all", len(took) > 100 * self.options.rounds / 20, f"{said}; {more}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("executable")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--browsers", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument("--keep", action="store_true", help="keep the folder also on success")
    options = parser.parse_args()
    if os.environ.get(INSIDE):
        inside(options, Push)
    outside(options)


if __name__ == "__main__":
    main()
