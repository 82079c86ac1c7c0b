"""What can be done to a node. Each fault strikes and is undone; between the two it may overlap with any other one.

`is_loss`: the node does not count for a quorum meanwhile. All is done through the machine or by signals; nothing of the node is asked first.
"""

import signal

from shared import now

ALL = ()
ROLES = ["edge", "cron"]
MIB = 1 << 20


class Fault:
    is_loss = False
    # Seconds that it lasts, drawn between the two.
    lasts = (2, 12)

    def __init__(self, bed, node, dice):
        self.bed, self.node, self.machine, self.dice = bed, node, node.machine, dice

    def strike(self):
        raise NotImplementedError

    def undo(self):
        pass

    def tick(self):
        """Each time that the nemesis looks, while it lasts."""

    def state(self, state):
        self.bed.say(machine=self.node.name, state=state)


class Kill(Fault):
    """One process, by SIGKILL; whoever is above it starts another."""

    lasts = (0, 0)
    target = ""

    def strike(self):
        self.node.signal(self.target, signal.SIGKILL)


class KillAgent(Kill):
    target = "agent"


class KillStorage(Kill):
    target = "storage"


class KillProxy(Kill):
    target = "proxy"


class KillPhp(Kill):
    target = "php-fpm"


class KillSupervisor(Kill):
    """All modules end with it; it is started again after a second."""

    target = "supervisor"


class KillNode(Fault):
    """All processes at once. The machine's kernel lives."""

    is_loss = True

    def strike(self):
        self.state("killing")
        self.node.kill()

    def undo(self):
        # Its monotonic and boot clocks are others then, as of a machine that boots.
        self.machine.boot_with_age(self.dice.randrange(0, 10_000_000))
        self.node.start()
        self.state("started")


class PowerOff(KillNode):
    """With the cable and the addresses."""

    def strike(self):
        self.machine.cut(True)
        super().strike()
        self.machine.drop_addresses(self.bed.floating)

    def undo(self):
        self.machine.cut(False)
        super().undo()


class Freeze(Fault):
    """The whole machine stands still."""

    is_loss = True
    lasts = (1, 14)

    def strike(self):
        self.state("freezing")
        self.machine.freeze()

    def undo(self):
        self.machine.freeze(False)
        self.state("thawed")


class Stop(Fault):
    """One process stands still (SIGSTOP), with all else awake."""

    target = ""

    def strike(self):
        self.pid = self.node.pid(self.target)
        self.node.signal(self.target, signal.SIGSTOP)

    def undo(self):
        # It may have been replaced meanwhile; then this meets nobody who stands still.
        if self.pid is not None and self.node.pid(self.target) == self.pid:
            self.node.signal(self.target, signal.SIGCONT)


class StopAgent(Stop):
    target = "agent"


class StopStorage(Stop):
    target = "storage"
    is_loss = True


class StopSupervisor(Stop):
    target = "supervisor"


class Cut(Fault):
    """The cable is pulled."""

    is_loss = True

    def strike(self):
        self.machine.cut(True)

    def undo(self):
        self.machine.cut(False)


class Drop(Fault):
    """Packets are lost without a word."""

    rules = ()

    def strike(self):
        for rule in self.rules:
            self.machine.drop(rule)

    def undo(self):
        for rule in self.rules:
            self.machine.pass_on(rule)


class Mute(Drop):
    """Both ways."""

    is_loss = True
    rules = [("in", ALL), ("out", ALL)]


class Deaf(Drop):
    """One way: it sends, and hears nothing."""

    is_loss = True
    rules = [("in", ALL)]


class Dumb(Drop):
    """One way: it hears, and nobody hears it."""

    is_loss = True
    rules = [("out", ALL)]


class Split(Drop):
    """It and one other do not hear each other; both reach the rest."""

    is_loss = True

    def strike(self):
        other = self.dice.choice([node for node in self.bed.cluster.nodes if node is not self.node])
        addresses = tuple(self.bed.cluster.addresses(other.name))
        self.rules = [("in", addresses), ("out", addresses)]
        super().strike()


