"""What shall happen when, by a seed: rounds of overlapping faults. Pure, but for the names of the victims, which are known only when a round begins.

In a round with quorum, faults that take a node out of it meet a minority of the nodes; in one without, a majority at once. Which nodes: who holds a
floating address, who leads the storage, or anyone.
"""

import random
from dataclasses import dataclass, field

from faults import FAULTS, FILLERS, FREEZERS

AIMS = ["edge", "cron", "leader", "any", "any"]
# A round in so many is one without quorum.
WITHOUT_QUORUM = 5
SPREAD = 4.0
CALM = (4.0, 8.0)


@dataclass
class Step:
    """`victim`: its place in the round's list of victims."""

    fault: str
    victim: int
    at: float
    lasts: float


@dataclass
class Round:
    number: int
    has_quorum: bool
    # How the victims are found: each is another node.
    aims: list
    steps: list = field(default_factory=list)
    calm: float = 0.0

    def __str__(self):
        steps = ", ".join(f"{step.fault} {self.aims[step.victim]}{step.victim} at {step.at:.1f} for {step.lasts:.1f} s" for step in self.steps)
        return f"round {self.number}{'' if self.has_quorum else ' without quorum'}: {steps}"


class Planner:
    def __init__(self, seed, count, names=tuple(FAULTS)):
        self.dice, self.count, self.names, self.number = random.Random(seed), count, names, 0
        self.losses = [name for name in names if FAULTS[name].is_loss]

    def next(self):
        self.number += 1
        has_quorum = self.number % WITHOUT_QUORUM != 0 or not self.losses
        minority = (self.count - 1) // 2
        aims = [self.dice.choice(AIMS) for _ in range(self.count)]
        made = Round(self.number, has_quorum, aims, calm=self.dice.uniform(*CALM))
        lost = range(minority) if has_quorum else range(self.dice.randint(minority + 1, self.count))
        if not has_quorum:
            for victim in lost:
                self.add(made, self.dice.choice(self.losses), victim)
        for _ in range(self.dice.choice([1, 1, 2, 2, 3])):
            name = self.dice.choice(self.names)
            self.add(made, name, self.dice.choice(lost) if FAULTS[name].is_loss else self.dice.randrange(self.count))
        return made

    def add(self, made, name, victim):
        there = {step.fault for step in made.steps if step.victim == victim}
        if name in there or any(name in kind and kind & there for kind in (FREEZERS, FILLERS)):
            return
        made.steps.append(Step(name, victim, self.dice.uniform(0, SPREAD), self.dice.uniform(*FAULTS[name].lasts)))


def victims(aims, holders, names, dice):
    """A node for each aim, all different. `holders`: aim -> names of the nodes that it may mean just now."""
    chosen = []
    for aim in aims:
        free = [name for name in names if name not in chosen]
        meant = [name for name in holders.get(aim, []) if name in free]
        chosen.append(dice.choice(meant or free))
    return chosen
