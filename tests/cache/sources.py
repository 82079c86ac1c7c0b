"""The suites' own sources, fetched when they are first needed and kept in target/cache-suites: nothing of theirs is in this repository."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent.parent / "target/cache-suites"
# memcached's as Debian 12 has it; the extension's tests from the release after, because its pool has no longer the one of 12.
SUMS = {
    "memcached_1.6.18.orig.tar.xz": "35872bd25f8d29d7cc2072d23e74344530891bfd0aa4f4f64184a8ae7291164b",
    "php-memcached_3.3.0.orig.tar.gz": "2b85bf6699497170801fb4d06eb9c9a06bfc551cdead04101dd75c980be9eebf",
}
SDISTS = {"pymemcache": "4.0.0", "pylibmc": "1.6.3"}


class Missing(Exception):
    pass


def mirror():
    """Where this machine has its packages from."""
    for path in [*Path("/etc/apt/sources.list.d").glob("*.sources"), *Path("/etc/apt/sources.list.d").glob("*.list"), Path("/etc/apt/sources.list")]:
        if path.exists() and (found := re.search(r"^(?:URIs: |deb (?:\[.*?\] )?)(\S*/debian)/?\s", path.read_text(), re.MULTILINE)):
            return found.group(1)
    raise Missing("no Debian mirror is configured")


def from_debian(name):
    """An upstream tarball from Debian's pool, by its file name."""
    kept = FOLDER / name
    if not kept.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        package = name.split("_")[0]
        prefix = package[:4] if package.startswith("lib") else package[0]
        part = FOLDER / (name + ".part")
        uri = f"{mirror()}/pool/main/{prefix}/{package}/{name}"
        run(["/usr/lib/apt/apt-helper", "download-file", uri, str(part), f"SHA256:{SUMS[name]}"])
        part.rename(kept)
    if hashlib.sha256(kept.read_bytes()).hexdigest() != SUMS[name]:
        raise Missing(f"{kept} is not what it should be")
    return kept


def from_pypi(package):
    kept = FOLDER / f"{package}-{SDISTS[package]}.tar.gz"
    if not kept.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation", "--no-binary", ":all:"]
        run([*words, f"{package}=={SDISTS[package]}", "--dest", str(FOLDER)])
    return kept


def unpacked(archive, folder):
    """The archive's contents in a fresh folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder)
    inside = [path for path in folder.iterdir() if path.is_dir()]
    return inside[0] if len(inside) == 1 else folder


def run_tests_php():
    """PHP's test runner, which only its development package has; that is unpacked, not installed."""
    kept = FOLDER / "run-tests.php"
    if not kept.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        version = subprocess.run(["php", "-r", "echo PHP_MAJOR_VERSION, '.', PHP_MINOR_VERSION;"], capture_output=True, text=True, check=True).stdout
        scratch = FOLDER / "php-dev"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        run(["apt-get", "download", "-qq", f"php{version}-dev"], cwd=scratch)
        run(["dpkg-deb", "-x", str(next(scratch.glob("*.deb"))), str(scratch)])
        shutil.copy(next(scratch.glob("usr/lib/php/*/build/run-tests.php")), kept)
        shutil.rmtree(scratch)
    return kept


def run(words, **options):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        raise Missing(f"{' '.join(words)}: {done.stdout.strip()[-300:]}")


def all():
    os.makedirs(FOLDER, exist_ok=True)
    return {
        "memcached": from_debian("memcached_1.6.18.orig.tar.xz"),
        "phpt": from_debian("php-memcached_3.3.0.orig.tar.gz"),
        "pymemcache": from_pypi("pymemcache"),
        "pylibmc": from_pypi("pylibmc"),
        "run-tests": run_tests_php(),
    }


if __name__ == "__main__":
    try:
        for name, path in all().items():
            print(f"{name:12}{path}")
    except Missing as missing:
        sys.exit(str(missing))
