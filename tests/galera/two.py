#!/usr/bin/python3
"""Two databases that are one: on two machines, where the first one goes on alone and the second does not; with `--arbiter` beside a third
machine without data, where either goes on. As `run.py` otherwise.

    two.py EXECUTABLE [--arbiter] [--rounds 2] [--only NAME,...] [--keep]
"""

import time

from bed import Bed, arguments, now, run, until

FAULT = 12
# Until a server that is alone knows it.
KNOWN = 5
BACK = 180


class Two(Bed):
    COUNT = DATA = 2
    SAME = ("second", "first", "cut", "power", "arbiter")

    def rounds(self):
        return {"second": self.second, "written second": self.written_second, "first": self.first, "cut": self.cut, "power": self.power}

    def second(self, _):
        """Its machine is lost. The first one has the registry's vote, and goes on."""
        return self.lost(self.data[1])

    def written_second(self, _):
        """The same while it is the one that is written to."""
        second = self.data[1]
        if self.writer() != second.name:
            second.command("db", "failover", second.name)
            until("the second is written to", lambda: self.writer() == second.name, BACK)
        time.sleep(KNOWN)
        self.since, self.holder = now(), second
        return self.lost(second)

    def lost(self, node):
        at = now()
        node.kill()

        def undo():
            time.sleep(max(0, at + FAULT - now()))
            node.start()

        return at, undo

    def first(self, _):
        """Nobody could tell its loss from a cut: the other one waits for it, and takes nothing."""
        first = self.data[0]
        first.kill()
        died = now()
        time.sleep(FAULT)
        late = [one for one in self.said() if one.get("acknowledged", 0) > died + KNOWN]
        self.table.row("the second waits", not late, f"{len(late)} rows acknowledged without the first", late[:5])
        at = now()
        first.start()
        return at, None

    def cut(self, _):
        """The cable of the second."""
        machine, at = self.data[1].machine, now()
        machine.cut(True)

        def undo():
            time.sleep(max(0, at + FAULT - now()))
            machine.cut(False)

        return at, undo

    def power(self, _):
        for node in self.cluster.nodes:
            node.machine.freeze()
        for node in self.cluster.nodes:
            node.kill()
        at = now()
        for node in self.cluster.nodes:
            node.start()
        return at, None


class WithArbiter(Two):
    COUNT = 3

    def rounds(self):
        return {"second": self.second, "first": self.first, "cut": self.cut, "arbiter": self.arbiter, "power": self.power}

    def first(self, _):
        return self.lost(self.data[0])

    def arbiter(self, _):
        return self.lost(self.cluster.nodes[2])


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--arbiter", action="store_true")
    options = parser.parse_args()
    run(options, WithArbiter if options.arbiter else Two)


if __name__ == "__main__":
    main()
