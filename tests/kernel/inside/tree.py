"""A tree is copied in, read back by names and checked by checksum. `tree.py MOUNT SHARE FILES NAME [again]`

With `again` it is there already, and only read. The tree is made from numbers, so each file's bytes are known without a copy.
SHARE/results ends with "ok" or has the faults. Progress is in SHARE/progress: whoever disturbs the server waits for it.
"""

import hashlib
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

MOUNT, SHARE, FILES, NAME, *AGAIN = sys.argv[1:]
FILES = int(FILES)
WORKERS = 4
DROP_CACHES = "/proc/sys/vm/drop_caches"


def content(number):
    """Most files are small; one in 500 has a megabyte."""
    seed = hashlib.sha256(number.to_bytes(8, "big")).digest()
    size = (1 << 20) if number % 500 == 0 else int.from_bytes(seed[:2], "big") % 6000
    return (seed * (size // 32 + 1))[:size]


def path(number):
    return f"{MOUNT}/{NAME}/{number % 100:02d}/{number % 7}/file {number}.php"


def progress(word):
    with open(f"{SHARE}/progress", "w") as file:
        file.write(word)


def copy():
    """By several at once, as an unpacker with threads does it."""
    for number in range(min(700, FILES)):
        os.makedirs(os.path.dirname(path(number)), exist_ok=True)
    with ThreadPoolExecutor(WORKERS) as workers:
        return max(workers.map(copy_part, range(WORKERS)))


def copy_part(part):
    longest = 0
    for number in range(part, FILES, WORKERS):
        started = time.monotonic()
        with open(path(number), "xb") as file:
            file.write(content(number))
        longest = max(longest, time.monotonic() - started)
        if number % 50 == 0:
            progress(f"copied {number}")
    return longest


def look():
    """Names first, then contents, with a cold cache."""
    with open(DROP_CACHES, "w") as caches:
        caches.write("3")
    found = {os.path.join(folder, name) for folder, _, names in os.walk(f"{MOUNT}/{NAME}") for name in names}
    wanted = {path(number) for number in range(FILES)}
    faults = [f"missing {name}" for name in sorted(wanted - found)] + [f"unknown {name}" for name in sorted(found - wanted)]
    longest = 0
    for number in range(FILES):
        started = time.monotonic()
        with open(path(number), "rb") as file:
            if file.read() != content(number):
                faults.append(f"wrong bytes in {path(number)}")
        longest = max(longest, time.monotonic() - started)
        if number % 50 == 0:
            progress(f"read {number}")
    return faults, longest


def main():
    started = time.monotonic()
    with open(f"{SHARE}/results", "w") as results:
        try:
            slowest_copy = 0 if AGAIN else copy()
            copied = time.monotonic()
            faults, slowest_read = look()
        except OSError as error:
            faults = [f"{error}"]
            print("FAIL", error, file=results)
            return 1
        for fault in faults[:20]:
            print("FAIL", fault, file=results)
        how = "read" if AGAIN else f"copied at {FILES / (copied - started):.0f}/s"
        print(
            f"{'FAIL' if faults else 'ok'} {FILES} files {how}, {len(faults)} faults,"
            f" longest copy of a file {slowest_copy:.2f} s, longest read {slowest_read:.2f} s",
            file=results,
        )
    return 1 if faults else 0


sys.exit(main())
