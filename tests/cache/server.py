"""A memcached to test: Debian's, or ours under memcached's flags."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE = 20


class Kind:
    """What to start. `name` is "ours" or "memcached"."""

    def __init__(self, name, executable):
        self.name, self.executable = name, os.path.abspath(executable)
        self.words = [self.executable, "memcached"] if name == "ours" else [self.executable, "-u", "root"]

    def wrapper(self, path):
        """An executable for memcached's own tests, which start one of that name with flags of their own."""
        words = " ".join(self.words)
        # Flags that only a debug build has a use for, and an option that the distribution's build does not know.
        text = f"""#!/bin/bash
words=()
for word in "$@"; do
    case "$word" in relaxed_privileges) words+=(no_drop_privileges) ;; *) words+=("$word") ;; esac
done
exec {words} "${{words[@]}}"
"""
        Path(path).write_text(text)
        os.chmod(path, 0o755)


class Server:
    def __init__(self, kind, port, *flags, cpu=None):
        self.name, self.port = kind.name, port
        pin = ["taskset", "-c", str(cpu)] if cpu is not None else []
        words = [*pin, *kind.words, "-l", "127.0.0.1", "-p", str(port), "-U", "0", *flags]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self.connect().close()
                return
            except OSError:
                if time.monotonic() > until or self.process.poll() is not None:
                    self.stop()
                    raise
                time.sleep(0.02)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def cpu_ticks(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")")[-1].split()
        return int(fields[11]) + int(fields[12])

    def cpu_nanoseconds(self):
        """Of all its threads, as the scheduler counts them: finer than ticks."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total

    def memory_kib(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0

    def stats(self):
        with self.connect() as sock:
            sock.sendall(b"stats\r\n")
            text = b""
            while not text.endswith(b"END\r\n"):
                piece = sock.recv(65536)
                if not piece:
                    raise OSError("no answer to stats")
                text += piece
        return {line.split()[1]: line.split(None, 2)[2] for line in text.decode().splitlines() if line.startswith("STAT ") and len(line.split()) > 2}

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
