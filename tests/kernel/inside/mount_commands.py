"""`storage mount`, `umount` and `status` before servers that answer, freeze, refuse and are not there.
`mount_commands.py MOUNT SHARE EXECUTABLE SUITE GANESHA-EXPORT GANESHA-PORT`"""

import ctypes
import fcntl
import os
import subprocess
import sys
from pathlib import Path

from machine import Failed, Machine

_, SHARE, EXECUTABLE, SUITE, GANESHA, GANESHA_PORT = sys.argv[1:]
OURS = 'engine = "external"\nexternal = "nfs://10.77.0.1:2049/portal?mount=2049"\nmount = "kernel"'
DELETE_MODULE = 176
# Deadlines of the executable, and what starting a process may take here.
PROBE, MOUNT, SLACK = 5, 15, 3


def external(host, rest=""):
    return f'engine = "external"\nexternal = "nfs://{host}"\nmount = "kernel"\n{rest}'


def mounts_and_files(one, name):
    status, _ = one.command("storage", "status", code=2)
    one.check("is not mounted" in status, f"{name}: before, status says that it is not mounted", status)
    text, _ = one.command("storage", "mount", code=0)
    one.check("locks hold on this node only" in text, f"{name}: it mounts, and says how far locks hold", text)
    line = one.mounts()[0]
    wanted = ["nosuid", "nodev", "hard", "nolock", "vers=3"]
    one.check(all(word in line.replace(" ", ",").split(",") for word in wanted), f"{name}: mounted with {', '.join(wanted)}", line)
    text, _ = one.command("storage", "mount", code=0)
    one.check("already" in text and len(one.mounts()) == 1, f"{name}: a second time does nothing", text)
    for number in range(50):
        (one.files / f"file {number}").write_bytes(bytes([number]) * 5000)
    Path("/proc/sys/vm/drop_caches").write_text("3")
    read = all((one.files / f"file {number}").read_bytes() == bytes([number]) * 5000 for number in range(50))
    one.check(read, f"{name}: 50 files are written and read back with a cold cache")
    status, took = one.command("storage", "status", code=0)
    one.check("HEALTHY" in status and "MiB free" in status, f"{name}: status says so, with the free space, in {took:.2f} s", status)
    one.say("    ", status.splitlines()[-1])
    one.command("storage", "umount", code=0)
    one.check(not one.mounts() and not any(one.files.iterdir()), f"{name}: umount lets go")
    text, _ = one.command("storage", "umount", code=0)
    one.check("nothing is mounted" in text, f"{name}: a second time it says so", text)


def frozen(one):
    one.command("storage", "mount", code=0)
    one.ask("freeze ours")
    status, took = one.command("storage", "status", code=2)
    one.check("hangs: no answer within 5s" in status and took < PROBE + SLACK, f"frozen: status says that it hangs, in {took:.2f} s", status)
    one.ask("thaw ours")
    status, took = one.command("storage", "status", code=0)
    one.check("HEALTHY" in status, f"thawed: good again, in {took:.2f} s", status)
    one.ask("freeze ours")
    text, took = one.command("storage", "umount", code=0)
    one.check(not one.mounts() and took < SLACK, f"frozen: umount returns in {took:.2f} s", text)
    text, took = one.command("storage", "mount", code=1)
    one.check("no answer within 15s" in text and took < MOUNT + SLACK, f"frozen: mount gives up in {took:.2f} s", text)
    one.check(not one.mounts(), "frozen: and leaves nothing mounted", one.mounts())
    one.ask("thaw ours")
    one.command("storage", "mount", code=0)
    one.check(one.mounts(), "thawed: it mounts again")
    one.command("storage", "umount", code=0)


def dead(one):
    """The server has lost everything: each handle is stale."""
    one.command("storage", "mount", code=0)
    one.ask("empty ours")
    status, took = one.command("storage", "status", code=2)
    one.check("stale" in status.lower(), f"emptied: status says that the handle is stale, in {took:.2f} s", status)
    one.command("storage", "umount", code=0)
    one.command("storage", "mount", code=0)
    one.check(one.command("storage", "status", code=0)[0].startswith("HEALTHY"), "emptied: umount and mount make it good again")
    one.command("storage", "umount", code=0)


