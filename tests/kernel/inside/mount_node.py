"""Whole nodes whose supervisor mounts the files: PHP waits for them, a silent server is seen and outlived, a lost mount comes back, a new
supervisor takes over, and nothing is left at the end. `mount_node.py MOUNT SHARE EXECUTABLE SUITE GANESHA-EXPORT GANESHA-PORT`

external: ganesha keeps the files and the registry; PHP is here. replicated: this node keeps them. fuse: and serves them by its own door.
sandbox, fuse_sandbox: the supervisor has mounts of its own, as under systemd, and mounts where process 1 sees it. stale: the server loses
everything. watched: somebody else mounts."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from machine import Failed, Machine

_, SHARE, EXECUTABLE, SUITE, GANESHA, GANESHA_PORT = sys.argv[1:]
EXTERNAL = f'engine = "external"\nexternal = "nfs://10.77.0.1{GANESHA}"\nmount = "kernel"'
# From a port above 1024 ours lets nobody in, so the registry is not there; the mount is.
OURS = 'engine = "external"\nexternal = "nfs://10.77.0.1:2049/portal?mount=2049"\nmount = "kernel"'
WATCHED = 'engine = "external"\nexternal = "/run/node/shared"\n[portal]\nroot = "/run/node/shared/portal"'
REPLICATED = 'engine = "replicated"\nmount = "kernel"'
FUSE = 'engine = "replicated"\nmount = "fuse"'
PAGE = '<?php echo "from PHP: ", file_get_contents(__DIR__ . "/text"), PHP_EOL;'
STATUS = 2.0


def start(one, before=()):
    one.run(before)
    took = one.until(one.is_healthy, "healthy")
    one.check(len(one.mounts(process=1)) == 1, f"it mounts and is healthy after {took:.1f} s", one.mounts(process=1))
    one.say("    ", one.row("mount"))


def publish(one):
    """The document root is there, PHP's own, and what is put there is served."""
    portal = one.files / "portal"
    owner = portal.stat()
    one.check(owner.st_uid == int(subprocess.check_output(["id", "-u", "bitrix"])), "the document root was made for PHP's user")
    (portal / "index.php").write_text(PAGE)
    (portal / "text").write_text("hello")
    (portal / "style.css").write_text("body {}")
    one.until(lambda: one.get("/style.css") == "body {}", "a file is served")


def serves_php(one):
    one.until(lambda: one.get("/index.php") == "from PHP: hello\n", "PHP serves from the mount")
    one.say("ok  ", "PHP and the front serve what lies on the mount")


def php_waits(one):
    """A server that is silent at boot holds up PHP and the front, and nothing else."""
    one.ask("freeze ganesha")
    one.run()
    one.until(lambda: "waits for the files" in one.row("php-fpm"), "PHP waits")
    one.until(lambda: "no answer" in one.row("mount"), "the mount says why")
    text, took = one.command("status")
    one.check(took < STATUS, f"status answers in {took:.2f} s while the server is silent", text)
    one.check("waits for the files" in one.row("php-fpm") and "waits for the files" in one.row("proxy"), "PHP and the front wait", text)
    one.say("    ", one.row("mount"))
    one.ask("thaw ganesha")
    one.until(one.is_healthy, "healthy")
    log = one.log()
    order = [log.find(words) for words in ["the files are there", 'ready name="php-fpm"']]
    one.check(-1 < order[0] < order[1], "PHP is ready after the files are", order)
    one.end()
    one.check(not one.mounts(), "nothing is mounted after the end", one.mounts())


