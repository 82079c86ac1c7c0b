#!/usr/bin/env python3
"""The embedded cache beside Debian's memcached, in one session: one thread each on processor 1, the load on processor 0; they take turns
round by round. Prints medians and the ratio of bitrix-node to memcached: requests per second, processor time per request, and how
many items 64 MiB hold. The exit code is 1 when a goal is missed.

    cache.py EXECUTABLE LOAD [--rounds N] [--seconds S] [--only WORD]
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cache"))
from server import Kind, Server  # noqa: E402

MEMCACHED = "/usr/bin/memcached"
KEY = 40
KEYS = 1000
# name, operation, value, connections, depth, keys of one get; what must hold of the ratios of processor time and rate.
CASES = [
    ("get 100 B", "get", 100, 50, 1, 1, {"cpu": 1.1}),
    ("get 100 B, 16 at once", "get", 100, 50, 16, 1, {"cpu": 1.0, "rate": 1.0}),
    ("get 100 B, 16 keys", "get", 100, 50, 1, 16, {"cpu": 1.1}),
    ("get 10 KiB", "get", 10240, 50, 1, 1, {"cpu": 1.1}),
    ("set 100 B", "set", 100, 50, 1, 1, {}),
    ("set 100 B, 16 at once", "set", 100, 50, 16, 1, {}),
    ("set 10 KiB", "set", 10240, 50, 1, 1, {}),
]
# Value, keys written, lengths of keys.
MEMORY = [(100, 500_000, (20, 40, 60, 79, 100)), (10240, 15_000, (40, 79))]
MEMORY_MIB = 64


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("executable")
    parser.add_argument("load")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--only", default="", help="cases whose name holds this word; `memory` for how much is kept")
    return parser.parse_args()


def loaded(options, server, *words):
    line = ["taskset", "-c", "0", options.load, f"127.0.0.1:{server.port}", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


def measure(options, server, case):
    _, operation, value, connections, depth, multi, _ = case
    loaded(options, server, "fill", KEYS, KEY, value)
    before = server.cpu_nanoseconds()
    out = loaded(options, server, operation, KEYS, KEY, value, connections, depth, multi, options.seconds)
    count, seconds = map(float, out.split())
    return {"rate": count / seconds, "cpu": (server.cpu_nanoseconds() - before) / 1000 / count}


def speed(options, kinds):
    is_good = True
    print(f"{'':24}{'requests/s':^24}{'processor us/request':^26}")
    print(f"{'':24}{'ours':>8}{'memcached':>11}{'ratio':>6}{'ours':>9}{'memcached':>11}{'ratio':>6}")
    for case in CASES:
        if options.only not in case[0]:
            continue
        rounds = {kind.name: [] for kind in kinds}
        servers = [Server(kind, 21000 + place, "-m", "256", "-t", "1", cpu=1) for place, kind in enumerate(kinds)]
        try:
            for number in range(options.rounds):
                for server in servers if number % 2 else servers[::-1]:
                    rounds[server.name].append(measure(options, server, case))
        finally:
            for server in servers:
                server.stop()
        middle = {name: {what: statistics.median(one[what] for one in all) for what in ("rate", "cpu")} for name, all in rounds.items()}
        ours, theirs = middle["ours"], middle["memcached"]
        ratio = {what: ours[what] / theirs[what] for what in ours}
        missed = [what for what, goal in case[6].items() if (ratio[what] > goal if what == "cpu" else ratio[what] < goal)]
        is_good &= not missed
        line = f"{case[0]:24}{ours['rate']:8.0f}{theirs['rate']:11.0f}{ratio['rate']:6.2f}{ours['cpu']:9.2f}{theirs['cpu']:11.2f}{ratio['cpu']:6.2f}"
        print(line + (f"  misses its goal: {', '.join(f'{what} {case[6][what]}' for what in missed)}" if missed else ""), flush=True)
    return is_good


def kept(options, kind, value, keys, key):
    with Server(kind, 21010, "-m", str(MEMORY_MIB), "-t", "1", cpu=1) as server:
        empty = server.memory_kib()
        loaded(options, server, "fill", keys, key, value)
        return int(server.stats()["curr_items"]), (server.memory_kib() - empty) / 1024


def memory(options, kinds):
    """Of the same writes, how many items are left, and by how much the process has grown."""
    is_good = True
    print(f"\n{'kept in 64 MiB':24}{'ours':>16}{'memcached':>18}{'ratio':>7}{'per MiB grown':>15}")
    for value, keys, lengths in MEMORY:
        ratios, densities = [], []
        for key in lengths:
            (ours, own), (theirs, other) = [kept(options, kind, value, keys, key) for kind in kinds]
            ratios.append(ours / theirs)
            densities.append(ours / own / (theirs / other))
            print(f"{value} B, keys of {key:<8}{ours:9}{own:5.0f}MiB{theirs:10}{other:5.0f}MiB{ratios[-1]:7.2f}{densities[-1]:15.2f}", flush=True)
        middle = statistics.mean(ratios)
        is_good &= middle >= 1
        print(f"{value} B: mean {middle:.2f}, per MiB grown {statistics.mean(densities):.2f}" + ("" if middle >= 1 else "  misses its goal"))
    return is_good


def main():
    options = arguments()
    kinds = [Kind("ours", options.executable), Kind("memcached", MEMCACHED)]
    is_good = speed(options, kinds) if options.only != "memory" else True
    if options.only in ("", "memory"):
        is_good &= memory(options, kinds)
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
