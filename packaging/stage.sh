#!/bin/sh
# Lays out what the packages hold, as it will lie on a machine, into target/package: `files`, and the scripts of deb and rpm with
# what they include. The public half of the release key comes along: with it a node checks the next versions.
set -eu
cd "$(dirname "$0")/.."
binary=${1:?usage: stage.sh EXECUTABLE DOCS RELEASE_PEM}
docs=$2
key=$3
stage=target/package

rm -rf "$stage"

# Replaces each `#include NAME` by packaging/NAME.
expand() {
    mkdir -p "$(dirname "$3")"
    awk '$1 == "#include" { while ((getline line < ("packaging/" $2)) > 0) print line; next } { print }' "$2" >"$3"
    chmod "$1" "$3"
}

put() {
    install -D -m "$1" "$2" "$stage/files/$3"
}

for script in postinst prerm postrm; do
    expand 755 "packaging/deb/$script" "$stage/deb/$script"
done
for script in post preun postun; do
    expand 644 "packaging/rpm/$script.sh" "$stage/rpm/$script.sh"
done

put 755 "$binary" usr/bin/bitrix-node
expand 755 packaging/uninstall.sh "$stage/files/usr/lib/bitrix-node/uninstall"
put 644 systemd/bitrix-node.service usr/lib/systemd/system/bitrix-node.service
put 644 systemd/bitrix-node.sysusers.conf usr/lib/sysusers.d/bitrix-node.conf
put 644 systemd/bitrix-node.tmpfiles.conf usr/lib/tmpfiles.d/bitrix-node.conf
put 644 "$key" etc/bitrix-node/release.pem
put 644 "$docs/bitrix-node.bash" usr/share/bash-completion/completions/bitrix-node
put 644 "$docs/bitrix-node.zsh" usr/share/zsh/vendor-completions/_bitrix-node
put 644 "$docs/bitrix-node.fish" usr/share/fish/vendor_completions.d/bitrix-node.fish
put 644 README.md usr/share/doc/bitrix-node/README.md
put 644 packaging/changelog usr/share/doc/bitrix-node/changelog.Debian
put 644 packaging/lintian-overrides usr/share/lintian/overrides/bitrix-node
for page in "$docs"/*.1; do
    put 644 "$page" "usr/share/man/man1/$(basename "$page")"
done
gzip -9n "$stage"/files/usr/share/man/man1/*.1 "$stage/files/usr/share/doc/bitrix-node/changelog.Debian"
