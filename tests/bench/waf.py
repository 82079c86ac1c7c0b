#!/usr/bin/env python3
"""The firewall beside nginx with libmodsecurity, in one session: same requests, same rules (Debian's Core Rule Set), same upstream.

Of each server two processes, one with the firewall and one without, on processor 0; load and upstream on processor 1. All four take
turns round by round. Prints medians: processor time of the server per request, what of it is the firewall's (with less without), and
how many times less that is with bitrix-node. Both only detect: what one of them would refuse is judged to the end all the same.

    waf.py EXECUTABLE TOOLS [ROUNDS] [SECONDS]
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import waf_samples
from server import Server, free_port, front

EXECUTABLE, TOOLS = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 5
SECONDS = int(sys.argv[4]) if len(sys.argv) > 4 else 2
SETUP, RULES = f"{TOOLS}/etc/modsecurity/crs", f"{TOOLS}/usr/share/modsecurity-crs"
# Bodies of a sample that the load takes turns with: other digits, so that none is known from the request before.
BODIES = 64

NGINX = """
{module}
worker_processes 1; daemon off; pid {run}/{name}.pid; error_log {run}/{name}.err crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000; client_max_body_size 1m; client_body_buffer_size 256k;
  client_body_temp_path {run}/b; proxy_temp_path {run}/p; fastcgi_temp_path {run}/f; uwsgi_temp_path {run}/u; scgi_temp_path {run}/s;
  upstream up {{ server 127.0.0.1:{upstream} max_fails=0; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    {rules}
    location / {{ {target} }}
  }}
}}
"""
PASS = 'proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";'
# As libmodsecurity's own recommended settings read bodies.
MODSECURITY = """
SecRuleEngine DetectionOnly
SecRequestBodyAccess On
SecRequestBodyLimit 1048576
SecRequestBodyNoFilesLimit 1048576
SecRequestBodyLimitAction ProcessPartial
SecResponseBodyAccess Off
SecAuditEngine Off
SecRule REQUEST_HEADERS:Content-Type "^application/json" "id:'200001',phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=JSON"
Include {setup}/crs-setup.conf
Include {rules}/rules/*.conf
"""
CONFIG = """
[node]
data_dir = "{run}/{name}"
run_dir = "{run}/{name}"
log_dir = "{run}/{name}"
user = "root"
[proxy]
http = ["127.0.0.1:{port}"]
https = []
workers = 1
access_log = ""
[[proxy.routes]]
prefix = "/"
upstream = "http://127.0.0.1:{upstream}"
[portal]
root = "{run}"
[waf]
mode = "{mode}"
rules = ["{rules}", "{setup}"]
audit_log = ""
"""
# Sends the bodies of a file in turn.
WRK = """
local bodies = {{}}
for line in io.lines("{bodies}") do bodies[#bodies + 1] = line end
local headers = {{ {headers} }}
local next = 0
function request()
  next = next % {count} + 1
  return bodies[next] == "" and wrk.format("{method}", "{target}", headers) or wrk.format("{method}", "{target}", headers, bodies[next])
end
"""


def nginx(name, port, upstream, cpu, rules="", target=PASS):
    module = f"load_module {TOOLS}/usr/lib/nginx/modules/ngx_http_modsecurity_module.so;" if rules else ""
    text = NGINX.format(run=run, name=name, port=port, upstream=upstream, module=module, rules=rules, target=target)
    Path(f"{run}/{name}.conf").write_text(text)
    found = dict(os.environ, LD_LIBRARY_PATH=f"{TOOLS}/usr/lib/x86_64-linux-gnu")
    return Server(run, name, ["nginx", "-c", f"{run}/{name}.conf", "-e", "stderr"], cpu, port, env=found)


def ours(name, port, upstream, mode):
    os.mkdir(f"{run}/{name}")
    text = CONFIG.format(run=run, name=name, port=port, upstream=upstream, mode=mode, setup=SETUP, rules=RULES)
    Path(f"{run}/{name}.toml").write_text(text)
    return front(run, name, EXECUTABLE, f"{run}/{name}.toml", 0, port)


def script(sample):
    name = re.sub(r"\W", "", sample["name"])
    bodies = waf_samples.variants(sample["body"], BODIES)
    Path(f"{run}/{name}.bodies").write_text("\n".join(bodies) + "\n")
    headers = [(key, value) for key, value in sample["headers"] if key not in ("Content-Length", "Connection")]
    facts = dict(
        bodies=f"{run}/{name}.bodies",
        count=len(bodies),
        headers=", ".join(f"[{json.dumps(key)}] = {json.dumps(value)}" for key, value in headers),
        method=sample["method"],
        target=sample["target"],
    )
    Path(f"{run}/{name}.lua").write_text(WRK.format(**facts))
    return f"{run}/{name}.lua"


def load(server, lua):
    """Microseconds of the server's processor for one request."""
    before = server.cpu_seconds()
    url = f"http://127.0.0.1:{server.port}/"
    argv = ["taskset", "-c", "1", "wrk", "-t1", "-c8", f"-d{SECONDS}s", "-s", lua, url]
    out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", out)
    if bad:
        sys.exit(f"{server.name} {lua}: {bad.group(0)}")
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    return (server.cpu_seconds() - before) / requests * 1e6


def main():
    for folder in ["b", "p", "f", "u", "s"]:
        os.mkdir(f"{run}/{folder}")
    Path(f"{run}/modsecurity.conf").write_text(MODSECURITY.format(setup=SETUP, rules=RULES))
    rules = f"modsecurity on; modsecurity_rules_file {run}/modsecurity.conf;"
    upstream = free_port()
    servers = [nginx("upstream", upstream, upstream, 1, target="return 200 ok;")]
    try:
        servers += [
            nginx("nginx", free_port(), upstream, 0),
            nginx("nginx-waf", free_port(), upstream, 0, rules),
            ours("bitrix-node", free_port(), upstream, "off"),
            ours("bitrix-node-waf", free_port(), upstream, "detect"),
        ]
        for server in servers:
            server.wait()
        print(f"{ROUNDS} rounds of {SECONDS} s, medians; microseconds of the processor for a request")
        print(f"{'':12}{'nginx':>9}{'+ waf':>9}{'ours':>9}{'+ waf':>9}{'waf of nginx':>14}{'of ours':>9}{'ratio':>8}")
        for sample in waf_samples.clean():
            lua = script(sample)
            for server in servers[1:]:
                load(server, lua)
            rounds = [[load(server, lua) for server in servers[1:]] for _ in range(ROUNDS)]
            plain, theirs, bare, own = (statistics.median(column) for column in zip(*rounds))
            theirs_waf, own_waf = theirs - plain, own - bare
            print(
                f"{sample['name']:12}{plain:9.0f}{theirs:9.0f}{bare:9.0f}{own:9.0f}{theirs_waf:14.0f}{own_waf:9.0f}"
                f"{theirs_waf / max(own_waf, 1):8.1f}",
                flush=True,
            )
    finally:
        for server in reversed(servers):
            server.stop()


run = tempfile.mkdtemp(prefix="bitrix-bench-", dir="/tmp")
os.chmod(run, 0o755)
try:
    main()
finally:
    shutil.rmtree(run, ignore_errors=True)
