"""The story, chapter by chapter. What an admin types is typed here; what he expects is checked."""

import hashlib
import re
import shutil
import time
from pathlib import Path

import successor
from bed import HOST, PORT
from cluster import FLOATING, Cluster
from load import Load
from machine import Failed, until

DEMO = Path(__file__).resolve().parent.parent.parent / "assets/demo"
CHAPTERS = ["install", "forms", "portal", "package", "join", "edge_off", "leader_off", "drain", "upgrade", "remove"]
# Without these the others say nothing.
GROUND = ["install", "portal", "join"]
# By PHP with database, cache and files; a file.
PAGES = ["/check.json", "/style.css"]
# Seconds of load around a fault.
BEFORE, AFTER = 3, 8
# Service must be back within as many.
OUTAGE = 5
BASE = f"http://{HOST}:{PORT}"
INSTALL = f"curl -fsSL {BASE}/install.sh | BITRIX_NODE_BASE_URL={BASE} sh"
# Where a purge may leave nothing.
OURS = "/usr/bin/bitrix-node /usr/lib/bitrix-node /etc/bitrix-node /var/lib/bitrix-node /var/log/bitrix-node /run/bitrix-node"


class Story:
    def __init__(self, bed):
        self.bed, self.log = bed, bed.log
        self.cluster = Cluster(bed.machines)

    def tell(self, last):
        for chapter in CHAPTERS[: CHAPTERS.index(last) + 1]:
            self.log.line(f"--- {chapter}")
            try:
                getattr(self, chapter)()
            except Failed as error:
                if chapter in GROUND:
                    raise
                self.log.check(f"the chapter {chapter} came to its end", False, str(error))
                self.all_on()
        self.log.line("--- purge")
        self.purge()

    def all_on(self):
        """What breaks one chapter shall not hide what the others say."""
        for one in self.bed.machines.values():
            if not one.is_on():
                one.power_on()

    def timed(self, what, act):
        begun = time.monotonic()
        result = act()
        self.log.line(f"      {what}: {time.monotonic() - begun:.1f} s")
        return result

    def install(self):
        """Bare machines, and what the installer refuses."""
        self.n1 = self.timed("n1 boots (Debian, PHP, MariaDB)", lambda: self.bed.machine("n1", 11, "data"))
        self.n2 = self.timed("n2 boots (Debian, PHP)", lambda: self.bed.machine("n2", 12, "web"))
        self.n3 = self.timed("n3 boots (bare Debian)", lambda: self.bed.machine("n3", 13, "bare"))
        self.refusals(self.n3)
        self.timed("n1: curl … | sh", lambda: self.n1.run(INSTALL))
        for word in ["bitrix-node version", "test -x /usr/lib/bitrix-node/uninstall", "id bitrix-node", "id bitrix"]:
            self.log.check(f"n1: {word}", self.n1.try_run(word).returncode == 0)
        again = self.n1.try_run(INSTALL)
        self.log.check("n1: installing again changes nothing", again.returncode == 0 and "here already" in again.stderr)
        state = self.n1.try_run("systemctl is-enabled bitrix-node; systemctl is-active bitrix-node").stdout.split()
        self.log.check("n1: an unconfigured node is neither enabled nor started", state == ["disabled", "inactive"], " ".join(state))

    def refusals(self, machine):
        """What was tampered with or cut off installs nothing."""
        script = f"curl -fsSL {BASE}/install.sh"
        copy = f"rm -rf /tmp/r; mkdir /tmp/r && cd /tmp/r && for f in VERSION SHA256SUMS SHA256SUMS.sig SHA256SUMS.sshsig $(basename {self.deb()}); do curl -fsSLO {BASE}/{self.version()}/$f; done"
        machine.run(copy)
        attempts = {
            "a script that is cut off": f"{script} | head -c -40 | sh",
            "a list with another signature": f"{script} >/tmp/i; cd /tmp/r && cp SHA256SUMS s && echo x >>SHA256SUMS; sh /tmp/i --local /tmp/r; code=$?; mv s SHA256SUMS; exit $code",
            "a package that is cut off": f"{script} >/tmp/i; cd /tmp/r && f=$(basename {self.deb()}) && cp $f p && head -c 1000 p >$f; sh /tmp/i --local /tmp/r; code=$?; mv p $f; exit $code",
            "a release that is not there": f"{script} | BITRIX_NODE_BASE_URL={BASE} BITRIX_NODE_VERSION=9.9.9 sh",
        }
        for what, command in attempts.items():
            done = machine.try_run(command)
            left = machine.try_run("command -v bitrix-node || dpkg-query -W bitrix-node 2>/dev/null || ls -d /tmp/tmp.* 2>/dev/null").stdout
            said = done.stderr.strip().splitlines()[-2:]
            # A script without its last line is a script that does nothing.
            is_refused = done.returncode != 0 or "cut off" in what and not said
            self.log.check(f"{machine.name}: {what} is refused, nothing is left", is_refused and not left.strip(), " | ".join(said) + left)
        machine.run("sh /tmp/i --local /tmp/r && bitrix-node version")
        self.log.check(f"{machine.name}: installed from a folder, without a network", True)

    def forms(self):
        """The other ways to install and to remove, on a machine that is bare again after each."""
        one, uninstall = self.n2, "/usr/lib/bitrix-node/uninstall --purge-data"
        works = "bitrix-node version && systemctl cat bitrix-node >/dev/null && id bitrix-node >/dev/null"
        hide, show = "mv /usr/bin/dpkg-query /root/", "mv /root/dpkg-query /usr/bin/"
        one.run(f"{hide} && {INSTALL} && {works} && {uninstall}; code=$?; {show}; exit $code")
        self.bare_again(one, "files without a package")
        rpm = next((self.bed.release / self.version()).glob("*.rpm")).name
        one.run("apt-get update -qq && apt-get install -y -qq --no-install-recommends rpm", 600)
        one.run(f"cd /tmp && curl -fsSLO {BASE}/{self.version()}/{rpm} && rpm --install --nodeps {rpm} && {works} && {uninstall}")
        self.bare_again(one, "the RPM package, put on Debian by force,")
        one.run("mv /usr/bin/systemd-sysusers /root/ && printf '#!/bin/sh\\nexit 1\\n' >/usr/bin/systemd-sysusers && chmod +x /usr/bin/systemd-sysusers")
        failed = one.try_run(INSTALL)
        one.run("mv /root/systemd-sysusers /usr/bin/")
        self.log.check(f"{one.name}: an installation that breaks off says so", failed.returncode != 0 and "refused" in failed.stderr)
        self.bare_again(one, "what it had begun")

    def bare_again(self, machine, what):
        left = self.left(machine)
        self.log.check(f"{machine.name}: {what} goes without a trace", not left, left)

    def version(self):
        return "v" + (self.bed.release / "stable").read_text().strip()

    def deb(self):
        return next((self.bed.release / self.version()).glob("*.deb"))

    def portal(self):
        """The first machine founds the cluster, and serves the portal alone."""
        one = self.n1
        options = f"--yes --address {one.address} --vip {FLOATING}/24 --domain portal.test"
        self.log.line(self.timed("init", lambda: one.run(f"bitrix-node init {options}")).strip())
        self.timed("n1 is healthy", lambda: until("n1 is healthy", lambda: self.cluster.healthy(one)))
        shutil.copytree(DEMO, one.root / "root/demo")
        self.timed("portal install", lambda: one.run("bitrix-node portal install --from /root/demo"))
        self.timed("portal settings", lambda: one.run("bitrix-node portal settings"))
        self.green("n1 alone", one.address)
        self.green("n1 alone, by the floating address", FLOATING)
        again = one.try_run(f"bitrix-node init {options}")
        self.log.check("init can be repeated", again.returncode == 0 and self.cluster.healthy(one), again.stderr[-300:])
        said = one.run("journalctl --no-pager --output=cat -u bitrix-node | grep 'locked in'").strip()
        self.log.check("the front locks itself in, by its hardened unit", "locked in: it opens its own files" in said, said[-200:])

    def package(self):
        """A newer package on the node that runs, under load."""
        one, folder = self.n1, self.bed.folder / "successor"
        made = successor.package(self.bed.release, folder, successor.executable(self.bed.release, folder, "package"))
        shutil.copy(made, one.root / "root" / made.name)
        before = self.running(one)
        with Load(one.address, PAGES) as load, Load(one.address, PAGES, workers=2, keep=True) as kept:
            time.sleep(BEFORE)
            self.timed("dpkg --install, next revision", lambda: one.run(f"dpkg --install /root/{made.name}"))
            until("the new executable runs and is healthy", lambda: self.running(one) != before and self.cluster.healthy(one))
            time.sleep(AFTER)
        self.none_failed(load, "new package on a node that runs; new connections")
        self.none_failed(kept, "new package on a node that runs; connections that are kept")
        pids = self.running(one)[0], before[0]
        self.log.check("the supervisor kept its process id", pids[0] == pids[1], " ".join(pids))

    def running(self, machine):
        """The supervisor's process, and which file it runs."""
        look = "pid=$(systemctl show --property=MainPID --value bitrix-node) && echo $pid && sha256sum </proc/$pid/exe"
        return machine.run(look).split()[:2]

    def green(self, where, address):
        begun = time.monotonic()
        try:
            until("green", lambda: self.cluster.green(address), 60)
            self.log.check(f"the portal is green: {where}", True, f"after {time.monotonic() - begun:.1f} s")
        except Failed:
            self.log.check(f"the portal is green: {where}", False)

    def join(self):
        """One line on each further machine."""
        for one in [self.n2, self.n3]:
            said = self.n1.run("bitrix-node token create")
            token = re.search(r"bxn1\.\S+", said)
            if not token:
                raise Failed(f"no token in: {said}")
            line = f"{INSTALL} -s -- join {self.n1.address} --token {token.group()} --yes"
            self.timed(f"{one.name}: curl … | sh -s -- join", lambda one=one, line=line: one.run(line, 600))
            again = one.try_run(f"bitrix-node join {self.n1.address} --token {token.group()} --yes")
            self.log.check(f"{one.name}: join can be repeated", again.returncode == 0, again.stderr[-300:])
        self.used_token(token.group())
        self.whole("all joined")
        for one in self.bed.machines.values():
            self.green(f"over {one.name}", one.address)
        self.green("over the floating address", FLOATING)
        self.log.line(self.n2.run("bitrix-node status; true").strip())

    def used_token(self, token):
        """It opens nothing a second time, for another machine."""
        other = self.bed.machine("n4", 14, "web")
        refused = other.try_run(f"{INSTALL} -s -- join {self.n1.address} --token {token} --yes")
        self.log.check("a used token is refused", refused.returncode != 0, " | ".join(refused.stderr.strip().splitlines()[-4:-2]))
        other.power_off()
        self.bed.forget(other)

    def whole(self, when, count=3):
        """All machines that are on are healthy members, with as many copies."""
        begun = time.monotonic()

        def look():
            return all(self.cluster.healthy(one) and self.cluster.copies(one) == count for one in self.cluster.on())

        until(f"{count} nodes, healthy, {when}", look)
        self.log.check(f"{when}: {count} nodes are healthy, {count} copies in sync", True, f"after {time.monotonic() - begun:.1f} s")

    def edge_off(self):
        """The machine that holds the floating address loses its power, under load."""
        holder = self.edge_elsewhere()
        with Load(FLOATING, PAGES) as load:
            time.sleep(BEFORE)
            holder.power_off()
            self.log.line(f"      {holder.name} is off: it held {FLOATING}")
            successor = until("another holds the address", self.cluster.edges, 30)[0]
            time.sleep(AFTER)
        self.judge(load, f"{FLOATING} moved from {holder.name} to {successor.name}")
        self.back(holder)

    def edge_elsewhere(self):
        """The machine with the database stays on: where it has the address, another takes it first."""
        holder = self.one_edge()
        if holder is self.n1:
            self.n1.run(f"bitrix-node role transfer edge/{FLOATING} n2")
            until("n2 holds the address", lambda: self.cluster.edges() == [self.n2], 30)
        return self.one_edge()

    def one_edge(self):
        return until("one machine has the floating address", lambda: len(self.cluster.edges()) == 1 and self.cluster.edges(), 30)[0]

    def leader_off(self):
        """The machine whose storage leads loses its power, under load on the other two."""
        leader = self.lead_elsewhere()
        self.log.line(f"      {leader.name} leads the storage")
        others = [one for one in self.cluster.on() if one is not leader]
        with Load(FLOATING, PAGES) as load, Load(others[0].address, PAGES, workers=2) as direct:
            time.sleep(BEFORE)
            leader.power_off()
            successor = until("another leads", self.cluster.leader, 30)
            time.sleep(AFTER)
        self.judge(load, f"the storage's leader went from {leader.name} to {successor.name}; floating address")
        self.judge(direct, f"the same, {others[0].name} itself")
        self.back(leader)

    def lead_elsewhere(self):
        """The machine with the database stays on: where its storage leads, it stands still until another's does."""

        def look():
            leader = self.cluster.leader()
            if leader is self.n1:
                # Killed it would be back before the others stand for election.
                self.n1.run("kill -STOP $(pgrep -f '[m]odule storage'); sleep 3; kill -CONT $(pgrep -f '[m]odule storage')")
            return leader if leader is not self.n1 else None

        return until("the storage of n2 or n3 leads", look)

    def judge(self, load, what):
        kinds = ", ".join(f"{count} × {fault}" for fault, count in sorted(load.kinds().items()))
        self.log.line(f"      {load.summary()}{': ' if kinds else ''}{kinds}")
        self.log.check(f"{what}: service back under {OUTAGE} s", load.gap() < OUTAGE, f"{load.gap():.2f} s")

    def back(self, machine):
        self.timed(f"{machine.name} boots again", machine.power_on)
        self.whole(f"{machine.name} came back")
        self.green(f"over {machine.name}", machine.address)

    def drain(self):
        """A node is emptied and filled again, under load on the floating address."""
        holder = self.one_edge()
        with Load(FLOATING, PAGES) as load, Load(FLOATING, PAGES, workers=2, keep=True) as kept:
            time.sleep(BEFORE)
            self.timed(f"node drain {holder.name}", lambda: self.n1.run(f"bitrix-node node drain {holder.name}"))
            time.sleep(AFTER)
            self.n1.run(f"bitrix-node node undrain {holder.name}")
            time.sleep(AFTER)
        for one, what in [(load, "new connections"), (kept, "connections that are kept")]:
            self.none_failed(one, f"{holder.name}, which holds the address, is drained; {what}")
        self.whole("undrained")

    def none_failed(self, load, what):
        kinds = ", ".join(f"{count} × {fault}" for fault, count in sorted(load.kinds().items()))
        self.log.check(f"{what}: no request failed", not load.faults(), f"{load.summary()} {kinds}")

    def upgrade(self):
        """All machines get the next version, one after the other, under load."""
        program = successor.executable(self.bed.release, self.bed.folder / "successor", "rolling")
        for path in [program, program.with_name(program.name + ".sig")]:
            shutil.copy(path, self.n1.root / "root" / path.name)
        wanted = hashlib.sha256(program.read_bytes()).hexdigest()
        before = {one.name: self.running(one)[0] for one in self.cluster.on()}
        with Load(FLOATING, PAGES) as load, Load(FLOATING, PAGES, workers=2, keep=True) as kept:
            time.sleep(BEFORE)
            self.n1.run(f"bitrix-node upgrade apply --from /root/{program.name}")
            begun = time.monotonic()

            def is_done():
                return all(self.running(one)[1] == wanted and self.cluster.healthy(one) for one in self.cluster.on())

            until("all run the next version", is_done, 600)
            self.log.line(f"      {len(before)} nodes run the next version after {time.monotonic() - begun:.1f} s")
            time.sleep(AFTER)
        self.none_failed(load, "rolling upgrade; new connections")
        self.none_failed(kept, "rolling upgrade; connections that are kept")
        after = {one.name: self.running(one)[0] for one in self.cluster.on()}
        self.log.check("the supervisors kept their process ids", before == after, f"{before} {after}")
        self.whole("upgraded")

    def remove(self):
        """A node leaves for good; what is left of it opens nothing."""
        # Who leads the storage is not let go.
        gone = self.n2 if self.cluster.leader() is self.n3 else self.n3
        with Load(FLOATING, PAGES) as load:
            time.sleep(BEFORE)
            self.n1.run(f"bitrix-node node drain {gone.name}")
            self.timed(f"node remove {gone.name}", lambda: self.n1.run(f"bitrix-node node remove {gone.name}"))
            time.sleep(AFTER)
        self.none_failed(load, f"{gone.name} is drained and removed")
        done = gone.try_run("/usr/lib/bitrix-node/uninstall --purge-data", 600)
        self.log.check(f"{gone.name}: uninstall --purge-data", done.returncode == 0, done.stderr[-500:] * (done.returncode != 0))
        self.bare_again(gone, "all of it")
        gone.power_off()
        self.bed.forget(gone)
        self.whole("two are left", 2)
        self.green("over two nodes", FLOATING)

    def left(self, machine):
        """What is still there of us."""
        looks = [f"ls -d {OURS}", "getent passwd bitrix-node bitrix", "dpkg-query -W bitrix-node", "pgrep -a bitrix-node"]
        # The backup files of useradd(8) end so.
        looks.append("grep -l bitrix-node -r /etc | grep -v -- -$")
        return machine.try_run("; ".join(f"{look} 2>/dev/null" for look in looks)).stdout.strip()

    def purge(self):
        for one in self.bed.machines.values():
            if one.try_run("test -e /usr/lib/bitrix-node/uninstall").returncode != 0:
                continue
            done = one.try_run("/usr/lib/bitrix-node/uninstall --purge-data", 600)
            self.log.check(f"{one.name}: uninstall --purge-data", done.returncode == 0, done.stderr[-500:] * (done.returncode != 0))
            self.bare_again(one, "all of it")
            failed = one.try_run("systemctl --failed --no-legend --plain | cut -d' ' -f1").stdout.split()
            self.log.check(f"{one.name}: its other services go on", not failed, " ".join(failed))
