#!/bin/sh
# Removes bitrix-node from this machine, however it came. Its data stay unless --purge-data is given. Can be repeated.
# A node of a cluster says goodbye first: `bitrix-node uninstall`.
set -u

#include service.sh
#include purge.sh

usage() {
    echo "usage: /usr/lib/bitrix-node/uninstall [--purge-data]" >&2
    exit 64
}

# What came without a package; the list was written when it came.
remove_files() {
    bitrix_node_stopped
    while read -r file; do
        rm -f -- "/$file"
    done </usr/lib/bitrix-node/files
    rm -f /usr/lib/bitrix-node/files
    bitrix_node_gone
}

remove() {
    if dpkg-query -W -f '${Status}' bitrix-node 2>/dev/null | grep -q ' installed'; then
        dpkg --remove bitrix-node
    elif rpm -q bitrix-node >/dev/null 2>&1; then
        rpm --erase bitrix-node
    elif [ -e /usr/lib/bitrix-node/files ]; then
        remove_files
    fi
}

main() {
    purge=
    case ${1-} in
    '') ;;
    --purge-data) purge=yes ;;
    *) usage ;;
    esac
    [ "$(id -u)" = 0 ] || { echo "uninstall: this needs root; use sudo" >&2; exit 77; }
    remove || { echo "uninstall: the package is still there; see above" >&2; exit 1; }
    # Kept by an upgrade.
    rm -f /usr/bin/bitrix-node.previous
    # Not every package tool removes the folders.
    rmdir /usr/lib/bitrix-node /usr/share/doc/bitrix-node /usr/share/licenses/bitrix-node 2>/dev/null
    if [ -z "$purge" ]; then
        echo "bitrix-node is removed; its data stay in /var/lib/bitrix-node and /etc/bitrix-node"
        return
    fi
    if dpkg-query -W bitrix-node >/dev/null 2>&1; then
        dpkg --purge bitrix-node
    fi
    bitrix_node_purge
    echo "bitrix-node and its data are removed"
}

# The whole script is read before anything of it is removed.
main "$@"; exit
