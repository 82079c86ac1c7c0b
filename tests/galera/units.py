#!/usr/bin/python3
"""Two machines with systemd as process 1 whose databases are one, MariaDB as a unit that bitrix-node alone starts. What an admin and
systemd may do to it is done; what was said at one start must not be said at another. Prints a table; the exit code is 1 when a claim
does not hold.

    units.py EXECUTABLE [--keep]

The machines' disks are layers on the one of this machine, which must have what the nodes need: `make test-galera` installs it. All runs in
namespaces of its own, as in `tests/machines/run.py`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
sys.path[:0] = [str(HERE.parent / "machines"), str(HERE.parent / "kernel")]

# First: the other beds have one of that name.
from run import adopt  # isort: skip

from bed import BRIDGE, NETWORK, Log
from image import run
from machine import Failed, Machine, ip, until
from session import INSIDE_MARK, enter_namespaces

UNIT, THEIRS = "bitrix-node-mariadb.service", "mariadb.service"
# What of this machine's own services must not be in the way.
KEPT = ["php8.2-fpm.service", THEIRS]
NEW, POSITION = "--wsrep-new-cluster", "--wsrep-start-position="
CONFIG = """
[php]
children = 4
[proxy]
https = []
[db]
buffer_pool = "64MiB"
[cache]
memory = "16MiB"
"""
# A disk in memory; one on this machine's own would lie in its own lower layer.
DISK = "16G"


class Bed:
    def __init__(self, executable, keep):
        self.executable, self.keep = Path(executable).resolve(), keep
        self.log, self.machines = Log(), []

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="bitrix-units-", dir="/var/tmp"))
        run("mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", self.folder)
        ip("link", "set", "lo", "up")
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("link", "set", BRIDGE, "up")
        return self

    def __exit__(self, kind, error, _):
        if error is not None and not isinstance(error, KeyboardInterrupt):
            self.log.check("the story came to its end", False, f"{error}")
        for one in self.machines:
            if self.log.failed and one.is_on():
                said = one.try_run("journalctl --no-pager --output=short-precise -u bitrix-node | grep -E ' (supervisor|systemd)|database' | tail -120").stdout
                print(f"--- {one.name}\n{said}\n{one.try_run(f'journalctl --no-pager -n 40 -u {UNIT}').stdout}", flush=True)
            one.power_off()
        for one in self.machines:
            run("umount", "--lazy", one.root)
        if self.keep:
            print(f"kept while this shell of its namespaces lives: {self.folder}")
        run("umount", "--lazy", self.folder)
        self.folder.rmdir()
        return isinstance(error, Exception)

    def machine(self, number):
        one = Machine(f"n{number}", f"{NETWORK}.1{number}", [Path("/")], self.folder, BRIDGE)
        self.machines.append(one)
        one.prepare()
        one.put("/etc/hostname", f"{one.name}\n")
        one.put("/etc/hosts", f"127.0.0.1 localhost\n{one.address} {one.name}\n")
        one.put("/etc/machine-id", f"{number:032x}\n")
        one.put("/etc/bitrix-node/config.toml", CONFIG)
        one.put("/etc/fstab", "")
        for place, file in [
            ("usr/bin/bitrix-node", self.executable),
            ("usr/lib/systemd/system/bitrix-node.service", TOP / "systemd/bitrix-node.service"),
            ("usr/lib/sysusers.d/bitrix-node.conf", TOP / "systemd/bitrix-node.sysusers.conf"),
            ("usr/lib/tmpfiles.d/bitrix-node.conf", TOP / "systemd/bitrix-node.tmpfiles.conf"),
        ]:
            (one.root / place).parent.mkdir(parents=True, exist_ok=True)
            (one.root / place).unlink(missing_ok=True)
            shutil.copy(file, one.root / place)
        self.quieten(one)
        one.power_on()
        one.run("systemd-sysusers bitrix-node.conf && systemd-tmpfiles --create bitrix-node.conf")
        return one

    @staticmethod
    def quieten(one):
        wants = one.root / "etc/systemd/system/multi-user.target.wants"
        for link in wants.iterdir():
            if link.name not in KEPT:
                link.unlink()


class Story:
    def __init__(self, bed):
        self.bed, self.log = bed, bed.log

    def tell(self):
        self.found()
        self.join()
        self.restarted_by_hand(self.n1)
        self.node_restarted(self.n1)
        self.killed(self.n2)
        self.power()
        self.leave(self.n2)

    # What is

    def asked(self, one, command):
        try:
            return json.loads(one.try_run(f"bitrix-node {command} --output json", 20).stdout)
        except ValueError:
            return []

    def is_synced(self, one, count):
        rows = self.asked(one, "db status")
        return len(rows) == count and all(row["state"] == "synced" for row in rows) and any(row["writer"] for row in rows)

    def synced(self, count, what):
        until(f"{count} databases are one: {what}", lambda: all(self.is_synced(one, count) for one in self.bed.machines if one.is_on()))

    @staticmethod
    def shown(one, unit, name):
        return one.run(f"systemctl show --property={name} --value {unit}").strip()

    def pid(self, one):
        return int(self.shown(one, UNIT, "MainPID"))

    def words(self, one):
        """What the server that runs was told."""
        pid = self.pid(one)
        return one.run(f"tr '\\0' '\\n' </proc/{pid}/cmdline").split() if pid else []

    def size(self, one):
        out = one.try_run("mariadb --socket=/run/bitrix-node/db/mariadb.sock -BNe \"SHOW STATUS LIKE 'wsrep_cluster_size'\"").stdout
        return int((out.split() or ["", "0"])[-1])

    # What happens

    def found(self):
        self.n1 = one = self.bed.machine(1)
        self.log.check("n1: the distribution's MariaDB runs", self.shown(one, THEIRS, "ActiveState") == "active")
        hidden = one.run("mv /usr/bin/socat /root/ && bitrix-node init --dry-run --galera --address 10.77.0.11; mv /root/socat /usr/bin/")
        plan = next(line for line in hidden.splitlines() if line.startswith("install packages"))
        self.log.check("n1: init installs what a Galera node lacks", plan.split()[2:] == ["socat"], plan)
        before = one.run("sysctl net.ipv4.tcp_tw_reuse net.ipv4.ip_local_port_range net.ipv4.ip_local_reserved_ports")
        founding = f"bitrix-node init --yes --galera --address {one.address}"
        self.log.line(one.run(founding, 600).strip().replace("\n", "\n            "))
        self.synced(1, "founded")
        after = one.run("sysctl net.ipv4.tcp_tw_reuse net.ipv4.ip_local_port_range net.ipv4.ip_local_reserved_ports")
        self.log.check("n1: the kernel is told by the hardened unit", before != after, f"\n{before}→\n{after}")
        states = [self.shown(one, THEIRS, name) for name in ("LoadState", "ActiveState")]
        self.log.check("n1: the distribution's MariaDB is masked and ended", states == ["masked", "inactive"], " ".join(states))
        self.log.check("n1: it cannot be started", one.try_run(f"systemctl start {THEIRS}").returncode != 0)
        words = self.words(one)
        self.log.check("n1: its first start begins the cluster", NEW in words, " ".join(words[1:]))
        self.log.check("n1: MariaDB is nobody's but its user's", one.run(f"ps -o user= -p {self.pid(one)}").strip() == "mysql")

    def join(self):
        self.n2 = one = self.bed.machine(2)
        token = json.loads(self.n1.run("bitrix-node token create --output json"))["token"]
        one.run(f"bitrix-node join {self.n1.address} --token {token} --yes --galera --address {one.address}", 600)
        self.synced(2, "joined")
        self.log.check("n2: it joins, and begins nothing", NEW not in self.words(one) and self.size(one) == 2, " ".join(self.words(one)[1:]))

    def restarted_by_hand(self, one):
        """The unit that began the cluster, with the words that it was started with."""
        self.n1.run("mariadb --socket=/run/bitrix-node/db/mariadb.sock -e 'CREATE TABLE IF NOT EXISTS mysql.units (n INT PRIMARY KEY)'")
        had, before = NEW in self.words(one), self.pid(one)
        one.try_run(f"systemctl restart {UNIT}", 120)
        # Until the node has looked, it says what it saw before.
        until("another one runs", lambda: self.pid(one) not in (0, before))
        self.synced(2, "restarted by hand")
        words = self.words(one)
        is_so = had and NEW not in words and any(word.startswith(POSITION) for word in words) and self.size(one) == 2
        self.log.check("n1: restarted by hand it joins by its position, and begins nothing anew", is_so, " ".join(words[1:]))
        starts = one.run("journalctl --no-pager -u bitrix-node | grep -c 'starts by order' || true").strip()
        self.log.check("n1: each of its starts was an order", starts == "2", f"{starts} orders")

    def node_restarted(self, one):
        before = self.pid(one)
        one.run("systemctl restart bitrix-node")
        self.synced(2, "the node restarted")
        self.log.check("n1: MariaDB outlives a restart of bitrix-node", before and self.pid(one) == before, f"{before} → {self.pid(one)}")
        begun = one.run("systemctl stop bitrix-node; sleep 1; systemctl is-active " + UNIT).strip()
        one.run("systemctl start bitrix-node")
        self.synced(2, "the node stopped and started")
        self.log.check("n1: and a stop", begun == "active" and self.pid(one) == before, begun)

    def killed(self, one):
        """The second one: of two the first goes on without it."""
        before = self.pid(one)
        one.run(f"kill -9 {before}")
        until("another one runs", lambda: self.pid(one) not in (0, before))
        self.synced(2, "killed")
        words = self.words(one)
        is_so = NEW not in words and any(word.startswith(POSITION) for word in words)
        self.log.check("n2: killed it is started by its position", is_so, " ".join(words[1:]))

    def power(self):
        for one in self.bed.machines:
            one.power_off()
        for one in self.bed.machines:
            one.power_on()
        self.synced(2, "power is back")
        self.log.check("both: all are one after a loss of power", [self.size(one) for one in self.bed.machines] == [2, 2])
        left = [one.try_run("grep -rl wsrep.new.cluster /etc/mysql /etc/systemd /run/bitrix-node /var/lib/bitrix-node/db.epoch").stdout for one in self.bed.machines]
        self.log.check("both: nothing on disk says new cluster", not any(left), " ".join(left))

    def leave(self, one):
        done = one.try_run("bitrix-node uninstall --yes --force", 300)
        states = [self.shown(one, THEIRS, "LoadState"), self.shown(one, UNIT, "ActiveState")]
        self.log.check("n2: uninstall ends MariaDB and gives the distribution its own back", states == ["loaded", "inactive"], f"{states} {done.stdout[-300:]}{done.stderr[-300:]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("executable")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    if not os.environ.get(INSIDE_MARK):
        options.executable = str(Path(options.executable).resolve())
    enter_namespaces()
    adopt()
    # A machine's kernel is its own, as far as its network goes; systemd-nspawn(1) keeps it read-only otherwise.
    os.environ["SYSTEMD_NSPAWN_API_VFS_WRITABLE"] = "network"
    # Names of network namespaces, what systemd-nspawn notes.
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    with Bed(options.executable, options.keep) as bed:
        Story(bed).tell()
    bed.log.line(f"{len(bed.log.failed)} claims failed" if bed.log.failed else "all claims hold")
    sys.exit(1 if bed.log.failed else 0)


if __name__ == "__main__":
    main()
