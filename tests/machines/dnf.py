#!/usr/bin/python3
"""A machine with dnf in the place of apt-get, and the programs where RHEL's packages put them: `init` installs what a node of a Galera
cluster needs and makes its data folder. The packages are made here, of this machine's programs: what is shown is the use of dnf, the
names, and the places; not RHEL's own builds. Prints a table; the exit code is 1 when a claim does not hold.

    dnf.py EXECUTABLE
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

INSIDE = "BITRIX_DNF_ROOT"

# It is built for the place of the server.
SCRIPT = "/usr/bin/mariadb-install-db"
# Package: what it has, by its place here and there.
PACKAGES = {
    "php-fpm": {"/usr/sbin/php-fpm8.2": "/usr/sbin/php-fpm", "/usr/bin/php8.2": "/usr/bin/php"},
    "mariadb-server": {
        "/usr/sbin/mariadbd": "/usr/libexec/mariadbd",
        SCRIPT: SCRIPT,
    },
    "mariadb-server-galera": {},
    "galera": {"/usr/lib/galera/libgalera_smm.so": "/usr/lib64/galera/libgalera_smm.so", "/usr/bin/garbd": "/usr/bin/garbd"},
    "mariadb-backup": {"/usr/bin/mariadb-backup": "/usr/bin/mariadb-backup"},
    "socat": {"/usr/bin/socat": "/usr/bin/socat"},
}
# This machine's PHP has them compiled or configured; their packages need only be there.
EXTENSIONS = ["common", "gd", "mbstring", "mysqlnd", "xml", "pecl-memcache", "pecl-memcached", "pecl-zip"]
FOREIGN = ["/usr/bin/apt-get", "/usr/bin/apt", "/usr/sbin/mysqld", "/usr/bin/php", "/usr/bin/php8.2", "/usr/bin/mysql_install_db"]

REPOSITORY = "[made-here]\nname=made here\nbaseurl=file://{}\ngpgcheck=0\n"
CONFIG = '[php]\nchildren = 2\n[db]\nbuffer_pool = "64MiB"\n[cache]\nmemory = "16MiB"\n'


def run(*words, **more):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True, **more)


def build(name, files, folder):
    """An RPM of these files."""
    root = folder / "root" / name
    for here, there in files.items():
        place = root / there.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(here).resolve(), place)
        if there == SCRIPT:
            place.write_text(place.read_text().replace("/usr/sbin/mariadbd", "/usr/libexec/mariadbd"))
    root.mkdir(parents=True, exist_ok=True)
    spec = folder / f"{name}.spec"
    lines = [
        f"Name: {name}", "Version: 1", "Release: 1", "Summary: for a test", "License: none", "BuildArch: x86_64", "AutoReqProv: no",
        "%define debug_package %{nil}", "%define __strip /bin/true", "%description", "For a test.",
        "%install", f"cp -a {root}/. %{{buildroot}}/", "%files", *files.values(),
    ]
    spec.write_text("\n".join(lines) + "\n")
    run("rpmbuild", "-bb", "--define", f"_topdir {folder / 'build'}", "--define", f"_rpmdir {folder / 'repository'}", spec)


def inside(folder, executable):
    """In a mount namespace of its own: this machine's disk under a layer that ends with it."""
    run("mount", "-t", "tmpfs", "none", folder / "layer")
    upper, work, root = (folder / "layer" / name for name in ("upper", "work", "root"))
    for one in (upper, work, root):
        one.mkdir()
    run("mount", "-t", "overlay", "none", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", root)
    for name in ("proc", "dev", "sys"):
        run("mount", "--rbind", f"/{name}", root / name)
    run("mount", "--bind", folder, root / "mnt")
    moved = [here for files in PACKAGES.values() for here in files]
    for path in [*moved, *FOREIGN]:
        (root / path.lstrip("/")).unlink(missing_ok=True)
    for old in ("etc/yum.repos.d", "var/lib/bitrix-node", "etc/bitrix-node"):
        shutil.rmtree(root / old, ignore_errors=True)
    (root / "etc/yum.repos.d").mkdir(parents=True)
    (root / "etc/yum.repos.d/here.repo").write_text(REPOSITORY.format("/mnt/repository"))
    (root / "etc/bitrix-node").mkdir()
    (root / "etc/bitrix-node/config.toml").write_text(CONFIG)
    shutil.copy2(executable, root / "usr/bin/bitrix-node")
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}

    def there(*words):
        said = subprocess.run(["chroot", root, *words], capture_output=True, text=True, env=environment)
        return said.returncode, said.stdout + said.stderr

    failed = False

    def claim(name, holds, detail):
        nonlocal failed
        failed |= not holds
        print(f"{'ok   ' if holds else 'WRONG'} {name:26} {detail}", flush=True)

    init = ["bitrix-node", "init", "--yes", "--galera", "--name", "n1", "--address", "10.0.0.1"]
    code, said = there(*init)
    claim("init", code == 0, said.strip().replace("\n", " · ")[-600:])
    code, listed = there("rpm", "-q", *PACKAGES, *(f"php-{name}" for name in EXTENSIONS if f"php-{name}" in said))
    claim("packages are installed", code == 0, " ".join(listed.split()))
    data = root / "var/lib/bitrix-node"
    claim("the node is prepared", data.is_dir() and any(data.iterdir()), sorted(path.name for path in data.iterdir()) if data.is_dir() else "")
    code, said = there(*init)
    claim("init again", code == 0 and "install packages:  none" in said, said.strip().replace("\n", " · ")[:300])
    sys.exit(failed)


def main():
    executable = Path(sys.argv[1]).resolve()
    if os.environ.get(INSIDE):
        inside(Path(os.environ[INSIDE]), executable)
    with tempfile.TemporaryDirectory(prefix="bitrix-dnf-", dir="/var/tmp") as name:
        folder = Path(name)
        (folder / "layer").mkdir()
        for package, files in PACKAGES.items():
            build(package, files, folder)
        for extension in EXTENSIONS:
            build(f"php-{extension}", {}, folder)
        run("createrepo_c", folder / "repository")
        ended = subprocess.run(["unshare", "--mount", "--net", sys.executable, __file__, executable], env={**os.environ, INSIDE: name})
    sys.exit(ended.returncode)


main()
