"""A node keeps the flock of files that nobody uses any more, so that who comes again need not ask the leader; but of so many only. This
locks more files than it has room to note, and removes them, and none may be refused. `kept.py FOLDER`, which is new and lies on the mount."""

import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# The memory of a mount has room for 8192 locks.
FILES = 24_000
AT_ONCE = 64


def one(folder, number):
    """What went wrong."""
    try:
        with open(f"{folder}/{number}", "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            fcntl.flock(file, fcntl.LOCK_UN)
        os.unlink(f"{folder}/{number}")
        return None
    except OSError as error:
        return f"{number}: {error}"


def many(table, folder):
    """In a process of its own: this one may hold nothing on the mount."""
    done = subprocess.run([sys.executable, __file__, folder], capture_output=True, text=True)
    wrong = (done.stdout + done.stderr).splitlines()
    table.row("flock of many files", done.returncode == 0 and not wrong, f"{FILES} files, {len(wrong)} refused", wrong[:10])


def main():
    folder = Path(sys.argv[1])
    folder.mkdir()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = [fault for fault in pool.map(lambda number: one(folder, number), range(FILES)) if fault]
    print(*wrong, sep="\n", end="" if not wrong else "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
