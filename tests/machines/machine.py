"""A machine: Debian with systemd as process 1, in namespaces of its own, booted by systemd-nspawn without any help of the machine it
runs on. Its disk is an overlay on layers that others share. Power-off is SIGKILL of process 1: all ends at once, as nothing ends it
in order; what it has written and not synced is not lost, as it would be on a real machine.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

from image import overlay

PATIENCE = 300
LOOK = 0.1
# Of a machine that nobody administers: no locale, no mail, no proxy.
ENVIRONMENT = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "TERM=dumb"]
# systemd-nspawn keeps these back by itself; a virtual machine has them.
CAPABILITIES = "CAP_NET_ADMIN,CAP_NET_RAW,CAP_SYS_RESOURCE"
# So with system calls: the front locks itself in.
CALLS = "landlock_add_rule landlock_create_ruleset landlock_restrict_self"

# Where the kernel's list of them is mounted, below a folder that is this run's own.
FUSE = Path("/run/fuse-connections")


class Failed(Exception):
    pass


def until(what, look, patience=PATIENCE):
    """Looks until there is something to see, and returns it."""
    end = time.monotonic() + patience
    while True:
        if seen := look():
            return seen
        if time.monotonic() > end:
            raise Failed(f"never, in {patience} s: {what}")
        time.sleep(LOOK)


def ip(*words):
    subprocess.run(["ip", *map(str, words)], check=True)


def abort(connection):
    """Of FUSE; it may be gone already."""
    if not FUSE.is_dir():
        FUSE.mkdir()
        subprocess.run(["mount", "-t", "fusectl", "none", FUSE], check=True)
    try:
        (FUSE / connection / "abort").write_text("1")
    except OSError:
        pass


class Machine:
    def __init__(self, name, address, layers, folder, bridge):
        self.name, self.address, self.layers, self.bridge = name, address, layers, bridge
        self.folder = folder / name
        self.root = self.folder / "root"
        self.process = self.leader = None

    def prepare(self):
        for part in ["root", "upper", "work"]:
            (self.folder / part).mkdir(parents=True)
        overlay(self.root, self.layers, self.folder / "upper", self.folder / "work")

    @property
    def cable(self):
        return f"to-{self.name}"

    def plug_in(self):
        """A network card as it is after power-on: nobody remembers what addresses it had."""
        ip("netns", "add", self.name)
        card = "02:00:" + ":".join(f"{int(part):02x}" for part in self.address.split("."))
        ip("link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "address", card, "netns", self.name)
        ip("link", "set", self.cable, "master", self.bridge, "up")
        ip("-n", self.name, "address", "add", f"{self.address}/24", "dev", "eth0")
        for device in ["lo", "eth0"]:
            ip("-n", self.name, "link", "set", device, "up")

    def power_on(self):
        self.plug_in()
        words = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe", f"--machine={self.name}"]
        words += [f"--network-namespace-path=/run/netns/{self.name}", f"--directory={self.root}", f"--capability={CAPABILITIES}"]
        words += ["--bind=/dev/fuse", "--resolv-conf=off", "--timezone=off", f"--system-call-filter={CALLS}"]
        with open(self.folder / "console.log", "ab") as console:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        self.leader = until(f"{self.name} has a process 1", self.first_process, 30)
        until(f"{self.name} has booted", self.has_booted)

    def first_process(self):
        if self.process.poll() is not None:
            raise Failed(f"{self.name} does not boot: {(self.folder / 'console.log').read_text(errors='replace')[-2000:]}")
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        # Its first child only sets the stage.
        return next((int(pid) for pid in children if self.is_first(pid)), None)

    @staticmethod
    def is_first(pid):
        """Whether it is process 1 of a namespace below this one."""
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return False
        return next(line for line in lines if line.startswith("NSpid:")).split()[2:] == ["1"]

    def has_booted(self):
        state = self.try_run("systemctl is-system-running").stdout.strip()
        return state in ("running", "degraded")

    def is_on(self):
        return self.process is not None and self.process.poll() is None

    def power_off(self):
        if self.is_on():
            # Nothing is heard of it any more, not even that its connections end.
            ip("link", "delete", self.cable)
            connections = self.fuse() if self.leader else []
            os.kill(self.leader or self.process.pid, signal.SIGKILL)
            # Here the kernel outlives the machine: who waits for its own file system would wait for ever.
            for connection in connections:
                abort(connection)
            self.process.wait()
            ip("netns", "delete", self.name)
        self.leader = None

    def fuse(self):
        """Numbers of the kernel's connections to file systems of this machine."""
        lines = [line.split() for line in Path(f"/proc/{self.leader}/mountinfo").read_text().splitlines()]
        return {line[2].split(":")[1] for line in lines if line[line.index("-") + 1] == "fuse.bitrix"}

    def words(self, command):
        return ["nsenter", f"--target={self.leader}", "--all", "--wdns=/root", *ENVIRONMENT, "sh", "-c", command]

    def try_run(self, command, seconds=PATIENCE):
        """A shell command inside, whatever comes of it."""
        if not self.leader:
            return subprocess.CompletedProcess(command, 255, "", f"{self.name} is off")
        try:
            return subprocess.run(self.words(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", f"no end within {seconds} s")

    def run(self, command, seconds=PATIENCE):
        done = self.try_run(command, seconds)
        if done.returncode != 0:
            raise Failed(f"{self.name}: {command}: code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done.stdout

    def put(self, name, text):
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def journal(self, lines=60):
        return self.try_run(f"journalctl --no-pager --output=short-precise --lines={lines} --unit=bitrix-node").stdout
