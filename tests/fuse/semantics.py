#!/usr/bin/env python3
"""The table of what two mounts of the same files promise one another, row by row (spec: "Semantics between two mounts").

    semantics.py A B [--short] [--only WORD]

A and B are folders on the two mounts that show the same. Prints `ok` or `FAIL` for each row; the exit code is 1 after a failure.
"""

import argparse
import os
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "kernel"))
import coherence  # noqa: E402
import locks  # noqa: E402
import opened  # noqa: E402
from actor import ROWS, Failed, play  # noqa: E402
from session import Table  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs=2, metavar="FOLDER")
    parser.add_argument("--short", action="store_true", help="without the rows that take minutes")
    parser.add_argument("--only", default="", help="rows of which the function's name has this word")
    return parser.parse_args()


def main():
    options, table = arguments(), Table()
    base = f"rows-{os.getpid()}"
    for number, (claim, function, is_long) in enumerate(ROWS):
        if options.only not in function.__name__ or (is_long and options.short):
            continue
        started, lines = time.monotonic(), []
        try:
            detail = play(base, number, function, *options.folders)
        except (AssertionError, Failed, OSError) as error:
            lines = f"{type(error).__name__}: {error}".splitlines()[-12:]
            files = [one.__file__ for one in (coherence, locks, opened)]
            where = [str(frame.lineno) for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
            detail = f"{function.__name__}, line {' < '.join(reversed(where))}"
        table.row("semantics", not lines, f"{claim}: {detail}".rstrip(": ") + f" ({time.monotonic() - started:.1f} s)", lines)
    sys.exit(1 if table.failed or not table.rows else 0)


if __name__ == "__main__":
    main()
