#!/usr/bin/python3
"""The restore drill of a Galera cluster: three real nodes with database, replicated files and a portal, written to all the time. One of them,
which is not the writer, makes the backups by the clock; its machine is lost in the middle of one, and another node makes a fresh one.
Then all three are lost with their disks, and three empty ones of the same names are brought to a chosen second: the first one from the
backup, the others by joining it. Prints a table with figures; the exit code is 1 when a row is missing or too many on any node, a file
differs, a page is not answered, the history is the old one, or something that must be refused is not.

    cluster.py EXECUTABLE [--megabytes 100] [--keep]

All runs in namespaces of its own, as in `tests/cluster/run.py`.
"""

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path

from drill import FILES, HERE, INSIDE, Drill, Writer, connect, inside, outside, query, utc  # isort: skip

sys.path.append(str(HERE.parent / "galera"))

import pymysql
from bed import HEALED, Bed
from cluster import PATIENCE
from shared import now, until

# A look each minute, and a log a minute after; a copy on a busy machine.
SCHEDULE = 400
# The supervisor's look, and some.
MEND = 150
SECTION = '[backup]\nlog = true\nstore = "{store}"\ndaily = "00:00"\nlog_every = "1m"\n'
STEP = ("wsrep_local_state_comment", "wsrep_flow_control_sent", "wsrep_local_recv_queue_max")


