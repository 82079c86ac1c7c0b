"""The rings inside a guest whose kernel is 6.1, which cannot hand a request out again: one node, its storage process killed again and again
under PHP workers, and the rows of the semantics table that one node can play; before them a reader that is killed, without a node. `old_kernel.py MOUNT SHARE EXECUTABLE SECONDS [SHORT]`"""

import contextlib
import os
import subprocess
import sys
import traceback
from pathlib import Path

import chaos
import splice
from node import Node
from session import Table

_, _, SHARE, EXECUTABLE, SECONDS, *SHORT = sys.argv
HERE = Path(__file__).resolve().parent
HOME = Path("/run/node")
# How long a reader of the device is killed.
SPLICED = 30
# Room on paper: a replica takes nothing new where a disk is nearly full.
DISK = "size=4G,mode=755"


def device():
    """/dev is the machine's own, of which a guest may see the name only."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError:
        subprocess.run(["mount", "-t", "devtmpfs", "none", "/dev"], check=True)


def run(table):
    print("         ", os.uname().release, flush=True)
    splice.compare(SPLICED)
    splice.contract(table, SPLICED, "6.1: taken by a pipe")
    one = Node(1, HOME, EXECUTABLE, "", None)
    try:
        one.start()
        one.until_mounted()
        chaos.kills(table, one, one.files / "chaos", f"{HOME}/share", float(SECONDS), name="6.1: storage killed")
        words = [sys.executable, HERE / "semantics.py", one.files, one.files, *(["--short"] if SHORT else [])]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
        bad = [line for line in done.stdout.splitlines() if not line.startswith("ok")] + done.stderr.splitlines()
        good = sum(line.startswith("ok") for line in done.stdout.splitlines())
        table.row("6.1: semantics", done.returncode == 0 and good > 0, f"{good} rows hold", bad)
    finally:
        one.stop()
        Path(f"{SHARE}/node.log").write_text(one.log())


def main():
    device()
    HOME.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "none", str(HOME)], check=True)
    table = Table()
    with open(f"{SHARE}/results", "w", buffering=1) as results, contextlib.redirect_stdout(results):
        try:
            run(table)
        except Exception as error:
            table.row("6.1", False, repr(error), traceback.format_exc().splitlines()[-6:])
    return 1 if table.failed or not table.rows else 0


sys.exit(main())
