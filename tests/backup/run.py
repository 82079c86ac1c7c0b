#!/usr/bin/python3
"""The restore drill: a real node with database, replicated files and a portal, written to all the time; a backup and logs of it; then the
machine is lost with all its disks, and an empty one is brought to a chosen second. Prints a table with figures; the exit code is 1 when a row
is missing or too many, a file differs, the portal does not answer, or something that must be refused is not.

    run.py EXECUTABLE [--megabytes 100] [--s3 MOTO_SERVER] [--keep]

With --s3 the store is a bucket of that server (moto), over TLS with an authority of the bed's own.

All runs in namespaces of its own, as in `tests/cluster/run.py`.
"""

import argparse
import os
import subprocess
import time
from pathlib import Path

from drill import FILES, INSIDE, Drill, Writer, inside, outside, utc  # isort: skip

from cluster import NETWORK, PATIENCE, Cluster
from shared import now, until

BRIDGE = f"{NETWORK}.254"
SOME = 3
# A look each minute, and a log a minute after.
SCHEDULE = 400


class One(Drill):
    def __init__(self, options, folder):
        super().__init__(options, folder)
        self.cluster = Cluster(folder, options.executable, 2, os.environ[INSIDE])
        self.service, self.both = None, []

    def all(self):
        try:
            self.found()
            self.back_up()
            self.logs()
            self.refusals()
            self.lose()
            self.restore()
            self.judge(self.new, self.writer.rows, self.moment)
            self.schedule()
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
        self.fill(self.lost)
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

    # Its backups

    def back_up(self):
        before = len(self.writer.rows)
        out, seconds = self.backup(self.lost, "create", "--store", self.store)
        [backup] = self.list(self.lost, "--store", self.store)
        sizes = ", ".join(f"{part['name'].split('.')[0]} {part['content'] >> 10} KiB in {part['size'] >> 10}" for part in backup["parts"])
        rows = len(self.writer.rows) - before
        self.full = backup["id"]
        self.row("backup", not self.writer.failed, f"{seconds:.1f} s; {sizes}; {rows} rows were written meanwhile", [out])
        out, seconds = self.backup(self.lost, "verify", "--store", self.store)
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
        out, seconds = self.backup(self.lost, "verify", "--store", self.store)
        self.row("verify with logs", "BAD" not in out and "lead to" in out, f"{seconds:.1f} s", [out])
        self.backup(self.lost, "key", "export", self.key)
        if not self.options.s3:
            part = Path(self.store) / self.full / "files.tar.zst.age"
            line = f"age -d -i {self.key} {part} | zstd -d | tar -t | wc -l"
            one = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True)
            good = one.returncode == 0 and int(one.stdout) >= FILES
            self.row("without bitrix-node", good, f"age, zstd and tar read {one.stdout.strip()} files", [one.stderr])

    def log(self):
        out, seconds = self.backup(self.lost, "create", "--log", "--store", self.store)
        self.row("log", True, f"{seconds:.1f} s; {out.strip().splitlines()[-1].split(': ', 1)[-1]}", [out])

    def refusals(self):
        store = self.store
        self.refused(self.lost, "a node that runs", "stop it first", "restore", store, "--yes")
        self.refused(self.lost, "a moment to come", "not further", "restore", store, "--yes", "--at", utc(time.time() + 60))
        self.refused(self.lost, "another key", "another key", "restore", store, "--yes", "--key", self.other_key())
        if not self.options.s3:
            self.bent(self.lost, self.full)

    # The day

    def lose(self):
        """The machine with its disks: database, files, registry, keys."""
        self.writer.end()
        self.lost.kill()
        left = self.wipe(self.lost)
        self.row("the machine is lost", len(self.writer.rows) > 500, f"{len(self.writer.rows)} rows; left of it: {left}")

    def restore(self):
        new, began = self.new, now()
        founding = ["init", "--yes", "--name", new.name, "--address", new.address]
        new.command(*founding)
        self.refused(new, "without the key", "key import", "restore", self.store, "--yes")
        self.backup(new, "key", "import", self.key)
        at = utc(self.moment)
        out, seconds = self.backup(new, "restore", self.store, "--at", at, "--yes")
        self.row("database restored", f"NOT of {at}" in out, f"to {at} in {seconds:.1f} s; says of which moment the files are", [out])
        new.start()
        until("the new one leads", lambda: new.report().get("role") == "leader", PATIENCE)
        new.command(*founding)
        new.until_mounted()
        out, seconds = self.backup(new, "restore", self.store, "--files")
        new.command("portal", "settings")
        self.row("files restored", True, f"in {seconds:.1f} s", [out])
        until("the portal answers", lambda: self.is_green(new), PATIENCE)
        self.row("the portal answers", True, f"{now() - began:.1f} s after the first command on an empty machine")

    def schedule(self):
        until("the new node makes a full backup and a log by itself", lambda: {"full", "log"} <= self.kinds(self.new), SCHEDULE)
        self.row("the schedule", True, f"the new node has made {sorted(self.kinds(self.new))} by itself")

    def kinds(self, node):
        """Of the backups that this node has made."""
        return {one["kind"] for one in self.list(self.new) if one["node"] == node.name}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("executable")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--s3", metavar="MOTO_SERVER", help="keep the backups in a bucket of this server")
    parser.add_argument("--keep", action="store_true", help="keep the folder also on success")
    parser.add_argument("--seed", default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if os.environ.get(INSIDE):
        inside(options, One)
    outside(options)


if __name__ == "__main__":
    main()
