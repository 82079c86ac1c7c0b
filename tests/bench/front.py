#!/usr/bin/env python3
"""The front beside nginx and haproxy, in one session: same files, same kind of PHP-FPM pool, same upstream, same certificate, one processor each.

Servers run on processor 0, load and upstreams on processor 1; they take turns round by round. All do the same job: PHP gets the
variables of CGI (nginx' own file of them), an upstream the fields that say who asks, a client the id of its request; nginx and
bitrix-node write an access log, haproxy has none.
Prints medians and the ratio of bitrix-node to the other: requests per second, and requests per second of
processor time of the server. Above 1 is faster than that one. Of TLS each request is a connection of its own (TLS 1.3, ECDSA P-256),
with a full handshake or with a session that was taken up; haproxy has its 1 KiB in memory.

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
TLS_LOAD = str(Path(__file__).with_name("tls_load.py"))
PHP_FPM = next(p for p in sorted(Path("/usr/sbin").glob("php-fpm*"), reverse=True))

# What, how it is loaded, connections, and beside whom.
CASES = [
    ("static 1 KiB", "/1k.html", 64, ["nginx"]),
    ("static 100 KiB", "/100k.bin", 64, ["nginx"]),
    ("PHP hello", "/hello.php", 4, ["nginx"]),
    ("cached page 10 KiB", "/page.php", 64, ["nginx"]),
    ("reverse proxy 1 KiB", "/up/1k.html", 64, ["nginx", "haproxy"]),
    ("TLS full + 1 KiB", "/1k.html", "full", ["nginx", "haproxy"]),
    ("TLS resumed + 1 KiB", "/1k.html", "resumed", ["nginx", "haproxy"]),
]

NGINX = """
worker_processes 1; daemon off; pid {run}/nginx.pid; error_log {run}/nginx.err;
events {{ worker_connections 4096; }}
http {{
  access_log {access}; sendfile on; tcp_nopush on; keepalive_requests 1000000; types {{ text/html html; }}
  client_body_temp_path {run}/b; proxy_temp_path {run}/p; fastcgi_temp_path {run}/f; uwsgi_temp_path {run}/u; scgi_temp_path {run}/s;
  upstream up {{ server 127.0.0.1:{upstream} max_fails=0; keepalive 64; keepalive_requests 1000000; }}
  upstream php {{ server unix:{php}; keepalive 2; }}
  fastcgi_cache_path {run}/kept keys_zone=kept:1m;
  server {{
    listen 127.0.0.1:{port}; {secure} root {root}; {fields}
    location = /page.php {{ fastcgi_cache kept; fastcgi_cache_key $scheme$host$request_uri; fastcgi_pass php;
      include /etc/nginx/fastcgi.conf; }}
    location /up/ {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
      proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Request-Id $request_id; }}
    location ~ \\.php$ {{ fastcgi_pass php; fastcgi_keep_conn on; include /etc/nginx/fastcgi.conf; }}
  }}
}}
"""

# What each answer says, as ours do.
FIELDS = "add_header X-Content-Type-Options nosniff always; add_header X-Request-Id $request_id always;"

HAPROXY = """
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  option http-keep-alive
  http-reuse always
frontend plain
  bind 127.0.0.1:{port}
  unique-id-format %[uuid()]
  unique-id-header X-Request-Id
  option forwardfor
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Proto http
  http-response set-header X-Content-Type-Options nosniff
  http-response set-header X-Request-Id %[unique-id]
  default_backend up
frontend secure
  bind 127.0.0.1:{tls_port} ssl crt {run}/both.pem ssl-min-ver TLSv1.3
  http-request return status 200 content-type text/html file {root}/1k.html
backend up
  http-request replace-path /up/(.*) /up/\\1
  server up 127.0.0.1:{upstream}
"""

FPM = """
[global]
daemonize = no
error_log = {run}/fpm.err
"""

# Processes of its own for each server: an idle connection of the one keeps a process from the other.
POOL = """
[{name}]
user = bitrix
group = bitrix
listen = {socket}
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
https = ["127.0.0.1:{tls_port}"]
certificate = "{run}/chain.pem"
key = "{run}/key.pem"
workers = 1
cache = "64MiB"
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


def load(server, path, how):
    before = server.cpu_seconds()
    if isinstance(how, str):
        argv = ["taskset", "-c", "1", TLS_LOAD, str(server.secure), path, str(SECONDS), how]
        rate = float(subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout)
    else:
        url = f"http://127.0.0.1:{server.port}{path}"
        argv = ["taskset", "-c", "1", "wrk", "-t1", f"-c{how}", f"-d{SECONDS}s", url]
        out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", out)
        if bad:
            sys.exit(f"{server.name} {path}: {bad.group(0)}")
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
    return rate, rate * SECONDS / max(server.cpu_seconds() - before, 1 / TICKS)


