#!/bin/sh
# Installs what `make deb`, `make rpm` and `make dist` need: two cargo tools into target/tools, and the checkers of packages.
# Debian 12; as root, unless all is there. The tools take minutes to build, so they are optimised no more than compressing asks for.
set -eu
here=$(dirname "$0")
tools=$here/../target/tools

if [ "$(id -u)" = 0 ]; then
    "$here/test-dependencies.sh" lintian rpm rpmlint shellcheck openssl
fi
export CARGO_PROFILE_RELEASE_OPT_LEVEL=2 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
for tool in cargo-deb@3.8.0 cargo-generate-rpm@0.21.1; do
    [ -x "$tools/bin/${tool%@*}" ] || ${CARGO:-cargo} install --quiet --locked --root "$tools" "$tool"
done
