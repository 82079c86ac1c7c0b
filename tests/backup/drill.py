"""What the restore drills have in common: rows that are written all the time with the times at which they were begun and acknowledged,
files of which the hash is known, the commands of `backup`, and the judge of what came back."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "cluster"))

# First: the other beds have one of that name.
from run import INSIDE, inside, outside  # isort: skip # noqa: F401

import pymysql
from shared import Table, now

FILES = 300
# Between two rows.
PAUSE = 0.01
RESTORE = 600
# What the running portal does not write by itself.
KEPT = ("upload", "index", "bitrix/.settings", "live", "style", "nemesis.txt")


def connect(node):
    return pymysql.connect(unix_socket=str(node.folder / "run/db/mariadb.sock"), user="root", autocommit=True, read_timeout=60)


def query(node, statement):
    connection = connect(node)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()
    finally:
        connection.close()


def utc(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class Writer(threading.Thread):
    """Rows with the times at which they were begun and acknowledged, by the wall clock that the server has, too."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.node, self.rows, self.is_over, self.failed = node, {}, False, []

    def run(self):
        connection, number = connect(self.node), 0
        while not self.is_over:
            number += 1
            begun = time.time()
            try:
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO sitemanager.drill VALUES (%s, %s)", (number, begun))
                self.rows[number] = (begun, time.time())
            except pymysql.err.Error as error:
                # Whether it is there is not known.
                self.rows[number] = (begun, float("inf"))
                self.failed.append(repr(error))
                return
            time.sleep(PAUSE)

    def end(self):
        self.is_over = True
        self.join(60)

    def slowest(self, since):
        """The longest that a row waited for its acknowledgement, of those begun since then."""
        return max((ended - begun for begun, ended in list(self.rows.values()) if begun >= since), default=0)


