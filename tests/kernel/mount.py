#!/usr/bin/env python3
"""The mount of the portal's files by the executable itself, in User-mode Linux guests, whose kernel has an NFS client and FUSE: the
commands, and whole nodes whose supervisor mounts. The servers run out here, where the guest has them frozen, woken and emptied.

    mount.py EXECUTABLE [--only SUITE,...] [--keep]

The exit code is 1 when anything failed. Nothing is left, whatever happens.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import guest
import server
from guest import Guest
from session import Table, enter_namespaces

SUITES = ["commands", "locks", "external", "replicated", "fuse", "sandbox", "fuse_sandbox", "stale", "watched"]
# Ganesha's own, where its portmapper says so.
GANESHA_PORT = 2051
# Seconds after its start in which it gives no locks; the least that it takes.
GRACE = "NFSv4 { Grace_Period = 5; Lease_Lifetime = 5; }\n"
LOOK = 0.02


class Servers:
    """A replica of ours and ganesha behind its portmapper, and what a guest may ask of them."""

    mount, export, port, mount_port = server.ADDRESS, "", 0, 0

    def __init__(self, folder, executable):
        self.ours = server.Bitrix(folder / "ours", executable)
        self.ganesha = server.Ganesha(folder / "ganesha", port=GANESHA_PORT)
        # With locks, for which it needs a status monitor beside it.
        config = self.ganesha.config
        config.write_text(config.read_text().replace("Enable_NLM = false", "Enable_NLM = true") + GRACE)

    def start(self):
        self.ours.start()
        self.ganesha.start()

    def stop(self):
        for one in [self.ours, self.ganesha]:
            if one.process:
                one.process.send_signal(signal.SIGCONT)
            one.stop()

    def do(self, words):
        verb, name = words.split()
        one = getattr(self, name)
        if verb == "freeze":
            one.process.send_signal(signal.SIGSTOP)
        elif verb == "thaw":
            one.process.send_signal(signal.SIGCONT)
        elif verb == "empty":
            # As after a disk was replaced: no handle from before means anything.
            one.process.kill()
            one.process.wait()
            shutil.rmtree(one.folder / "data/storage")
            one.start()


class Run:
    def __init__(self, options, folder):
        self.options, self.folder, self.table = options, Path(folder), Table()
        self.servers = Servers(self.folder, options.executable)

    def all(self):
        self.servers.start()
        try:
            for suite in self.options.only.split(","):
                self.suite(suite)
        finally:
            self.servers.stop()
        return self.table.failed

    def suite(self, name):
        """One guest; serves its requests until it ends."""
        words = [os.path.abspath(self.options.executable), name, self.servers.ganesha.export, GANESHA_PORT]
        job = "mount_commands" if name in ("commands", "locks") else "mount_node"
        module = "fuse" if name.startswith("fuse") else "nfsv3"
        one = Guest(self.folder / "guests", job, self.servers, ",".join(map(str, words)), memory="1G", module=module)
        try:
            end = time.monotonic() + 400
            while one.is_running() and time.monotonic() < end:
                request = one.share / "request"
                if request.exists() and (words := request.read_text().strip()):
                    self.servers.do(words)
                    request.unlink()
                time.sleep(LOOK)
        finally:
            code = one.wait(401)
        lines = one.lines()
        bad = [line for line in lines if not line.startswith(("ok", "    "))]
        good = sum(line.startswith("ok") for line in lines)
        if code != 0 and not bad:
            bad = [f"code {code}", *one.read("console").splitlines()[-12:], *one.read("node.log").splitlines()[-12:]]
            lines += bad
        is_good = code == 0 and not bad and good > 0
        self.table.row(f"mount: {name}", is_good, f"{good} ok, {len(bad)} failed, {one.read('seconds')} s")
        for line in lines:
            print("         ", line, flush=True)


def main():
    enter_namespaces()
    parser = argparse.ArgumentParser()
    parser.add_argument("executable")
    parser.add_argument("--only", default=",".join(SUITES))
    parser.add_argument("--keep", action="store_true", help="keep the folder also on success")
    options = parser.parse_args()
    if not guest.is_there():
        sys.exit("linux.uml is not installed; packaging/test-dependencies-kernel.sh installs it")
    folder = tempfile.mkdtemp(prefix="bitrix-mount-", dir="/tmp")
    os.chmod(folder, 0o755)
    guest.make_network([server.ADDRESS])
    # Sockets and pid files of helpers.
    for place in ["/run", "/var/lib/nfs"]:
        subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    for place in ["sm", "sm.bak"]:
        os.mkdir(f"/var/lib/nfs/{place}")
    failed = True
    try:
        with server.Portmapper():
            # It goes into the background, and ends with the namespace.
            subprocess.run(["rpc.statd", "--no-notify"], check=True)
            failed = Run(options, folder).all()
    finally:
        if failed or options.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
