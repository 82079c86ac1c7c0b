"""What is left in a replica once all programs have ended: no inode without a name, nothing that a session has open. Its database is read
from a copy, so that the replica is not held up."""

import shutil
import sqlite3
import tempfile
import time
from pathlib import Path

from group import LOOK

# What nobody has open is kept that long at most after its last name went; and for a busy machine.
GRACE = 60
PATIENCE = GRACE * 2
UNNAMED = "SELECT id FROM inode WHERE id NOT IN (SELECT inode FROM entry)"
OPENED = "SELECT inode, session, count FROM opened"


def ask(node):
    """Inodes without a name, and rows of what is open; None while the copy is torn."""
    state = node.folder / "data/storage/state"
    with tempfile.TemporaryDirectory(prefix="bitrix-leftover-") as folder:
        try:
            for name in ["meta.db", "meta.db-wal"]:
                shutil.copy(state / name, folder)
            rows = sqlite3.connect(Path(folder) / "meta.db")
            found = [set(rows.execute(question).fetchall()) for question in (UNNAMED, OPENED)]
            rows.close()
            return found
        except (sqlite3.DatabaseError, OSError):
            return None


def roots(node):
    """Inodes that never had a name; asked before anything is done."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := ask(node):
            return found[0]
        time.sleep(LOOK)
    raise RuntimeError(f"the database of {node.name} cannot be read")


def nothing(table, nodes, before, when):
    """Waits until that is so."""
    started, lines = time.monotonic(), ["not looked at"]
    while lines and time.monotonic() - started < PATIENCE:
        lines = []
        for node in nodes:
            unnamed, opened = ask(node) or ({("torn",)}, set())
            lines += [f"{node.name}: {len(unnamed - before)} inodes without a name, like {min(unnamed - before)}"] if unnamed - before else []
            lines += [f"{node.name}: {len(opened)} are open, like (inode, session, count) {min(opened)}"] if opened else []
        if lines:
            time.sleep(1)
    table.row("nothing is left", not lines, f"{when}, after {time.monotonic() - started:.0f} s", lines)
