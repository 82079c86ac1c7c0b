"""fsx on the export: one file under random operations against a model. `fsx.py MOUNT SHARE PROGRAM OPERATIONS SEED...`"""

import subprocess
import sys

MOUNT, SHARE, PROGRAM, OPERATIONS, *SEEDS = sys.argv[1:]

failed = 0
with open(f"{SHARE}/results", "w") as results:
    for seed in SEEDS:
        words = [PROGRAM, "-N", OPERATIONS, "-S", seed, f"{MOUNT}/fsx{seed}"]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace")
        failed += done.returncode != 0
        print("ok" if done.returncode == 0 else "FAIL", f"seed {seed}, {OPERATIONS} operations", file=results)
        if done.returncode != 0:
            print((done.stdout + done.stderr)[-3000:], file=results)
sys.exit(1 if failed else 0)
