"""The jobs of the kernel tests on a mount of this machine: POSIX checks, pjdfstest, fsx."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from node import detach, guest
from session import Table

PROGRAMS = Path(__file__).resolve().parent.parent.parent / "target/kernel-suites/bin"
OPERATIONS = 5000


class Job:
    """Shaped like a guest: one job on the mount, here."""

    def __init__(self, name, mount, share, *arguments):
        self.share = Path(share)
        self.share.mkdir(parents=True)
        words = [sys.executable, guest.INSIDE / f"{name}.py", mount, share, *arguments]
        self.console = open(self.share / "console", "wb")
        self.started = time.monotonic()
        self.process = subprocess.Popen(list(map(str, words)), stdin=subprocess.DEVNULL, stdout=self.console, stderr=self.console)

    def wait(self, seconds):
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = 124
        self.console.close()
        (self.share / "seconds").write_text(f"{time.monotonic() - self.started:.1f}")
        return code

    def read(self, name):
        path = self.share / name
        return path.read_text(errors="replace") if path.exists() else ""

    def lines(self):
        return self.read("results").splitlines()


def posix(table, mount, share):
    table.finish("POSIX checks", Job("posix", mount, share), 600)


def pjdfstest(table, mount, share):
    """Where paths are short: it makes sockets, of which the kernel takes no longer ones. The second file system is a tmpfs."""
    places = {place: tempfile.mkdtemp(dir="/run") for place in ["mount", "second"]}
    try:
        for line in [["--bind", mount, places["mount"]], ["-t", "tmpfs", "none", places["second"]]]:
            subprocess.run(["mount", *map(str, line)], check=True)
        table.judge("pjdfstest", Job("pjdfstest", places["mount"], share, PROGRAMS / "pjdfstest", "pjdfstest", places["second"]))
    finally:
        for place in places.values():
            detach(place)
            os.rmdir(place)


def fsx(table, mount, share, *seeds):
    table.finish("fsx", Job("fsx", mount, share, PROGRAMS / "fsx", OPERATIONS, *seeds), 600)


def main():
    """`suites.py FOLDER SHARE`: on any folder, for trying them."""
    table, (mount, share) = Table(), sys.argv[1:3]
    for suite, *more in [(posix,), (pjdfstest,), (fsx, 1, 2, 3)]:
        suite(table, mount, os.path.join(share, suite.__name__), *more)
    sys.exit(1 if table.failed else 0)


if __name__ == "__main__":
    main()
