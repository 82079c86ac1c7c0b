#!/usr/bin/env python3
"""Every version of the registry, as the nodes' own NFS doors show it to their agents: `epochs.py RECORD NAME=SOCKET...`

A version is a whole SQLite image that never changes once it has its name. A line for each version that is seen first, and one where another node
shows other bytes under its name. Ends when its standard input does.
"""

import hashlib
import select
import socket
import sqlite3
import struct
import sys

from shared import Record  # It knows where the other beds are.

from nfs import MOUNT, Client, Reply, opaque, place, u32, u64

EVERY = 0.3
PATIENCE = 2.0
EXPORT = b"/registry"
BLOCK = 256 << 10
ATTRIBUTES = 84
SEATS = "SELECT role, seat, holder, epoch FROM role"
NODES = "SELECT name, state FROM node"


class Door(Client):
    """The unix socket of a node's storage."""

    def connect(self):
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(PATIENCE)
        stream.connect(self.address)
        return stream

    def root(self):
        reply = self.raw(self.message(MOUNT, 1, opaque(EXPORT)))
        if reply.body[:4] != u32(0):
            raise OSError("not mounted")
        return Reply("OK", reply.body[4:]).handle(False)

    def names(self, folder):
        cookie, verifier, found = 0, bytes(8), []
        while True:
            body = self.good("readdir", opaque(folder) + u64(cookie) + verifier + u32(32 << 10))
            at = skip_attributes(body, 0)
            verifier, at = body[at : at + 8], at + 8
            while struct.unpack_from(">I", body, at)[0]:
                length = struct.unpack_from(">I", body, at + 12)[0]
                found.append(body[at + 16 : at + 16 + length].decode(errors="replace"))
                at += 16 + (length + 3 & ~3)
                cookie, at = struct.unpack_from(">Q", body, at)[0], at + 8
            if struct.unpack_from(">I", body, at + 4)[0]:
                return found

    def content(self, folder, name):
        file = Reply("OK", self.good("lookup", place(folder, name))).handle(False)
        data, is_whole = b"", False
        while not is_whole:
            body = self.good("read", opaque(file) + u64(len(data)) + u32(BLOCK))
            at = skip_attributes(body, 0)
            _, is_whole, length = struct.unpack_from(">III", body, at)
            data += body[at + 12 : at + 12 + length]
        return data

    def good(self, name, arguments):
        reply = self.call(name, arguments)
        if reply.outcome != "OK":
            raise OSError(f"{name}: {reply}")
        return reply.body


def skip_attributes(body, at):
    return at + 4 + (ATTRIBUTES if struct.unpack_from(">I", body, at)[0] else 0)


def read(image):
    """Seats and nodes of an image; raises sqlite3.Error where it is none."""
    rows = sqlite3.connect(":memory:")
    try:
        rows.deserialize(image)
        seats = {f"{role}/{seat}".rstrip("/"): [holder, epoch] for role, seat, holder, epoch in rows.execute(SEATS)}
        return seats, dict(rows.execute(NODES))
    finally:
        rows.close()


class Watcher:
    """Asks one node after the other."""

    def __init__(self, record, sockets):
        self.record, self.sockets = record, sockets
        self.doors, self.known, self.seen = {}, {}, set()

    def look(self):
        for name, path in self.sockets:
            try:
                self.look_at(name, path)
            except (OSError, struct.error, TypeError, IndexError):
                # It stands still, or its storage was replaced; others are asked meanwhile.
                if door := self.doors.pop(name, None):
                    door[0].close()

    def look_at(self, name, path):
        if name not in self.doors:
            door = Door(path, 0)
            self.doors[name] = door, door.root()
        door, folder = self.doors[name]
        for number in sorted(int(one[1:]) for one in door.names(folder) if one[:1] == "v" and one[1:].isdigit()):
            if (name, number) not in self.seen:
                self.version(name, number, door.content(folder, f"v{number}"))

    def version(self, name, number, image):
        self.seen.add((name, number))
        mark = hashlib.sha256(image).hexdigest()[:16]
        if number not in self.known:
            self.known[number] = mark
            seats, nodes = read(image)
            self.record.say(revision=number, image=mark, copy=name, seats=seats, nodes=nodes)
        elif self.known[number] != mark:
            self.record.say(revision=number, image=mark, copy=name, other=self.known[number])


def main():
    watcher = Watcher(Record(sys.argv[1]), [word.split("=", 1) for word in sys.argv[2:]])
    while not select.select([sys.stdin], [], [], EVERY)[0]:
        watcher.look()
    watcher.look()


if __name__ == "__main__":
    main()
