"""POSIX behaviour that the portal and its admins rely on, one check each. `posix.py MOUNT SHARE`

Each check has a folder of its own. Results go into SHARE/results: "ok NAME" or "FAIL NAME: why".
"""

import errno
import fcntl
import hashlib
import mmap
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
import traceback

MOUNT, SHARE = sys.argv[1:3]
CHECKS = []
WEB = 33


def check(function):
    CHECKS.append(function)
    return function


def refused(number, function, *arguments):
    """The call must fail with this error."""
    try:
        function(*arguments)
    except OSError as error:
        assert error.errno == number, f"{errno.errorcode.get(error.errno)} instead of {errno.errorcode[number]}"
        return
    raise AssertionError(f"{errno.errorcode[number]} expected, it succeeded")


def as_user(uid, function, *arguments, groups=()):
    """Runs in a child with that uid and gid; a failed assertion there is one here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups(list(groups))
            os.setgid(uid)
            os.setuid(uid)
            function(*arguments)
            code = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-2000:])
        os._exit(code)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        why = pipe.read()
    assert status == 0, why


def put(path, data=b"", mode=0o644):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    os.write(fd, data)
    os.close(fd)


def get(path):
    with open(path, "rb") as file:
        return file.read()


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@check
def open_file_is_readable_after_unlink():
    put("a", b"content")
    fd = os.open("a", os.O_RDWR)
    os.unlink("a")
    assert os.pread(fd, 100, 0) == b"content"
    os.pwrite(fd, b"new", 0)
    assert os.pread(fd, 100, 0) == b"newtent"
    os.close(fd)
    # The client removes what it had renamed out of the way when the last user is gone, not in close().
    end = time.monotonic() + 10
    while os.listdir(".") and time.monotonic() < end:
        time.sleep(0.01)
    assert os.listdir(".") == [], os.listdir(".")


@check
def mkdir_takes_mode_and_umask():
    old = os.umask(0o027)
    os.mkdir("a", 0o777)
    os.umask(old)
    assert mode_of("a") == 0o750, oct(mode_of("a"))


@check
def mkdir_in_set_gid_folder_inherits_group():
    os.mkdir("a")
    os.chown("a", 0, 1234)
    os.chmod("a", 0o2775)
    os.mkdir("a/b")
    put("a/f")
    assert os.stat("a/b").st_gid == 1234 and mode_of("a/b") & 0o2000
    assert os.stat("a/f").st_gid == 1234 and not mode_of("a/f") & 0o2000


@check
def chmod_is_seen():
    put("a")
    for mode in [0o444, 0o000, 0o7777, 0o640]:
        os.chmod("a", mode)
        assert mode_of("a") == mode, oct(mode_of("a"))


@check
def chown_is_seen_and_only_for_root():
    put("a")
    os.chown("a", 1000, 1001)
    found = os.stat("a")
    assert (found.st_uid, found.st_gid) == (1000, 1001)
    as_user(WEB, refused, errno.EPERM, os.chown, "a", WEB, -1)


@check
def owner_gives_file_to_own_group_only():
    put("a")
    os.chown("a", WEB, WEB)
    as_user(WEB, os.chown, "a", -1, 50, groups=[50])
    assert os.stat("a").st_gid == 50
    as_user(WEB, refused, errno.EPERM, os.chown, "a", -1, 51, groups=[50])


@check
def chown_clears_set_id_bits():
    put("a")
    os.chown("a", WEB, WEB)
    os.chmod("a", 0o6755)
    as_user(WEB, os.chown, "a", -1, WEB)
    assert mode_of("a") == 0o755, oct(mode_of("a"))


@check
def write_by_another_clears_set_id_bits():
    put("a", b"x")
    os.chmod("a", 0o6777)
    as_user(WEB, put, "a", b"y")
    assert mode_of("a") == 0o777, oct(mode_of("a"))


@check
def new_files_belong_to_their_maker():
    os.chmod(".", 0o777)

    def make():
        os.umask(0o022)
        put("a", b"x", 0o666)
        os.mkdir("d")
        os.symlink("x", "l")

    as_user(WEB, make)
    for name in ["a", "d", "l"]:
        found = os.lstat(name)
        assert (found.st_uid, found.st_gid) == (WEB, WEB), name
    assert mode_of("a") == 0o644


@check
def others_are_denied():
    put("secret", b"x", 0o600)
    os.mkdir("closed", 0o700)
    put("closed/a", b"x")

    def denied():
        refused(errno.EACCES, open, "secret")
        refused(errno.EACCES, open, "closed/a")
        refused(errno.EACCES, os.listdir, "closed")
        refused(errno.EACCES, os.unlink, "secret")
        refused(errno.EACCES, os.mkdir, "new")

    as_user(WEB, denied)


@check
def further_groups_count():
    put("a", b"x", 0o640)
    os.chown("a", 0, 77)
    as_user(WEB, get, "a", groups=[5, 77])
    as_user(WEB, refused, errno.EACCES, get, "a", groups=[5])


@check
def sticky_folder_protects_names_of_others():
    os.chmod(".", 0o1777)
    put("a", b"x", 0o666)

    def protected():
        refused(errno.EPERM, os.unlink, "a")
        refused(errno.EPERM, os.rename, "a", "b")
        put("own")
        os.unlink("own")

    as_user(WEB, protected)


@check
def owner_writes_through_open_descriptor_after_chmod():
    os.chmod(".", 0o777)

    def write():
        fd = os.open("a", os.O_RDWR | os.O_CREAT, 0o600)
        os.fchmod(fd, 0)
        os.write(fd, b"still")
        os.fsync(fd)
        os.close(fd)

    as_user(WEB, write)
    assert get("a") == b"still"


@check
def file_created_read_only_takes_its_first_data():
    os.chmod(".", 0o777)

    def write():
        fd = os.open("a", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o400)
        os.write(fd, b"data")
        os.close(fd)

    as_user(WEB, write)
    assert get("a") == b"data" and mode_of("a") == 0o400


@check
def hard_links_share_inode_and_count():
    put("a", b"x")
    os.link("a", "b")
    assert os.stat("a").st_ino == os.stat("b").st_ino and os.stat("a").st_nlink == 2
    os.unlink("a")
    assert get("b") == b"x" and os.stat("b").st_nlink == 1
    refused(errno.EPERM, os.link, ".", "d")
    refused(errno.EEXIST, os.link, "b", "b")


@check
def folders_count_their_links():
    os.mkdir("d")
    assert os.stat("d").st_nlink == 2
    os.mkdir("d/e")
    os.mkdir("d/f")
    assert os.stat("d").st_nlink == 4
    os.rmdir("d/e")
    assert os.stat("d").st_nlink == 3


@check
def fifo_socket_and_device_can_be_made():
    os.mkfifo("fifo", 0o640)
    assert stat.S_ISFIFO(os.stat("fifo").st_mode) and mode_of("fifo") == 0o640
    with socket.socket(socket.AF_UNIX) as door:
        door.bind("socket")
    assert stat.S_ISSOCK(os.stat("socket").st_mode)
    os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert os.stat("null").st_rdev == os.makedev(1, 3)


@check
def fifo_carries_data():
    os.mkfifo("fifo")
    writer = threading.Thread(target=put, args=("fifo", b"through"))
    writer.start()
    assert get("fifo") == b"through"
    writer.join()


@check
def change_time_follows_changes():
    put("a")
    for change in [lambda: os.chmod("a", 0o600), lambda: os.link("a", "b"), lambda: os.unlink("b"), lambda: os.rename("a", "c")]:
        name = "a"
        before = os.stat(name).st_ctime_ns
        time.sleep(0.02)
        change()
        name = "a" if os.path.exists("a") else "c"
        assert os.stat(name).st_ctime_ns > before


@check
def data_and_folder_times_follow_changes():
    put("a", b"x")
    before, folder = os.stat("a").st_mtime_ns, os.stat(".").st_mtime_ns
    time.sleep(0.02)
    put("a", b"y")
    put("new")
    assert os.stat("a").st_mtime_ns > before and os.stat(".").st_mtime_ns > folder


@check
def folders_are_renamed_with_what_they_hold():
    os.makedirs("a/b/c")
    put("a/b/c/f", b"x")
    os.mkdir("z")
    os.rename("a/b", "z/y")
    assert get("z/y/c/f") == b"x" and not os.path.exists("a/b")
    refused(errno.EINVAL, os.rename, "z", "z/y/z")
    os.mkdir("full")
    put("full/f")
    refused(errno.ENOTEMPTY, os.rename, "z", "full")
    put("file")
    refused(errno.ENOTDIR, os.rename, "z", "file")
    refused(errno.EISDIR, os.rename, "file", "z")
    assert os.stat("z/y/..").st_ino == os.stat("z").st_ino


@check
def open_file_may_be_renamed():
    put("a", b"one")
    fd = os.open("a", os.O_RDWR)
    os.rename("a", "b")
    os.pwrite(fd, b"two", 0)
    os.close(fd)
    assert get("b") == b"two"


@check
def rename_replaces_atomically():
    put("to", b"old" * 1000)
    stop, bad = threading.Event(), []

    def look():
        while not stop.is_set():
            try:
                data = get("to")
            except OSError as error:
                # The name moved to another file between open and read: its handle is of a file that is gone.
                if error.errno != errno.ESTALE:
                    bad.append(repr(error))
                continue
            if data not in (b"old" * 1000, b"new" * 1000):
                bad.append(len(data))

    looker = threading.Thread(target=look)
    looker.start()
    for turn in range(100):
        put("from", [b"old", b"new"][turn % 2] * 1000)
        os.rename("from", "to")
    stop.set()
    looker.join()
    assert not bad, bad[:3]


@check
def replaced_file_stays_readable_where_it_is_open():
    put("a", b"old")
    fd = os.open("a", os.O_RDONLY)
    put("b", b"new")
    os.rename("b", "a")
    assert os.pread(fd, 10, 0) == b"old" and get("a") == b"new"
    os.close(fd)


@check
def room_is_reported():
    found = os.statvfs(".")
    assert 0 < found.f_bavail <= found.f_blocks and found.f_blocks * found.f_frsize < 1 << 46
    assert found.f_files > 0 and found.f_namemax == 255


@check
def folder_with_names_is_not_removed():
    os.makedirs("d/e")
    refused(errno.ENOTEMPTY, os.rmdir, "d")
    os.rmdir("d/e")
    os.rmdir("d")
    put("f")
    refused(errno.ENOTDIR, os.rmdir, "f")
    refused(errno.ENOENT, os.rmdir, "none")
    os.mkdir("d")
    refused(errno.EISDIR, os.unlink, "d")


def fill(count):
    names = {f"{number:05d}-file" for number in range(count)}
    for name in names:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    return names


@check
def listing_of_3000_names_is_whole():
    names = fill(3000)
    found = os.listdir(".")
    assert len(found) == len(names) and set(found) == names


@check
def listing_of_10000_names_is_whole_while_others_come_and_go():
    names = fill(10000)
    seen = []
    with os.scandir(".") as entries:
        for number, entry in enumerate(entries):
            seen.append(entry.name)
            if number % 20 == 0:
                put(f"extra{number}")
            if number % 40 == 0:
                os.unlink(f"extra{number}")
    lasting = [name for name in seen if not name.startswith("extra")]
    assert len(lasting) == len(names), f"{len(lasting)} names"
    assert set(lasting) == names


@check
def folder_is_emptied_while_it_is_listed():
    names = fill(1000)
    with os.scandir(".") as entries:
        for entry in entries:
            os.unlink(entry.name)
            names.discard(entry.name)
    assert not names and os.listdir(".") == []


@check
def exclusive_creation_has_one_winner():
    wins = []

    def race(number):
        for turn in range(50):
            try:
                os.close(os.open(f"lock{turn}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                wins.append((turn, number))
            except FileExistsError:
                pass

    racers = [threading.Thread(target=race, args=(number,)) for number in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(turn for turn, _ in wins) == list(range(50))


@check
def appends_of_one_machine_are_whole():
    def append(letter):
        fd = os.open("log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        for _ in range(100):
            os.write(fd, letter * 99 + b"\n")
        os.close(fd)

    writers = [threading.Thread(target=append, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = get("log").splitlines()
    assert len(lines) == 300 and all(len(set(line)) == 1 and len(line) == 99 for line in lines)


@check
def sparse_files_beyond_4_gib():
    fd = os.open("a", os.O_CREAT | os.O_RDWR)
    at = (5 << 30) + 7
    os.pwrite(fd, b"far", at)
    os.fsync(fd)
    found = os.fstat(fd)
    assert found.st_size == at + 3 and found.st_blocks * 512 < 1 << 20, found.st_blocks
    assert os.pread(fd, 10, at - 4) == b"\0\0\0\0far"
    assert os.pread(fd, 4096, 2 << 30) == bytes(4096)
    os.close(fd)


@check
def truncate_cuts_and_extends_with_zeros():
    put("a", b"0123456789")
    os.truncate("a", 4)
    assert get("a") == b"0123"
    os.truncate("a", 8)
    assert get("a") == b"0123\0\0\0\0"
    fd = os.open("a", os.O_RDWR)
    os.ftruncate(fd, 0)
    assert os.fstat(fd).st_size == 0
    os.close(fd)
    os.mkdir("d")
    refused(errno.EISDIR, os.truncate, "d", 0)


@check
def times_are_set_to_the_nanosecond():
    put("a")
    os.utime("a", ns=(1_234_567_890_123_456_789, 1_334_567_890_987_654_321))
    found = os.stat("a")
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_234_567_890_123_456_789, 1_334_567_890_987_654_321)
    os.utime("a")
    assert abs(os.stat("a").st_mtime - time.time()) < 60
    os.chmod("a", 0o666)
    as_user(WEB, os.utime, "a")
    as_user(WEB, refused, errno.EPERM, os.utime, "a", (1, 1))


@check
def symbolic_links_are_followed_and_read():
    os.mkdir("d")
    put("d/a", b"x")
    os.symlink("d/a", "l")
    os.symlink("nowhere", "dangling")
    os.symlink("x" * 1000, "long")
    os.symlink("loop", "loop")
    assert get("l") == b"x" and os.readlink("long") == "x" * 1000
    assert os.lstat("l").st_size == 3 and stat.S_ISLNK(os.lstat("l").st_mode)
    refused(errno.ENOENT, open, "dangling")
    refused(errno.ELOOP, open, "loop")
    os.unlink("l")
    assert get("d/a") == b"x"


@check
def names_have_their_limits():
    put("x" * 255)
    refused(errno.ENAMETOOLONG, put, "x" * 256)
    for name in ["with space", "quote'\"", "back\\slash", "new\nline", "кириллица", "emoji 🙂", ".hidden", "~", "*?"]:
        put(name, name.encode())
    put(b"\xff\xfe not utf-8", b"raw")
    assert b"\xff\xfe not utf-8" in os.listdir(b".")
    assert get("кириллица") == "кириллица".encode()


@check
def memory_maps_are_read_and_written():
    put("a", bytes(3 * 4096))
    with open("a", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[5000:5005] = b"hello"
        memory.flush()
    assert get("a")[5000:5005] == b"hello"
    put("a", b"changed" + bytes(100))
    with open("a", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        assert memory[:7] == b"changed"


@check
def programs_run_from_the_export():
    shutil.copy("/bin/true", "program")
    os.chmod("program", 0o711)
    os.chmod(".", 0o755)
    as_user(WEB, subprocess.run, ["./program"])
    subprocess.run(["./program"], check=True)


@check
def large_file_keeps_its_bytes():
    digest = hashlib.sha256()
    with open("a", "wb") as file:
        for number in range(64):
            block = hashlib.sha256(bytes([number])).digest() * (1 << 15)
            digest.update(block)
            file.write(block)
        os.fsync(file.fileno())
    with open("/proc/sys/vm/drop_caches", "w") as caches:
        caches.write("3")
    assert hashlib.sha256(get("a")).digest() == digest.digest()


@check
def direct_reads_and_writes_bypass_the_cache():
    fd = os.open("a", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    memory = mmap.mmap(-1, 8192)
    memory.write(b"direct" * 1365)
    assert os.pwritev(fd, [memory], 4096) == 8192
    back = mmap.mmap(-1, 8192)
    assert os.preadv(fd, [back], 4096) == 8192 and back[:] == memory[:]
    os.close(fd)


@check
def small_writes_at_random_places_add_up():
    model = bytearray(200_000)
    fd = os.open("a", os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, len(model))
    for number in range(2000):
        at = number * 7919 % (len(model) - 50)
        data = bytes([number % 251]) * (1 + number % 50)
        os.pwrite(fd, data, at)
        model[at : at + len(data)] = data
    os.close(fd)
    assert get("a") == bytes(model)


@check
def locks_hold_within_the_machine():
    put("a", b"x")
    first = open("a", "r+")
    fcntl.lockf(first, fcntl.LOCK_EX, 10, 0)

    def second():
        with open("a", "r+") as file:
            refused(errno.EAGAIN, fcntl.lockf, file, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 5)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 10)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    as_user(0, second)
    first.close()


@check
def tools_agree_on_a_tree():
    os.makedirs("from/deep/er")
    for number in range(50):
        put(f"from/deep/er/{number}", os.urandom(number * 100))
    os.symlink("er/1", "from/deep/link")
    subprocess.run(["cp", "-a", "from", "to"], check=True)
    subprocess.run(["diff", "-r", "--no-dereference", "from", "to"], check=True)
    subprocess.run("tar cf a.tar from && mkdir un && tar xf a.tar -C un && diff -r --no-dereference from un/from", shell=True, check=True)
    subprocess.run(["rm", "-r", "from", "to", "un"], check=True)
    assert os.listdir(".") == ["a.tar"]


def main():
    base = f"{MOUNT}/posix"
    os.mkdir(base)
    with open(f"{SHARE}/results", "w") as results:
        for function in CHECKS:
            name = function.__name__
            os.mkdir(f"{base}/{name}")
            os.chdir(f"{base}/{name}")
            started = time.monotonic()
            try:
                function()
                line = f"ok {name}"
            except BaseException as error:
                why = f"{type(error).__name__} {error} at line {traceback.extract_tb(error.__traceback__)[-1].lineno}"
                line = f"FAIL {name}: {' '.join(why.split())[-400:]}"
            print(line, f"({time.monotonic() - started:.1f} s)", file=results, flush=True)


main()
