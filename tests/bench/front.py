#!/usr/bin/env python3
"""The front beside nginx, in one session: same files, same PHP-FPM, same upstream, one processor each.

Servers run on processor 0, load and upstreams on processor 1; the two take turns round by round.
Prints medians and the ratio of bitrix-node to nginx: requests per second, and requests per second of
processor time of the server. Above 1 is faster than nginx.

    front.py EXECUTABLE [ROUNDS] [SECONDS]
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from server import TICKS, Server, free_port, front

EXECUTABLE = os.path.abspath(sys.argv[1])
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
SECONDS = int(sys.argv[3]) if len(sys.argv) > 3 else 2
PHP_FPM = next(p for p in sorted(Path("/usr/sbin").glob("php-fpm*"), reverse=True))

CASES = [
    ("static 1 KiB", "/1k.html", 64),
    ("static 100 KiB", "/100k.bin", 64),
    ("PHP hello", "/hello.php", 4),
    ("reverse proxy 1 KiB", "/up/1k.html", 64),
]

NGINX = """
worker_processes 1; daemon off; pid {run}/nginx.pid; error_log {run}/nginx.err;
events {{ worker_connections 4096; }}
http {{
  access_log {access}; sendfile on; tcp_nopush on; keepalive_requests 1000000; types {{ text/html html; }}
  client_body_temp_path {run}/b; proxy_temp_path {run}/p; fastcgi_temp_path {run}/f; uwsgi_temp_path {run}/u; scgi_temp_path {run}/s;
  upstream up {{ server 127.0.0.1:{upstream} max_fails=0; keepalive 64; keepalive_requests 1000000; }}
  upstream php {{ server unix:{php}; keepalive 2; }}
  server {{
    listen 127.0.0.1:{port}; root {root};
    location /up/ {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    location ~ \\.php$ {{ fastcgi_pass php; fastcgi_keep_conn on; fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
      fastcgi_param QUERY_STRING $query_string; fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param REQUEST_URI $request_uri; fastcgi_param REMOTE_ADDR $remote_addr; fastcgi_param SERVER_NAME $server_name; }}
  }}
}}
"""

FPM = """
[global]
daemonize = no
error_log = {run}/fpm.err
[portal]
user = bitrix
group = bitrix
listen = {php}
listen.mode = 0666
pm = static
pm.max_children = 4
"""

CONFIG = """
[node]
data_dir = "{run}/data"
run_dir = "{run}"
log_dir = "{run}"
user = "bitrix-node"
[proxy]
http = ["127.0.0.1:{port}"]
https = []
workers = 1
access_log = "{access}"
[[proxy.routes]]
prefix = "/up/"
upstream = "http://127.0.0.1:{upstream}"
[portal]
root = "{root}"
[php]
children = 4
kept_connections = 2
"""


def load(server, path, connections):
    before = server.cpu_seconds()
    url = f"http://127.0.0.1:{server.port}{path}"
    out = subprocess.run(
        ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", url], capture_output=True, text=True, check=True
    ).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", out)
    if bad:
        sys.exit(f"{server.name} {path}: {bad.group(0)}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
    return rate, rate * SECONDS / max(server.cpu_seconds() - before, 1 / TICKS)


def main():
    root = f"{run}/root"
    os.mkdir(root)
    os.mkdir(f"{root}/up")
    for name, size in [("1k.html", 1024), ("100k.bin", 102400), ("up/1k.html", 1024)]:
        Path(f"{root}/{name}").write_bytes(b"x" * size)
    Path(f"{root}/hello.php").write_text("<?php echo 'hello';")
    php, upstream, nginx_port, our_port = f"{run}/fpm.sock", free_port(), free_port(), free_port()
    os.mkdir(f"{run}/php")
    os.symlink(php, f"{run}/php/fpm.sock")
    facts = dict(run=run, root=root, php=php, upstream=upstream)
    for folder in ["b", "p", "f", "u", "s"]:
        os.mkdir(f"{run}/{folder}")
    write = lambda name, text: Path(f"{run}/{name}").write_text(text) and f"{run}/{name}"
    write("nginx.conf", NGINX.format(port=nginx_port, access=f"{run}/nginx-access.log combined buffer=64k", **facts))
    write("up.conf", NGINX.format(port=upstream, access="off", **facts).replace("nginx.pid", "up.pid").replace("location /up/", "location /nowhere/"))
    write("fpm.conf", FPM.format(**facts))
    write("config.toml", CONFIG.format(port=our_port, access=f"{run}/access.log", **facts))

    servers = []
    try:
        servers.append(Server(run, "fpm", [str(PHP_FPM), "-F", "-y", f"{run}/fpm.conf"], 1, 0))
        servers.append(Server(run, "upstream", ["nginx", "-c", f"{run}/up.conf", "-e", "stderr"], 1, upstream))
        nginx = Server(run, "nginx", ["nginx", "-c", f"{run}/nginx.conf", "-e", "stderr"], 0, nginx_port)
        servers.append(nginx)
        ours = front(run, "bitrix-node", EXECUTABLE, f"{run}/config.toml", 0, our_port)
        servers.append(ours)
        fpm, origin = servers[:2]
        fpm.wait(lambda: os.path.exists(php))
        origin.wait()
        nginx.wait()

        print(f"{ROUNDS} rounds of {SECONDS} s, medians; ratio = bitrix-node / nginx")
        print(f"{'case':22}{'nginx rps':>12}{'ours rps':>12}{'ratio':>8}{'nginx /cpu-s':>14}{'ours /cpu-s':>14}{'ratio':>8}")
        for case, path, connections in CASES:
            rounds = []
            for server in (nginx, ours):
                load(server, path, connections)
            for _ in range(ROUNDS):
                rounds.append((load(nginx, path, connections), load(ours, path, connections)))
            median = lambda pick: statistics.median(pick(r) for r in rounds)
            print(
                f"{case:22}{median(lambda r: r[0][0]):12.0f}{median(lambda r: r[1][0]):12.0f}"
                f"{median(lambda r: r[1][0] / r[0][0]):8.2f}{median(lambda r: r[0][1]):14.0f}"
                f"{median(lambda r: r[1][1]):14.0f}{median(lambda r: r[1][1] / r[0][1]):8.2f}",
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
