#!/bin/sh
# Installs what `make test-machines` needs: a builder of images, and containers that boot them. Debian 12; as root.
# Does nothing when all is there.
set -eu
"$(dirname "$0")/test-dependencies.sh" mmdebstrap systemd-container apt-utils iproute2 util-linux mount python3 openssl
