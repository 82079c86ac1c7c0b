#!/bin/sh
# Installs bitrix-node on this machine, or replaces it by a newer one:
#
#     curl -fsSL @BASE_URL@/install.sh | sh
#     curl -fsSL @BASE_URL@/install.sh | sh -s -- join 10.0.0.11 --token TOKEN
#     ./install.sh --local FOLDER        without a network: a folder of a release, v0.1.0 say
#
# What follows is done with the new executable: `init …`, `join …`. Without it nothing is started. The environment:
#
#     BITRIX_NODE_VERSION      this version; else the one that the channel names
#     BITRIX_NODE_CHANNEL      stable
#     BITRIX_NODE_URL          address of a node, to join it with
#     BITRIX_NODE_TOKEN        a token of `bitrix-node token create`
#     BITRIX_NODE_SKIP_START   not empty: install only, whatever follows
#     BITRIX_NODE_SKIP_ENABLE  not empty: leave it to you to start it when the machine boots
#     BITRIX_NODE_BASE_URL     where the releases are
#
# Everything is in functions and the last line calls: of a download that was cut off, nothing runs.
set -eu

# The public half of the key that signs releases, in the forms of OpenSSL and OpenSSH.
KEY_OPENSSL='@KEY_OPENSSL@'
KEY_OPENSSH='@KEY_OPENSSH@'
BASE_URL='@BASE_URL@'
# The executable opens files by openat2(2).
KERNEL=5.6
LIBRARY=/usr/lib/bitrix-node

#include service.sh

say() {
    echo "install: $*" >&2
}

# The second argument is the remedy.
fail() {
    say "$1"
    [ -z "${2-}" ] || say "  $2"
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

usage() {
    sed -n '2,/^# Everything/s/^# \{0,1\}//p' "$0" 2>/dev/null | sed '$d' | grep . ||
        echo "usage: install.sh [--local FOLDER] [init … | join …]"
    exit "$1"
}

# Sets `folder` and `follow`, the number of arguments that are for bitrix-node.
read_arguments() {
    folder=
    while [ $# -gt 0 ]; do
        case $1 in
        --local)
            [ -n "${2-}" ] || fail "--local needs a folder" "give the one that has SHA256SUMS in it"
            folder=$2
            shift 2
            ;;
        --help | -h) usage 0 ;;
        -*) fail "unknown option $1" "sh -s -- --help shows what there is" ;;
        *) break ;;
        esac
    done
    follow=$#
}

look_at_machine() {
    [ "$(id -u)" = 0 ] || fail "this needs root" "curl … | sudo sh"
    [ "$(uname -s)" = Linux ] || fail "bitrix-node runs on Linux only"
    case $(uname -m) in
    x86_64 | amd64) ;;
    *) fail "there is no release for $(uname -m)" "take an x86_64 machine" ;;
    esac
    kernel=$(uname -r)
    is_at_least "${kernel%%[!0-9.]*}" "$KERNEL" || fail "Linux $kernel is too old" "take Linux $KERNEL or newer"
    [ -d /run/systemd/system ] || say "systemd does not run here: start the node by \`bitrix-node run\`"
    if has dpkg && has dpkg-query; then
        family=deb
    elif has rpm && { has dnf || has yum || has zypper; }; then
        family=rpm
    else
        family=tar
    fi
}

# is_at_least 5.10 5.6
is_at_least() {
    [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]
}

installed_version() {
    bitrix-node version 2>/dev/null | sed 's/^bitrix-node //' || true
}

# Into a file beside, which gets its name when it is whole.
fetch() {
    if [ -n "$folder" ]; then
        cp "$folder/$1" "$work/$2" 2>/dev/null || fail "there is no $1 in $folder" "copy the whole folder of the release"
    elif has curl; then
        curl -fsSL --retry 3 --connect-timeout 20 -o "$work/part" "$url/$1" || fail "cannot fetch $url/$1" "$reach"
        mv "$work/part" "$work/$2"
    elif has wget; then
        wget -q --tries 3 --timeout 20 -O "$work/part" "$url/$1" || fail "cannot fetch $url/$1" "$reach"
        mv "$work/part" "$work/$2"
    else
        fail "neither curl nor wget is here" "install curl"
    fi
}

