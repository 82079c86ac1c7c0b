# shellcheck shell=sh
# Removes what a node has made on this machine, and nothing else: its folders, its users, its lines for PHP-FPM and MariaDB.
# MariaDB's own data folder belongs to MariaDB's package and stays. Part of the packages' scripts and of the uninstaller; POSIX sh.

# Where the files of all nodes are mounted is let go first: through it, they would be removed everywhere.
bitrix_node_remove() {
    [ -d "$1" ] || return 0
    for mount in $(bitrix_node_mounts "$1" '^(fuse|nfs)'); do
        umount -l "$mount" || true
    done
    if [ -n "$(bitrix_node_mounts "$1" .)" ]; then
        echo "bitrix-node: $1 stays, for something is mounted in it; unmount that and remove it by hand" >&2
        return 0
    fi
    # The folder may be a disk of its own: that stays, empty.
    find "$1" -xdev -mindepth 1 -delete || true
    rmdir "$1" 2>/dev/null || true
}

# Mount points below a folder, the innermost first, whose kind fits a pattern. proc(5): the kind follows a lone hyphen.
bitrix_node_mounts() {
    awk -v below="$1/" -v kind="$2" '
        index($5, below) == 1 { for (at = 6; $at != "-"; at++); if ($(at + 1) ~ kind) print $5 }' /proc/self/mountinfo | sort -r
}

# Only an account that these packages have made: a machine may have had its own user "bitrix".
bitrix_node_remove_user() {
    case $(getent passwd "$1" | cut -d: -f5) in
    "bitrix-node "*) ;;
    *) return 0 ;;
    esac
    userdel "$1" 2>/dev/null || echo "bitrix-node: user $1 stays, for it runs something; later: userdel $1" >&2
}

bitrix_node_forget_daemons() {
    for file in /etc/php/*/fpm/pool.d/bitrix-node.conf /etc/php/*/fpm/conf.d/99-bitrix-node.ini \
        /etc/php-fpm.d/bitrix-node.conf /etc/php.d/99-bitrix-node.ini \
        /etc/mysql/mariadb.conf.d/zz-bitrix-node.cnf /etc/my.cnf.d/zz-bitrix-node.cnf; do
        [ -e "$file" ] || continue
        rm -f -- "$file"
        case $file in
        /etc/php/*) unit=${file#/etc/php/} unit=php${unit%%/*}-fpm.service ;;
        /etc/php*) unit=php-fpm.service ;;
        *) unit=mariadb.service ;;
        esac
        [ ! -d /run/systemd/system ] || systemctl try-restart "$unit" 2>/dev/null || true
    done
}

bitrix_node_purge() {
    bitrix_node_forget_daemons
    # Kept by an upgrade.
    rm -f /usr/bin/bitrix-node.previous
    for folder in /var/lib/bitrix-node /var/log/bitrix-node /run/bitrix-node /etc/bitrix-node; do
        bitrix_node_remove "$folder"
    done
    bitrix_node_remove_user bitrix-node
    bitrix_node_remove_user bitrix
}
