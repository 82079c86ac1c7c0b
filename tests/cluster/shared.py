"""What the programs here take from the other beds, and the clock and the record that all of them write by."""

import json
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
for bed in ["kernel", "fuse"]:
    sys.path.append(str(HERE.parent / bed))
from group import LIBC, Network, ip, set_namespace, until  # noqa: E402, F401
from node import children, detach, looks, mounts, words  # noqa: E402, F401
from session import Table  # noqa: E402, F401


def now():
    """Seconds of CLOCK_MONOTONIC of this machine: the one clock of all observers. (Nodes have other ones, see `machine`.)"""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


class Record:
    """A file of JSON lines, each with its time, complete when `say` returns."""

    def __init__(self, path):
        self.file = open(path, "a", buffering=1)

    def say(self, **what):
        self.file.write(json.dumps({"t": round(now(), 4), **what}) + "\n")


def lines(path):
    """Of a record; a last one that is cut short is left out."""
    found = []
    if Path(path).exists():
        for line in Path(path).read_text(errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                pass
    return found
