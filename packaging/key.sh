#!/bin/sh
# Prints the file with the Ed25519 key that signs a release, and lays its public half beside it as `.pem`: the file that
# BITRIX_NODE_SIGNING_KEY names, else one made for this tree, which signs what never leaves this machine.
set -eu
key=$(realpath -m "${BITRIX_NODE_SIGNING_KEY:-$(dirname "$0")/../target/signing/development.key}")
cd "$(dirname "$0")/.."

if [ ! -e "$key" ]; then
    [ -z "${BITRIX_NODE_SIGNING_KEY-}" ] || { echo "key.sh: there is no $key" >&2; exit 1; }
    mkdir -p target/signing
    (umask 077 && openssl genpkey -algorithm ed25519 -out "$key")
fi
mkdir -p target/signing
openssl pkey -in "$key" -pubout -out target/signing/release.pem
echo "$key"
