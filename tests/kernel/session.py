"""What every program here begins with and reports by: namespaces of its own, and a table of what was tried."""

import os
import sys

INSIDE_MARK = "BITRIX_KERNEL_TEST_INSIDE"


def enter_namespaces():
    """Runs this program again, alone in fresh namespaces, of which the processes end with the first one."""
    if os.environ.get(INSIDE_MARK):
        return
    os.environ[INSIDE_MARK] = "1"
    words = "unshare --net --pid --fork --kill-child --mount-proc".split()
    os.execvp(words[0], [*words, sys.executable, *sys.argv])


class Table:
    """What was tried and how it ended."""

    def __init__(self):
        self.rows, self.failed = [], False

    def row(self, suite, is_good, detail, lines=()):
        self.failed |= not is_good
        self.rows.append((suite, is_good, detail))
        print(f"{'ok  ' if is_good else 'FAIL'}  {suite:24}  {detail}", flush=True)
        for line in lines:
            print(f"          {line}", flush=True)
