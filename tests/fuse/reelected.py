"""What a node's kernel was told before a fail-over is forgotten by the time that another node is told that its change is done."""

import os
import time

from actor import Actor, Failed
from chaos import FAULTS
from coherence import get, put, replace, size

# The kernel forgets by itself after that long; what is looked at later proves nothing.
BY_ITSELF = 3
NAMES = [f"{number}" for number in range(50)]
PLACE = "reelected"
# What `look` sees of each name, before and after the change.
ASPECTS = ["length", "content", "another name"]
OLD, NEW = (3, b"old", False), (6, b"newer!", True)


def changes_are_seen(table, group, rounds):
    """On a node that does not lead, of what the other such node changes as soon as a new leader lets it."""
    stale, looks, late = [], 0, 0
    for fault in FAULTS * rounds:
        led = group.whole()[0]
        a, b = [node for node in group.nodes if node is not led]
        try:
            seconds, bad = over_a_failure(group, led, fault, a, b)
            late += seconds > BY_ITSELF
            looks += len(ASPECTS) * len(NAMES) if seconds <= BY_ITSELF else 0
            stale += [f"{fault.name}: {one}" for one in bad] if seconds <= BY_ITSELF else []
        except (AssertionError, Failed, OSError) as error:
            stale += [f"{fault.name}: {error!r}"]
        finally:
            for one in list(Actor.everyone):
                one.kill()
            fault.undo(group, led)
            group.whole()
            led.until_mounted()
    detail = f"{looks - len(stale)} of {looks} looks see what was changed elsewhere, {late} rounds too late to say"
    table.row("after a new leader", not stale and looks > 0, detail, stale[:20])


def over_a_failure(group, led, fault, a, b):
    """Seconds from the last look before it to the first one after the change; and what was seen then and was not true."""
    maker = Actor(a.files)
    maker.do(os.makedirs, PLACE, 0o777, True)
    maker, looker = Actor(a.files / PLACE), Actor(b.files / PLACE)
    maker.do(make, NAMES)
    started = time.monotonic()
    before = looker.do(look, NAMES)
    assert before == [(name, OLD) for name in NAMES], before[:3]
    fault.strike(group, led)
    maker.do(change, NAMES)
    after = looker.do(look, NAMES)
    seconds = time.monotonic() - started
    aspects = [(name, what, one, new) for name, seen in after for what, one, new in zip(ASPECTS, seen, NEW)]
    return seconds, [f"{what} of {name}: {one}" for name, what, one, new in aspects if one != new]


def make(names):
    for name in names:
        put(name, b"old")
        put(f"{name}.size", b"old")
        if os.path.exists(f"{name}.made"):
            os.unlink(f"{name}.made")


def change(names):
    for name in names:
        replace(name, b"newer!")
        put(f"{name}.size", b"newer!")
        put(f"{name}.made", b"")


def look(names):
    """The aspects of each name, as they are seen by opening and by stat."""
    return [(name, (size(f"{name}.size"), get(name), os.path.exists(f"{name}.made"))) for name in names]
