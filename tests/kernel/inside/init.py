#!/usr/bin/python3
"""First process of a guest: network, mount of the export, the one job, power off.

The guest's root is the machine's own, read-only. Words of the kernel command line arrive as environment:
share (folder of the host for results), address, module (of the kernel), server, export, options, inside (folder of the job), job, argument.
"""

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

MOUNT = "/run/nfs"
SHARE = "/run/share"
POWER_OFF = 0x4321FEDC
FINIT_MODULE = 313
LIBC = ctypes.CDLL(None, use_errno=True)


def run(*words):
    subprocess.run(words, check=True)


def mounts():
    for kind, place in [("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp"), ("tmpfs", "/run")]:
        run("mount", "-t", kind, "none", place)
    os.makedirs(SHARE)
    os.makedirs(MOUNT)
    run("mount", "-t", "hostfs", "none", SHARE, "-o", os.environ["share"])


def load(wanted):
    """Loads a module and what it needs, as modprobe would, which is not everywhere."""
    folder = Path("/usr/lib/uml/modules") / os.uname().release
    needs = dict(line.split(":", 1) for line in (folder / "modules.dep").read_text().splitlines())
    module = next(name for name in needs if name.endswith(f"/{wanted}.ko"))
    # A module's needs are listed with the deepest last.
    for name in [*reversed(needs[module].split()), module]:
        with open(folder / name, "rb") as file:
            if LIBC.syscall(FINIT_MODULE, file.fileno(), b"", 0) != 0:
                raise OSError(ctypes.get_errno(), name)


def network():
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", os.environ["address"], "dev", "vec0")
    run("ip", "link", "set", "vec0", "up")


def mount_export():
    server = os.environ["server"]
    options = f"{os.environ['options']},addr={server}"
    # -i: without mount.nfs, whose work the kernel does when both ports are given.
    run("mount", "-i", "-t", "nfs", f"{server}:{os.environ['export']}", MOUNT, "-o", options)


def job():
    if os.environ.get("export"):
        mount_export()
    words = [sys.executable, f"{os.environ['inside']}/{os.environ['job']}.py", MOUNT, SHARE, *os.environ.get("argument", "").split(",")]
    environment = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    started = time.monotonic()
    code = subprocess.run(words, env=environment, cwd="/tmp").returncode
    Path(f"{SHARE}/seconds").write_text(f"{time.monotonic() - started:.1f}")
    return code


def main():
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    code = 70
    try:
        mounts()
        load(os.environ["module"])
        network()
        code = job()
    except Exception as error:  # The host sees only what is written here.
        print("init:", error, flush=True)
    finally:
        if os.path.ismount(SHARE):
            Path(f"{SHARE}/code").write_text(str(code))
        LIBC.reboot(ctypes.c_int(POWER_OFF))


main()
