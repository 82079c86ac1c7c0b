"""What the benches of the front have in common: a program under load, and the processor time that it and its children took."""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def front(folder, name, executable, config, cpu, port, secure=None):
    """Our front, which is handed its sockets as a supervisor would. `secure`: the port of HTTPS, if any."""
    ports = [(port, "http")] + [(secure, "https")] * (secure is not None)
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", number), backlog=4096)) for number, _ in ports]
        # Beyond the numbers that they get, so that none takes the place of another.
        copies = [fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD, 10) for listener in listeners]
        stack.callback(lambda: [os.close(copy) for copy in copies])
        for listener in listeners:
            listener.setblocking(False)

        def hand():
            for number, copy in enumerate(copies, 3):
                os.dup2(copy, number)
                os.set_inheritable(number, True)

        names = ":".join(name for _, name in ports)
        handed = dict(os.environ, LISTEN_FDS=str(len(ports)), LISTEN_FDNAMES=names)
        argv = [executable, "module", "proxy", "--config", config]
        return Server(folder, name, argv, cpu, port, env=handed, close_fds=False, preexec_fn=hand)


class Server:
    """A program on one processor; what it says is in a file of `folder`."""

    def __init__(self, folder, name, argv, cpu, port, **options):
        self.name, self.port, self.log = name, port, Path(folder) / f"{name}.log"
        log = open(self.log, "w")
        self.process = subprocess.Popen(["taskset", "-c", str(cpu), *argv], stdout=log, stderr=log, **options)

    def wait(self, is_up=None):
        """Until it takes connections, or is up by another sign."""
        until = time.monotonic() + 30
        while not (is_up() if is_up else answers(self.port)):
            if time.monotonic() > until or self.process.poll() is not None:
                sys.exit(f"{self.name} does not come up:\n{self.log.read_text()}")
            time.sleep(0.05)

    def pids(self):
        found = [self.process.pid]
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if int(Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[1]) == self.process.pid:
                    found.append(int(pid))
            except OSError:
                pass
        return found

    def cpu_seconds(self):
        ticks = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
