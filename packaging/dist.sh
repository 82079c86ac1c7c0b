#!/bin/sh
# Makes the folder of a release, to be published as it is:
#
#     install.sh      with the key and the address in it
#     stable          the version that the channel names; BITRIX_NODE_CHANNEL names another
#     v0.1.0/         packages, executable, archive of files, VERSION, SHA256SUMS and its signatures
set -eu
cd "$(dirname "$0")/.."
binary=${1:?usage: dist.sh EXECUTABLE PACKAGES FOLDER [BASE_URL]}
packages=$2
dist=$3
base=${4-}
key=$(packaging/key.sh)
version=$("$binary" version | sed 's/^bitrix-node //')
release=$dist/v$version

rm -rf "$release"
mkdir -p "$release"
cp "$packages/bitrix-node_$version-1_amd64.deb" "$packages/bitrix-node-$version-1.x86_64.rpm" "$release"
cp "$binary" "$release/bitrix-node-$version-x86_64"
tar -C target/package/files --exclude ./usr/share/lintian --owner root --group root --sort name -czf "$release/bitrix-node-$version-x86_64.tar.gz" .
echo "$version" >"$release/VERSION"
# A node checks the executable by itself, without the list.
packaging/sign.py "$key" "$release/bitrix-node-$version-x86_64"
rm "$release/bitrix-node-$version-x86_64.sshsig"
(cd "$release" && sha256sum -- * >SHA256SUMS)
packaging/sign.py "$key" "$release/SHA256SUMS"

public=$(packaging/sign.py "$key" --public)
awk '$1 == "#include" { while ((getline line < ("packaging/" $2)) > 0) print line; next } { print }' packaging/install.sh |
    sed "s|@KEY_OPENSSL@|${public% *}|; s|@KEY_OPENSSH@|${public#* }|; s|@BASE_URL@|$base|" >"$dist/install.sh"
chmod 755 "$dist/install.sh"
echo "$version" >"$dist/${BITRIX_NODE_CHANNEL:-stable}"
echo "$dist: bitrix-node $version, signed with $key"