class Steps(threading.Thread):
    """What a server says of its step with the others while it is copied."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.node, self.seen, self.is_over = node, [], False
        self.start()

    def run(self):
        connection = connect(self.node)
        while not self.is_over:
            with connection.cursor() as cursor:
                cursor.execute(f"SHOW STATUS WHERE Variable_name IN {STEP}")
                self.seen.append({**dict(cursor.fetchall()), "at": time.time()})
            time.sleep(0.02)
        connection.close()

    def end(self):
        self.is_over = True
        self.join(60)
        return self.seen


class Three(Drill, Bed):
    def __init__(self, options, folder):
        Bed.__init__(self, options, folder)
        Drill.__init__(self, options, folder)
        self.late = None

    def all(self):
        try:
            self.found()
            self.lost_holder()
            self.killed_command()
            self.look()
            self.logs()
            self.lose()
            self.restore()
            self.judges()
            self.history()
            self.power()
            self.schedule()
            self.in_place()
        except Exception as error:
            logs = [f"{node.name}: {node.log()[-3000:]}" for node in self.cluster.nodes]
            self.row("the bed", False, repr(error), logs)
        finally:
            self.cluster.stop()
        return self.table.failed

    # The portal that will be lost

    def found(self):
        cluster = self.cluster
        cluster.make()
        Path(self.store).mkdir()
        self.texts = {node: node.config.read_text() + SECTION.format(store=self.store) for node in cluster.nodes}
        for node, text in self.texts.items():
            node.config.write_text(text)
        first, *others = cluster.nodes
        founding = self.begin_first(first)
        first.start()
        self.serves(first, founding)
        cluster.install()
        self.fill(first)
        self.join(first, others)
        self.row("a portal", True, f"three nodes, {FILES} files, {self.options.megabytes} MB of rows")

    @staticmethod
    def begin_first(first):
        founding = ["init", "--yes", "--galera", "--name", first.name, "--address", first.address]
        first.command(*founding)
        return founding

    def serves(self, first, founding):
        until("the first leads", lambda: first.report().get("role") == "leader", PATIENCE)
        first.command(*founding)
        first.until_mounted()
        until("the first database serves", lambda: self.writer([first]) == first.name, HEALED)

    def join(self, first, others):
        for node in others:
            token = json.loads(first.command("token", "create", "--output", "json"))["token"]
            joining = ["join", first.address, "--token", token, "--yes", "--galera", "--name", node.name, "--address", node.address]
            node.command(*joining)
            node.start()
            node.command(*joining, seconds=PATIENCE)
        self.cluster.whole()
        until("all databases are one", self.is_whole, HEALED)

    # Its backups, by the clock

    def holder(self):
        """The node that makes the backups; None while nobody does."""
        for node in self.live():
            try:
                rows = json.loads(node.command("role", "list", "--output", "json", seconds=20))
            except (RuntimeError, ValueError):
                continue
            held = [row["holder"] for row in rows if row["role"] == "backup" and row["live"]]
            return self.cluster.node(held[0]) if held else None
        return None

    def beside_writer(self):
        holder = self.holder()
        return holder if holder and holder.name != self.writer() else None

    def begun(self):
        """A backup that is being made, once some of the database is in it."""
        for place in Path(self.store).glob("*-full"):
            part = place / ".database.mbstream.zst.age.part"
            try:
                if not (place / "manifest.json").exists() and part.stat().st_size > 1 << 20:
                    return place.name
            except OSError:
                pass
        return None

    @staticmethod
    def soon(what, look, patience):
        """As `until`, for what is there for a moment only."""
        end = now() + patience
        while now() < end:
            if seen := look():
                return seen
            time.sleep(0.005)
        raise RuntimeError(f"never: {what}")

    def fulls(self, node, but=()):
        return [one for one in self.list(node) if one["kind"] == "full" and one["id"] not in but]

    def lost_holder(self):
        """What the first node made while it was alone goes: the one that has the role now makes one at its next look."""
        self.writer_node = self.cluster.node(self.writer())
        first = until("another than the writer has the role", self.beside_writer, HEALED)
        self.drop_all()
        self.rows_of = Writer(self.writer_node)
        self.rows_of.start()
        half = self.soon("a backup is under way", self.begun, SCHEDULE)
        first.kill()
        at = now()
        second = until("another one has the role", lambda: self.other(first), HEALED)
        steps, since = Steps(second), time.time()
        listed = set()

        def look():
            fulls = self.fulls(self.writer_node)
            listed.update(one["id"] for one in fulls)
            return next((one for one in fulls if one["node"] == second.name), None)

        full = until("it makes a fresh backup", look, SCHEDULE)
        seconds = now() - at
        good = half not in listed and first.name != second.name != self.writer_node.name
        self.row("its node dies in a backup", good, f"{second.name} makes a fresh one beside the writer, {seconds:.0f} s later; the half one was never listed")
        until("the half one is cleaned", lambda: not (Path(self.store) / half).exists(), MEND)
        self.row("the half one", True, "is removed")
        self.in_step(second, steps.end(), since)
        self.full, self.maker = full["id"], second
        first.start()
        until("all databases are one again", self.is_whole, HEALED)

    def other(self, first):
        holder = self.beside_writer()
        return holder if holder and holder != first else None

    def drop_all(self):
        """The manifests first: what is left then is no backup."""
        for place in sorted(Path(self.store).iterdir()):
            for name in ("manifest.json", "manifest.mac"):
                (place / name).unlink(missing_ok=True)
            for part in place.iterdir():
                part.unlink()
            place.rmdir()

    def in_step(self, node, seen, since):
        """It is out of step while it is copied, asks nobody to wait, and comes back."""
        states = [one["wsrep_local_state_comment"] for one in seen]
        aside = [one["at"] for one in seen if one["wsrep_local_state_comment"] != "Synced"]
        sent = int(seen[-1]["wsrep_flow_control_sent"]) - int(seen[0]["wsrep_flow_control_sent"])
        until(f"{node.name} is in step again", lambda: self.state(node) == "Synced", MEND)
        span = max(aside) - min(aside) if aside else 0
        detail = f"{sorted(set(states))}, {span:.1f} s aside, {sent} pauses asked for; a row waited {self.rows_of.slowest(since):.2f} s at most"
        self.row("the copied server", "Donor/Desynced" in states and sent == 0, detail, [str(seen[-3:])])

    @staticmethod
    def state(node):
        try:
            return dict(query(node, "SHOW STATUS LIKE 'wsrep_local_state_comment'")).get("wsrep_local_state_comment")
        except pymysql.err.Error:
            return None

    def killed_command(self):
        """One by hand, on a node that is neither; its process is killed and takes nothing back itself."""
        node = self.maker
        place = self.folder / "by-hand"
        place.mkdir()
        one = node.launch("backup", "create", "--store", place)
        self.soon("it is aside", lambda: self.state(node) == "Donor/Desynced", 60)
        one.kill()
        one.communicate()
        is_aside = query(node, "SELECT @@GLOBAL.wsrep_desync")[0][0]
        at = now()
        until("the node takes it back", lambda: query(node, "SELECT @@GLOBAL.wsrep_desync")[0][0] == 0, MEND)
        self.row("its process is killed", is_aside == 1, f"aside, and in step again after {now() - at:.0f} s", [f"it was {is_aside}"])
        left = self.list(node, "--store", place)
        self.row("what it left", not left, "is no backup")

    def look(self):
        """A backup of a node of the cluster is one on the day it is needed, and a bad one is none; the living see nothing of it."""
        node = self.maker
        before = self.living(node)
        out, seconds = self.backup(node, "verify", self.full)
        good = "BAD" not in out and all(word in out for word in ("tables with", "version", "objects"))
        self.row("verify", good, f"{seconds:.1f} s; {[line for line in out.splitlines() if 'tables' in line]}", [out])
        self.bent(node, self.full)
        place, key = self.folder / "foreign", self.other_key()
        place.mkdir()
        self.backup(node, "create", "--store", place, "--key", key)
        self.refused(node, "a backup that another key signed", "another key", "verify", "--store", place)
        self.refused(node, "restoring that", "another key", "restore", place, "--yes")
        self.refused(node, "a node that runs", "stop it first", "restore", self.store, "--yes")
        after = self.living(node)
        self.row("the living", before == after, f"the same server, no folder beside its data: {after}", [str(before)])

    def living(self, node):
        names = [path.name for path in (node.folder / "data").iterdir() if path.name.startswith(("verify", "db"))]
        return self.server(node), sorted(names), query(node, "SELECT @@wsrep_cluster_name, @@datadir"), self.state(node)

    def logs(self):
        """A second between two logs of the clock, and a file after the full backup."""
        self.key_out()
        self.logged("the clock makes a log", 0)
        writer = self.writer_node
        self.late = writer.files / "portal/upload/late.txt"
        self.late.write_text("after the backup\n")
        time.sleep(1)
        self.moment = int(time.time()) + 1
        until("the moment is over", lambda: time.time() > self.moment + 1)
        self.logged("a log that reaches beyond", self.moment + 1)
        out, seconds = self.backup(self.maker, "verify", self.full)
        self.row("verify with logs", "BAD" not in out and "lead to" in out, f"{seconds:.1f} s", [out])
        text, _ = self.backup(self.maker, "list")
        lines = [line for line in text.splitlines() if line.startswith(self.full) and "any second" in line]
        self.row("the list", len(lines) == 1 and "files as of" in lines[0], lines[0] if lines else "says nothing", [text])

    def key_out(self):
        """All nodes have the same one, and the operator a copy."""
        self.backup(self.maker, "key", "export", self.key)

    def logged(self, what, moment):
        reaches = utc(moment)

        def look():
            logs = [one for one in self.list(self.maker) if one["continues"] == self.full]
            return any(one["reaches"] >= reaches for one in logs) and logs

        logs = until(what, look, SCHEDULE)
        self.row("logs", all(one["node"] == self.maker.name for one in logs), f"{len(logs)} by {self.maker.name}, to {logs[-1]['reaches']}")

    # The day

    def lose(self):
        self.rows_of.end()
        failed = self.rows_of.failed
        self.row("the writer", not failed, f"{len(self.rows_of.rows)} rows, the slowest {self.rows_of.slowest(0):.2f} s", failed)
        self.old = self.uuid(self.cluster.nodes[0])
        for node in self.cluster.nodes:
            node.kill()
        left = [name for node in self.cluster.nodes for name in self.wipe(node)]
        self.row("all three are lost", True, f"left of them: {left}")

    @staticmethod
    def uuid(node):
        return dict(query(node, "SHOW STATUS LIKE 'wsrep_cluster_state_uuid'"))["wsrep_cluster_state_uuid"]

    def restore(self):
        began = now()
        first, *others = self.cluster.nodes
        for node, text in self.texts.items():
            node.config.write_text(text)
            for part in ["run", "log"]:
                (node.folder / part).mkdir(exist_ok=True)
        founding = self.begin_first(first)
        self.backup(first, "key", "import", self.key)
        at = utc(self.moment)
        out, seconds = self.backup(first, "restore", self.store, "--at", at, "--yes")
        self.row("database restored", f"NOT of {at}" in out, f"to {at} in {seconds:.1f} s; says of which moment the files are", [out])
        first.start()
        self.serves(first, founding)
        out, seconds = self.backup(first, "restore", self.store, "--files")
        first.command("portal", "settings")
        self.row("files restored", "as of" in out, f"in {seconds:.1f} s", [out])
        until("the portal answers", lambda: self.is_green(first), PATIENCE)
        self.row("the portal answers", True, f"{now() - began:.1f} s after the first command on empty machines")
        self.join(first, others)
        keys = {self.backup(node, "key", "show")[0].splitlines()[0] for node in self.cluster.nodes}
        self.row("one key", len(keys) == 1, "those that joined seal for the same one")
        self.row("the others join", True, f"{now() - began:.1f} s after it")

    def judges(self):
        same = []
        for node in self.cluster.nodes:
            same.append(self.judge(node, self.rows_of.rows, self.moment))
            until(f"{node.name} answers", lambda: self.is_green(node), PATIENCE)
        self.row("all nodes", same[0] == same[1] == same[2], "have the same rows, and the portal answers on each")
        is_there = (self.cluster.nodes[0].files / "portal/upload/late.txt").exists()
        self.row("the file after the backup", not is_there, "is not there, as was said")

    def history(self):
        """A new one, which the registry knows; and no binary log of the old one is gone on with."""
        uuids = {self.uuid(node) for node in self.cluster.nodes}
        known = json.loads(self.cluster.nodes[0].command("registry", "show", "--output", "json"))
        is_known = all(uuid in json.dumps(known) for uuid in uuids) and self.old not in json.dumps(known)
        self.row("the history", len(uuids) == 1 and self.old not in uuids and is_known, f"{uuids} instead of {self.old}, and the registry has it")
        logs = [row[0] for row in query(self.cluster.nodes[0], "SHOW BINARY LOGS")]
        self.row("binary logs", logs[0].endswith(".000001"), f"begin anew: {logs}")

    def power(self):
        """The registry's word is enough to begin again."""
        for node in self.cluster.nodes:
            node.machine.freeze()
        for node in self.cluster.nodes:
            node.kill()
        at = now()
        for node in self.cluster.nodes:
            node.start()
        until("all databases are one again", self.is_whole, HEALED)
        good = {self.uuid(node) for node in self.cluster.nodes}
        self.row("a loss of power after it", self.old not in good and len(good) == 1, f"whole again after {now() - at:.1f} s, with the same history")

    def schedule(self):
        """The old backups are of another cluster, whatever its nodes were called."""
        first = self.cluster.nodes[0]
        old = {self.full}

        def look():
            return [one for one in self.fulls(first, old) if any(log["continues"] == one["id"] for log in self.list(first))]

        made = until("the new cluster makes a full backup and a log by itself", look, SCHEDULE)
        wrong = [one["id"] for one in self.list(first) if one["continues"] == self.full and one["reaches"] > utc(self.moment + 300)]
        self.row("the schedule", made[-1]["node"] != self.writer() and not wrong, f"{made[-1]['id']} by {made[-1]['node']}, beside the writer; nothing continues the old one", wrong)

    def in_place(self):
        """Rows are lost by a mistake and the nodes live: all go back to a moment of the new cluster's, and keep their files."""
        first, *others = self.cluster.nodes
        before = {node: self.uuid(node) for node in self.cluster.nodes}
        [log] = [one for one in self.list(first) if one["kind"] == "log"][-1:]
        rows = query(first, "SELECT COUNT(*) FROM sitemanager.drill")
        query(self.cluster.node(self.writer()), "DROP TABLE sitemanager.drill")
        (first.files / "portal/upload/kept.txt").write_text("of after the backup\n")
        for node in self.cluster.nodes:
            node.stop()
        for node in others:
            (node.folder / "data/db").rename(node.folder / "data/db.old")
        out, seconds = self.backup(first, "restore", self.store, "--at", log["reaches"], "--no-files", "--yes")
        for node in self.cluster.nodes:
            node.start()
        self.cluster.whole()
        refused = [row for row in self.snapshot(first) if row["node"] == first.name]
        until("the operator's word is heard", lambda: self.forced(first), HEALED)
        until("all databases are one", self.is_whole, HEALED)
        after = {self.uuid(node) for node in self.cluster.nodes}
        good = all(query(node, "SELECT COUNT(*) FROM sitemanager.drill") == rows for node in self.cluster.nodes)
        is_kept = all((node.files / "portal/upload/kept.txt").exists() for node in self.cluster.nodes)
        is_new = len(after) == 1 and after.isdisjoint(before.values())
        self.row("a table that was dropped", good and is_kept and is_new, f"is back on all nodes, {seconds:.1f} s of restoring; files stayed; a new history", [out, str(refused)])

    @staticmethod
    def forced(node):
        try:
            return node.command("db", "bootstrap", "--force", node.name, "--yes")
        except RuntimeError:
            return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("executable")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--keep", action="store_true", help="keep the folder also on success")
    parser.add_argument("--seed", default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if os.environ.get(INSIDE):
        inside(options, Three)
    outside(options)


if __name__ == "__main__":
    main()
