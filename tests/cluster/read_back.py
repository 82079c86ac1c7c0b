#!/usr/bin/env python3
"""What a ledger's folder holds, as JSON: `read_back.py FOLDER`: name -> SHA-256, and the lines of its log. Pages in memory are let go first."""

import hashlib
import json
import os
import sys
from pathlib import Path

from ledger import LOG


def digest(path):
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        with open(file, "rb", closefd=False) as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    finally:
        os.close(file)


def main():
    folder = Path(sys.argv[1])
    names = sorted(os.listdir(folder))
    log = (folder / LOG).read_text().splitlines() if LOG in names else []
    json.dump({"files": {name: digest(folder / name) for name in names if name != LOG}, "log": log}, sys.stdout)


main()
