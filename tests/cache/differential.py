"""Random conversations with ours and with memcached side by side: every reply must be the same byte for byte, but for uniques, and for
seconds that have passed in between. One test a seed; the seed and the last commands are shown when replies differ."""

import base64
import random
import re
import struct

from server import Kind, Server

PORTS = {"ours": 11212, "memcached": 11213}
SEEDS = range(1, 13)
STEPS = 1500
KEYS = [b"a", b"b", b"c", b"key:with:colons", b"k" * 250, b"\xd0\xba\xd0\xbb\xd1\x8e\xd1\x87"]
# memcached pads a number that has become shorter only where nothing else holds the item at that moment, so what is joined to it may
# differ: these are counted, the others are joined to.
COUNTED, JOINED = KEYS[:2], KEYS[2:]
# No item will have it.
UNKNOWN = (2**40, 2**40)
BAD_KEYS = [b"k" * 251, b""]
# The last is a time of day in 2033; memcached cuts later ones to 32 bits.
TIMES = [0, 0, 0, -1, 100, 1000, 2592000, 2592001, 2000000000]


class Pair:
    """A connection to each."""

    def __init__(self, servers):
        self.sockets = [server.connect() for server in servers]
        self.files = [one.makefile("rb") for one in self.sockets]
        # The last uniques of each key, ours and theirs.
        self.uniques = {}

    def text(self, make):
        """Sends what `make` gives for each side, and a `mn`; the replies before its answer."""
        replies = []
        for side, (one, file) in enumerate(zip(self.sockets, self.files)):
            one.sendall(make(side) + b"mn\r\n")
            reply = b""
            while not reply.endswith(b"MN\r\n"):
                line = file.readline()
                if not line:
                    return [*replies, reply + b"(closed)"] if side else [reply + b"(closed)", b""]
                reply += line
            replies.append(reply)
        return replies

    def binary(self, make):
        replies = []
        for side, (one, file) in enumerate(zip(self.sockets, self.files)):
            one.sendall(make(side) + packet(0x0A, opaque=0xFFFFFFFF))
            reply = []
            while not reply or reply[-1][0] != 0x0A:
                header = file.read(24)
                if len(header) < 24:
                    reply.append(("closed", b""))
                    break
                _, opcode, _, _, _, status, length, opaque, unique = struct.unpack(">BBHBBHIIQ", header)
                reply.append((opcode, status, opaque, unique != 0, file.read(length)))
            replies.append(reply)
        return replies

    def close(self):
        for one in [*self.files, *self.sockets]:
            one.close()


def packet(opcode, key=b"", extras=b"", value=b"", unique=0, opaque=5):
    body = len(extras) + len(key) + len(value)
    return struct.pack(">BBHBBHIIQ", 0x80, opcode, len(key), len(extras), 0, 0, body, opaque, unique) + extras + key + value


