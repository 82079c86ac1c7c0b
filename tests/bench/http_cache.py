#!/usr/bin/env python3
"""The front's cache under the public suite for HTTP caches (npm http-cache-tests): how many tests it passes, by kind.

    http_cache.py EXECUTABLE FOLDER [TEST-ID]

FOLDER holds node_modules/http-cache-tests (npm install http-cache-tests@0.4.5). With a test's id its messages are shown.
Kinds: `required` by RFC 9111, `optimal` for speed, `check` is only noted. Tests of browsers and of other caches' fields are left out.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from server import answers, free_port, front

EXECUTABLE, SUITE = os.path.abspath(sys.argv[1]), Path(sys.argv[2]).resolve() / "node_modules/http-cache-tests"
ONE = sys.argv[3] if len(sys.argv) > 3 else ""

CONFIG = """
[node]
data_dir = "{run}/data"
run_dir = "{run}"
log_dir = "{run}"
[proxy]
http = ["127.0.0.1:{port}"]
https = []
access_log = ""
cache = "64MiB"
[[proxy.routes]]
prefix = "/"
upstream = "http://127.0.0.1:{upstream}"
[portal]
root = "{run}/root"
"""

SUMMARY = """
import fs from 'fs'
import tests from '%s/tests/index.mjs'
import * as display from '%s/lib/display.mjs'
const results = JSON.parse(fs.readFileSync(process.argv[2]))
const kinds = {}
const failed = []
for (const suite of tests) for (const test of suite.tests) {
  if (test.browser_only) continue
  const kind = test.kind || 'required'
  kinds[kind] = kinds[kind] || { all: 0, passed: 0 }
  kinds[kind].all += 1
  if (results[test.id] === true) kinds[kind].passed += 1
  else failed.push([kind, test.id, String((results[test.id] || [])[1] || results[test.id])])
}
console.log(JSON.stringify({ kinds, failed }))
"""


def wait_for(port):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if answers(port):
            return
        time.sleep(0.05)
    sys.exit(f"nobody listens on {port}")


def main():
    with tempfile.TemporaryDirectory() as run:
        upstream, port = free_port(), free_port()
        Path(run, "root").mkdir()
        Path(run, "config.toml").write_text(CONFIG.format(run=run, port=port, upstream=upstream))
        Path(run, "summary.mjs").write_text(SUMMARY % (SUITE, SUITE))
        env = dict(os.environ, npm_config_protocol="http", npm_config_port=str(upstream), npm_config_pidfile=f"{run}/pid")
        env |= {"npm_config_base": f"http://127.0.0.1:{port}", "npm_config_id": ONE, "npm_package_config_id": ""}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        server = subprocess.Popen(["node", "server/server.mjs"], cwd=SUITE, env=env, **quiet)
        ours = front(run, "front", EXECUTABLE, f"{run}/config.toml", 0, port)
        try:
            wait_for(upstream)
            ours.wait()
            ran = subprocess.run(["node", "--no-warnings", "cli.mjs"], cwd=SUITE, env=env, capture_output=True, text=True)
            if ONE:
                return print(ran.stdout, ran.stderr)
            Path(run, "results.json").write_text(ran.stdout)
            summary = ["node", "--no-warnings", f"{run}/summary.mjs", f"{run}/results.json"]
            told = json.loads(subprocess.run(summary, capture_output=True, text=True, check=True).stdout)
        finally:
            ours.stop()
            server.terminate()
            server.wait()
    for kind, id, why in told["failed"]:
        print(f"{kind:10}{id:50}{why[:100]}")
    for kind, count in told["kinds"].items():
        print(f"{kind}: {count['passed']} of {count['all']}")


main()