class HalfSplit(Drop):
    """What one other sends to it is lost; all else arrives."""

    is_loss = True

    def strike(self):
        other = self.dice.choice([node for node in self.bed.cluster.nodes if node is not self.node])
        self.rules = [("in", tuple(self.bed.cluster.addresses(other.name)))]
        super().strike()


class Slow(Fault):
    """A fifth of a processor."""

    lasts = (4, 14)

    def strike(self):
        self.machine.throttle(0.2)

    def undo(self):
        self.machine.throttle(None)


class Pulses(Fault):
    """It stands still for parts of each second."""

    lasts = (4, 12)
    share = 0.6

    def strike(self):
        self.is_still = False

    def tick(self):
        wanted = now() % 1 < self.share
        if wanted == self.is_still:
            return
        self.is_still = wanted
        if wanted:
            self.state("freezing")
        self.machine.freeze(wanted)
        if not wanted:
            self.state("thawed")

    def undo(self):
        self.machine.freeze(False)
        self.state("thawed")


class WallClock(Fault):
    """The wall clock of the node's processes jumps, and back at the end."""

    lasts = (4, 14)
    jumps = [-40, 40, -1800, 3600, 5 * 86400]

    def strike(self):
        self.seconds = self.dice.choice(self.jumps)
        self.bed.say(note=f"{self.node.name}: wall clock {self.seconds:+} s")
        self.tick()

    def tick(self):
        self.machine.move_wall(self.seconds, self.node.executable)

    def undo(self):
        self.seconds = 0
        self.tick()


class NearlyFull(Fault):
    """Less room than the storage keeps in reserve."""

    left = 300 * MIB

    def strike(self):
        self.machine.fill(self.left)

    def undo(self):
        self.machine.empty()


class Full(NearlyFull):
    """Not a byte."""

    is_loss = True
    left = 0


class Drain(Fault):
    """An operator drains the node, and takes it back."""

    lasts = (5, 12)
    words = ("node", "drain", "--timeout", "20s"), ("node", "undrain")

    def strike(self):
        self.bed.operate(*self.words[0][:2], self.node.name, *self.words[0][2:])

    def undo(self):
        self.bed.operate(*self.words[1][:2], self.node.name)


class Transfer(Fault):
    """An operator moves an exclusive role to the node."""

    lasts = (0, 0)

    def strike(self):
        self.bed.operate("role", "transfer", self.dice.choice(ROLES), self.node.name)


class PinRole(Fault):
    """An operator pins an exclusive role to the node, and unpins it."""

    lasts = (4, 10)

    def strike(self):
        self.role = self.dice.choice(ROLES)
        self.bed.operate("role", "pin", self.role, self.node.name)

    def undo(self):
        self.bed.operate("role", "unpin", self.role)


FAULTS = {
    "kill-agent": KillAgent,
    "kill-storage": KillStorage,
    "kill-proxy": KillProxy,
    "kill-php": KillPhp,
    "kill-supervisor": KillSupervisor,
    "kill-node": KillNode,
    "power-off": PowerOff,
    "freeze": Freeze,
    "stop-agent": StopAgent,
    "stop-storage": StopStorage,
    "stop-supervisor": StopSupervisor,
    "cut": Cut,
    "mute": Mute,
    "deaf": Deaf,
    "dumb": Dumb,
    "split": Split,
    "half-split": HalfSplit,
    "slow": Slow,
    "pulses": Pulses,
    "wall-clock": WallClock,
    "nearly-full": NearlyFull,
    "full": Full,
    "drain": Drain,
    "transfer": Transfer,
    "pin": PinRole,
}
# Two of these at one node would undo one another.
FREEZERS = {"freeze", "pulses", "kill-node", "power-off"}
FILLERS = {"nearly-full", "full"}
