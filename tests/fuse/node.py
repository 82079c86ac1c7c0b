"""Whole nodes that mount the portal's files through FUSE: the supervisor of the real executable with its modules, one node or three.
Each is in a network namespace of its own, with a link that can be cut; all mount in folders of this machine, side by side.

Whoever imports this must hold nothing that lies on a mount: a process that is forked while it does keeps the file open.
"""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "kernel"))
import guest  # noqa: E402
import group  # noqa: E402
import server  # noqa: E402
from group import LIBC, until  # noqa: E402

KIND = "fuse.bitrix"
# As stat says it.
MAGIC = "65735546"
DETACH, NO_FOLLOW = 2, 8
# A look at a mount that is answered later is none.
DEADLINE = 5
# What a start of several nodes may take on a busy machine.
START = 180

# Nobody's PHP and database: what is under test are the files.
CONFIG = """
[node]
name = "{name}"
user = "nobody"
data_dir = "{folder}/data"
run_dir = "{folder}/run"
log_dir = "{folder}/log"
daemons = "child"
[portal]
user = "www-data"
[proxy]
http = ["127.0.0.1:8080"]
https = []
workers = 1
[cache]
memory = "16MiB"
[cluster]
address = "{address}"
port = {port}
[storage]
engine = "replicated"
mount = "fuse"
mount_point = "{files}"
"""
WITHOUT_DAEMONS = '[php]\nbinary = "/none"\n[db]\nbinary = "/none"\n'


def children(pid):
    """Process ids of the direct children."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int((status(entry).rsplit(")")[-1].split() or ["", "0"])[1]) == pid:
            found.append(int(entry))
    return found


def status(pid):
    """The line of /proc; nothing where the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""


def state(pid):
    """One letter, as ps says it."""
    return (status(pid).rsplit(")")[-1].split() or [""])[0]


def words(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def mounts(folder):
    """Kinds of what is mounted there."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [line[line.index("-") + 1] for line in lines if line[4] == str(folder)]


def detach(folder):
    """Never looks at what is mounted, so that it cannot hang."""
    while mounts(folder):
        if LIBC.umount2(os.fsencode(folder), DETACH | NO_FOLLOW) != 0:
            raise OSError(ctypes.get_errno(), f"umount2 {folder}")


def looks(*line):
    """Whether a program that looks at a mount is done in time; it is left behind where not even SIGKILL ends it."""
    return seen(*line) is not None


def seen(*line):
    """What such a program says; None when it fails or is not done in time."""
    one = subprocess.Popen(list(map(str, line)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        said = one.communicate(timeout=DEADLINE)[0]
        return said if one.returncode == 0 else None
    except subprocess.TimeoutExpired:
        one.kill()
        return None


class Node(group.Node):
    """A supervisor; `process` is it."""

    def __init__(self, number, folder, executable, address, network, port=server.PORT):
        self.files, self.is_stopping = Path(folder) / "files", False
        super().__init__(number, folder, executable, address, network, port)
        self.files.mkdir(exist_ok=True)

    def settings(self):
        what = {"name": self.name, "folder": self.folder, "files": self.files, "address": self.mount, "port": group.MESH}
        text = CONFIG.format(**what)
        # `init` installs daemons that are not there, so it is told of the usual ones.
        (self.folder / "init.toml").write_text(text)
        return text + WITHOUT_DAEMONS

    def found(self):
        line = [self.executable, "init", "--yes", "--config", str(self.folder / "init.toml")]
        subprocess.run(line, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def start(self):
        self.is_stopping = False
        with open(self.folder / "supervisor.log", "ab") as log:
            line = [self.executable, "run", "--config", str(self.config)]
            self.process = subprocess.Popen(line, preexec_fn=self.enter, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def storage(self):
        """Process id of the storage module; None while there is none."""
        for pid in children(self.process.pid):
            if words(pid)[1:3] == [b"module", b"storage"]:
                return pid
        return None

    def end_storage(self, number=signal.SIGKILL):
        """Another takes its place."""
        os.kill(until(f"{self.name} has a storage process", self.storage), number)

    def signal(self, number):
        """Of a whole node: its supervisor would replace a storage process that stands still."""
        pids = [self.process.pid, *children(self.process.pid)]
        for pid in reversed(pids) if number == signal.SIGCONT else pids:
            os.kill(pid, number)

    def kill(self):
        """The supervisor and with it all that it has started; the descriptor of the mount is gone then."""
        self.process.kill()
        self.process.wait()

    def is_mounted(self):
        # What is mounted may go between two looks: the folder itself must say that it is no plain one.
        return KIND in mounts(self.files) and (seen("stat", "-f", "-c", "%t", self.files) or "").strip() == MAGIC

    def until_mounted(self):
        def look():
            if self.has_ended():
                raise RuntimeError(f"{self.name} ended by itself:\n{self.log()[-3000:]}")
            return self.is_mounted()

        until(f"{self.name} mounts its files", look, START)

    def begin_stop(self):
        """Once: told again, it would not take its time."""
        if self.process and self.process.poll() is None and not self.is_stopping:
            self.is_stopping = True
            self.signal(signal.SIGCONT)
            self.process.terminate()

    def stop(self, seconds=30):
        self.begin_stop()
        if self.process:
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        detach(self.files)

    def log(self):
        parts = [self.folder / "supervisor.log", self.folder / "log/bitrix-node.log"]
        return "".join(path.read_text(errors="replace") for path in parts if path.exists())


class Single:
    """One node that is a cluster by itself."""

    def __init__(self, folder, executable):
        self.network = group.Network(guest.BRIDGE, [f"{guest.NETWORK}.9"])
        self.node = Node(1, folder, executable, f"{guest.NETWORK}.9", self.network)
        self.nodes = [self.node]

    def start(self):
        self.node.found()
        self.node.start()
        self.node.until_mounted()

    def stop(self):
        self.node.stop()
        self.network.remove()


class Group(group.Group):
    member = Node

    def __init__(self, folder, executable):
        super().__init__(folder, executable, [f"{guest.NETWORK}.{number}" for number in (1, 2, 3)], guest.BRIDGE)

    def start(self):
        super().start()
        for node in self.nodes:
            node.until_mounted()

    def stop(self):
        # All at once: none has to be without the others.
        for node in self.nodes:
            node.begin_stop()
        super().stop()
        if self.network:
            self.network.remove()