class Drill:
    def __init__(self, options, folder):
        self.options, self.folder = options, Path(folder)
        self.table = Table()
        self.store, self.key = str(self.folder / "store"), self.folder / "backup.key"
        self.random = random.Random(7)

    def row(self, name, is_good, detail, lines=()):
        self.table.row(name, is_good, detail, () if is_good else lines)

    # What is lost

    def fill(self, node):
        query(node, "CREATE TABLE sitemanager.drill (number INT PRIMARY KEY, begun DOUBLE) ENGINE=InnoDB")
        query(node, "CREATE TABLE sitemanager.bulk (number INT PRIMARY KEY AUTO_INCREMENT, text LONGTEXT) ENGINE=InnoDB")
        connection = connect(node)
        with connection.cursor() as cursor:
            for _ in range(self.options.megabytes):
                # Half of it can be packed.
                text = self.random.randbytes(1 << 18).hex() + "x" * (1 << 19)
                cursor.execute("INSERT INTO sitemanager.bulk (text) VALUES (%s)", (text,))
        connection.close()
        self.bulk = self.sums(node)
        root = node.files / "portal/upload"
        root.mkdir(exist_ok=True)
        shutil.chown(root, "www-data", "www-data")
        for number in range(FILES):
            place = root / f"{number % 17}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"Договор № {number}.bin").write_bytes(self.random.randbytes(self.random.randrange(0, 200_000)))
        os.symlink("0", root / "link")
        self.hashes = self.tree(node)

    @staticmethod
    def sums(node):
        return query(node, "SELECT COUNT(*), SUM(CRC32(text)), SUM(LENGTH(text)) FROM sitemanager.bulk")

    @staticmethod
    def tree(node):
        """Of every file the hash, with mode and owner; of links the target."""
        root, found = node.files / "portal", {}
        for path in sorted(root.rglob("*")):
            name, state = str(path.relative_to(root)), path.lstat()
            if name.startswith(KEPT):
                what = os.readlink(path) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
                found[name] = (what, oct(state.st_mode), state.st_uid, state.st_gid)
        return found

    @staticmethod
    def wipe(node):
        """The disks of a machine that is lost; returns what is left."""
        for place in [*node.machine.disk.iterdir(), node.folder / "log", node.folder / "run"]:
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        return [path.name for path in node.folder.rglob("*") if path.is_file()]

    # Commands

    def backup(self, node, *words, seconds=RESTORE):
        began = now()
        out = node.command("backup", *words, seconds=seconds)
        return out, now() - began

    def list(self, node, *words):
        return json.loads(self.backup(node, "list", *words, "--output", "json")[0])

    def refused(self, node, name, word, *words):
        try:
            out, _ = self.backup(node, *words)
            self.row(name, False, "it was not refused", [out])
        except RuntimeError as error:
            said = str(error)
            found = [line for line in said.splitlines() if word in line]
            self.row(name, found, found[0].strip()[-200:] if found else "was refused for another reason", [said])

    def bent(self, node, full):
        """Copies of the store in which one thing is wrong each; what has come to harm is told, and nothing is restored from it."""
        for name, word, bend in [("one bit bent", "BAD", flip), ("the last part of it cut off", "BAD", cut)]:
            place = self.folder / "bent"
            shutil.copytree(self.store, place)
            bend(next((place / full).glob("database.*")))
            self.refused(node, f"a part with {name}", word, "verify", full, "--store", place)
            shutil.rmtree(place)
        shutil.copytree(self.store, place)
        manifest = place / full / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"kind": "full"', '"kind":  "full"'))
        self.refused(node, "a manifest that was changed", "changed since", "verify", full, "--store", place)
        (place / full / "manifest.mac").unlink()
        self.refused(node, "a manifest that nobody signed", "changed since", "verify", full, "--store", place)
        manifest.unlink()
        left = self.list(node, "--store", place)
        self.row("without its manifest it is none", full not in [one["id"] for one in left], f"{len(left)} others")
        shutil.rmtree(place)

    def other_key(self):
        """A file with a key that made nothing here."""
        place, key = self.folder / "elsewhere", self.folder / "other.key"
        place.mkdir()
        config = place / "config.toml"
        config.write_text(f'[node]\ndata_dir = "{place}"\nrun_dir = "{place}"\nlog_dir = "{place}"\n')
        (place / "secrets").mkdir()
        line = [str(self.cluster.executable), "backup", "key", "export", "-", "--config", str(config)]
        key.write_text(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
        return key

    # What came back

    @staticmethod
    def is_green(node):
        one = subprocess.run(
            ["curl", "-s", "-m", "10", f"http://{node.address}/check.json"], preexec_fn=node.machine.enter_network, capture_output=True
        )
        try:
            return json.loads(one.stdout)["ok"]
        except (ValueError, KeyError):
            return False

    def judge(self, node, rows, moment):
        """Of that second: each row that was acknowledged before, none that was begun later, and the files of the backup."""
        there = {number for number, _ in query(node, "SELECT number, begun FROM sitemanager.drill")}
        must = {number for number, (_, acknowledged) in rows.items() if acknowledged < moment}
        must_not = {number for number, (begun, _) in rows.items() if begun >= moment}
        missing, too_many, strange = must - there, must_not & there, there - set(rows)
        detail = f"{len(must)} acknowledged before it are there, {len(must_not)} begun after it are not, {len(rows) - len(must) - len(must_not)} at that moment"
        bad = [f"missing {sorted(missing)[:5]}", f"too many {sorted(too_many)[:5]}", f"strange {sorted(strange)[:5]}"]
        self.row(f"rows of that moment on {node.name}", must and must_not and not missing and not too_many and not strange, detail, bad)
        self.row(f"the other rows on {node.name}", self.sums(node) == self.bulk, f"{self.options.megabytes} MB by checksum")
        files = self.tree(node)
        bad = [f"{name}: {files.get(name)} instead of {what}" for name, what in self.hashes.items() if files.get(name) != what]
        self.row(f"files on {node.name}", not bad and len(files) >= len(self.hashes), f"{len(self.hashes)} objects equal by hash, mode and owner", bad[:10])
        return there


def flip(part):
    with open(part, "r+b") as file:
        file.seek(part.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def cut(part):
    os.truncate(part, part.stat().st_size * 9 // 10)
