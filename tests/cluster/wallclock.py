"""The wall clock of running processes, moved for them alone: the kernel has no namespace for CLOCK_REALTIME, and a static executable takes
no LD_PRELOAD. So the three functions of the vDSO that tell the wall time are written over, in the process's own copy of its pages, by a
system call and an addition. Threads must stand still meanwhile, and none inside what is replaced.

CLOCK_MONOTONIC and CLOCK_BOOTTIME stay as they are. What the kernel itself stamps (times of files, timers on the wall clock) is not moved;
programs that wait until a wall time (MariaDB) would wait too long, so only the node's own executable is treated.
"""

import os
import struct
from pathlib import Path

# Of the x86_64 table of system calls.
CLOCK_GETTIME, GETTIMEOFDAY, TIME = 228, 96, 201


class Busy(Exception):
    """A thread stands where the code is to be replaced."""


def patches(seconds):
    """Machine code by name of the function, each shorter than what it replaces."""
    add = struct.pack("<i", seconds)

    def call(number):
        return b"\xb8" + struct.pack("<I", number) + b"\x0f\x05"

    # rdi is CLOCK_REALTIME (0) or CLOCK_REALTIME_COARSE (5): add to [rsi].
    clock = bytes.fromhex("85c0 7513 85ff 7405 83ff05 750a 90") + b"\x48\x81\x06" + add + b"\x90\x90\xc3"
    # rdi is not NULL: add to [rdi].
    day = bytes.fromhex("85c0 750c 4885ff 7407") + b"\x48\x81\x07" + add + b"\xc3"
    # The result, and [rdi] where it is not NULL.
    time = b"\x48\x05" + add + bytes.fromhex("4885ff 7403 488907 c3")
    return {
        "__vdso_clock_gettime": call(CLOCK_GETTIME) + clock,
        "__vdso_gettimeofday": call(GETTIMEOFDAY) + day,
        "__vdso_time": call(TIME) + time,
    }


def symbols(image):
    """Functions of the vDSO: name -> (offset, length)."""
    sections, size, count = struct.unpack_from("<Q", image, 0x28)[0], *struct.unpack_from("<HH", image, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", image, sections + size * number) for number in range(count)]
    _, _, _, _, at, length, link, _, _, entry = next(header for header in headers if header[1] == 11)
    texts = headers[link][4]
    found = {}
    for place in range(at, at + length, entry):
        name, _, _, _, value, size = struct.unpack_from("<IBBHQQ", image, place)
        end = image.index(b"\0", texts + name)
        found[image[texts + name : end].decode()] = (value, size)
    return found


def mapping(pid):
    """Where the vDSO lies; None where there is none (a process that ends)."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith("[vdso]"):
            return tuple(int(part, 16) for part in line.split()[0].split("-"))
    return None


def stands_in(pid, low, high):
    """Whether a thread of the frozen process is there."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        words = Path(f"/proc/{pid}/task/{thread}/syscall").read_text().split()
        if words == ["running"] or low <= int(words[-1], 16) < high:
            return True
    return False


def shift(pid, seconds):
    """The frozen process sees the wall clock that far from the machine's; 0 for the machine's own. Whether it has one."""
    where = mapping(pid)
    if where is None:
        return False
    low, high = where
    if stands_in(pid, low, high):
        raise Busy(pid)
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(low)
        known = symbols(memory.read(high - low))
        for name, code in patches(seconds).items():
            offset, room = known[name]
            if len(code) > room:
                raise RuntimeError(f"{name} has {room} bytes")
            memory.seek(low + offset)
            memory.write(code)
    return True
