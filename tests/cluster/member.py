"""A node of the cluster on its machine: the supervisor of the real executable, with PHP-FPM and, on the first, MariaDB."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

from shared import children, detach, looks, mounts, now, until, words

KIND = "fuse.bitrix"
# Where the kernel's control of FUSE is mounted, for this run alone.
CONTROL = Path("/run/fuse")
# A start on a busy machine.
START = 180
# A command that the nemesis waits for.
SOON = 10
# As systemd would start it again.
AGAIN = 1.0
# Last words of commands that answer also where not all is well.
STATUS = {"status", "json"}

# All that differs from the defaults because several nodes share one machine.
CONFIG = """
[node]
user = "nobody"
data_dir = "{folder}/data"
run_dir = "{folder}/run"
log_dir = "{folder}/log"
daemons = "child"
[portal]
user = "www-data"
[proxy]
http = ["0.0.0.0:80", "[::]:80"]
https = []
workers = 1
max_connections_per_address = 4096
[php]
children = 4
[db]
buffer_pool = "64MiB"
[cache]
memory = "16MiB"
workers = 1
[storage]
mount_point = "{files}"
copies = {copies}
"""


def connections(folder):
    """Names of the FUSE connections that are mounted there."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [line[2].split(":")[1] for line in lines if line[4] == str(folder) and line[line.index("-") + 1] == KIND]


class Member:
    def __init__(self, machine, executable, copies):
        self.machine, self.executable = machine, executable
        self.name, self.folder, self.address = machine.name, machine.folder, machine.address
        self.files, self.config = self.folder / "files", self.folder / "config.toml"
        for part in ["run", "log", "files"]:
            (self.folder / part).mkdir(exist_ok=True)
        # What makes it a node of the cluster is written by `init` and `join`.
        self.config.write_text(CONFIG.format(folder=self.folder, files=self.files, copies=copies))
        self.process, self.is_wanted, self.back_at = None, False, None

    # Its life

    def start(self):
        self.is_wanted, self.back_at = True, None
        with open(self.folder / "supervisor.log", "ab") as log:
            line = [self.executable, "run", "--config", str(self.config)]
            self.process = subprocess.Popen(line, preexec_fn=self.machine.enter, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self):
        """All of it, as by a loss of power."""
        self.is_wanted = False
        self.machine.kill(self.abort_files)
        if self.process:
            self.process.wait()
        detach(self.files)

    def abort_files(self):
        """The machine's kernel would be gone too; this one may wait for ever for a server of files that is dead, with its clients."""
        for connection in connections(self.files):
            abort = CONTROL / connection / "abort"
            if abort.exists():
                abort.write_text("1")

    def look_after(self):
        """What an init would do: a supervisor that has ended is started again. Returns its code where nobody had killed it."""
        if not self.is_wanted or self.process.poll() is None:
            return None
        if self.back_at is None:
            self.back_at = now() + AGAIN
            return self.process.returncode if self.process.returncode != -signal.SIGKILL else None
        if now() >= self.back_at and not self.machine.is_frozen:
            self.start()
        return None

    def stop(self, seconds=40):
        """In order, or by force."""
        self.is_wanted = False
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def pid(self, name):
        """Of a module, of the supervisor itself or of PHP-FPM; None while there is none."""
        if self.process is None or self.process.poll() is not None:
            return None
        if name == "supervisor":
            return self.process.pid
        for pid in children(self.process.pid):
            line = words(pid)
            if line[1:3] == [b"module", name.encode()] or (name == "php-fpm" and line[0].startswith(b"php-fpm: master")):
                return pid
        return None

    def signal(self, name, number):
        """Whether there was such a process."""
        pid = self.pid(name)
        if pid is not None:
            os.kill(pid, number)
        return pid is not None

    # What it says

    def launch(self, *line):
        """A command of the operator at this machine; not of its control groups, so that it neither stands still nor dies with the node."""
        return subprocess.Popen(
            [self.executable, *map(str, line), "--config", str(self.config)],
            preexec_fn=self.machine.enter_network,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def command(self, *line, seconds=120):
        one = self.launch(*line)
        try:
            out, errors = one.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            one.kill()
            one.communicate()
            raise RuntimeError(f"{self.name}: {' '.join(map(str, line))}: no answer in {seconds} s") from None
        # `status` says by its code how the node does.
        if one.returncode != 0 and (line[-1] not in STATUS or not out):
            raise RuntimeError(f"{self.name}: {' '.join(map(str, line))}: code {one.returncode}: {out[-500:]} {errors.strip()}")
        return out

    def report(self, seconds=SOON):
        """Of its storage, if it answers soon; else nothing."""
        try:
            return json.loads(self.command("storage", "status", "--output", "json", seconds=seconds))
        except (RuntimeError, ValueError):
            return {}

    def overview(self, path="/v1/status"):
        """The agent's of its node, or of the cluster; nothing while it does not answer."""
        try:
            with socket.socket(socket.AF_UNIX) as stream:
                stream.settimeout(2)
                stream.connect(str(self.folder / "run/control.sock"))
                stream.sendall(f"GET {path} HTTP/1.1\r\nhost: control\r\nconnection: close\r\n\r\n".encode())
                text = b""
                while data := stream.recv(65536):
                    text += data
            return json.loads(text.split(b"\r\n\r\n", 1)[1])
        except (OSError, ValueError, IndexError):
            return {}

    def is_mounted(self):
        return KIND in mounts(self.files) and looks("stat", "-f", self.files)

    def until_mounted(self):
        def look():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended by itself:\n{self.log()[-3000:]}")
            return self.is_mounted()

        until(f"{self.name} mounts its files", look, START)

    def log(self):
        parts = [self.folder / "supervisor.log", self.folder / "log/bitrix-node.log"]
        return "".join(path.read_text(errors="replace") for path in parts if path.exists())