def silence(one, server):
    """A server that freezes is seen in time; everything goes on when it wakes."""
    one.ask(f"freeze {server}")
    reader = subprocess.Popen(["cat", str(one.files / "portal/new")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    seen = one.until(lambda: "hangs" in one.row("mount"), "the mount hangs")
    text, took = one.command("status", code=2)
    one.check(took < STATUS, f"silence is seen after {seen:.1f} s (probe each 5 s, deadline 5 s); status answers in {took:.2f} s", text)
    one.say("    ", one.row("mount"))
    text, took = one.command("storage", "status", code=2)
    one.check("hangs" in text and took < 8, f"storage status says so in {took:.2f} s", text)
    probes = [pid for pid in Path("/proc").iterdir() if pid.name.isdigit() and b"mount-worker" in cmdline(pid)]
    one.check(len(probes) <= 1, "no two probes hang at once", probes)
    one.ask(f"thaw {server}")
    back = one.until(one.is_healthy, "healthy again")
    reader.wait(30)
    one.check(True, f"good again {back:.1f} s after it woke")
    one.check(one.row("mount").split()[4] == "1", "the loss is counted", one.row("mount"))


def cmdline(process):
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def comes_back(one):
    subprocess.run(["umount", "-l", str(one.files)], check=True)
    took = one.until(lambda: one.mounts() and one.is_healthy(), "mounted again")
    one.check(len(one.mounts()) == 1, f"a mount that was taken away is back after {took:.1f} s", one.mounts())


def taken_over(one):
    before = one.mounts()
    one.end(signal.SIGKILL)
    one.run()
    one.until(one.is_healthy, "healthy")
    one.check(one.mounts() == before, "a new supervisor takes the mount over as it is", [before, one.mounts()])


def storage_dies(one):
    pid = int(one.row("storage").split()[2])
    os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    (one.files / "portal/after").write_text("after")
    took = time.monotonic() - started
    one.check((one.files / "portal/after").read_text() == "after", f"the storage is killed: a write goes on after {took:.2f} s")
    one.until(one.is_healthy, "healthy")


def ends(one):
    took = one.end()
    one.check(not one.mounts(process=1), f"it ends in {took:.1f} s and nothing stays mounted", one.mounts(process=1))
    one.check(one.supervisor.returncode == 0, "with code 0", one.log()[-2000:])


def external():
    one = Machine(SHARE, EXECUTABLE, EXTERNAL)
    yield one
    php_waits(one)
    start(one)
    publish(one)
    serves_php(one)
    silence(one, "ganesha")
    serves_php(one)
    comes_back(one)
    taken_over(one)
    serves_php(one)
    text, _ = one.command("storage", "status", code=0)
    for line in text.splitlines():
        one.say("    ", line)
    text, _ = one.command("registry", "show", code=0)
    one.check("guest" in text, "the registry is there, too", text)
    leak = one.get("/registry/") + one.get("/../registry/")
    one.check("404" in leak and "v" + "1" not in leak, "no browser sees the registry", leak)
    ends(one)


def replicated():
    one = Machine(SHARE, EXECUTABLE, REPLICATED)
    yield one
    start(one)
    publish(one)
    serves_php(one)
    text, _ = one.command("storage", "status", code=0)
    one.check("files here: 127.0.0.1:/portal on" in text, "storage status has a line about the mount", text)
    one.say("    ", next(line for line in text.splitlines() if line.startswith("files here")))
    storage_dies(one)
    taken_over(one)
    serves_php(one)
    ends(one)


def fuse():
    one = Machine(SHARE, EXECUTABLE, FUSE)
    yield one
    start(one)
    one.check(" - fuse.bitrix bitrix-node " in one.mounts()[0], "by FUSE, under a name of its own", one.mounts())
    publish(one)
    serves_php(one)
    text, _ = one.command("storage", "status", code=0)
    one.check("locks hold on all nodes" in text, "storage status says how far locks hold", text)
    one.say("    ", next(line for line in text.splitlines() if line.startswith("files here")))
    for _ in range(3):
        storage_dies(one)
    serves_php(one)
    text, took = one.command("storage", "umount", code=0)
    one.check("mounts it again" in text, f"umount takes {took:.2f} s and says that it will not last", text)
    one.until(one.mounts, "mounted again")
    serves_php(one)
    one.end(signal.SIGKILL)
    one.check(one.get("/index.php") != "from PHP: hello\n" and len(one.mounts()) == 1, "a killed supervisor leaves its mount, which is dead")
    one.run()
    one.until(one.is_healthy, "healthy")
    one.check(len(one.mounts()) == 1, "the next one replaces it", one.mounts())
    serves_php(one)
    ends(one)


def sandbox(storage=REPLICATED):
    one = Machine(SHARE, EXECUTABLE, storage, daemons="unit", php="/none")
    yield one
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    start(one, ["unshare", "--mount", "--propagation", "slave"])
    of_init, own = (os.readlink(f"/proc/{pid}/ns/mnt") for pid in (1, one.supervisor.pid))
    one.check(of_init != own, "the supervisor has mounts of its own")
    one.check(len(one.mounts(process=one.supervisor.pid)) == 1, "which the mount reaches, too")
    publish(one)
    one.say("ok  ", "the front, inside, serves it")
    ends(one)


def fuse_sandbox():
    yield from sandbox(FUSE)


def is_ready(one, losses):
    """Whether the mount is, and was lost so often before."""
    row = one.row("mount").split()
    return row[1:2] == ["ready"] and row[4] == str(losses)


def stale():
    one = Machine(SHARE, EXECUTABLE, OURS, php="/none")
    yield one
    one.run()
    one.until(lambda: is_ready(one, losses=0), "mounted")
    one.ask("empty ours")
    took = one.until(lambda: is_ready(one, losses=1), "mounted again")
    one.check(len(one.mounts()) == 1, f"a mount whose handles are stale is replaced after {took:.1f} s", one.mounts())
    one.say("    ", one.row("mount"))
    one.until((one.files / "portal").is_dir, "the document root is made again")
    (one.files / "portal/text").write_text("hello")
    one.check((one.files / "portal/text").read_text() == "hello", "and can be used")
    ends(one)


def watched():
    one = Machine(SHARE, EXECUTABLE, WATCHED, php="/none")
    yield one
    shared = one.home / "shared"
    # Root's, so that no registry is begun where the file system belongs.
    (shared / "portal").mkdir(parents=True)
    one.run()
    one.until(lambda: "is not mounted" in one.row("mount"), "said")
    one.check(one.command("status")[0].startswith("DEGRADED"), "a folder that nobody mounted is said to be on this machine's own disk")
    one.say("    ", one.row("mount"))
    subprocess.run(["mount", "-t", "tmpfs", "none", str(shared)], check=True)
    (shared / "portal").mkdir()
    (shared / "portal/style.css").write_text("body {}")
    shutil.chown(shared, "bitrix-node")
    one.until(one.is_healthy, "healthy")
    one.until(lambda: one.get("/style.css") == "body {}", "a file is served")
    one.check(not one.mounts(), "it is good once somebody did, and nothing was mounted by us")
    text, _ = one.command("storage", "status", code=0)
    for line in text.splitlines():
        one.say("    ", line)
    text, _ = one.command("storage", "mount", code=1)
    one.check("there is nothing to mount" in text, "there is nothing to mount by hand", text)
    took = one.end()
    one.check(len(one.mounts(shared)) == 1, f"it ends in {took:.1f} s and leaves the other's mount", one.mounts(shared))


def main():
    steps = globals()[SUITE]()
    one = next(steps)
    try:
        next(steps, None)
    except Failed:
        return 1
    except (subprocess.TimeoutExpired, OSError) as error:
        one.say("FAIL", error)
        return 1
    finally:
        one.finish()
    return 0


sys.exit(main())
