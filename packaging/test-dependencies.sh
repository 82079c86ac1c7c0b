#!/bin/sh
# Installs the real programs that the tests run against, and packages named as arguments. Debian 12; as root.
# Does nothing when all are there.
set -eu
packages="php-fpm php-cli php-mysql php-memcached php-memcache php-mbstring php-curl php-gd php-xml php-zip
mariadb-server mariadb-backup memcached libmemcached-tools nginx-light wrk curl binutils procps iproute2 nftables"

missing=
for package in $packages "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
export DEBIAN_FRONTEND=noninteractive
# No daemon shall start by itself: the tests start their own.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null
