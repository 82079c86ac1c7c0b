"""A next version to upgrade to: the same program with a mark at its end, which makes it another file and changes nothing it does.
Signed with the key of this tree, as a package and as a bare executable."""

import subprocess
from pathlib import Path

from image import run

PACKAGING = Path(__file__).resolve().parent.parent.parent / "packaging"
REVISION = "2"


def executable(release, folder, mark):
    """Writes it with its signature beside; returns its path."""
    version = (release / "stable").read_text().strip()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bitrix-node-{mark}"
    path.write_bytes((release / f"v{version}/bitrix-node-{version}-x86_64").read_bytes() + f"\n{mark}\n".encode())
    path.chmod(0o755)
    key = subprocess.run([PACKAGING / "key.sh"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    run(PACKAGING / "sign.py", key, path)
    return path


def package(release, folder, program):
    """The release's package with that executable, one revision on."""
    version = (release / "stable").read_text().strip()
    tree, made = folder / "tree", folder / f"bitrix-node_{version}-{REVISION}_amd64.deb"
    run("dpkg-deb", "--raw-extract", release / f"v{version}/bitrix-node_{version}-1_amd64.deb", tree)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace(f"Version: {version}-1", f"Version: {version}-{REVISION}"))
    (tree / "usr/bin/bitrix-node").write_bytes(program.read_bytes())
    run("dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, made, stdout=subprocess.DEVNULL)
    return made