class Text:
    """Makes text commands. Each is a function of the side, because uniques differ."""

    def __init__(self, dice, pair):
        self.dice, self.pair = dice, pair

    def key(self):
        return self.dice.choice(KEYS) if self.dice.random() < 0.98 else self.dice.choice(BAD_KEYS)

    def key_for(self, verb):
        return self.dice.choice({"count": COUNTED, "join": JOINED}[verb])

    def value(self):
        kind = self.dice.random()
        if kind < 0.4:
            return str(self.dice.choice([0, 1, 9, 99, 2**32, 2**64 - 1, 7])).encode()
        return self.dice.randbytes(self.dice.choice([0, 1, 5, 100, 5000]))

    def unique(self, key):
        known = self.pair.uniques.get(key, UNKNOWN)
        chosen = known if self.dice.random() < 0.8 else UNKNOWN
        return lambda side: b"%d" % chosen[side]

    def command(self):
        return self.dice.choice([self.store, self.store, self.get, self.get, self.change, self.meta_get, self.meta_set, self.meta_other, self.broken])()

    def store(self):
        verb, key, value = self.dice.choice([b"set", b"set", b"add", b"replace", b"append", b"prepend", b"cas"]), self.key(), self.value()
        if verb in (b"append", b"prepend"):
            key = self.key_for("join")
        head = b"%s %s %d %d %d" % (verb, key, self.dice.choice([0, 7, 2**32 - 1]), self.dice.choice(TIMES), len(value))
        unique = self.unique(key)
        return lambda side: head + (b" " + unique(side) if verb == b"cas" else b"") + b"\r\n" + value + b"\r\n"

    def get(self):
        keys = b" ".join(self.key() for _ in range(self.dice.choice([1, 1, 2, 5])))
        if not keys:
            # memcached answers a `gat` of no key with END where a space ends the line, else with ERROR.
            return lambda side: b"get \r\n"
        verb = self.dice.choice([b"get", b"gets", b"gets", b"gat %d" % self.dice.choice(TIMES), b"gats %d" % self.dice.choice(TIMES)])
        if verb.startswith(b"gat"):
            # Ours refuses a line with a bad key as a whole; memcached touches the keys before it, and says the same.
            keys = b" ".join(self.dice.choice(KEYS) for _ in range(len(keys.split(b" "))))
        return lambda side: verb + b" " + keys + b"\r\n"

    def change(self):
        key = self.key()
        number = self.dice.choice([0, 1, 5, 2**63, 2**64 - 1])
        verb = self.dice.choice(["incr", "incr", "decr", "delete", "touch"])
        if verb in ("incr", "decr"):
            key = self.key_for("count")
        argument = {"incr": number, "decr": number, "touch": self.dice.choice(TIMES)}.get(verb)
        line = verb.encode() + b" " + key + (b" %d" % argument if argument is not None else b"") + b"\r\n"
        return lambda side: line

    def flags(self, letters, key):
        """Some of the flags. memcached carries them out one after the other; here R is first, then T, then N."""
        chosen = self.dice.sample(letters, self.dice.randrange(len(letters) + 1))
        chosen.sort(key=lambda letter: {b"R": 0, b"T": 1, b"N": 2}.get(letter, 3))
        make = {
            # memcached shows what is left of an end in the past as a number below zero without its sign.
            b"T": lambda: b"T%d" % self.dice.choice([0, 100, 1000, 2592000, 2000000000]),
            b"N": lambda: b"N%d" % self.dice.choice([0, 100, 1000]),
            b"R": lambda: b"R%d" % self.dice.choice([30, 500]),
            b"D": lambda: b"D%d" % self.dice.choice([1, 5, 2**63]),
            b"J": lambda: b"J%d" % self.dice.choice([0, 13]),
            b"F": lambda: b"F%d" % self.dice.choice([0, 9]),
            b"O": lambda: b"Oopaque",
        }
        unique = self.unique(key)
        parts = [unique if letter == b"C" else (lambda text: lambda _: text)(make[letter]() if letter in make else letter) for letter in chosen]
        return lambda side: b"".join(b" " + (b"C" if letter == b"C" else b"") + part(side) for letter, part in zip(chosen, parts))

    def meta_key(self, key=None):
        key = key or self.key()
        if self.dice.random() < 0.3 and key in KEYS and len(key) < 180:
            return key, base64.b64encode(key), b" b"
        return key, key, b""

    def meta_get(self):
        key, sent, mark = self.meta_key()
        # A key that is shown is memcached's own form of it: as the item was stored, not as it is asked for.
        letters = [b"v", b"f", b"c", b"s", b"t", b"h", b"l", b"T", b"N", b"R", b"O", *([] if mark else [b"k"])]
        flags = self.flags(letters, key)
        return lambda side: b"mg " + sent + mark + flags(side) + b"\r\n"

    def meta_set(self):
        mode = self.dice.choice([b"", b" MS", b" ME", b" MR", b" MA", b" MP", b" MX"])
        key, sent, mark = self.meta_key(self.key_for("join") if mode in (b" MA", b" MP") else None)
        value = self.value()
        flags = self.flags([b"F", b"T", b"C", b"I", b"O"], key)
        return lambda side: b"ms %s %d" % (sent, len(value)) + mark + flags(side) + mode + b"\r\n" + value + b"\r\n"

    def meta_other(self):
        if self.dice.random() < 0.5:
            key, sent, mark = self.meta_key()
            flags = self.flags([b"C", b"I", b"T", b"O", b"q"], key)
            return lambda side: b"md " + sent + mark + flags(side) + b"\r\n"
        key, sent, mark = self.meta_key(self.key_for("count"))
        flags = self.flags([b"N", b"J", b"D", b"T", b"C", b"v", b"t", b"O"], key)
        mode = self.dice.choice([b"", b" MI", b" MD", b" M+", b" M-"])
        return lambda side: b"ma " + sent + mark + flags(side) + mode + b"\r\n"

    def broken(self):
        line = self.dice.choice(
            [
                b"get", b"gets", b"set a", b"set a 0 0", b"set a x 0 1", b"set a 0 x 1", b"incr a", b"incr a x", b"incr a -1", b"touch a", b"touch a x",
                b"delete", b"delete a 0", b"delete a 1", b"bogus", b"", b" ", b"verbosity", b"verbosity 1", b"mg", b"ms", b"ms a", b"ms a x", b"md", b"ma",
                b"mg a D5", b"mg a v v", b"mg a $", b"flush_all x", b"cas a 0 0 1", b"gat", b"gat x a", b"mz a", b"GET a",
            ]
        )
        return lambda side: line + b"\r\n"


