# shellcheck shell=sh
# What the packages' scripts and the installer do around the unit; POSIX sh.

bitrix_node_configured() {
    if command -v systemd-sysusers >/dev/null; then
        systemd-sysusers bitrix-node.conf
    fi
    if command -v systemd-tmpfiles >/dev/null; then
        # MariaDB's user may not be there yet; then `init` makes its folder.
        systemd-tmpfiles --create bitrix-node.conf 2>/dev/null || true
    fi
    [ ! -d /run/systemd/system ] || systemctl daemon-reload || true
}

# A node that runs goes on with the new executable, and keeps its connections; where that does not come up, with the one before. One
# that does not run is left alone.
bitrix_node_upgraded() {
    [ -d /run/systemd/system ] && systemctl -q is-active bitrix-node.service || return 0
    /usr/bin/bitrix-node upgrade restart || true
}

bitrix_node_stopped() {
    [ ! -d /run/systemd/system ] || systemctl --no-reload disable --now bitrix-node.service 2>/dev/null || true
}

bitrix_node_gone() {
    [ ! -d /run/systemd/system ] || systemctl daemon-reload || true
}
