#!/usr/bin/env python3
"""Which machines have the floating addresses: `addresses.py RECORD NAME=NAMESPACE... -- ADDRESS...`

Asks the kernel of each network namespace over netlink, 40 times a second and whenever it says that addresses have changed. A line for each
change of the holders; one for each time that two looks were far apart; a count at the end. Ends when its standard input does.
"""

import os
import select
import socket
import struct
import sys

from shared import Record, now, set_namespace

EVERY = 0.025
# Looks that are farther apart are told.
GAP = 0.1
GET, NEW, DONE = 22, 20, 3
ROOT_AND_MATCH, REQUEST = 0x300, 1
GROUPS = 0x10 | 0x100
ADDRESS, LOCAL, CACHE = 1, 2, 6
TENTATIVE, FAILED = 0x40, 0x08


class Namespace:
    """Sockets of a namespace stay in it, whoever uses them."""

    def __init__(self, name, path):
        self.name = name
        handle = os.open(path, os.O_RDONLY)
        set_namespace(handle)
        os.close(handle)
        self.asking, self.hearing = (socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) for _ in range(2))
        self.asking.settimeout(1)
        self.asking.bind((0, 0))
        self.hearing.bind((0, GROUPS))
        self.hearing.setblocking(False)

    def hear(self):
        try:
            while self.hearing.recv(65536):
                pass
        except OSError:
            pass

    def look(self):
        """Usable addresses -> seconds that each is still valid."""
        self.asking.send(struct.pack("<IHHII", 24, GET, ROOT_AND_MATCH | REQUEST, 1, 0) + bytes(8))
        found = {}
        while True:
            data = self.asking.recv(65536)
            while data:
                length, kind, _, _, _ = struct.unpack_from("<IHHII", data)
                if kind == DONE:
                    return found
                if kind == NEW:
                    found.update(parse(data[16:length]))
                data = data[(length + 3) & ~3 :]


def parse(body):
    family, _, flags = struct.unpack_from("<BBB", body)
    parts, at = {}, 8
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("<HH", body, at)
        parts[kind & 0x3FFF] = body[at + 4 : at + length]
        at += (length + 3) & ~3
    raw = parts.get(LOCAL) or parts.get(ADDRESS)
    # An address whose duplicates are still looked for, or were found, is not used.
    if raw is None or flags & (TENTATIVE | FAILED):
        return {}
    valid = struct.unpack_from("<II", parts[CACHE])[1] if CACHE in parts else 0xFFFFFFFF
    return {socket.inet_ntop(family, raw): valid}


def holders(namespaces, wanted):
    """Address -> {node: seconds valid}, of one pass over all; where two have one, a second pass must say so too."""
    looks = {}
    for _ in range(2):
        looks = {one.name: one.look() for one in namespaces}
        found = {address: {name: seen[address] for name, seen in looks.items() if address in seen} for address in wanted}
        if all(len(names) < 2 for names in found.values()):
            break
    return found


def main():
    words = sys.argv[2:]
    pairs = [word.split("=", 1) for word in words[: words.index("--")]]
    wanted, record = words[words.index("--") + 1 :], Record(sys.argv[1])
    namespaces = [Namespace(*pair) for pair in pairs]
    os.nice(-15)
    known, last, looks, longest = None, now(), 0, 0
    poll = select.poll()
    for one in [sys.stdin, *(one.hearing for one in namespaces)]:
        poll.register(one, select.POLLIN | select.POLLHUP)
    while sys.stdin.fileno() not in [number for number, _ in poll.poll(EVERY * 1000)]:
        for one in namespaces:
            one.hear()
        found = holders(namespaces, wanted)
        apart, last, looks = now() - last, now(), looks + 1
        longest = max(longest, apart)
        if apart > GAP:
            record.say(gap=round(apart, 3))
        names = {address: sorted(holding) for address, holding in found.items()}
        if names != known:
            for address, holding in found.items():
                if known is None or names[address] != known[address]:
                    record.say(address=address, holders=names[address], valid=holding)
            known = names
    record.say(looks=looks, longest=round(longest, 3))


if __name__ == "__main__":
    main()
