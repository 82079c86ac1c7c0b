"""Carries the plan out: strikes and undoes, looks after what an init and an operator would, and measures after each round how long the cluster
takes until all is well."""

import random
import socket
import time
import traceback

import addresses
from cluster import FLOATING, PAGE
from faults import FAULTS
from judge import percentiles
from plan import victims
from shared import Record, lines, now, until

TICK = 0.05
# The bound of the design, after the last fault.
ROLES_WITHIN = 10.0
# All else: a node that was down boots, catches up and mounts.
WELL_WITHIN = 90.0
LOOK = 0.2
OPERATOR = 30.0
EXPECTED = ["roles", "pages", "healthy"]
EXCLUSIVE = [*(f"edge/{address}" for address in FLOATING), "cron"]


class Operation:
    """A command of the operator; one that must succeed is said again until it does."""

    def __init__(self, words, is_must):
        self.words, self.is_must = words, is_must
        self.process, self.began, self.until = None, now(), 0.0

    def look(self, nodes, dice, say):
        """Whether it is over."""
        if self.process is None:
            if now() >= self.until:
                at = dice.choice(nodes)
                self.process, self.until = at.launch(*self.words), now() + OPERATOR
            return False
        code = self.process.poll()
        if code is None and now() < self.until:
            return False
        out, errors = self.end()
        if code == 0 or not self.is_must:
            say(operator=" ".join(map(str, self.words)), code=code, took=round(now() - self.began, 1), said=(errors or out)[-200:])
            return True
        self.process, self.until = None, now() + 1
        return False

    def end(self):
        if self.process is None:
            return "", ""
        self.process.kill()
        return self.process.communicate()


