#!/usr/bin/env python3
"""The FUSE door under real programs: whole nodes of the real executable, alone and three together. Prints a table; the exit code is 1 when
anything failed.

    run.py EXECUTABLE [--short] [--only SUITE,...] [--seconds N] [--keep]

Of one node: pjdfstest, fsx, posix, kept (locks of many files), chaos (its storage is killed under PHP workers), pages (beside ext4). Of
three: semantics (of two mounts), reelected (what is seen right after a fail-over), holder (a node dies with locks), failover (the leader fails
under PHP workers), quorum (two stand still).
Of none: splice (the kernel's part when a reader is killed). Of one in a guest with Linux 6.1: guest. With --short only the quick ones, in
some two minutes.

All runs in namespaces of its own for network, processes and mounts: whatever happens, nothing of it is left.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import chaos
import holder
import kept
import leftover
import pages
import quorum
import reelected
import splice
import suites
from node import Group, Single, guest, server
from nfs import Client, mount
from session import Table, enter_namespaces

HERE = Path(__file__).resolve().parent
ONE = ["posix", "pjdfstest", "fsx", "kept", "chaos", "pages"]
THREE = ["semantics", "reelected", "holder", "failover", "quorum"]
SUITES = [*THREE, *ONE, "splice", "guest"]
SHORT = ["semantics", "splice", "pjdfstest", "fsx", "chaos"]
SHORT_SECONDS = 20


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("executable")
    parser.add_argument("--short", action="store_true", help=f"only {','.join(SHORT)}, and less of it")
    parser.add_argument("--only", default="", help=f"of {','.join(SUITES)}")
    parser.add_argument("--seconds", type=int, default=300, help="how long the storage is killed")
    parser.add_argument("--keep", action="store_true", help="keep the folder also on success")
    return parser.parse_args()


class Run:
    def __init__(self, options, folder):
        self.options, self.folder, self.table = options, Path(folder), Table()
        self.wanted = options.only.split(",") if options.only else SHORT if options.short else SUITES
        self.seconds = SHORT_SECONDS if options.short else options.seconds

    def all(self):
        for names, make in [(THREE, Group), (ONE, Single)]:
            if names := [name for name in names if name in self.wanted]:
                self.nodes(names, make)
        if "splice" in self.wanted:
            splice.contract(self.table, SHORT_SECONDS)
        if "guest" in self.wanted:
            self.guest()
        return self.table.failed

    def nodes(self, names, make):
        one = make(self.folder / make.__name__.lower(), self.options.executable)
        try:
            one.start()
            before = leftover.roots(one.nodes[0])
            for name in names:
                self.tried(name, one)
            if not self.options.short:
                leftover.nothing(self.table, one.nodes, before, f"after {', '.join(names)}")
        except Exception as error:
            self.table.row(names[0], False, f"the nodes: {error!r}")
        finally:
            one.stop()

    def tried(self, name, one):
        """What breaks one suite shall not hide what the others say."""
        try:
            getattr(self, name)(one)
        except Exception as error:
            self.table.row(name, False, repr(error))

    def share(self, name):
        return self.folder / f"share-{name}"

    def posix(self, one):
        suites.posix(self.table, one.node.files, self.share("posix"))

    def pjdfstest(self, one):
        suites.pjdfstest(self.table, one.node.files, self.share("pjdfstest"))

    def fsx(self, one):
        suites.fsx(self.table, one.node.files, self.share("fsx"), *([1] if self.options.short else range(1, 7)))

    def kept(self, one):
        kept.many(self.table, one.node.files / "kept")

    def chaos(self, one):
        if not self.options.short:
            chaos.calm(self.table, one.node.files / "calm", self.share("calm"), SHORT_SECONDS)
        chaos.kills(self.table, one.node, one.node.files / "chaos", self.share("chaos"), self.seconds)
        if not self.options.short:
            end = {"name": "storage ends in order", "number": signal.SIGTERM}
            chaos.kills(self.table, one.node, one.node.files / "order", self.share("order"), SHORT_SECONDS * 2, **end)

    def pages(self, one):
        # As deep as the mount: each part of a path costs.
        ext4 = self.folder / "beside/files"
        ext4.mkdir(parents=True)
        address, port = "127.0.0.1", server.PORT

        def connect():
            return Client(address, port), mount(address, port, "/portal")

        nfs = one.network.inside(1, connect)
        pages.measure(self.table, ext4, one.node.files, 9, 2, nfs)

    def semantics(self, group):
        group.lead_elsewhere()
        led = group.whole()[0]
        other = next(node for node in group.nodes if node not in (led, group.door))
        self.rows(led, other, "the leader's node and another", ["--short"] if self.options.short else [])
        if not self.options.short:
            self.rows(other, group.door, "two nodes that do not lead", ["--short"])

    def rows(self, a, b, where, more):
        words = [sys.executable, HERE / "semantics.py", a.files, b.files, *more]
        one = subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, text=True)
        for line in one.stdout:
            print(line, end="", flush=True)
        self.table.row("semantics", one.wait() == 0, f"{where}: {'all rows hold' if one.returncode == 0 else 'see above'}")

    def reelected(self, group):
        reelected.changes_are_seen(self.table, group, 3)

    def holder(self, group):
        for is_leader in [False, True]:
            holder.killed_node(self.table, group, is_leader)

    def failover(self, group):
        chaos.failovers(self.table, group, self.share("failover"), 2)

    def quorum(self, group):
        quorum.outage(self.table, group)

    def guest(self):
        """Nobody serves it: it is a node itself."""

        class Nobody:
            mount = export = ""
            port = mount_port = 0

        words = [os.path.abspath(self.options.executable), self.seconds]
        inside = ",".join(map(str, words))
        one = guest.Guest(self.folder / "guests", "old_kernel", Nobody, inside, memory="1G", inside=HERE, module="fuse")
        code = one.wait(self.seconds + 900)
        for line in one.lines():
            print(line, flush=True)
        lines = [] if code == 0 else [*one.read("console").splitlines()[-12:], *one.read("node.log").splitlines()[-20:]]
        self.table.row("guest with Linux 6.1", code == 0, f"code {code}, {one.read('seconds')} s", lines)


def main():
    enter_namespaces()
    options = arguments()
    if "guest" in options.only and not guest.is_there():
        sys.exit("linux.uml is not installed; packaging/test-dependencies-kernel.sh installs it")
    folder = tempfile.mkdtemp(prefix="bitrix-fuse-", dir="/tmp")
    os.chmod(folder, 0o755)
    guest.make_network([server.ADDRESS.rsplit(".", 1)[0] + ".200"])
    # Names of network namespaces, sockets, pid files.
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    failed = True
    try:
        failed = Run(options, folder).all()
    finally:
        if failed or options.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