def binary_command(dice, pair):
    value = dice.choice([b"5", b"text", b"", dice.randbytes(100), b"18446744073709551615"])
    stored = struct.pack(">II", dice.choice([0, 7, 2**32 - 1]), dice.choice([0, 100, 1000]))
    expiry = struct.pack(">I", dice.choice([0, 100, 1000]))
    sum_ = struct.pack(">QQI", dice.choice([0, 1, 2**63]), dice.choice([0, 13]), dice.choice([0, 100, 0xFFFFFFFF]))
    opcode, extras, body = dice.choice(
        [(code, stored, value) for code in (0x01, 0x01, 0x02, 0x03, 0x11, 0x12, 0x13)]
        + [(code, b"", b"") for code in (0x00, 0x04, 0x09, 0x0C, 0x0D, 0x14, 0x00, 0x0C)]
        + [(code, b"", value) for code in (0x0E, 0x0F, 0x19, 0x1A)]
        + [(code, sum_, b"") for code in (0x05, 0x06, 0x15, 0x16)]
        + [(code, expiry, b"") for code in (0x1C, 0x1D, 0x1E, 0x23, 0x24)]
    )
    key = dice.choice(COUNTED if extras is sum_ else JOINED if opcode in (0x0E, 0x0F, 0x19, 0x1A) else KEYS)
    known = pair.uniques.get(key, UNKNOWN)
    takes_unique = dice.random() < 0.2 and opcode in (0x01, 0x02, 0x03, 0x04, 0x05)
    return lambda side: packet(opcode, key, extras, body, known[side] if takes_unique else 0)


def shown(what):
    text = re.sub(r"k{20,}", "k..", repr(what))
    return text if len(text) < 300 else text[:150] + " ... " + text[-150:]


def without_uniques(reply):
    """The reply with uniques taken out, and the seconds that may differ. A number that has become shorter is padded with spaces, but by
    memcached only where nothing else holds the item at that moment: such values are compared without spaces and lengths."""
    reply = re.sub(rb"(VALUE \S+ \d+) \d+((?: \d+)?)\r\n(\d+) *\r\n", rb"\1 N\2\r\n\3\r\n", reply)
    reply = re.sub(rb"VA \d+([^\r\n]*)\r\n(\d+) *\r\n", rb"VA 0\1\r\n\2\r\n", reply)
    reply = re.sub(rb"(VALUE \S+ \d+ [\dN]+) \d+\r", rb"\1 U\r", reply)
    head = re.compile(rb"^((?:VA \d+|HD|EN|NF|NS|EX)(?: [^\r\n]*)?)\r$", re.MULTILINE)

    def flags(found):
        # A key is shown by memcached as its item was stored, in base64 or not, by ours as it was asked for. A classic read takes the right
        # to make a stale item anew with ours; with memcached only a meta read does. A number that is counted keeps with ours that it was
        # read or is stale; with memcached only where its length stays. t/metaget.t looks at all of these alone.
        words = [word for word in found.group(1).split(b" ") if not re.fullmatch(rb"k.*|b|W|Z|X|h[01]", word)]
        seconds.extend(int(word[1:]) for word in words if re.fullmatch(rb"[tl]-?\d+", word))
        return b" ".join(word[:1] + b"-" if re.fullmatch(rb"[cs]\d+|[tl]-?\d+", word) else word for word in words) + b"\r"

    seconds = []
    return head.sub(flags, reply), seconds


def unpadded(packets):
    """Without the spaces behind a number that has become shorter; a body ends with its value."""
    return [(*packet[:-1], re.sub(rb"(?<=\d) +\Z", b"", packet[-1])) for packet in packets]


def same(replies):
    (ours, own), (theirs, other) = map(without_uniques, replies)
    return ours == theirs and len(own) == len(other) and all(abs(one - another) <= 2 for one, another in zip(own, other))


def learn(pair, replies):
    """Uniques that both have just shown for a key."""
    found = [dict(re.findall(rb"^VALUE (\S+) \d+ \d+ (\d+)\r$", reply, re.MULTILINE)) for reply in replies]
    for key in found[0].keys() & found[1].keys():
        pair.uniques[key] = (int(found[0][key]), int(found[1][key]))


def converse(servers, seed):
    """Returns what differed."""
    dice = random.Random(seed)
    pair = Pair(servers)
    is_binary = seed % 3 == 0
    try:
        pair_text = Pair(servers) if is_binary else pair
        text = Text(dice, pair_text)
        trace = []
        for step in range(STEPS):
            if is_binary and dice.random() < 0.9:
                pair.uniques = pair_text.uniques
                make = binary_command(dice, pair)
                replies = pair.binary(make)
                is_same = unpadded(replies[0]) == unpadded(replies[1])
            else:
                make = text.command()
                replies = pair_text.text(make)
                is_same = same(replies)
                learn(pair_text, replies)
            trace = [*trace[-7:], shown(make(0))]
            if not is_same:
                return f"step {step}: ours {shown(replies[0])}, memcached {shown(replies[1])}; last {'; '.join(trace[::-1])}"
        return ""
    finally:
        pair.close()


def differential(kind, folder):
    if kind.name != "ours":
        return {"(same as itself)": {"passed": 0, "of": 0, "failed": [], "note": "skipped"}}
    found = {}
    for seed in SEEDS:
        with Server(kind, PORTS["ours"], "-m", "256") as ours, Server(Kind("memcached", "/usr/bin/memcached"), PORTS["memcached"], "-m", "256") as theirs:
            note = converse([ours, theirs], seed)
        found[f"seed {seed}"] = {"passed": int(not note), "of": 1, "failed": ["*"] if note else [], "note": note}
    return found
