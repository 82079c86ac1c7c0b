#!/bin/sh
# Fails when the executable needs anything of the machine but its kernel.
set -eu
binary=${1:?usage: check-static.sh EXECUTABLE}

if readelf --program-headers --wide "$binary" | grep -q INTERP; then
    echo "$binary asks for a dynamic loader" >&2
    exit 1
fi
if readelf --dynamic --wide "$binary" | grep -q NEEDED; then
    echo "$binary needs shared libraries" >&2
    exit 1
fi
if ! readelf --file-header "$binary" | grep -q 'Type:.*DYN'; then
    echo "$binary is not position independent" >&2
    exit 1
fi
echo "$binary is static-pie, $(stat -c %s "$binary") bytes"
