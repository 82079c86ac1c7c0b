#!/bin/sh
# Installs what `make test-cache` and `make bench-cache` need: memcached, nutcracker, memcached's clients in PHP and Python, and the sources of
# their tests into target/cache-suites. Debian 12; as root. Does nothing when all is there.
set -eu
here=$(dirname "$0")
"$here/test-dependencies.sh" gcc libc6-dev nutcracker perl python3 python3-pip python3-pylibmc python3-pytest util-linux
/usr/bin/python3 "$here/../tests/cache/sources.py" >/dev/null