def refusals(one):
    other = Path("/run/other")
    other.mkdir()
    (other / "precious").write_text("x")
    (one.home / "file").write_text("x")
    cases = [
        (other, "is not empty"),
        (one.home / "file", "is not a folder"),
        (one.home / "a/b", "No such file"),
        ("/proc", "is mounted at /proc already"),
    ]
    for folder, words in cases:
        text, _ = one.command("storage", "mount", "--at", str(folder), code=1)
        one.check(words in text, f"refused: {folder} {words}", text)
    text, _ = one.command("storage", "umount", "--at", "/proc", code=1)
    one.check("leave it to umount(8)" in text, "refused: another one's mount is not let go", text)
    text, _ = one.command("storage", "mount", code=1, before=["setpriv", "--reuid=33", "--clear-groups"])
    one.check("needs root" in text, "refused: to mount without root", text)
    for host, words in [
        ("10.77.0.1:2049/nope?mount=2049", "has no export /nope"),
        (f"10.77.0.1:{GANESHA_PORT}/nope", "does not let this node mount /nope"),
        ("10.77.0.1:9/portal?mount=9", "connection refused"),
        ("nosuchhost.invalid/portal", "nosuchhost.invalid"),
    ]:
        text, took = Machine(SHARE, EXECUTABLE, external(host)).command("storage", "mount", code=1)
        one.check(words in text, f"refused in {took:.2f} s: nfs://{host}: {words}", text)


def without_portmapper(one):
    """Without a portmapper here, the server cannot be asked for locks."""
    text, took = one.command("storage", "mount", code=1)
    one.check("does rpcbind run here" in text and not one.mounts(), f"refused in {took:.2f} s: locks of the server without rpcbind", text)


def locks(one):
    """The daemons that mount.nfs would want, too; rpc.statd is started by the mount."""
    subprocess.run(["mount", "-t", "tmpfs", "none", "/var/lib/nfs"], check=True)
    for folder in ["/var/lib/nfs/sm", "/var/lib/nfs/sm.bak", "/run/rpcbind"]:
        os.mkdir(folder)
    subprocess.run(["rpcbind", "-w"], check=True)
    text, took = one.command("storage", "mount", code=0)
    one.check("locks are the server's" in text, f"it mounts with locks in {took:.2f} s", text)
    line = one.mounts()[0]
    one.check("nolock" not in line and "local_lock=none" in line, "the kernel asks the server for them", line)
    with open(one.files / "locked", "w") as file:
        for name in ["lockf", "flock"]:
            getattr(fcntl, name)(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            getattr(fcntl, name)(file, fcntl.LOCK_UN)
    one.check(True, "locks of both kinds are taken and given back")
    status, _ = one.command("storage", "status", code=0)
    one.check("locks are the server's" in status, "status says so", status)
    one.command("storage", "umount", code=0)


def without_client(one):
    libc = ctypes.CDLL(None, use_errno=True)
    for module in [b"nfsv3", b"nfs"]:
        if libc.syscall(DELETE_MODULE, module, os.O_NONBLOCK) != 0:
            raise OSError(ctypes.get_errno(), module)
    text, _ = one.command("storage", "mount", code=1)
    one.check("this kernel has no NFS client" in text, "refused: a kernel without an NFS client", text)


def everything_else():
    ours = Machine(SHARE, EXECUTABLE, OURS)
    yield ours
    mounts_and_files(ours, "our export")
    mounts_and_files(Machine(SHARE, EXECUTABLE, external(f"10.77.0.1{GANESHA}")), "ganesha by its portmapper")
    ours = Machine(SHARE, EXECUTABLE, OURS)
    frozen(ours)
    dead(ours)
    refusals(ours)
    without_client(Machine(SHARE, EXECUTABLE, OURS))


def server_locks():
    one = Machine(SHARE, EXECUTABLE, external(f"10.77.0.1{GANESHA}", "external_locks = true"))
    yield one
    without_portmapper(one)
    locks(one)


def main():
    steps = server_locks() if SUITE == "locks" else everything_else()
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
