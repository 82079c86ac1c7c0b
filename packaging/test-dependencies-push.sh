#!/bin/sh
# Installs what `make test-push` and `make bench-push` need: nchan, Redis, Chromium, and from npm the portal's public client, a WebSocket
# server and the driver of Chromium into target/push-client. Debian 12; as root. Does nothing when all is there.
set -eu
here=$(dirname "$0")
node=
# Node.js of another source brings npm with it, and Debian's would be at odds with it.
command -v npm >/dev/null || node="nodejs npm"
# shellcheck disable=SC2086
"$here/test-dependencies.sh" python3 util-linux libnginx-mod-nchan redis-server chromium $node

folder=$here/../target/push-client
wanted="@bitrix24/b24jssdk@2.2.0 ws@8 xhr2@0.2 redis@4 playwright-core@1"
[ "$(cat "$folder/wanted" 2>/dev/null)" = "$wanted" ] && exit 0
mkdir -p "$folder"
# shellcheck disable=SC2086
npm install --prefix "$folder" --no-audit --no-fund --silent $wanted
echo "$wanted" >"$folder/wanted"
