"""Locks that are held and waited for while the storage is killed: whoever has one keeps it, whoever waits goes on waiting, and gets it
when it is free."""

import os

from actor import Actor, Failed
from coherence import hold, put
from locks import ALONE, FREE, KINDS, lock, try_lock

# A wait that should not have ended has time to.
WAIT = 0.1


class Pair:
    """Two processes and one lock: one has it, the other waits."""

    def __init__(self, folder, kind):
        self.kind = kind
        self.holder, self.waiter, self.third = Actor(folder), Actor(folder), Actor(folder)
        self.holder.do(put, kind, b"x")
        for one in (self.holder, self.waiter, self.third):
            one.do(hold, "file", kind, os.O_RDWR)
        self.holder.do(lock, kind, "file", ALONE)
        self.waiter.begin(lock, kind, "file", ALONE)

    def after_blow(self):
        """The third asks, then the two change places."""
        assert not self.waiter.is_done(WAIT), f"{self.kind}: a waiting process got it: {self.waiter.result()}"
        assert not self.third.do(try_lock, self.kind, "file", ALONE), f"{self.kind}: two have it"
        self.holder.do(lock, self.kind, "file", FREE)
        self.waiter.result()
        self.holder, self.waiter = self.waiter, self.holder
        self.waiter.begin(lock, self.kind, "file", ALONE)


class Keeper:
    def __init__(self, folder):
        self.pairs, self.bad, self.turns = [Pair(folder, kind) for kind in KINDS], [], 0

    def after_blow(self):
        for pair in list(self.pairs):
            try:
                pair.after_blow()
                self.turns += 1
            except (AssertionError, Failed, OSError) as error:
                self.bad.append(f"{pair.kind}, turn {self.turns}: {(str(error) or repr(error)).splitlines()[-1]}")
                self.pairs.remove(pair)

    def end(self):
        for one in list(Actor.everyone):
            one.kill()
