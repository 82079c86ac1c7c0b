#!/bin/sh
# Installs what `make test-backup` needs: tools of Debian, and moto, a server that speaks S3, into the folder named. Debian 12; as root.
set -eu
folder=${1:?usage: test-dependencies-backup.sh FOLDER}
"$(dirname "$0")/test-dependencies.sh" galera-4 socat python3-pymysql python3-venv age zstd openssl
if ! [ -x "$folder/bin/moto_server" ]; then
    /usr/bin/python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet 'moto[server,s3]==5.2.5'
fi