class Nemesis:
    def __init__(self, cluster, record, versions, seed):
        self.cluster, self.record, self.versions = cluster, Record(record), versions
        self.dice = random.Random(seed ^ 0x5EED)
        self.floating = FLOATING
        self.operations, self.took, self.bad, self.struck = [], {}, [], {}
        self.calm, self.late, self.ticked = [], 0.0, now()
        inside = cluster.network.inside
        self.looking = [inside(n.machine.number, lambda n=n: addresses.Namespace(n.name, f"/run/netns/{n.name}")) for n in cluster.nodes]

    def say(self, **what):
        self.record.say(**what)
        if "note" in what:
            print(f"          {what['note']}", flush=True)

    def operate(self, *words):
        """Begins a command; the opposite of one that still runs ends that one."""
        is_must = words[1].startswith("un")
        opposite = (words[0], words[1].removeprefix("un"))
        for one in self.operations:
            if is_must and tuple(one.words[:2]) == opposite:
                one.is_must = False
                one.until = 0.0
        self.operations.append(Operation(words, is_must))

    # What is so just now

    def holders(self):
        """Floating address -> names of the machines that have it."""
        wanted = [address.split("/")[0] for address in FLOATING]
        return {address: sorted(names) for address, names in addresses.holders(self.looking, wanted).items()}

    def seats(self):
        """Of the newest version of the registry that its observer has seen."""
        return max(lines(self.versions), key=lambda line: line.get("revision", 0), default={}).get("seats", {})

    def aims(self):
        seats = self.seats()
        edge = {name for names in self.holders().values() for name in names}
        leader = self.cluster.leader()
        return {"edge": sorted(edge), "cron": [seats.get("cron", [None])[0]], "leader": [leader], "any": []}

    def are_roles_well(self):
        """Every exclusive seat has a holder that lives, in the registry and in fact."""
        seats, names = self.seats(), {node.name for node in self.cluster.nodes}
        if any(seats.get(seat, [None])[0] not in names for seat in EXCLUSIVE):
            return False
        held = self.holders()
        return all(held[address.split("/")[0]] == [seats[f"edge/{address}"][0]] for address in FLOATING)

    def is_web_well(self):
        hosts = [node.address for node in self.cluster.nodes]
        hosts += [address.split("/")[0] for address in FLOATING]
        return all(answers(host) for host in hosts)

    def unwell(self):
        """What each node says of itself and of the cluster, where that is not that all is well."""
        found = {}
        for node in self.cluster.nodes:
            for what, path in [("", "/v1/status"), (" of all", "/v1/cluster")]:
                said = node.overview(path)
                if said.get("verdict") != "healthy":
                    found[f"{node.name}{what}"] = f"{said.get('verdict', 'no answer')} {said.get('reason', '')}".strip()
        return found

    # Rounds

    def run(self, planner, seconds):
        until("every role has a holder", self.are_roles_well)
        end = now() + seconds
        while now() < end:
            self.play(planner.next())

    def play(self, made):
        nodes = [node.name for node in self.cluster.nodes]
        chosen = victims(made.aims, self.aims(), nodes, self.dice)
        self.say(round=made.number, quorum=made.has_quorum, plan=str(made), victims=chosen)
        print(f"          {made}; they are {' '.join(chosen)}", flush=True)
        self.late, self.ticked = 0.0, now()
        begun, steps = now(), sorted(made.steps, key=lambda step: step.at)
        todo = [(step, FAULTS[step.fault](self, self.cluster.node(chosen[step.victim]), self.dice)) for step in steps]
        lasting = []
        try:
            while todo or lasting:
                at = now() - begun
                while todo and todo[0][0].at <= at:
                    lasting.append(self.strike(*todo.pop(0)))
                for one in [one for one in lasting if one[0].at + one[0].lasts <= at]:
                    lasting.remove(one)
                    self.undo(*one)
                self.tick(lasting)
        finally:
            for one in lasting:
                self.undo(*one)
        self.converge(made)

    def strike(self, step, fault):
        self.say(strike=step.fault, node=fault.node.name)
        self.struck[step.fault] = self.struck.get(step.fault, 0) + 1
        self.tried(fault.strike)
        return step, fault

    def undo(self, step, fault):
        self.say(undo=step.fault, node=fault.node.name)
        self.tried(fault.undo)

    def tried(self, act):
        try:
            return act()
        except Exception:
            self.say(note=f"the bed itself failed: {traceback.format_exc(limit=3).splitlines()[-1]}")
            self.bad.append(f"the bed itself failed: {traceback.format_exc(limit=-2)}")

    def tick(self, lasting=()):
        for _, fault in lasting:
            self.tried(fault.tick)
        for node in self.cluster.nodes:
            if (code := node.look_after()) is not None:
                self.bad.append(f"{node.name} ended by itself with {code}: {node.log()[-300:]}")
                self.say(note=f"{node.name} ended by itself with {code}")
        able = [node for node in self.cluster.nodes if node.is_wanted and not node.machine.is_frozen] or self.cluster.nodes
        self.operations = [one for one in self.operations if not one.look(able, self.dice, self.say)]
        time.sleep(TICK)
        self.late, self.ticked = max(self.late, now() - self.ticked), now()

    def converge(self, made):
        """From the end of the last fault; what operators still undo counts as one."""
        began = now()
        while any(one.is_must for one in self.operations) and now() < began + WELL_WITHIN:
            self.tick()
        self.bad += [f"{made}: never done: {' '.join(one.words)}" for one in self.operations if one.is_must]
        busy = f"load {load()}, the bed itself up to {self.late:.1f} s late"
        self.operations, began, found, said = [], now(), {}, {}

        def is_healthy():
            unwell = self.unwell()
            said.update(unwell)
            return not unwell

        # One after the other: a look at pages takes long where a node does not answer.
        looks = dict(zip(EXPECTED, [self.are_roles_well, self.is_web_well, is_healthy]))
        for name, look in looks.items():
            while name not in found and now() - began < WELL_WITHIN:
                if look():
                    found[name] = now() - began
                self.tick()
        self.rest(made.calm, began, found)
        late = [f"{name} {'never' if name not in found else f'{found[name]:.1f} s'}" for name in looks]
        last = "".join(f"; last {name}: {reason[:100]}" for name, reason in said.items())
        self.say(round=made.number, converged=found, unwell=said, busy=busy)
        print(f"          all well again: {', '.join(late)} ({busy}){last}", flush=True)
        kind = "with quorum" if made.has_quorum else "without quorum"
        for name, seconds in found.items():
            self.took.setdefault(f"{name}, {kind}", []).append(seconds)
        if found.get("roles", WELL_WITHIN) > ROLES_WITHIN:
            took = f"after {found['roles']:.1f} s" if "roles" in found else "never"
            self.bad.append(f"{made}: roles converged {took}: {self.seats()}, {self.holders()}, {busy}")
        if missing := set(looks) - set(found):
            self.bad.append(f"{made}: after {WELL_WITHIN} s not well: {sorted(missing)}: {self.unwell()}")

    def rest(self, seconds, began, found):
        """Nothing is disturbed until the roles have been well for so long. What the last fault does to them may come late: a look just after it
        says little, so the last moment at which they were not well counts."""
        well_since = now()
        while now() < well_since + seconds and now() - began < WELL_WITHIN:
            self.tick()
            if not self.are_roles_well():
                well_since = now()
                found["roles"] = well_since - began
        # What was on its way before is given a moment.
        begin = well_since + 1
        if len(found) == len(EXPECTED) and not self.unwell():
            self.calm.append((begin, now()))
            self.say(calm=[begin, now()])

    def figures(self):
        yield ", ".join(f"{name} {count}" for name, count in sorted(self.struck.items()))
        for name, seconds in sorted(self.took.items()):
            yield f"until {name}: {percentiles(seconds)}"


def answers(host):
    try:
        with socket.create_connection((host, 80), 1) as stream:
            stream.settimeout(2)
            stream.sendall(f"GET /{PAGE} HTTP/1.0\r\nhost: portal\r\n\r\n".encode())
            return stream.recv(64).split()[1:2] == [b"200"]
    except (OSError, IndexError):
        return False


def load():
    with open("/proc/loadavg") as file:
        return file.read().split()[0]

