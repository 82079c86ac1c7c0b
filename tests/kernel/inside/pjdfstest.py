"""The pjdfstest suite on the export. `pjdfstest.py MOUNT SHARE PROGRAM FOLDER [SECOND]`

SECOND is a folder of another file system; in a guest /tmp is one.
"""

import os
import subprocess
import sys

MOUNT, SHARE, PROGRAM, FOLDER, *SECOND = sys.argv[1:]
# Users that every Debian has; the suite wants three beside root.
CONFIG = """
[features]
[settings]
naptime = 0.01
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"], ["www-data", "www-data"]]
"""

os.mkdir(f"{MOUNT}/{FOLDER}")
os.chmod(f"{MOUNT}/{FOLDER}", 0o777)
with open(f"{SHARE}/pjdfstest.toml", "w") as config:
    config.write(CONFIG)
with open(f"{SHARE}/results", "wb") as results:
    words = [PROGRAM, "-c", f"{SHARE}/pjdfstest.toml", "-p", f"{MOUNT}/{FOLDER}", "-s", *(SECOND or ["/tmp"])]
    sys.exit(subprocess.run(words, stdout=results, stderr=subprocess.STDOUT).returncode & 1)
