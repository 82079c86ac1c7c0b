"""A node dies while its processes hold locks: others that wait for them get them once its session has ended."""

import os
import time

from actor import Actor, Failed
from coherence import hold, put
from locks import ALONE, lock, try_lock

# A session that is silent so long loses its locks.
SESSION = 30
# For an election on top, and a busy machine.
SLACK = 15
PLACE = "holder"


def killed_node(table, group, is_leader):
    name = "holder's node killed" + (", it led" if is_leader else "")
    led = group.whole()[0]
    victim = led if is_leader else next(node for node in group.nodes if node is not led)
    other = next(node for node in group.nodes if node not in (victim, led))
    lines, took = [], {}
    try:
        took = freed_after(victim, other)
    except (AssertionError, Failed, OSError) as error:
        lines = str(error).splitlines()[-5:] or [repr(error)]
    finally:
        for one in list(Actor.everyone):
            one.kill()
        victim.start()
        victim.until_mounted()
        group.whole()
    is_good = not lines and max(took.values()) < SESSION + SLACK
    detail = ", ".join(f"{kind} granted to another node after {seconds:.1f} s" for kind, seconds in took.items())
    table.row(name, is_good, f"{detail} (session limit {SESSION} s)", lines)


def freed_after(victim, other):
    """Seconds from the node's death until a process that waits on another node has the lock, by kind."""
    maker = Actor(other.files)
    maker.do(os.makedirs, PLACE, 0o777, True)
    maker.kill()
    waiters = {}
    for kind in ["flock", "fcntl"]:
        holder, waiter = Actor(victim.files / PLACE), Actor(other.files / PLACE)
        waiter.do(put, kind, b"x")
        for one in (holder, waiter):
            one.do(hold, "file", kind, os.O_RDWR)
        holder.do(lock, kind, "file", ALONE)
        assert not waiter.do(try_lock, kind, "file", ALONE), f"{kind}: both have it"
        waiters[kind] = waiter
        waiter.begin(lock, kind, "file", ALONE)
    started, took = time.monotonic(), {}
    victim.kill()
    while len(took) < len(waiters):
        for kind, waiter in waiters.items():
            if kind not in took and waiter.is_done(0.05):
                waiter.result()
                took[kind] = time.monotonic() - started
        assert time.monotonic() - started < SESSION * 3, f"still waiting after {SESSION * 3} s: {set(waiters) - set(took)}"
    return took
