#!/bin/sh
# Installs what `make test-nfs-kernel` and `make bench-storage` need: User-mode Linux, nfs-ganesha, and two suites of tests
# into target/kernel-suites. Debian 12; as root. Does nothing when all is there.
set -eu
packages="user-mode-linux nfs-ganesha nfs-ganesha-vfs rpcbind iproute2 util-linux mount python3 procps"
suites="pjdfstest@0.2.2 fsx@0.3.2"

missing=
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
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
fi

folder=$(dirname "$0")/../target/kernel-suites
for suite in $suites; do
    [ -x "$folder/bin/${suite%@*}" ] || ${CARGO:-cargo} install --quiet --locked --root "$folder" "$suite"
done
