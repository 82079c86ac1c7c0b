"""What every program here begins with and reports by: namespaces of its own, and a table of what was tried."""

import os
import re
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
    """What was tried and how it ended. `allowed` are the names of pjdfstest that may fail."""

    def __init__(self, allowed=()):
        self.rows, self.failed, self.allowed = [], False, set(allowed)

    def row(self, suite, is_good, detail, lines=()):
        self.failed |= not is_good
        self.rows.append((suite, is_good, detail))
        print(f"{'ok  ' if is_good else 'FAIL'}  {suite:24}  {detail}", flush=True)
        for line in lines:
            print(f"          {line}", flush=True)

    def finish(self, name, one, seconds):
        """Waits for a job, in a guest or here, whose results say `ok` or `FAIL` at each line's start."""
        code = one.wait(seconds)
        lines = one.lines()
        bad = [line for line in lines if line.startswith("FAIL")]
        good = sum(line.startswith("ok") for line in lines)
        is_good = code == 0 and not bad and good > 0
        detail = lines[-1] if len(lines) == 1 else f"{good} ok, {len(bad)} failed, {one.read('seconds')} s"
        if code != 0 and not bad:
            bad = [f"code {code}", *one.read("console").splitlines()[-12:]]
        self.row(name, is_good, detail, bad)

    def judge(self, name, one):
        """The same for pjdfstest."""
        code = one.wait(1500)
        results = one.read("results")
        failed = set(re.findall(r"^(\S+)\s+FAILED$", results, re.MULTILINE))
        passed = len(re.findall(r"\sok$", results, re.MULTILINE))
        skipped = len(re.findall(r"\sskipped$", results, re.MULTILINE))
        bad = sorted(failed - self.allowed)
        detail = f"{passed} passed, {len(failed & self.allowed)} fail as allowed, {len(bad)} failed, {skipped} skipped, code {code}"
        is_good = not bad and passed > 200 and code in (0, 1)
        self.row(name, is_good, detail, bad or ([] if is_good else results.splitlines()[-20:]))