def certificate():
    pair = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{run}/key.pem", "-out", f"{run}/chain.pem"]
    subprocess.run(["openssl", "req", "-x509", "-subj", "/CN=portal.test", "-days", "2", *pair], check=True, capture_output=True)
    Path(f"{run}/both.pem").write_text(Path(f"{run}/chain.pem").read_text() + Path(f"{run}/key.pem").read_text())
    for name in ["key.pem", "chain.pem", "both.pem"]:
        os.chmod(f"{run}/{name}", 0o644)


def main():
    root = f"{run}/root"
    os.mkdir(root)
    os.mkdir(f"{root}/up")
    for name, size in [("1k.html", 1024), ("100k.bin", 102400), ("up/1k.html", 1024)]:
        Path(f"{root}/{name}").write_bytes(b"x" * size)
    Path(f"{root}/hello.php").write_text("<?php echo 'hello';")
    Path(f"{root}/page.php").write_text("<?php header('Cache-Control: public, max-age=3600'); echo str_repeat('page ', 2048);")
    php, upstream = f"{run}/fpm.sock", free_port()
    plain, secure = ({name: free_port() for name in ["nginx", "haproxy", "bitrix-node"]} for _ in range(2))
    os.mkdir(f"{run}/php")
    pools = POOL.format(name="nginx", socket=php) + POOL.format(name="bitrix-node", socket=f"{run}/php/fpm.sock")
    certificate()
    facts = dict(run=run, root=root, php=php, upstream=upstream)
    for folder in ["b", "p", "f", "u", "s"]:
        os.mkdir(f"{run}/{folder}")
    of = lambda name: dict(port=plain[name], tls_port=secure[name], **facts)
    write = lambda name, text: Path(f"{run}/{name}").write_text(text) and f"{run}/{name}"
    tls = f"listen 127.0.0.1:{secure['nginx']} ssl; ssl_certificate {run}/chain.pem; ssl_certificate_key {run}/key.pem; ssl_protocols TLSv1.3; ssl_session_cache shared:s:10m;"
    write("nginx.conf", NGINX.format(secure=tls, fields=FIELDS, access=f"{run}/nginx-access.log combined buffer=64k", **of("nginx")))
    origin = NGINX.format(port=upstream, secure="", fields="", access="off", **facts).replace("nginx.pid", "up.pid").replace("location /up/", "location /nowhere/")
    # Not kept by anybody: it is the way that is measured.
    origin = origin.replace("/kept keys", "/up-kept keys").replace("location = /page.php", 'add_header Cache-Control no-store; location = /page.php')
    write("up.conf", origin)
    write("haproxy.cfg", HAPROXY.format(**of("haproxy")))
    write("fpm.conf", FPM.format(**facts) + pools)
    write("config.toml", CONFIG.format(access=f"{run}/access.log", **of("bitrix-node")))

    servers = []
    try:
        servers.append(Server(run, "fpm", [str(PHP_FPM), "-F", "-y", f"{run}/fpm.conf"], 1, 0))
        servers.append(Server(run, "upstream", ["nginx", "-c", f"{run}/up.conf", "-e", "stderr"], 1, upstream))
        servers.append(Server(run, "nginx", ["nginx", "-c", f"{run}/nginx.conf", "-e", "stderr"], 0, plain["nginx"]))
        servers.append(Server(run, "haproxy", ["haproxy", "-db", "-f", f"{run}/haproxy.cfg"], 0, plain["haproxy"]))
        servers.append(front(run, "bitrix-node", EXECUTABLE, f"{run}/config.toml", 0, plain["bitrix-node"], secure["bitrix-node"]))
        servers[0].wait(lambda: all(map(os.path.exists, [php, f"{run}/php/fpm.sock"])))
        for server in servers[1:]:
            server.wait()
            server.secure = secure.get(server.name)
        compare({server.name: server for server in servers})
    finally:
        for server in reversed(servers):
            server.stop()


def compare(servers):
    print(f"{ROUNDS} rounds of {SECONDS} s, medians; ratio = bitrix-node / the other")
    print(f"{'case':21}{'beside':9}{'its rps':>10}{'ours rps':>10}{'ratio':>7}{'its /cpu-s':>12}{'ours /cpu-s':>12}{'ratio':>7}")
    for case, path, how, others in CASES:
        names, rounds = [*others, "bitrix-node"], []
        for name in names:
            load(servers[name], path, how)
        for _ in range(ROUNDS):
            rounds.append({name: load(servers[name], path, how) for name in names})
        for other in others:
            median = lambda pick: statistics.median(pick(one[other], one["bitrix-node"]) for one in rounds)
            print(
                f"{case:21}{other:9}{median(lambda it, us: it[0]):10.0f}{median(lambda it, us: us[0]):10.0f}"
                f"{median(lambda it, us: us[0] / it[0]):7.2f}{median(lambda it, us: it[1]):12.0f}"
                f"{median(lambda it, us: us[1]):12.0f}{median(lambda it, us: us[1] / it[1]):7.2f}",
                flush=True,
            )


run = tempfile.mkdtemp(prefix="bitrix-bench-", dir="/tmp")
os.chmod(run, 0o755)
try:
    main()
finally:
    shutil.rmtree(run, ignore_errors=True)