# Sets `version`, and in `url` the folder of the release.
choose_version() {
    url=${BITRIX_NODE_BASE_URL:-$BASE_URL}
    url=${url%/}
    reach="is the address right, and reachable from here? BITRIX_NODE_BASE_URL names another; --local needs no network"
    wanted=${BITRIX_NODE_VERSION-}
    wanted=${wanted#v}
    if [ -n "$folder" ]; then
        fetch VERSION version
    elif [ -n "$wanted" ]; then
        echo "$wanted" >"$work/version"
    else
        [ -n "$url" ] || fail "nobody said where releases are" "set BITRIX_NODE_BASE_URL"
        fetch "${BITRIX_NODE_CHANNEL:-stable}" version
    fi
    version=$(head -n 1 "$work/version")
    case $version in
    '' | *[!0-9A-Za-z.+~-]*) fail "\"$version\" is no version" "set BITRIX_NODE_VERSION, or another BITRIX_NODE_CHANNEL" ;;
    esac
    [ -z "$wanted" ] || [ "$wanted" = "$version" ] || fail "the folder holds $version, not $wanted"
    url=$url/v$version
}

# Whether there is nothing to install. An older release is taken only by its number.
is_there() {
    there=$(installed_version)
    [ -n "$there" ] && [ -e "$LIBRARY/uninstall" ] || return 1
    if [ "$there" = "$version" ]; then
        say "bitrix-node $version is here already"
        return 0
    fi
    [ -n "$wanted" ] || is_at_least "$version" "$there" ||
        fail "bitrix-node $there is here, which is newer than $version" "BITRIX_NODE_VERSION=$version takes the older one"
    return 1
}

# Two programs can check the signature; a bare machine has one of them.
check_signature() {
    fetch SHA256SUMS SHA256SUMS
    if has openssl && openssl version | grep -q '^OpenSSL [3-9]'; then
        fetch SHA256SUMS.sig SHA256SUMS.sig
        printf -- '-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----\n' "$KEY_OPENSSL" >"$work/key.pem"
        openssl pkeyutl -verify -pubin -inkey "$work/key.pem" -rawin -in "$work/SHA256SUMS" -sigfile "$work/SHA256SUMS.sig" \
            >/dev/null 2>&1 || is_forged
    elif has ssh-keygen && ! ssh-keygen -Y check-novalidate -n x -s /dev/null </dev/null 2>&1 | grep -q 'unknown option'; then
        fetch SHA256SUMS.sshsig SHA256SUMS.sshsig
        echo "release ssh-ed25519 $KEY_OPENSSH" >"$work/signers"
        ssh-keygen -q -Y verify -f "$work/signers" -I release -n bitrix-node -s "$work/SHA256SUMS.sshsig" \
            <"$work/SHA256SUMS" >/dev/null 2>&1 || is_forged
    else
        fail "nothing here can check the release's signature" "install openssl 3, or ssh-keygen of OpenSSH 8.2 or newer"
    fi
}

is_forged() {
    fail "the signature of SHA256SUMS is wrong: this is not what was released" "nothing was installed; tell who runs ${url%/v*}"
}

# fetch_checked FILE: what the signed list names, and nothing else.
fetch_checked() {
    fetch "$1" "$1"
    (cd "$work" && awk -v name="$1" '$2 == name' SHA256SUMS >sum && [ -s sum ] && sha256sum -c --status sum) ||
        fail "$1 is not what the signed SHA256SUMS says" "it may be cut off; run this again"
}

# Whole or not at all: the package tools see to it for packages.
install_package() {
    had_data=$(ls -d /etc/bitrix-node /var/lib/bitrix-node 2>/dev/null || true)
    case $family in
    deb)
        file=bitrix-node_$version-1_amd64.deb
        fetch_checked "$file"
        export DEBIAN_FRONTEND=noninteractive
        if has apt-get; then
            apt-get install -y -qq --no-install-recommends --allow-downgrades -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
                "$work/$file" >"$work/log" 2>&1 || is_not_installed
        else
            dpkg --install "$work/$file" >"$work/log" 2>&1 || is_not_installed
        fi
        ;;
    rpm)
        file=bitrix-node-$version-1.x86_64.rpm
        fetch_checked "$file"
        rpm --upgrade --replacepkgs --oldpackage "$work/$file" >"$work/log" 2>&1 || is_not_installed
        ;;
    tar)
        file=bitrix-node-$version-x86_64.tar.gz
        fetch_checked "$file"
        install_files
        ;;
    esac
}

