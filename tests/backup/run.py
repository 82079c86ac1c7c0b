#!/usr/bin/python3
"""The restore drill: a real node with database, replicated files and a portal, written to all the time; a backup and logs of it; then the
machine is lost with all its disks, and an empty one is brought to a chosen second. Prints a table with figures; the exit code is 1 when a row
is missing or too many, a file differs, the portal does not answer, or something that must be refused is not.

    run.py EXECUTABLE [--megabytes 100] [--s3 MOTO_SERVER] [--keep]

With --s3 the store is a bucket of that server (moto), over TLS with an authority of the bed's own.

All runs in namespaces of its own, as in `tests/cluster/run.py`.
"""

import argparse
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
from run import INSIDE, inside, outside  # isort: skip

import pymysql
from cluster import NETWORK, PATIENCE, Cluster
from shared import Table, now, until

BRIDGE = f"{NETWORK}.254"
FILES = 300
# Between two rows.
PAUSE = 0.01
SOME = 3
RESTORE = 600
# A look each minute, and a log a minute after.
SCHEDULE = 400


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


class Drill:
    def __init__(self, options, folder):
        self.options, self.folder = options, Path(folder)
        self.table = Table()
        self.cluster = Cluster(folder, options.executable, 2, os.environ[INSIDE])
        self.store, self.key = str(self.folder / "store"), self.folder / "backup.key"
        self.service = None
        self.random, self.both = random.Random(7), []

    def row(self, name, is_good, detail, lines=()):
        self.table.row(name, is_good, detail, () if is_good else lines)

    def all(self):
        try:
            self.found()
            self.back_up()
            self.logs()
            self.refusals()
            self.lose()
            self.restore()
            self.judge()
        except Exception as error:
            logs = [f"{node.name}: {node.log()[-2500:]}" for node in self.both]
            self.row("the bed", False, repr(error), logs)
        finally:
            if self.service:
                self.service.kill()
            self.cluster.nodes = self.both
            self.cluster.stop()
        return self.table.failed

    # The portal that will be lost

    def found(self):
        cluster = self.cluster
        cluster.make()
        self.both = list(cluster.nodes)
        self.lost, self.new = self.both
        cluster.nodes, cluster.count = [self.lost], 1
        Path(self.store).mkdir()
        section = self.serve() if self.options.s3 else ""
        for node in self.both:
            node.config.write_text(node.config.read_text() + f"[backup]\nlog = true\n{section}")
        # It is past midnight, and the new one has made none.
        scheduled = f'store = "{self.store}"\ndaily = "00:00"\nlog_every = "1m"\n'
        self.new.config.write_text(self.new.config.read_text() + scheduled)
        cluster.found()
        cluster.install()
        self.fill()
        self.writer = Writer(self.lost)
        self.writer.start()
        until("rows are written", lambda: len(self.writer.rows) > 10)
        self.row("a portal", True, f"{FILES} files, {self.options.megabytes} MB of rows, and rows that are written all the time")

    def serve(self):
        """A bucket; its lines of the configuration."""
        place = self.folder / "s3"
        place.mkdir()
        os.chmod(place, 0o755)
        self.certify(place)
        line = [self.options.s3, "-H", BRIDGE, "-p", "9000", "-c", place / "cert.pem", "-k", place / "key.pem"]
        with open(place / "log", "wb") as log:
            self.service = subprocess.Popen([str(word) for word in line], stdout=log, stderr=log)
        url = f"https://{BRIDGE}:9000/backups"
        make = ["curl", "-s", "-f", "-k", "-X", "PUT", url, "-H", "Authorization: AWS4-HMAC-SHA256 Credential=drill/20260101/us-east-1/s3/aws4_request"]
        until("the bucket is there", lambda: subprocess.run(make, capture_output=True).returncode == 0)
        (place / "secret").write_text("drill-secret\n")
        os.chmod(place / "secret", 0o600)
        self.store = "s3://backups/portal/drill"
        return f'''s3_endpoint = "https://{BRIDGE}:9000"
s3_access_key = "drill"
s3_secret_key_file = "{place}/secret"
s3_authority = "{place}/authority.pem"
'''

    @staticmethod
    def certify(place):
        """An authority, and the service's certificate of it."""

        def openssl(*words):
            subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=place)

        new = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes".split()
        openssl(*new, "-x509", "-days", "2", "-subj", "/CN=drill authority", "-keyout", "authority.key", "-out", "authority.pem")
        openssl(*new, "-subj", "/CN=drill", "-keyout", "key.pem", "-out", "request.pem")
        (place / "names").write_text(f"subjectAltName=IP:{BRIDGE}\nbasicConstraints=CA:FALSE\n")
        sign = "x509 -req -in request.pem -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile names -out cert.pem"
        openssl(*sign.split())

    def fill(self):
        query(self.lost, "CREATE TABLE sitemanager.drill (number INT PRIMARY KEY, begun DOUBLE) ENGINE=InnoDB")
        query(self.lost, "CREATE TABLE sitemanager.bulk (number INT PRIMARY KEY AUTO_INCREMENT, text LONGTEXT) ENGINE=InnoDB")
        connection = connect(self.lost)
        with connection.cursor() as cursor:
            for _ in range(self.options.megabytes):
                # Half of it can be packed.
                text = self.random.randbytes(1 << 18).hex() + "x" * (1 << 19)
                cursor.execute("INSERT INTO sitemanager.bulk (text) VALUES (%s)", (text,))
        connection.close()
        self.bulk = self.sums(self.lost)
        root = self.lost.files / "portal/upload"
        root.mkdir(exist_ok=True)
        shutil.chown(root, "www-data", "www-data")
        for number in range(FILES):
            place = root / f"{number % 17}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"Договор № {number}.bin").write_bytes(self.random.randbytes(self.random.randrange(0, 200_000)))
        os.symlink("0", root / "link")
        self.hashes = self.tree(self.lost)

    @staticmethod
    def sums(node):
        return query(node, "SELECT COUNT(*), SUM(CRC32(text)), SUM(LENGTH(text)) FROM sitemanager.bulk")

    @staticmethod
    def tree(node):
        """Of every file the hash, with mode and owner; of links the target."""
        root, found = node.files / "portal", {}
        for path in sorted(root.rglob("*")):
            name, state = str(path.relative_to(root)), path.lstat()
            # What the running portal writes by itself.
            if name.startswith(("upload", "index", "bitrix/.settings", "live", "style", "nemesis.txt")):
                what = os.readlink(path) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
                found[name] = (what, oct(state.st_mode), state.st_uid, state.st_gid)
        return found

    # Its backups

    def backup(self, *words, node=None, seconds=RESTORE):
        began = now()
        out = (node or self.lost).command("backup", *words, seconds=seconds)
        return out, now() - began

    def refused(self, name, word, *words, node=None):
        try:
            out, _ = self.backup(*words, node=node)
            self.row(name, False, "it was not refused", [out])
        except RuntimeError as error:
            said = str(error)
            self.row(name, word in said, said.strip().splitlines()[-1][-200:], [said])

    def back_up(self):
        before = len(self.writer.rows)
        out, seconds = self.backup("create", "--store", self.store)
        [backup] = json.loads(self.backup("list", "--store", self.store, "--output", "json")[0])
        sizes = ", ".join(f"{part['name'].split('.')[0]} {part['content'] >> 10} KiB in {part['size'] >> 10}" for part in backup["parts"])
        rows = len(self.writer.rows) - before
        self.full = backup["id"]
        self.row("backup", not self.writer.failed, f"{seconds:.1f} s; {sizes}; {rows} rows were written meanwhile", [out])
        out, seconds = self.backup("verify", "--store", self.store)
        self.row("verify", "BAD" not in out and "tables" in out, f"{seconds:.1f} s", [out])

    def logs(self):
        """The moment lies in the second of three logs."""
        time.sleep(SOME)
        self.log()
        time.sleep(SOME)
        self.moment = int(time.time())
        time.sleep(SOME)
        self.log()
        time.sleep(SOME)
        self.log()
        time.sleep(SOME)
        out, seconds = self.backup("verify", "--store", self.store)
        self.row("verify with logs", "BAD" not in out and "lead to" in out, f"{seconds:.1f} s", [out])
        self.backup("key", "export", self.key)
        if not self.options.s3:
            part = Path(self.store) / self.full / "files.tar.zst.age"
            line = f"age -d -i {self.key} {part} | zstd -d | tar -t | wc -l"
            one = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True)
            good = one.returncode == 0 and int(one.stdout) >= FILES
            self.row("without bitrix-node", good, f"age, zstd and tar read {one.stdout.strip()} files", [one.stderr])

    def log(self):
        out, seconds = self.backup("create", "--log", "--store", self.store)
        self.row("log", True, f"{seconds:.1f} s; {out.strip().splitlines()[-1].split(': ', 1)[-1]}", [out])

    def refusals(self):
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
        store = self.store
        self.refused("a node that runs", "stop it first", "restore", store, "--yes")
        self.refused("a moment to come", "not further", "restore", store, "--yes", "--at", at)
        other = self.folder / "other.key"
        other.write_text(self.other_key())
        self.refused("another key", "another key", "restore", store, "--yes", "--key", other)
        if not self.options.s3:
            self.bend(Path(store))

    def bend(self, store):
        bent = self.folder / "bent"
        shutil.copytree(store, bent)
        part = next((bent / self.full).glob("database.*"))
        with open(part, "r+b") as file:
            file.seek(part.stat().st_size // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        self.refused("a part with one bit bent", "BAD", "verify", "--store", bent)
        manifest = bent / self.full / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"node": "n1"', '"node": "n3"'))
        self.refused("a manifest that was changed", "changed since", "verify", "--store", bent)
        (bent / self.full / "manifest.json").unlink()
        left = json.loads(self.backup("list", "--store", bent, "--output", "json")[0])
        self.row("without its manifest it is none", self.full not in [one["id"] for one in left], f"{len(left)} others")

    def other_key(self):
        """Of a key that made nothing here."""
        place = self.folder / "elsewhere"
        place.mkdir()
        config = place / "config.toml"
        config.write_text(f'[node]\ndata_dir = "{place}"\nrun_dir = "{place}"\nlog_dir = "{place}"\n')
        (place / "secrets").mkdir()
        return subprocess.run(
            [str(self.cluster.executable), "backup", "key", "export", "-", "--config", str(config)], check=True, capture_output=True, text=True
        ).stdout

    # The day

    def lose(self):
        """The machine with its disks: database, files, registry, keys."""
        self.writer.end()
        self.lost.kill()
        for place in [*self.lost.machine.disk.iterdir(), self.lost.folder / "log", self.lost.folder / "run"]:
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        left = [path for path in self.lost.folder.rglob("*") if path.is_file()]
        self.row("the machine is lost", len(self.writer.rows) > 500, f"{len(self.writer.rows)} rows; left of it: {[path.name for path in left]}")

    def restore(self):
        new, began = self.new, now()
        founding = ["init", "--yes", "--name", new.name, "--address", new.address]
        new.command(*founding)
        self.refused("without the key", "key import", "restore", self.store, "--yes", node=new)
        self.backup("key", "import", self.key, node=new)
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.moment))
        out, seconds = self.backup("restore", self.store, "--at", at, "--yes", node=new)
        self.row("database restored", True, f"to {at} in {seconds:.1f} s", [out])
        new.start()
        until("the new one leads", lambda: new.report().get("role") == "leader", PATIENCE)
        new.command(*founding)
        new.until_mounted()
        out, seconds = self.backup("restore", self.store, "--files", node=new)
        new.command("portal", "settings")
        self.row("files restored", True, f"in {seconds:.1f} s", [out])
        until("the portal answers", self.is_green, PATIENCE)
        self.row("the portal answers", True, f"{now() - began:.1f} s after the first command on an empty machine")

    def is_green(self):
        one = subprocess.run(
            ["curl", "-s", "-m", "10", f"http://{self.new.address}/check.json"], preexec_fn=self.new.machine.enter_network, capture_output=True
        )
        try:
            return json.loads(one.stdout)["ok"]
        except (ValueError, KeyError):
            return False

    def judge(self):
        there = {number for number, _ in query(self.new, "SELECT number, begun FROM sitemanager.drill")}
        rows = self.writer.rows
        must = {number for number, (_, acknowledged) in rows.items() if acknowledged < self.moment}
        must_not = {number for number, (begun, _) in rows.items() if begun >= self.moment}
        missing, too_many, strange = must - there, must_not & there, there - set(rows)
        detail = f"{len(must)} acknowledged before it are there, {len(must_not)} begun after it are not, {len(rows) - len(must) - len(must_not)} at that moment"
        bad = [f"missing {sorted(missing)[:5]}", f"too many {sorted(too_many)[:5]}", f"strange {sorted(strange)[:5]}"]
        self.row("rows of that moment", must and must_not and not missing and not too_many and not strange, detail, bad)
        self.row("the other rows", self.sums(self.new) == self.bulk, f"{self.options.megabytes} MB by checksum")
        files = self.tree(self.new)
        bad = [f"{name}: {files.get(name)} instead of {what}" for name, what in self.hashes.items() if files.get(name) != what]
        self.row("files", not bad and len(files) >= len(self.hashes), f"{len(self.hashes)} objects equal by hash, mode and owner", bad[:10])
        until("the new node makes a full backup and a log by itself", lambda: {"full", "log"} <= self.kinds(self.new), SCHEDULE)
        self.row("the schedule", True, f"the new node has made {sorted(self.kinds(self.new))} by itself")

    def kinds(self, node):
        """Of the backups that this node has made."""
        return {one["kind"] for one in json.loads(self.backup("list", "--output", "json", node=self.new)[0]) if one["node"] == node.name}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("executable")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--s3", metavar="MOTO_SERVER", help="keep the backups in a bucket of this server")
    parser.add_argument("--keep", action="store_true", help="keep the folder also on success")
    parser.add_argument("--seed", default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if os.environ.get(INSIDE):
        inside(options, Drill)
    outside(options)


if __name__ == "__main__":
    main()
