#!/bin/sh
# What the distributions' own checkers say of the packages, and shellcheck of every script. Errors fail, except rpmlint's: it asks
# for tags that the tool which makes the package cannot write (group, signature, changelog).
set -eu
cd "$(dirname "$0")/.."
packages=${1:?usage: lint.sh PACKAGES}

shellcheck -S warning -s sh target/package/deb/* target/package/rpm/*.sh target/package/files/usr/lib/bitrix-node/uninstall target/dist/install.sh
shellcheck packaging/*.sh packaging/deb/*
lintian --allow-root --fail-on error "$packages"/*.deb
rpmlint --config packaging/rpmlint.toml "$packages"/*.rpm || true