is_not_installed() {
    cat "$work/log" >&2
    # On a machine that had nothing of it, nothing stays; what a former installation kept does.
    if [ "$family" = deb ] && ! dpkg-query -W -f '${Status}' bitrix-node 2>/dev/null | grep -q 'ok installed'; then
        way=--remove
        [ -n "$had_data" ] || way=--purge
        dpkg "$way" --force-remove-reinstreq bitrix-node >/dev/null 2>&1 || true
    fi
    fail "the package tool refused; see above" "mend what it says and run this again"
}

# Each file is renamed into its place; the list for the uninstaller lies there before the first.
install_files() {
    mkdir "$work/files"
    tar -xzf "$work/$file" -C "$work/files" --no-same-owner || fail "cannot unpack $file" "is the disk full?"
    mkdir -p "$LIBRARY"
    (cd "$work/files" && find . -type f | sed 's/^\.\///') >"$work/list"
    cp "$work/list" "$LIBRARY/files"
    while read -r name; do
        mkdir -p "/${name%/*}"
        # The operator's own, once it is there.
        case $name in etc/*) [ ! -e "/$name" ] || continue ;; esac
        { cp -p "$work/files/$name" "/$name.new" && mv -f "/$name.new" "/$name"; } || {
            rm -f "/$name.new"
            [ -n "$there" ] || sh "$work/files/usr/lib/bitrix-node/uninstall" >/dev/null 2>&1 || true
            fail "cannot write /$name" "is the disk full, or mounted read-only?"
        }
    done <"$work/list"
    bitrix_node_configured
    [ -z "$there" ] || bitrix_node_upgraded
}

# The rest of the command line, or what the environment says. A question is answered at the terminal: standard input is this script.
do_what_follows() {
    if [ $# = 0 ] && [ -n "${BITRIX_NODE_TOKEN-}" ]; then
        [ -n "${BITRIX_NODE_URL-}" ] || fail "BITRIX_NODE_TOKEN is set, but no node to join" "set BITRIX_NODE_URL to a node's address"
        set -- join "$BITRIX_NODE_URL" --token "$BITRIX_NODE_TOKEN" --yes
    fi
    if [ $# = 0 ] || [ -n "${BITRIX_NODE_SKIP_START-}" ]; then
        [ $# = 0 ] || say "left for you, for BITRIX_NODE_SKIP_START is set: bitrix-node $1 …"
        return 0
    fi
    if (: </dev/tty) 2>/dev/null; then
        bitrix-node "$@" </dev/tty
    else
        bitrix-node "$@" </dev/null
    fi || fail "bitrix-node is installed, but \`bitrix-node $1\` did not succeed; see above" "mend it and repeat that command; it goes on where it stopped"
    if [ -n "${BITRIX_NODE_SKIP_ENABLE-}" ] && [ -d /run/systemd/system ]; then
        systemctl -q disable bitrix-node.service
    fi
    has_followed=yes
}

say_next() {
    say "bitrix-node $version is installed; to remove it: $LIBRARY/uninstall [--purge-data]"
    if [ -z "$has_followed" ] && [ -z "$there" ]; then
        say "next, for a first node:   bitrix-node init"
        say "to join others:           bitrix-node join ADDRESS --token TOKEN (a node of theirs prints it: bitrix-node token create)"
    fi
}

main() {
    read_arguments "$@"
    shift $(($# - follow))
    look_at_machine
    work=$(mktemp -d)
    # apt reads as another user.
    chmod 755 "$work"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM HUP
    has_followed=
    choose_version
    if ! is_there; then
        check_signature
        install_package
        [ "$(installed_version)" = "$version" ] || fail "bitrix-node does not run here" "see: bitrix-node version"
    fi
    do_what_follows "$@"
    say_next
}

main "$@"
