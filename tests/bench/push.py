#!/usr/bin/env python3
"""The push server beside nchan and a server of Node.js with Redis, in one session: one thread each on processor 1, the load on processor
0; they take turns round by round. Prints medians: memory of an idle WebSocket and of a hanging long poll, processor time per delivery of
one message of 300 bytes to all, how long until half and 99 % of them had it, and of publishing to ten. The exit code is 1 when a goal is missed.

    push.py EXECUTABLE PACKAGES [--sockets N] [--polls N] [--rounds N] [--only WORD]
"""

import argparse
import gc
import os
import resource
import select
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "push"))
from crowd import HANDSHAKE, PATIENCE, Crowd, Publisher, body  # noqa: E402
from servers import AsPortal, Fronted, Nchan, Node, Ours  # noqa: E402

KINDS = {"ours": Ours, "ours, own channels": AsPortal, "ours, by the front": Fronted, "nchan": Nchan, "node + redis": Node}
# Messages to all, and between two of them: longer than any server gathers.
MESSAGES, PAUSE = 4, 0.7
# Nanoseconds of a third of a second in which it does nothing.
IDLE = 3_000_000
PUBLISHERS, LISTENERS, SECONDS = 8, 10, 2
# Descriptors of a server besides those of its clients.
SPARE = 500
# What must hold of the module by itself, and beside nchan.
MEMORY_KIB, DELIVERY_US = 5, 12


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("executable")
    parser.add_argument("packages")
    parser.add_argument("--sockets", type=int, default=10000)
    parser.add_argument("--polls", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="servers whose name holds this word")
    return parser.parse_args()


def warm(server):
    """Code and tables that a server has once, however many its clients are, are in memory afterwards."""
    with Crowd(server.port) as crowd:
        crowd.connect((server.websocket(number) for number in range(LISTENERS)), HANDSHAKE, is_open=True)
        text, marker = body()
        publisher = Publisher(server.publish_port, server.publish(), text)
        crowd.hear(publisher, marker)
        publisher.close()
    time.sleep(PAUSE)


def websockets(server, count):
    warm(server)
    empty = server.memory()
    with Crowd(server.port) as crowd:
        before = server.cpu()
        crowd.connect((server.websocket(number) for number in range(count)), HANDSHAKE, is_open=True)
        time.sleep(0.5)
        row = {"KiB each": (server.memory() - empty) / count, "us to connect": (server.cpu() - before) / 1000 / count}
        told, spent = [], 0
        for _ in range(MESSAGES):
            text, marker = body()
            publisher = Publisher(server.publish_port, server.publish(), text)
            gc.collect()
            before = server.cpu()
            told += crowd.hear(publisher, marker)
            time.sleep(PAUSE)
            spent += server.cpu() - before
            publisher.close()
        row["us to deliver"] = spent / 1000 / count / MESSAGES
        row |= spread(told)
        row["KiB after"] = (server.memory() - empty) / count
    return row


def polls(server, count):
    warm(server)
    empty = server.memory()
    with Crowd(server.port) as crowd:
        crowd.connect((server.poll(number) for number in range(count)), "", is_open=False)
        settle(server)
        row = {"KiB each": (server.memory() - empty) / count}
        text, marker = body()
        publisher = Publisher(server.publish_port, server.publish(), text)
        before = server.cpu()
        told = crowd.hear(publisher, marker)
        row["us to deliver"] = (server.cpu() - before) / 1000 / count
        publisher.close()
        return row | spread(told)


def settle(server):
    """Until the server has taken what it was sent."""
    last = -IDLE
    while (now := server.cpu()) - last > IDLE:
        last = now
        time.sleep(0.3)


def spread(times):
    times = sorted(times)
    return {"p50 ms": times[len(times) // 2] * 1000, "p99 ms": times[len(times) * 99 // 100] * 1000}


def publishing(server):
    """Publishers that send the next message when the last one is answered; a few listen."""
    text, _ = body()
    with Crowd(server.port) as crowd:
        crowd.connect((server.websocket(number) for number in range(LISTENERS)), HANDSHAKE, is_open=True)
        publishers = [Publisher(server.publish_port, server.publish(), text) for _ in range(PUBLISHERS)]
        by_number = {publisher.sock.fileno(): publisher for publisher in publishers}
        for number in by_number:
            crowd.epoll.register(number, select.EPOLLIN)
        before, started, count = server.cpu(), time.perf_counter(), 0
        for publisher in publishers:
            publisher.send(0)
        under_way = len(publishers)
        while under_way:
            for number in crowd.ready(started + PATIENCE):
                if number not in by_number:
                    if not crowd.sockets[number].recv(1 << 18):
                        raise OSError("a listener was cut off")
                    continue
                by_number[number].answered()
                count += 1
                if time.perf_counter() - started < SECONDS:
                    by_number[number].send(0)
                else:
                    under_way -= 1
        row = {"per s": count / (time.perf_counter() - started), "us each": (server.cpu() - before) / 1000 / count}
        for publisher in publishers:
            publisher.close()
        return row


def measure(options, kind):
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE
    with kind() as server:
        rows = {"WebSocket": websockets(server, min(options.sockets, room // kind.descriptors))}
    with kind() as server:
        rows["long poll"] = polls(server, options.polls)
    with kind() as server:
        rows["publish"] = publishing(server)
    return rows


def table(what, rows):
    columns = list(next(iter(rows.values())))
    print(f"\n{what:20}" + "".join(f"{column:>15}" for column in columns))
    for name, row in rows.items():
        print(f"{name:20}" + "".join(f"{row[column]:15.2f}" for column in columns), flush=True)


def goals(sockets):
    """What is missed, in words."""
    missed = []
    for name in ("ours", "ours, own channels"):
        if name not in sockets:
            continue
        if sockets[name]["KiB each"] > MEMORY_KIB:
            missed.append(f"{name}: {sockets[name]['KiB each']:.2f} KiB of {MEMORY_KIB}")
        if sockets[name]["us to deliver"] > DELIVERY_US:
            missed.append(f"{name}: {sockets[name]['us to deliver']:.2f} us of {DELIVERY_US}")
    if "ours" in sockets and "nchan" in sockets:
        for what in ("KiB each", "us to deliver"):
            ratio = sockets["ours"][what] / sockets["nchan"][what]
            print(f"\nours / nchan, {what}: {ratio:.2f}", end="")
            if ratio > 1:
                missed.append(f"{what}: {ratio:.2f} of nchan's")
    return missed


def main():
    options = arguments()
    Ours.executable, Node.packages = os.path.abspath(options.executable), os.path.abspath(options.packages)
    os.sched_setaffinity(0, {0})
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    kinds = {name: kind for name, kind in KINDS.items() if options.only == name or options.only in name.split(",")[0]}
    rounds = {name: [] for name in kinds}
    for number in range(options.rounds):
        for name in list(kinds)[:: -1 if number % 2 else 1]:
            print(f"round {number + 1} of {options.rounds}: {name}", file=sys.stderr, flush=True)
            rounds[name].append(measure(options, kinds[name]))
    middle = {}
    for what in ("WebSocket", "long poll", "publish"):
        middle[what] = {
            name: {column: statistics.median(one[what][column] for one in of) for column in of[0][what]} for name, of in rounds.items()
        }
        table(what, middle[what])
    missed = goals(middle["WebSocket"])
    print("\n" + "\n".join(["goals missed:", *missed] if missed else ["all goals met"]))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
