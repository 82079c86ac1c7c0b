#!/usr/bin/env python3
"""The NFSv3 export under real Linux kernel clients (User-mode Linux guests): POSIX checks, pjdfstest, fsx, a tree of files,
and the same while the server is killed and comes back. Prints a table; the exit code is 1 when anything failed that may not.

    run.py EXECUTABLE [--server bitrix|group|ganesha] [--only SUITE,...] [--files N] [--keep]

With `--server group` there are three nodes, and the suite is `failover`.

All runs in namespaces of its own for network, processes and mounts: whatever happens, nothing of it is left.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import guest
import server
from failover import Failover
from group import Group
from guest import Guest
from session import Table, enter_namespaces

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE.parent.parent / "target/kernel-suites/bin"
SUITES = ["posix", "pjdfstest", "fsx", "tree", "kill"]
# What an NFSv3 client cannot do at all, whatever the server: these fail with nfs-ganesha too.
ALLOWED = {"unlink::open_file_not_freed", "link::exdev_target", "rename::exdev_target"}
# How often the server is killed under each of the two loads.
KILLS = 4


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("executable")
    parser.add_argument("--server", choices=["bitrix", "group", "ganesha"], default="bitrix")
    parser.add_argument("--only", help=f"by itself {','.join(SUITES)}")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--keep", action="store_true", help="keep the folder also on success")
    return parser.parse_args()


class Run:
    programs = PROGRAMS

    def __init__(self, options, folder):
        self.options, self.folder, self.table = options, Path(folder), Table(ALLOWED)
        self.finish, self.judge = self.table.finish, self.table.judge
        self.server = self.make_server()

    def make_server(self):
        place = self.folder / "server"
        if self.options.server == "ganesha":
            return server.Ganesha(place)
        if self.options.server == "group":
            return Group(place, self.options.executable, [f"{guest.NETWORK}.{number}" for number in (1, 2, 3)], guest.BRIDGE)
        return server.Bitrix(place, self.options.executable)

    def guest(self, job, *argument):
        return Guest(self.folder / "guests", job, self.server, ",".join(map(str, argument)))

    def posix(self):
        self.finish("POSIX checks", self.guest("posix"), 900)

    def fsx(self):
        self.finish("fsx", self.guest("fsx", PROGRAMS / "fsx", 2000, 1, 2, 3), 300)

    def pjdfstest(self):
        self.judge("pjdfstest", self.guest("pjdfstest", PROGRAMS / "pjdfstest", "pjdfstest"))

    def tree(self):
        self.finish("tree", self.guest("tree", self.options.files, "tree"), 1500)

    def kill(self):
        """A tree is copied and a writer works, in two guests, while the server is killed again and again."""
        copier, writer = self.guest("tree", self.options.files // 2, "killed"), self.guest("writer", 45, "writer")
        for turn in range(KILLS):
            # Work must have been done since the last time, or the blow would hit an idle server.
            self.until_it_moved([copier, writer])
            started = time.monotonic()
            self.server.fail()
            print(f"          killed; back after {time.monotonic() - started:.2f} s ({turn + 1} of {KILLS})", flush=True)
        self.finish("writer, server killed", writer, 300)
        self.finish("tree, server killed", copier, 1500)

    def failover(self):
        Failover(self).all()

    def until_it_moved(self, guests):
        """Each guest that still runs makes a hundred steps of progress, or three seconds pass."""
        before = [one.read("progress") for one in guests]
        end = time.monotonic() + 60
        began = time.monotonic()
        while time.monotonic() < end:
            moved = [not one.is_running() or one.read("progress") != old for one, old in zip(guests, before)]
            if all(moved) and time.monotonic() - began > 5:
                return
            time.sleep(0.05)
        raise RuntimeError("the guests make no progress")

    def run(self):
        self.server.start()
        try:
            usual = ["failover"] if self.options.server == "group" else SUITES
            for suite in self.options.only.split(",") if self.options.only else usual:
                getattr(self, suite)()
        finally:
            self.server.stop()
        return self.table.failed


def main():
    enter_namespaces()
    options = arguments()
    if not guest.is_there():
        sys.exit("linux.uml is not installed; packaging/test-dependencies-kernel.sh installs it")
    folder = tempfile.mkdtemp(prefix="bitrix-kernel-", dir="/tmp")
    os.chmod(folder, 0o755)
    run = Run(options, folder)
    guest.make_network(run.server.addresses)
    # Sockets and pid files of helpers.
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    failed = True
    try:
        if options.server == "ganesha":
            with server.Portmapper():
                failed = run.run()
        else:
            failed = run.run()
    finally:
        if failed or options.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
