"""A machine of the mount tests: a configuration, commands of the executable, a node in the background, the table of mounts,
and requests to the servers outside."""

import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

PATIENCE = 60
HTTP = "127.0.0.1:8080"

CONFIG = """
[node]
name = "guest"
data_dir = "{home}/data"
run_dir = "{home}/run"
log_dir = "{home}/log"
daemons = "{daemons}"
[proxy]
http = ["{http}"]
https = []
[php]
binary = "{php}"
children = 2
kept_connections = 1
[db]
binary = "/none"
[storage]
{storage}
"""


class Failed(Exception):
    pass


class Machine:
    def __init__(self, share, executable, storage, daemons="child", php=""):
        self.share, self.executable, self.home = Path(share), executable, Path("/run/node")
        self.results = open(self.share / "results", "a")
        self.file = self.share / "config.toml"
        words = {"home": self.home, "http": HTTP, "storage": storage, "daemons": daemons, "php": php}
        self.file.write_text(CONFIG.format(**words))
        if not self.home.exists():
            self.home.mkdir()
            # Room on paper: a replica takes nothing new where a disk is nearly full.
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4G,mode=755", "none", str(self.home)], check=True)
        (self.home / "data").mkdir(exist_ok=True)
        self.files = self.home / "data/files"
        self.supervisor = None

    def say(self, *words):
        print(*words, file=self.results, flush=True)

    def check(self, holds, claim, seen=""):
        """A claim that fails ends the job: what follows would only repeat it."""
        self.say("ok  " if holds else "FAIL", claim)
        if not holds:
            for line in str(seen).splitlines():
                self.say("FAIL   ", line)
            raise Failed(claim)

    def command(self, *words, code=None, before=()):
        """Runs a command; its text and how long it took."""
        line = [*before, self.executable, *words, "--config", str(self.file)]
        started = time.monotonic()
        done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)
        took = time.monotonic() - started
        text = done.stdout + done.stderr
        if code is not None and done.returncode != code:
            self.check(False, f"{' '.join(words)} ends with {code}", f"{done.returncode}: {text}")
        return text, took

    def ask(self, words):
        """Has something done to a server outside."""
        request = self.share / "request"
        (self.share / "request.new").write_text(words)
        os.rename(self.share / "request.new", request)
        self.until(lambda: not request.exists(), words)

    def until(self, holds, what):
        """Waits for it; returns how long that took."""
        started = time.monotonic()
        while True:
            seen = holds()
            if seen:
                return time.monotonic() - started
            if time.monotonic() - started > PATIENCE:
                self.check(False, f"in time: {what}", self.command("status")[0] + self.log()[-3000:])
            time.sleep(0.1)

    # What is mounted

    def mounts(self, folder=None, process="self"):
        folder = str(folder or self.files)
        lines = Path(f"/proc/{process}/mountinfo").read_text().splitlines()
        return [line for line in lines if line.split()[4] == folder]

    # A node in the background

    def run(self, before=()):
        log = open(self.share / "run.out", "ab")
        line = [*before, self.executable, "run", "--config", str(self.file)]
        self.supervisor = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self, how=signal.SIGTERM):
        self.supervisor.send_signal(how)
        started = time.monotonic()
        self.supervisor.wait(PATIENCE)
        return time.monotonic() - started

    def log(self):
        path = self.home / "log/bitrix-node.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def row(self, name):
        """What `status` says of a service: its line, or nothing."""
        lines = self.command("status")[0].splitlines()
        return next((line for line in lines if line.startswith(f"{name} ")), "")

    def is_healthy(self):
        return self.command("status")[0].startswith("HEALTHY")

    def get(self, path):
        """Body of a page, or nothing."""
        try:
            with urllib.request.urlopen(f"http://{HTTP}{path}", timeout=10) as answer:
                return answer.read().decode()
        except OSError as error:
            return str(error)

    def finish(self):
        if self.supervisor and self.supervisor.poll() is None:
            self.supervisor.kill()
        (self.share / "node.log").write_text(self.log())
        # Nothing may keep this kernel from powering off.
        while self.mounts():
            subprocess.run(["umount", "-l", str(self.files)], check=True)
