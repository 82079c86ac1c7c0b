#!/bin/sh
# Installs what `make test-nfs-kernel`, `make test-fuse` and `make bench-storage` need: User-mode Linux, nfs-ganesha, and two suites
# of tests into target/kernel-suites. Debian 12; as root. Does nothing when all is there.
set -eu
here=$(dirname "$0")
"$here/test-dependencies.sh" user-mode-linux nfs-ganesha nfs-ganesha-vfs rpcbind nfs-common iproute2 util-linux mount python3

suites="pjdfstest@0.2.2 fsx@0.3.2"
folder=$here/../target/kernel-suites
for suite in $suites; do
    [ -x "$folder/bin/${suite%@*}" ] || ${CARGO:-cargo} install --quiet --locked --root "$folder" "$suite"
done
