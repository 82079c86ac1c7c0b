#!/usr/bin/env python3
"""A writer that keeps books of what was acknowledged to it: `ledger.py RECORD FOLDER NAME SEED`

FOLDER is its own on the mount of a node; the record lies elsewhere. What it is about to do is recorded before it is done (`do`), and after it
how it ended (`ok`, `error`). Works by the handle of its folder, so that it never writes where a mount is missing. Ends when its standard input
does, or where it hangs.
"""

import errno
import hashlib
import os
import random
import select
import sys
import time

from shared import Record

PAUSE = 0.15
LOG = "log"
# Files that are there at a time; beyond, one of them goes for each that comes.
KEPT = 200


def content(name, number):
    """Up to 20 kB that no other file has."""
    seed = hashlib.sha256(f"{name} {number}".encode()).digest()
    return seed * (1 + number * 7919 % 640)


class Writer:
    def __init__(self, record, folder, name, seed):
        self.record, self.path, self.name, self.folder = record, folder, name, None
        self.dice, self.kept = random.Random(seed), []

    def open(self):
        """The folder, once it is there (again)."""
        if self.folder is None:
            self.folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)

    def close(self):
        if self.folder is not None:
            folder, self.folder = self.folder, None
            try:
                os.close(folder)
            except OSError:
                pass

    def step(self, what, number, function):
        """Whether it was acknowledged."""
        try:
            self.open()
        except OSError:
            return False
        self.record.say(do=what, number=number)
        try:
            function()
        except OSError as error:
            self.record.say(error=what, number=number, errno=errno.errorcode.get(error.errno, str(error.errno)))
            self.close()
            return False
        self.record.say(ok=what, number=number)
        return True

    def write(self, name, flags, data):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | flags, 0o644, dir_fd=self.folder)
        try:
            while data:
                data = data[os.write(file, data) :]
            os.fsync(file)
        finally:
            os.close(file)

    def turn(self, number):
        name, draft = str(number), f"{number}.new"
        if self.step("write", number, lambda: self.write(draft, os.O_EXCL, content(self.name, number))):
            if self.step("rename", number, lambda: os.rename(draft, name, src_dir_fd=self.folder, dst_dir_fd=self.folder)):
                self.kept.append(number)
        self.step("append", number, lambda: self.write(LOG, os.O_APPEND, b"%d\n" % number))
        if len(self.kept) > KEPT:
            old = self.kept.pop(self.dice.randrange(len(self.kept)))
            self.step("unlink", old, lambda: os.unlink(str(old), dir_fd=self.folder))


def main():
    path, folder, name, seed = sys.argv[1:5]
    writer, number = Writer(Record(path), folder, name, seed), 0
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        number += 1
        writer.turn(number)
        if writer.folder is None:
            time.sleep(PAUSE * 4)
    writer.record.say(turns=number)


if __name__ == "__main__":
    main()
