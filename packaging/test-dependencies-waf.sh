#!/bin/sh
# Brings what `make bench-waf` and `make test-waf` need into target/waf-tools: nginx's module of ModSecurity with its libraries, and the rule set,
# unpacked and not installed, since an installed module would be loaded by every nginx of the machine. Debian 12; as root for nginx and wrk.
set -eu
here=$(dirname "$0")
"$here/test-dependencies.sh" nginx-light wrk python3 util-linux
folder=$here/../target/waf-tools
wanted="libnginx-mod-http-modsecurity libmodsecurity3 modsecurity-crs libyajl2 libfuzzy2 libgeoip1 liblua5.3-0 libmaxminddb0"
[ "$(cat "$folder/wanted" 2>/dev/null)" = "$wanted" ] && exit 0
mkdir -p "$folder"
cd "$folder"
# shellcheck disable=SC2086
apt-get -qq -o APT::Sandbox::User=root download $wanted
for package in *.deb; do
    dpkg-deb -x "$package" .
    rm "$package"
done
echo "$wanted" >wanted
