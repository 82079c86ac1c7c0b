"""What the machines stand on: a bridge, a web server with the release and a mirror of packages, a folder; and the log of the story."""

import functools
import http.server
import shutil
import tempfile
import threading
import time
from pathlib import Path

from image import Images, run
from machine import Failed, Machine, ip

HERE = Path(__file__).resolve().parent
BRIDGE = "br0"
NETWORK = "10.77.0"
HOST = f"{NETWORK}.1"
PORT = 8000
MIRROR = f"deb [trusted=yes] http://{HOST}:{PORT}/mirror ./\n"


class Log:
    def __init__(self):
        self.begin, self.failed = time.monotonic(), []

    def line(self, text):
        print(f"{time.monotonic() - self.begin:7.1f} s  {text}", flush=True)

    def check(self, what, is_good, detail=""):
        """One claim of the story; a false one fails the run, and the story goes on."""
        self.line(f"{'ok  ' if is_good else 'FAIL'}  {what}{': ' if detail else ''}{detail}")
        if not is_good:
            self.failed.append(what)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the release, and the mirror below its own name."""

    def __init__(self, *rest, mirror, **more):
        self.mirror = str(mirror)
        super().__init__(*rest, **more)

    def translate_path(self, path):
        whole = super().translate_path(path)
        below = Path(self.directory) / "mirror"
        return whole.replace(str(below), self.mirror, 1) if whole.startswith(str(below)) else whole

    def log_message(self, *_):
        pass


class Bed:
    def __init__(self, release, images, keep):
        self.release, self.images, self.keep = Path(release).resolve(), Images(images), keep
        self.log, self.machines, self.server = Log(), {}, None

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="bitrix-machines-", dir="/var/tmp"))
        ip("link", "set", "lo", "up")
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("address", "add", f"{HOST}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        handler = functools.partial(Quiet, directory=str(self.release), mirror=self.images.mirror)
        self.server = http.server.ThreadingHTTPServer((HOST, PORT), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def machine(self, name, number, kind):
        one = Machine(name, f"{NETWORK}.{number}", self.images.layers(kind), self.folder, BRIDGE)
        self.machines[name] = one
        one.prepare()
        one.put("/etc/apt/sources.list", MIRROR)
        one.put("/etc/hostname", f"{name}\n")
        one.put("/etc/hosts", f"127.0.0.1 localhost\n{one.address} {name}\n")
        one.power_on()
        return one

    def forget(self, machine):
        """Of a machine that is off and will not be needed again."""
        self.let_go(self.machines.pop(machine.name))

    def __exit__(self, kind, error, _):
        if error is not None and not isinstance(error, KeyboardInterrupt):
            self.log.check("the story came to its end", False, f"{error!r}" if not isinstance(error, Failed) else f"{error}")
        for one in self.machines.values():
            if self.log.failed:
                self.tell(one)
            one.power_off()
        if self.server:
            self.server.shutdown()
        for one in self.machines.values():
            self.let_go(one)
        if self.log.failed or self.keep:
            print(f"kept: {self.folder}")
        else:
            shutil.rmtree(self.folder)
        return isinstance(error, Exception)

    def tell(self, one):
        print(f"--- {one.name}: status\n{one.try_run('bitrix-node status', 20).stdout}--- {one.name}: journal\n{one.journal()}", flush=True)

    @staticmethod
    def let_go(one):
        run("umount", "--lazy", one.root)
