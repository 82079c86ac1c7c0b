#!/usr/bin/env python3
"""Three machines, one portal, from nothing, as an admin would do it. Prints the story with times; the exit code is 1 when a claim of it
did not hold.

    run.py RELEASE [--keep] [--until CHAPTER]

RELEASE is what `make dist` makes. All runs in namespaces of its own for network, processes and mounts: whatever happens, nothing of it
is left running. The machines' disks and logs are kept after a failure, and with --keep.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Before: what is kept there is shared with this.
sys.path.append(str(HERE.parent / "kernel"))

from bed import Bed  # noqa: E402
from session import INSIDE_MARK, enter_namespaces  # noqa: E402
from story import CHAPTERS, Story  # noqa: E402

IMAGES = HERE.parent.parent / "target/machines"


def adopt():
    """Goes on as a child of process 1 of these namespaces, which takes in who loses its parent: a machine ends only when all that was
    begun in it has been waited for."""
    child = os.fork()
    while child:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("release")
    parser.add_argument("--keep", action="store_true", help="keep the folder also on success")
    parser.add_argument("--until", choices=CHAPTERS, default=CHAPTERS[-1], help="the last chapter; a purge always follows")
    parser.add_argument("--images", default=IMAGES)
    options = parser.parse_args()
    if not os.environ.get(INSIDE_MARK):
        # With the network of this machine; its mounts are its own.
        subprocess.run(["unshare", "--mount", sys.executable, HERE / "image.py", options.images], check=True)
    enter_namespaces()
    adopt()
    # Names of network namespaces, what systemd-nspawn notes.
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    with Bed(options.release, options.images, options.keep) as bed:
        Story(bed).tell(options.until)
    bed.log.line(f"{len(bed.log.failed)} claims failed" if bed.log.failed else "all claims hold")
    sys.exit(1 if bed.log.failed else 0)


if __name__ == "__main__":
    main()
