"""Guests: User-mode Linux kernels, each with a network card on the bridge of the namespace that the caller runs in.

A guest boots in about three seconds, mounts the export with the kernel's NFSv3 client, does one job of `inside/` and
powers off. It writes results into its share, a folder of the host.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

KERNEL = "linux.uml"
INSIDE = Path(__file__).resolve().parent / "inside"
BRIDGE = "br0"
NETWORK = "10.77.0"
OPTIONS = "hard,proto=tcp,vers=3,nolock,mountproto=tcp"


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def make_network(servers):
    """The bridge, with an address for each server."""
    ip("link", "set", "lo", "up")
    ip("link", "add", BRIDGE, "type", "bridge")
    for server in servers:
        ip("address", "add", f"{server}/24", "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")


class Guest:
    """One kernel with one job. Further jobs run in further guests, side by side."""

    count = 0

    def __init__(self, folder, job, server, argument="", options=OPTIONS, memory="512M", inside=INSIDE, module="nfsv3"):
        Guest.count += 1
        self.name = f"{job}{Guest.count}"
        self.share = Path(folder) / self.name
        self.share.mkdir(parents=True)
        tap = f"tap{Guest.count}"
        ip("tuntap", "add", "dev", tap, "mode", "tap")
        ip("link", "set", tap, "master", BRIDGE, "up")
        words = [
            KERNEL,
            f"mem={memory}",
            *"root=/dev/root rootfstype=hostfs rootflags=/ ro con=null con0=null,fd:1 con1=null quiet".split(),
            f"init={INSIDE}/init.py",
            f"vec0:transport=tap,ifname={tap},depth=128,gro=1,mac=02:77:00:00:00:{Guest.count:02x}",
            f"uml_dir={self.share}",
            f"umid={self.name}",
            f"share={self.share}",
            f"address={NETWORK}.{100 + Guest.count}/24",
            f"server={server.mount}",
            f"export={server.export}",
            f"options={options},port={server.port},mountport={server.mount_port}",
            f"module={module}",
            f"inside={inside}",
            f"job={job}",
            f"argument={argument}",
        ]
        self.console = open(self.share / "console", "wb")
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=self.console,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": "/dev/shm"},
        )
        self.started = time.monotonic()

    def is_running(self):
        return self.process.poll() is None

    def has(self, name):
        """Has the job written this file?"""
        return (self.share / name).exists()

    def read(self, name):
        path = self.share / name
        return path.read_text(errors="replace") if path.exists() else ""

    def wait(self, seconds):
        """Exit code of the job; 124 when it took too long, 125 when the guest ended without one."""
        try:
            self.process.wait(seconds - (time.monotonic() - self.started))
        except subprocess.TimeoutExpired:
            self.stop()
            return 124
        finally:
            self.console.close()
        return int(self.read("code") or 125)

    def stop(self):
        if self.is_running():
            self.process.kill()
        self.process.wait()

    def lines(self):
        """What the job printed to its results, and the console where there is nothing else."""
        return self.read("results").splitlines()


def is_there():
    return shutil.which(KERNEL) is not None
