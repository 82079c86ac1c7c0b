#!/usr/bin/env python3
"""The cache under the suites of others, beside Debian's memcached: memccapable, memcached's own t/*.t, php-memcached's phpt, and the
integration tests of pymemcache and pylibmc. Prints what passed of each for both. The exit code is 1 when something fails here that
expected.txt does not name.

    run.py EXECUTABLE [--only SUITE,...] [--alone] [--keep]

With --alone memcached is left out. Each side has namespaces of its own for network and processes: nothing is left, and no port is taken.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import sources
import suites

HERE = Path(__file__).resolve().parent
MEMCACHED = "/usr/bin/memcached"
SECONDS = 1800


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("executable")
    parser.add_argument("--only", default=",".join(suites.ALL), help=f"of {','.join(suites.ALL)}")
    parser.add_argument("--alone", action="store_true", help="without memcached beside it")
    parser.add_argument("--keep", action="store_true", help="keep the folder")
    return parser.parse_args()


def expected():
    """{(suite, test): ({numbers}, reason)}; `*` is the whole test."""
    found = {}
    for line in (HERE / "expected.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            what, reason = line.split(" | ", 1)
            suite, rest = what.split("/", 1)
            test, _, numbers = rest.partition(" : ")
            found[suite, test.strip()] = (set(numbers.split()), reason)
    return found


def start(kind, executable, folder, only):
    own = folder / kind
    own.mkdir()
    script = f"ip link set lo up && exec {suites.PYTHON} {HERE}/suites.py {kind} {executable} {own} {only}"
    words = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=open(own / "log", "w"), stderr=subprocess.STDOUT)


def results(folder, kind):
    path = folder / kind / "results.json"
    if not path.exists():
        return {}
    return json.loads(path.read_text())


def shown(one):
    if one is None:
        return "-"
    if one["of"] == 0:
        return "skipped"
    return f"{one['passed']}/{one['of']}"


def judge(ours, theirs, allowed):
    """Prints a line for each test that did not simply pass on both sides, then the sums. Returns whether all is as expected."""
    is_good, sums = True, []
    for suite, tests in ours.items():
        beside = theirs.get(suite, {})
        fine = named = bad = skipped = 0
        for test, one in tests.items():
            failed = set(map(str, one["failed"]))
            numbers, reason = allowed.get((suite, test), (set(), ""))
            unexpected = set() if "*" in numbers else failed - numbers
            if one["of"] == 0:
                skipped += 1
            elif unexpected:
                bad += 1
                print(f"FAIL  {suite}/{test}  {shown(one)}, memcached {shown(beside.get(test))}; failed: {' '.join(sorted(unexpected))}; {one['note']}")
            elif failed:
                named += 1
                print(f"named {suite}/{test}  {shown(one)}, memcached {shown(beside.get(test))}: {reason}")
            else:
                fine += 1
                if numbers:
                    print(f"      {suite}/{test} passes, although expected.txt names it")
        is_good &= bad == 0 and fine > 0
        sums.append((suite, fine, named, bad, skipped, beside))
    print(f"\n{'suite':14}{'passed':>8}{'named':>8}{'failed':>8}{'skipped':>9}    memcached: passed, failed, skipped")
    for suite, fine, named, bad, skipped, beside in sums:
        other = [sum(1 for one in beside.values() if test(one)) for test in (good, lambda one: one["failed"], lambda one: one["of"] == 0)]
        print(f"{suite:14}{fine:8}{named:8}{bad:8}{skipped:9}    {'-' if not beside else ', '.join(map(str, other))}")
    return is_good


def good(one):
    return one["of"] > 0 and not one["failed"]


def main():
    options = arguments()
    try:
        sources.all()
    except sources.Missing as missing:
        sys.exit(str(missing))
    folder = Path(tempfile.mkdtemp(prefix="bitrix-cache-"))
    folder.chmod(0o755)
    kinds = {"ours": os.path.abspath(options.executable)}
    if not options.alone:
        kinds["memcached"] = MEMCACHED
    running = [start(kind, executable, folder, options.only) for kind, executable in kinds.items()]
    try:
        for one in running:
            one.wait(SECONDS)
    finally:
        for one in running:
            one.kill()
            one.wait()
    ours = results(folder, "ours")
    is_good = judge(ours, results(folder, "memcached"), expected()) and set(ours) == set(options.only.split(","))
    if options.keep or not is_good:
        print(f"logs: {folder}")
    else:
        shutil.rmtree(folder)
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
