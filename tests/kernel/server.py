"""Servers under test. Each has `addresses` (of the hosts it runs on), `mount` (the one that clients use), `export`, and

    start()     returns when it takes connections
    fail()      kill -9 of what serves now, and whatever brings the service back
    stop()      ends it in order, or by force
    pids()      its processes

A group of several nodes, of which clients use one, is one more class of this shape (`group`).
"""

import fcntl
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

ADDRESS = "10.77.0.1"
PORT = 2049
CLIENTS = "10.77.0.0/24"
PATIENCE = 30
# Sockets that are handed down are kept above the numbers that they get there.
FIRST, RESERVED = 3, 20

# As its supervisor has it (src/node/children.rs).
MEMORY = "glibc.malloc.arena_max=1"

CONFIG = """
[node]
name = "storage-test"
data_dir = "{folder}/data"
run_dir = "{folder}/run"
log_dir = "{folder}/log"
[storage]
engine = "replicated"
listen = "{address}:{port}"
"""

GANESHA = """
NFS_CORE_PARAM {{ Protocols = 3; NFS_Port = {port}; MNT_Port = 20048; Enable_UDP = false; Enable_NLM = false; Enable_RQUOTA = false; }}
EXPORT_DEFAULTS {{ SecType = sys; Squash = No_Root_Squash; Protocols = 3; Transports = TCP; PrivilegedPort = false; }}
EXPORT {{ Export_Id = 77; Path = {folder}/export; Pseudo = /portal; Tag = portal; Access_Type = RW; FSAL {{ Name = VFS; }} }}
LOG {{ Default_Log_Level = EVENT; }}
"""


def wait_for_port(address, port, process):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            socket.create_connection((address, port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"nobody listens on {address}:{port}")


class Process:
    """What both servers have in common: one process that is started again after it was killed."""

    export = "/portal"
    mount_port = PORT

    def __init__(self, folder, address=ADDRESS, port=PORT):
        self.folder, self.mount, self.port = Path(folder), address, port
        self.addresses = [address]
        self.process = None
        self.folder.mkdir(parents=True, exist_ok=True)

    def pids(self):
        return [self.process.pid]

    def fail(self):
        self.process.kill()
        self.process.wait()
        self.start()

    def stop(self, seconds=20):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log(self):
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""


def listener(address, port, backlog=4096):
    """A listening TCP socket, or a unix one where `address` is a path."""
    if port is None:
        one = socket.socket(socket.AF_UNIX)
        one.bind(str(address))
    else:
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.bind((address, port))
    one.listen(backlog)
    with one:
        return fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, RESERVED)


class Bitrix(Process):
    """One replica: the storage module, on sockets that outlive it, as under its supervisor."""

    def __init__(self, folder, executable, **where):
        super().__init__(folder, **where)
        self.executable = os.path.abspath(executable)
        self.config = self.folder / "config.toml"
        for part in ["data", "run", "log"]:
            (self.folder / part).mkdir(exist_ok=True)
        self.config.write_text(self.settings())
        self.sockets = {}

    def settings(self):
        config = CONFIG.format(folder=self.folder, address=self.mount, port=self.port)
        # Nobody but loopback may connect unless it is listed.
        return config if self.mount.startswith("127.") else config + f'clients = ["{CLIENTS}"]\n'

    def open(self):
        """The listening sockets by name."""
        return {"nfs": listener(self.mount, self.port)}

    def enter(self):
        """In the child, before anything else."""

    def start(self):
        self.launch(subprocess.PIPE)
        self.wait_until_ready()

    def launch(self, output):
        if not self.sockets:
            self.sockets = self.open()
        names, descriptors = ":".join(self.sockets), list(self.sockets.values())

        def prepare():
            self.enter()
            for number, descriptor in enumerate(descriptors):
                # dup2 makes it inheritable.
                os.dup2(descriptor, FIRST + number)

        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                [self.executable, "module", "storage", "--config", str(self.config)],
                env={**os.environ, "LISTEN_FDS": str(len(descriptors)), "LISTEN_FDNAMES": names, "GLIBC_TUNABLES": MEMORY},
                preexec_fn=prepare,
                pass_fds=range(FIRST, FIRST + len(descriptors)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
            )

    def wait_until_ready(self):
        """The module says `ready` on its standard output, which must be read as long as it lives."""
        output = self.process.stdout
        for line in output:
            if line == b"ready\n":
                break
        else:
            raise RuntimeError(f"the storage module ended: {self.log()[-2000:]}")
        os.set_blocking(output.fileno(), True)
        # It beats once a second; a full pipe would stop it after half a day, longer than any test.


class Ganesha(Process):
    """nfs-ganesha with its VFS back end on a folder of the same disk: the independent server."""

    mount_port = 20048

    def __init__(self, folder, **where):
        super().__init__(folder, **where)
        (self.folder / "export").mkdir(exist_ok=True)
        self.export = f"{self.folder}/export"
        self.config = self.folder / "ganesha.conf"
        self.config.write_text(GANESHA.format(folder=self.folder, port=self.port))

    def start(self):
        os.makedirs("/run/ganesha", exist_ok=True)
        os.makedirs("/var/lib/nfs/ganesha", exist_ok=True)
        log = str(self.folder / "server.log")
        words = ["ganesha.nfsd", "-F", "-f", str(self.config), "-L", log, "-p", str(self.folder / "pid")]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_port(self.mount, self.port, self.process)


class Portmapper:
    """Ganesha does not start without one; it is this namespace's own."""

    def __enter__(self):
        self.process = subprocess.Popen(["rpcbind", "-f", "-w"], stderr=subprocess.DEVNULL)
        wait_for_port("127.0.0.1", 111, self.process)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
