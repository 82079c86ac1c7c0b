"""The story, chapter by chapter. What an admin types is typed here; what he expects is checked."""

import json
import shutil
import time
import urllib.request
from pathlib import Path

from bed import HOST, PORT
from machine import until

DEMO = Path(__file__).resolve().parent.parent.parent / "assets/demo"
CHAPTERS = ["install", "portal"]
BASE = f"http://{HOST}:{PORT}"
INSTALL = f"curl -fsSL {BASE}/install.sh | BITRIX_NODE_BASE_URL={BASE} sh"
# Where a purge may leave nothing.
OURS = "/usr/bin/bitrix-node /usr/lib/bitrix-node /etc/bitrix-node /var/lib/bitrix-node /var/log/bitrix-node /run/bitrix-node"


class Story:
    def __init__(self, bed):
        self.bed, self.log = bed, bed.log

    def tell(self, last):
        for chapter in CHAPTERS[: CHAPTERS.index(last) + 1]:
            self.log.line(f"--- {chapter}")
            getattr(self, chapter)()
        self.log.line("--- purge")
        self.purge()

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
        copy = f"rm -rf /tmp/r; mkdir /tmp/r && cd /tmp/r && for f in VERSION SHA256SUMS SHA256SUMS.sig SHA256SUMS.sshsig $(basename {self.package()}); do curl -fsSLO {BASE}/{self.version()}/$f; done"
        machine.run(copy)
        attempts = {
            "a script that is cut off": f"{script} | head -c -40 | sh",
            "a list with another signature": f"{script} >/tmp/i; cd /tmp/r && cp SHA256SUMS s && echo x >>SHA256SUMS; sh /tmp/i --local /tmp/r; code=$?; mv s SHA256SUMS; exit $code",
            "a package that is cut off": f"{script} >/tmp/i; cd /tmp/r && f=$(basename {self.package()}) && cp $f p && head -c 1000 p >$f; sh /tmp/i --local /tmp/r; code=$?; mv p $f; exit $code",
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

    def version(self):
        return "v" + (self.bed.release / "stable").read_text().strip()

    def package(self):
        return next((self.bed.release / self.version()).glob("*.deb"))

    def portal(self):
        """The first machine alone."""
        config = f'[cluster]\naddress = "{self.n1.address}"\n[storage]\nengine = "replicated"\n'
        self.n1.put("/etc/bitrix-node/config.toml", config)
        self.log.line(self.n1.run("bitrix-node init --yes").strip())
        self.timed("n1 starts", lambda: self.n1.run("systemctl enable --now bitrix-node"))
        self.timed("n1 is healthy", lambda: until("n1 is healthy", lambda: self.healthy(self.n1)))
        self.put_portal(self.n1)
        self.timed("the portal is green on n1", lambda: until("the portal is green", lambda: self.green(self.n1.address)))

    def healthy(self, machine):
        return machine.try_run("bitrix-node status", 20).returncode == 0

    def put_portal(self, machine):
        """The demo, which tells of itself whether database, cache and files are there."""
        shutil.copytree(DEMO, machine.root / "root/demo")
        self.timed("portal install", lambda: machine.run("bitrix-node portal install --from /root/demo"))
        self.timed("portal settings", lambda: machine.run("bitrix-node portal settings"))

    def green(self, address):
        """All checks of the demo, as seen from another machine."""
        try:
            with urllib.request.urlopen(f"http://{address}/check.json", timeout=5) as answer:
                return json.load(answer)["ok"] is True
        except (OSError, ValueError, KeyError):
            return False

    def purge(self):
        for one in self.bed.machines.values():
            if not one.is_on():
                continue
            if one.try_run("test -e /usr/lib/bitrix-node/uninstall").returncode != 0:
                continue
            done = one.try_run("/usr/lib/bitrix-node/uninstall --purge-data", 600)
            left = one.try_run(f"ls -d {OURS} 2>/dev/null; getent passwd bitrix-node bitrix; dpkg-query -W bitrix-node 2>/dev/null; pgrep -a bitrix-node; grep -l bitrix-node -r /etc 2>/dev/null | grep -v -- -$").stdout
            self.log.check(f"{one.name}: purged, nothing is left", done.returncode == 0 and not left.strip(), left or done.stderr[-500:] * (done.returncode != 0))
            failed = one.try_run("systemctl --failed --no-legend --plain | cut -d' ' -f1").stdout.split()
            self.log.check(f"{one.name}: its other services go on", not failed, " ".join(failed))
