#!/usr/bin/env python3
"""The machines' disks, made of Debian packages and kept below target/machines until the lists here change:

    bare    Debian as a provider of virtual machines gives it: systemd, curl, little more
    web     bare with PHP-FPM and the extensions that a portal needs
    data    web with MariaDB
    mirror  the packages that `init` installs on a bare machine, as a repository for a local web server

Each is a layer on the one before, to be put together by overlayfs. As a program, `image.py FOLDER` makes them; it needs the network.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

SUITE = "bookworm"
BARE = "systemd systemd-sysv dbus iproute2 iputils-arping procps curl ca-certificates openssl iputils-ping netbase passwd less"
# What `bitrix-node init` asks for; a test of the story sees to it that it finds nothing missing.
WEB = "php-fpm php-cli php-mysql php-memcached php-memcache php-mbstring php-curl php-gd php-xml php-zip"
DATA = "mariadb-server"
# In the mirror only: a chapter of the story installs it.
MORE = "rpm"
INSTALL = "apt-get install -y -qq --no-install-recommends"
# The layers under each kind of machine, the lowest first.
KINDS = {"bare": ["bare"], "web": ["bare", "web"], "data": ["bare", "web", "data"]}


def run(*words, **more):
    subprocess.run(list(map(str, words)), check=True, stdin=subprocess.DEVNULL, **more)


class Images:
    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        self.mirror = self.folder / "mirror"

    def layers(self, kind):
        return [self.folder / layer for layer in KINDS[kind]]

    def ensure(self):
        """Makes what is not there yet; minutes, the first time."""
        recipe = hashlib.sha256("\n".join([SUITE, BARE, WEB, DATA, MORE, INSTALL]).encode()).hexdigest()
        mark = self.folder / "recipe"
        if mark.exists() and mark.read_text() == recipe:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.bare()
        self.packages()
        self.layer("web", ["bare"], WEB)
        self.layer("data", ["bare", "web"], DATA)
        mark.write_text(recipe)

    def bare(self):
        names = ",".join(BARE.split())
        mirror = "http://deb.debian.org"
        sources = [f"deb {mirror}/debian {SUITE} main", f"deb {mirror}/debian-security {SUITE}-security main"]
        run("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={names}", SUITE, self.folder / "bare", *sources)

    def packages(self):
        """All that the layers above hold beside what is in the lowest."""
        with self.assembled(["bare"]) as root:
            self.inside(root, f"apt-get update -qq && {INSTALL} --download-only {WEB} {DATA} {MORE}")
            self.mirror.mkdir()
            for package in (root / "var/cache/apt/archives").glob("*.deb"):
                shutil.copy(package, self.mirror)
        with open(self.mirror / "Packages", "wb") as index:
            run("apt-ftparchive", "packages", ".", cwd=self.mirror, stdout=index)

    def layer(self, name, below, packages):
        with self.assembled(below, self.folder / name) as root:
            # No daemon starts while its package is put there.
            policy = root / "usr/sbin/policy-rc.d"
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
            shutil.copytree(self.mirror, root / "mirror")
            (root / "etc/apt/sources.list.d/mirror.list").write_text("deb [trusted=yes] file:/mirror ./\n")
            only = "-o Dir::Etc::sourcelist=/etc/apt/sources.list.d/mirror.list -o Dir::Etc::sourceparts=-"
            self.inside(root, f"apt-get update -qq {only} && {INSTALL} {only} {packages}")
            shutil.rmtree(root / "mirror")
            for path in [policy, root / "etc/apt/sources.list.d/mirror.list"]:
                path.unlink()

    @contextlib.contextmanager
    def assembled(self, layers, upper=None):
        """The layers as one folder; changes go into `upper`, else nowhere."""
        place = self.folder / "making"
        shutil.rmtree(place, ignore_errors=True)
        upper = upper or place / "upper"
        for path in [place / "root", place / "work", upper]:
            path.mkdir(parents=True, exist_ok=True)
        overlay(place / "root", [self.folder / layer for layer in layers], upper, place / "work")
        try:
            yield place / "root"
        finally:
            run("umount", place / "root")
            shutil.rmtree(place)

    def inside(self, root, command):
        environment = {"PATH": os.defpath + ":/usr/sbin:/sbin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        shutil.copy("/etc/hosts", root / "etc/hosts")
        run("mount", "-t", "proc", "proc", root / "proc")
        try:
            run("chroot", root, "sh", "-ec", command, env=environment, stdout=subprocess.DEVNULL)
        finally:
            run("umount", root / "proc")


def overlay(place, layers, upper, work):
    lower = ":".join(str(layer) for layer in reversed(layers))
    run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", place)


if __name__ == "__main__":
    Images(sys.argv[1]).ensure()
