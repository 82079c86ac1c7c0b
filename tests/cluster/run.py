#!/usr/bin/env python3
"""A whole cluster under faults: nodes of the real executable in namespaces, a nemesis that harms them by a seed, observers that write down what
they see, and judges of that. Prints a table; the exit code is 1 when anything is violated.

    run.py EXECUTABLE [--seconds 1800] [--short] [--seed N] [--nodes 3|5] [--only FAULT,...] [--skip FAULT,...] [--keep]

All runs in namespaces of its own for network, processes and mounts, and in control groups of its own: whatever happens, nothing of it is left.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import judge
import machine
import strangers
from cluster import FLOATING, PAGE, PLAIN, Cluster
from faults import FAULTS
from nemesis import Nemesis
from plan import Planner
from shared import HERE, LIBC, Table, lines, now, until

INSIDE = "BITRIX_CLUSTER_TEST_INSIDE"
SHORT = 180
DIE_WITH_PARENT = 1
# A writer that hangs ends once all is well.
LAST = 60


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("executable")
    parser.add_argument("--seconds", type=int, default=1800, help="how long there are faults")
    parser.add_argument("--short", action="store_true", help=f"{SHORT} s of them")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument("--nodes", type=int, default=3, choices=[3, 5])
    parser.add_argument("--only", default="", help=f"of {','.join(FAULTS)}")
    parser.add_argument("--skip", default="", help="faults that are left out")
    parser.add_argument("--keep", action="store_true", help="keep the folder also on success")
    return parser.parse_args()


def names(options):
    """Of the faults that are wanted."""
    only, skip = (set(filter(None, text.split(","))) for text in (options.only, options.skip))
    if unknown := (only | skip) - set(FAULTS):
        sys.exit(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
    return [name for name in FAULTS if (not only or name in only) and name not in skip]


class Observers:
    """Programs of this folder that end when their standard input does."""

    def __init__(self, folder):
        self.folder, self.running = folder, {}
        folder.mkdir()

    def record(self, name):
        return self.folder / f"{name}.jsonl"

    def begin(self, program, name, *words):
        line = [sys.executable, HERE / f"{program}.py", self.record(name), *words]
        with open(self.folder / f"{name}.log", "wb") as log:
            self.running[name] = subprocess.Popen(list(map(str, line)), stdin=subprocess.PIPE, stdout=log, stderr=log)

    def until_begun(self):
        """Before anything is disturbed each has seen something."""
        until("the observers see something", lambda: all(map(self.has_begun, self.running)))

    def has_begun(self, name):
        return self.record(name).exists() and self.record(name).stat().st_size > 0

    def ended(self):
        return [name for name, one in self.running.items() if one.poll() is not None]

    def end(self):
        """Names of those that had to be killed, or failed."""
        bad = self.ended()
        for one in self.running.values():
            one.stdin.close()
        until = now() + LAST
        for name, one in self.running.items():
            try:
                code = one.wait(max(0.1, until - now()))
                bad += [name] if code and name not in bad else []
            except subprocess.TimeoutExpired:
                one.kill()
                bad.append(name)
        return [f"{name}: {(self.folder / f'{name}.log').read_text()[-300:]}" for name in bad]


class Run:
    def __init__(self, options, folder):
        self.options, self.folder, self.table = options, folder, Table()
        self.cluster = Cluster(folder, options.executable, options.nodes, os.environ[INSIDE])
        self.observers = Observers(folder / "records")

    def all(self):
        began = now()
        try:
            self.cluster.make()
            self.cluster.found()
            self.cluster.install()
            self.table.row("cluster", True, f"{self.options.nodes} nodes and the portal after {now() - began:.0f} s")
            strangers.attack(self.table, self.cluster)
            self.harm()
        except Exception as error:
            self.table.row("the bed", False, repr(error), [f"{node.name}: {node.log()[-1500:]}" for node in self.cluster.nodes])
        finally:
            self.cluster.stop()
        return self.table.failed

    def observe(self):
        cluster, begin = self.cluster, self.observers.begin
        spaces = [f"{node.name}=/run/netns/{node.name}" for node in cluster.nodes]
        begin("addresses", "addresses", *spaces, "--", *(address.split("/")[0] for address in FLOATING))
        begin("epochs", "epochs", *(f"{node.name}={node.folder}/run/nfs.sock" for node in cluster.nodes))
        targets = [f"{node.name}={node.address}/{PAGE}" for node in cluster.nodes]
        targets += [f"floating{number}={address.split('/')[0]}/{PAGE}" for number, address in enumerate(FLOATING, 1)]
        targets += [f"plain={FLOATING[0].split('/')[0]}/{PLAIN}"]
        begin("web", "web", f"/run/netns/n{cluster.client}", *targets)
        for node in cluster.nodes:
            begin("ledger", f"ledger-{node.name}", node.files / "ledger" / node.name, node.name, self.options.seed)

    def harm(self):
        options = self.options
        nemesis = Nemesis(self.cluster, self.folder / "nemesis.jsonl", self.observers.record("epochs"), options.seed)
        self.observe()
        try:
            self.observers.until_begun()
            nemesis.run(Planner(options.seed, options.nodes, names(options)), options.seconds)
        finally:
            failed = self.observers.end()
        self.table.row("nemesis", not nemesis.bad, f"seed {options.seed}, {len(nemesis.calm)} calm spans", nemesis.bad[:20])
        for text in nemesis.figures():
            print(f"          {text}", flush=True)
        self.table.row("observers", not failed, "all went on to the end", failed)
        self.judge(nemesis)
        said = {node.name: node.command("status") for node in self.cluster.nodes}
        bad = [f"{name}: {text}" for name, text in said.items() if not text.startswith("HEALTHY")]
        self.table.row("status", not bad, "every node says HEALTHY", bad or list(said.values())[0].splitlines())

    def judge(self, nemesis):
        record = self.observers.record
        done, held = lines(self.folder / "nemesis.jsonl"), lines(record("addresses"))
        standing = judge.Standing(done)
        self.verdict("addresses", *judge.addresses(held, standing))
        strikes = judge.losses(done, lambda name: name in FAULTS and FAULTS[name].is_loss)
        print(f"          with quorum, from a fault of the holder until another has its address: {judge.percentiles(judge.moves(held, strikes))}", flush=True)
        acts = {path.name: [act(line) for line in path.read_text().splitlines()] for path in self.cluster.acts.iterdir()}
        self.verdict("jobs", *judge.jobs(acts, standing))
        self.verdict("epochs", *judge.epochs(lines(record("epochs"))))
        writers = {node.name: lines(record(f"ledger-{node.name}")) for node in self.cluster.nodes}
        self.verdict("files", *judge.files(writers, self.read_back()))
        bad, figures = judge.web(lines(record("web")), nemesis.calm)
        self.verdict("pages", bad, "nothing fails while nothing is disturbed")
        for text in figures:
            print(f"          {text}", flush=True)

    def verdict(self, name, bad, text):
        self.table.row(name, not bad, f"{text}{f'; {len(bad)} violations' if bad else ''}", bad[:20])

    def read_back(self):
        """On every node what every writer left, with a cold cache."""
        Path("/proc/sys/vm/drop_caches").write_text("3")
        found = {}
        for node in self.cluster.nodes:
            found[node.name] = {}
            for writer in self.cluster.nodes:
                line = [sys.executable, HERE / "read_back.py", node.files / "ledger" / writer.name]
                try:
                    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, timeout=LAST)
                    found[node.name][writer.name] = json.loads(done.stdout)
                except (subprocess.TimeoutExpired, ValueError):
                    pass
        return found


def act(line):
    time, run, *_ = line.split()
    return float(time), int(run)


def inside(options, course=Run):
    machine.Groups(os.environ[INSIDE]).prefer()
    # Names of network namespaces, sockets, pid files.
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    sys.exit(1 if course(options, Path(os.environ["BITRIX_CLUSTER_FOLDER"])).all() else 0)


def outside(options):
    """Runs this program again in namespaces, and takes away what they leave: control groups, and the folder after success."""
    name, folder = f"bitrix-cluster-{os.getpid()}", tempfile.mkdtemp(prefix="bitrix-cluster-", dir="/var/tmp")
    os.chmod(folder, 0o755)
    print(f"seed {options.seed}, folder {folder}", flush=True)
    words = "unshare --net --pid --fork --kill-child --mount-proc --propagation private".split()
    more = [] if "--seed" in " ".join(sys.argv) else ["--seed", str(options.seed)]
    environment = {**os.environ, INSIDE: name, "BITRIX_CLUSTER_FOLDER": folder}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    code = 1
    try:
        one = subprocess.Popen(
            [*words, sys.executable, *sys.argv, *more], env=environment, preexec_fn=lambda: LIBC.prctl(DIE_WITH_PARENT, signal.SIGKILL)
        )
        try:
            code = one.wait()
        finally:
            one.kill()
            machine.Groups(name).remove()
            one.wait()
    finally:
        if code == 0 and not options.keep:
            shutil.rmtree(folder)
        else:
            print(f"kept: {folder}")
    sys.exit(code)


def main():
    options = arguments()
    names(options)
    if options.short:
        options.seconds = SHORT
    if os.environ.get(INSIDE):
        inside(options)
    outside(options)


if __name__ == "__main__":
    main()
