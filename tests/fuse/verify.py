#!/usr/bin/env python3
"""Reads what the workers left behind with a cold cache and compares it with their reports. `verify.py FOLDER SHARE WORKERS`

Prints a line for each fault; the exit code is 1 when there is one.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

DROP_CACHES = "/proc/sys/vm/drop_caches"


def content(number):
    """As worker.php has it."""
    seed = hashlib.sha256(f"content {number}".encode()).digest()
    return (seed * (1 + number % 97 * 1024 // 32))[: number % 97 * 1000 + 1]


def faults(folder, reports):
    counted = int((folder / "counter").read_text())
    if counted != (wanted := sum(report["counted"] for report in reports.values())):
        yield f"the counter is {counted} instead of {wanted}"
    for number, report in reports.items():
        names = {name for name in os.listdir(folder / str(number)) if name.isdigit()}
        if names != set(report["kept"]):
            yield f"worker {number}: other names: {sorted(names ^ set(report['kept']))}"
        for name, turn in report["kept"].items():
            if (folder / str(number) / name).read_bytes() != content(turn) + b"more":
                yield f"worker {number}: wrong bytes in {name}"


def main():
    folder, share, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    reports = {number: json.loads((share / f"report{number}").read_text()) for number in range(workers)}
    Path(DROP_CACHES).write_text("3")
    found = list(faults(folder, reports))
    for line in found[:20]:
        print(line)
    sys.exit(1 if found else 0)


main()
