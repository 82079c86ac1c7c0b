"""Push servers to measure: ours as a module and behind the front, nchan in nginx, ws with Redis in Node.js. Each on processor 1."""

import hashlib
import hmac
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PATIENCE = 20
KEY = "bench-key"
SHARED = "00000000000000000000000000000001"
BACKLOG = 4096


def signed(data):
    return f"{data}.{hmac.new(KEY.encode(), data.encode(), hashlib.sha1).hexdigest()}"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Process:
    """One process, its memory and its processor time."""

    def __init__(self, words, log, **more):
        self.process = subprocess.Popen(["taskset", "-c", "1", *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, **more)
        self.pid = self.process.pid

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


def children(pid):
    """Once there are some."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError


def cpu_nanoseconds(pids):
    """Of all threads, as the scheduler counts them."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total


def memory_kib(pids):
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total


def accepts(port):
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def reachable(port, processes):
    """Answers HTTP: the kernel takes connections before the server does."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
                sock.sendall(b"GET /none HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                if sock.recv(1):
                    return
        except OSError:
            pass
        if time.monotonic() > until or any(process.process.poll() is not None for process in processes):
            raise OSError("a server ended, or does not answer")
        time.sleep(0.02)


class Server:
    """`pids`: those that are measured. A client finds what it asks for in `websocket(n)` and `poll`, a publisher in `publish`."""

    # Of one process for one client.
    descriptors = 1

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="bench-push-", dir="/tmp")
        os.chmod(self.folder.name, 0o755)
        self.path = Path(self.folder.name)
        self.log = open(self.path / "log", "wb")
        self.processes = []
        self.port, self.publish_port = free_port(), None
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def run(self, words, **more):
        process = Process(words, self.log, **more)
        self.processes.append(process)
        return process

    def cpu(self):
        return cpu_nanoseconds(self.pids)

    def memory(self):
        return memory_kib(self.pids)

    def stop(self):
        for process in reversed(self.processes):
            process.stop()
        self.log.close()
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Ours(Server):
    """The module by itself. `own`: each client listens to a channel of its own, too, as a portal's clients do."""

    executable, own, front = None, False, False

    def start(self):
        self.publish_port = free_port()
        run, data = self.path / "run", self.path / "data"
        for folder in (run, data / "secrets", self.path / "log.d", self.path / "portal"):
            folder.mkdir(parents=True)
        (data / "secrets" / "push.key").write_text(KEY + "\n")
        (data / "secrets" / "push.key").chmod(0o600)
        self.config = self.path / "config.toml"
        self.config.write_text(
            f'[node]\nname = "bench"\ndata_dir = "{data}"\nrun_dir = "{run}"\nlog_dir = "{self.path}/log.d"\nlog = "warn"\n'
            f'[portal]\nroot = "{self.path}/portal"\n'
            f'[push]\nlisten = "127.0.0.1:{self.publish_port}"\nworkers = 1\nmemory = "64MiB"\n'
            f'[proxy]\nhttp = ["127.0.0.1:{self.port}"]\nhttps = []\npush_http = []\npush_https = []\nworkers = 1\nmax_connections_per_address = 20000\naccess_log = ""\n'
        )
        if self.front:
            clients = socket.socket(socket.AF_UNIX)
            clients.bind(str(run / "push.sock"))
        else:
            clients = listener(self.port)
        clients.listen(BACKLOG)
        push = self.module("push", {"push-unix": clients, "push": listener(self.publish_port)})
        reachable(self.publish_port, self.processes)
        self.pids = [push.pid]
        if self.front:
            self.pids.append(self.module("proxy", {"http": listener(self.port)}).pid)
        reachable(self.port, self.processes)

    def module(self, name, sockets):
        """Hands sockets down as the supervisor does: from 3 on, by name."""
        numbers = [sock.fileno() for sock in sockets.values()]
        moves = " ".join(f"{20 + place}<&{number}" for place, number in enumerate(numbers))
        back = " ".join(f"{3 + place}<&{20 + place}" for place in range(len(numbers)))
        script = f'exec {moves}; exec {back}; exec "$0" "$@"'
        environment = {**os.environ, "LISTEN_FDS": str(len(numbers)), "LISTEN_FDNAMES": ":".join(sockets)}
        words = ["bash", "-c", script, self.executable, "module", name, "--config", str(self.config)]
        process = self.run(words, pass_fds=numbers, env=environment)
        for sock in sockets.values():
            sock.close()
        return process

    def websocket(self, number):
        own = signed(f"{number + (1 << 65):032x}:{number + (1 << 64):032x}") + "/" if self.own else ""
        return f"/bitrix/subws/?CHANNEL_ID={own}{signed(SHARED)}"

    def poll(self, _):
        return f"/bitrix/sub/?CHANNEL_ID={signed(SHARED)}"

    def publish(self):
        return f"/bitrix/pub/?CHANNEL_ID={SHARED}"


def listener(port):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(BACKLOG)
    return sock


class AsPortal(Ours):
    own = True


class Fronted(Ours):
    own, front, descriptors = True, True, 2


class Nchan(Server):
    def start(self):
        config = self.path / "nginx.conf"
        config.write_text(
            f"""load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off; worker_processes 1; pid {self.path}/pid; error_log {self.path}/error.log warn;

events {{ worker_connections 32768; }}
http {{
    access_log off; keepalive_requests 1000000000; nchan_shared_memory_size 256M; client_body_temp_path {self.path}/body; proxy_temp_path {self.path}/proxy;
    fastcgi_temp_path {self.path}/fastcgi; uwsgi_temp_path {self.path}/uwsgi; scgi_temp_path {self.path}/scgi;
    server {{
        listen 127.0.0.1:{self.port} backlog={BACKLOG};
        location = /sub {{ nchan_subscriber websocket; nchan_channel_id all; nchan_subscriber_first_message newest; nchan_websocket_ping_interval 120s; }}
        location = /poll {{ nchan_subscriber longpoll; nchan_channel_id all; nchan_subscriber_first_message newest; }}
        location = /pub {{ nchan_publisher; nchan_channel_id all; nchan_message_buffer_length 100; nchan_message_timeout 60s; }}
    }}
}}
"""
        )
        self.publish_port = self.port
        master = self.run(["/usr/sbin/nginx", "-c", str(config), "-p", str(self.path)])
        reachable(self.port, self.processes)
        self.pids = children(master.pid)

    def websocket(self, _):
        return "/sub"

    def poll(self, _):
        return "/poll"

    def publish(self):
        return "/pub"


class Node(Server):
    """Redis is not counted."""

    packages = None

    def start(self):
        redis_port = free_port()
        redis = ["/usr/bin/redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.path)]
        self.run(redis)
        accepts(redis_port)
        node = self.run(["node", str(HERE / "node.mjs"), str(self.port), str(redis_port), self.packages])
        reachable(self.port, self.processes)
        self.publish_port, self.pids = self.port, [node.pid]

    def websocket(self, _):
        return "/sub"

    def poll(self, _):
        return "/poll"

    def publish(self):
        return "/pub"
