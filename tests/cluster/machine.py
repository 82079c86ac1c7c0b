"""A stand-in for a node's machine: control groups that freeze, kill and slow down all of its processes at once, a network namespace with a
cable and a filter, a host name, monotonic and boot clocks of its own, a wall clock that can be moved, and a disk that can be filled.

A machine that is frozen here has a kernel that goes on: it answers ARP, and lets addresses expire. A real one would not.
"""

import ctypes
import os
import subprocess
import time
from pathlib import Path

import wallclock
from shared import LIBC, ip, now, set_namespace, until

NEW_HOST_NAME, NEW_TIME = 0x04000000, 0x80
PERIOD = 100_000
# As much as preflight asks for, on paper: it lies in memory, and takes what is written.
DISK = 16 << 30
PAGE = 4096
TRIES = 20
# The group of the bed itself, beside those of the machines.
BED = "bed"


def mounted(kind, controller=""):
    """Where that hierarchy of control groups is; None where it is not."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, its_kind, options, *_ = line.split()
        if its_kind == kind and (not controller or controller in options.split(",")):
            return Path(place)
    return None


class Groups:
    """Of all machines of a run, below one name. Version 2 freezes and kills all of a machine at once; processors are shared out by whichever
    version has that controller."""

    def __init__(self, name):
        all_at_once, old = mounted("cgroup2"), mounted("cgroup", "cpu")
        if all_at_once is None:
            raise RuntimeError("cgroup2 is not mounted")
        self.is_cpu_new = old is None
        self.freezer, self.cpu = all_at_once / name, (old or all_at_once) / name
        for place in {self.freezer, self.cpu}:
            place.mkdir(exist_ok=True)
        if self.is_cpu_new:
            (self.cpu / "cgroup.subtree_control").write_text("+cpu")

    def prefer(self):
        """Times are measured: what else this machine does shall not count. The caller, and all that it starts, is of these groups too."""
        name, value = ("cpu.weight", 10_000) if self.is_cpu_new else ("cpu.shares", 102_400)
        (self.cpu / name).write_text(str(value))
        self.make(BED)
        (self.cpu / BED / "cgroup.procs").write_text("0")

    def make(self, name):
        for place in {self.freezer / name, self.cpu / name}:
            place.mkdir(exist_ok=True)

    def remove(self):
        """Kills whatever is in there, also what is frozen."""
        for place in [*self.freezer.glob("*/"), self.freezer]:
            (place / "cgroup.kill").write_text("1")
        for root in {self.freezer, self.cpu}:
            for place in [*root.glob("*/"), root]:
                until(f"{place} is empty", lambda: gone(place), 20)


def gone(place):
    try:
        place.rmdir()
    except OSError:
        return not place.exists()
    return True


class Machine:
    def __init__(self, number, address, groups, network, folder):
        self.number, self.name, self.address, self.network = number, f"n{number}", address, network
        self.folder = Path(folder)
        self.disk = self.folder / "data"
        self.groups = groups
        groups.make(self.name)
        self.group = groups.freezer / self.name
        self.is_frozen, self.drops = False, []
        self.age, self.wall, self.moved = 0, 0, {}
        self.disk.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "none", self.disk], check=True)

    # Processes

    def enter(self):
        """In a child, before it becomes the first program of this machine."""
        for place in {self.group, self.groups.cpu / self.name}:
            (place / "cgroup.procs").write_text("0")
        self.enter_network()
        if LIBC.unshare(NEW_HOST_NAME | NEW_TIME) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        LIBC.sethostname(self.name.encode(), len(self.name))
        Path("/proc/self/timens_offsets").write_text(f"monotonic {self.age} 0\nboottime {self.age} 0\n")

    def enter_network(self):
        set_namespace(self.network.handle(self.number))

    def pids(self):
        return [int(pid) for pid in (self.group / "cgroup.procs").read_text().split()]

    def freeze(self, is_frozen=True):
        """Returns when it stands still."""
        self.is_frozen = is_frozen
        (self.group / "cgroup.freeze").write_text(str(int(is_frozen)))
        end = now() + 2
        while f"frozen {int(is_frozen)}" not in (self.group / "cgroup.events").read_text() and now() < end:
            time.sleep(0.001)

    def kill(self, before_waiting):
        """All at once, also what is frozen."""
        (self.group / "cgroup.kill").write_text("1")
        self.freeze(False)
        before_waiting()
        until(f"{self.name} is dead", lambda: not self.pids(), 20)

    def throttle(self, share):
        """Of one processor; None: as much as there is."""
        place, is_new = self.groups.cpu / self.name, self.groups.is_cpu_new
        quota = int(PERIOD * share) if share else None
        if is_new:
            (place / "cpu.max").write_text(f"{quota or 'max'} {PERIOD}")
        else:
            (place / "cpu.cfs_quota_us").write_text(str(quota or -1))

    # Network

    def run(self, *line, **more):
        return subprocess.run(list(map(str, line)), preexec_fn=self.enter_network, check=True, **more)

    def cut(self, is_cut):
        self.network.cut(self.number, is_cut)

    def drop(self, rule):
        """`rule`: ("in" or "out", another machine's addresses, or () for everybody's)."""
        self.drops.append(rule)
        self.filter()

    def pass_on(self, rule):
        self.drops.remove(rule)
        self.filter()

    def filter(self):
        def chain(way, side):
            lines = []
            for drop, addresses in self.drops:
                if drop == way and not addresses:
                    lines.append(f"{'iifname' if way == 'in' else 'oifname'} eth0 drop")
                elif drop == way:
                    lines += [f"{'ip6' if ':' in one else 'ip'} {side} {one} drop" for one in addresses]
            hook = "input" if way == "in" else "output"
            return f"chain {way} {{ type filter hook {hook} priority 0; policy accept;\n" + "\n".join(lines) + "\n}\n"

        text = "table inet nemesis\ndelete table inet nemesis\n"
        text += f"table inet nemesis {{\n{chain('in', 'saddr')}{chain('out', 'daddr')}}}\n"
        self.run("nft", "-f", "-", input=text, text=True)

    def drop_addresses(self, addresses):
        """What a machine without power does not have any more."""
        for address in addresses:
            host = address.split("/")[0]
            line = ["ip", "address", "delete", f"{host}/{128 if ':' in host else 32}", "dev", "eth0"]
            subprocess.run(line, preexec_fn=self.enter_network, stderr=subprocess.DEVNULL)

    # Disk

    def fill(self, left):
        """Leaves so many bytes of the disk: it shrinks, which takes no memory and no time, as a file that fills it would."""
        for _ in range(TRIES):
            room = os.statvfs(self.disk)
            if self.resize((room.f_blocks - room.f_bfree) * room.f_frsize + left):
                return
        raise RuntimeError(f"the disk of {self.name} cannot be shrunk")

    def empty(self):
        self.resize(DISK)

    def resize(self, size):
        """Whether it could: not to less than what is on it, which may have grown just now."""
        line = ["mount", "-o", f"remount,size={size + PAGE - 1 & -PAGE}", self.disk]
        return subprocess.run(line, stderr=subprocess.DEVNULL).returncode == 0

    # Clocks

    def boot_with_age(self, seconds):
        """What its monotonic and boot clocks are ahead of this machine's from its next start on."""
        self.age = seconds

    def move_wall(self, seconds, executable):
        """The wall clock of the node's own processes; said again, it moves that of new processes too. Threads in the way of it are
        met again at the next call."""
        self.wall = seconds
        for pid in self.pids():
            try:
                if os.readlink(f"/proc/{pid}/exe") == str(executable):
                    self.move(pid)
            except OSError:
                # It has just ended.
                pass

    def move(self, pid):
        born = Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[19]
        known = self.moved.get((pid, born), 0)
        if known == self.wall:
            return
        was_frozen = self.is_frozen
        try:
            if not was_frozen:
                self.freeze()
            if wallclock.shift(pid, self.wall):
                self.moved[pid, born] = self.wall
        except wallclock.Busy:
            pass
        finally:
            if not was_frozen:
                self.freeze(False)


def prepare_link(network, number, address6):
    """What `Network` leaves out: an address of the other family, at once."""
    ip("-n", f"n{number}", "address", "add", f"{address6}/64", "dev", "eth0", "nodad")
