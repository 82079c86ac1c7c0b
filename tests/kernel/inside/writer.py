"""Writes, renames and removes without a pause and checks every step. `writer.py MOUNT SHARE SECONDS NAME`

Whoever runs it disturbs the server meanwhile. No call may fail, and at the end every file has what was acknowledged.
It ends early once there is a SHARE/stop. Each stall is a line in SHARE/stalls as soon as it is over.
"""

import os
import sys
import time

MOUNT, SHARE, SECONDS, NAME = sys.argv[1:5]
STALL = 0.5
# How many of them are printed.
LONGEST = 10


class Clock:
    """Times steps; keeps the long ones."""

    def __init__(self):
        self.stalls, self.all, self.longest = [], [], 0.0

    def time(self, step):
        started = time.monotonic()
        step()
        taken = time.monotonic() - started
        self.all.append(taken)
        self.longest = max(self.longest, taken)
        if taken > STALL:
            self.stalls.append(taken)
            with open(f"{SHARE}/stalls", "a") as file:
                print(f"{taken:.3f}", file=file)

    def distribution(self):
        """Of the steps, in milliseconds."""
        ordered = sorted(self.all) or [0]
        places = [0, len(ordered) // 2, len(ordered) * 99 // 100, -1]
        return "/".join(f"{ordered[place] * 1000:.0f}" for place in places)


def turn(folder, number):
    name = f"{folder}/{number}"
    data = f"turn {number} ".encode() * (1 + number % 300)
    fd = os.open(f"{name}.new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)
    # Each of these must happen exactly once, although its reply may be lost and the call repeated.
    os.rename(f"{name}.new", name)
    os.link(name, f"{name}.link")
    os.mkdir(f"{name}.d")
    os.rmdir(f"{name}.d")
    os.unlink(f"{name}.link")
    if number % 5 == 4:
        os.unlink(f"{folder}/{number - 2}")


def faults(folder, turns):
    with open("/proc/sys/vm/drop_caches", "w") as caches:
        caches.write("3")
    wanted = {str(number) for number in range(turns) if not (number % 5 == 2 and number + 2 < turns)}
    found = set(os.listdir(folder))
    bad = [f"missing {name}" for name in sorted(wanted - found)] + [f"unknown {name}" for name in sorted(found - wanted)]
    for name in wanted & found:
        number = int(name)
        with open(f"{folder}/{name}", "rb") as file:
            if file.read() != f"turn {number} ".encode() * (1 + number % 300):
                bad.append(f"wrong bytes in {name}")
    return bad


def main():
    folder = f"{MOUNT}/{NAME}"
    os.mkdir(folder)
    clock, number, end = Clock(), 0, time.monotonic() + float(SECONDS)
    errors = []
    while time.monotonic() < end and not os.path.exists(f"{SHARE}/stop") and not errors:
        try:
            clock.time(lambda: turn(folder, number))
        except OSError as error:
            errors.append(f"turn {number}: {error}")
            break
        number += 1
        with open(f"{SHARE}/progress", "w") as file:
            file.write(str(number))
    errors += faults(folder, number)[:20]
    with open(f"{SHARE}/results", "w") as results:
        for error in errors:
            print("FAIL", error, file=results)
        stalls = sorted(clock.stalls, reverse=True)
        longest = " ".join(f"{stall:.1f}" for stall in stalls[:LONGEST])
        print(
            f"{'FAIL' if errors else 'ok'} {number} turns of 8 calls, {len(errors)} errors, longest {clock.longest:.2f} s;"
            f" a turn takes {clock.distribution()} ms (min/median/p99/max); {len(stalls)} stalls over {STALL} s: {longest or 'none'}",
            file=results,
        )
    return 1 if errors else 0


sys.exit(main())
