#!/usr/bin/env python3
"""PHP pages and plain files on a mount beside ext4, in interleaved rounds of one session. Ratios, of which above 1 is faster than ext4.

    pages.py EXT4-FOLDER MOUNT-FOLDER [--rounds N] [--seconds N]

Page 1 includes 500 files. Page 2 does that, asks for 20 files that are not there, and opens, locks (LOCK_SH) and reads 15. One PHP-FPM
process serves both folders, with opcache and revalidate_freq 0, to one client.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "kernel"))
import fastcgi  # noqa: E402
from files import measure_files  # noqa: E402
from session import Table  # noqa: E402

INCLUDES, MISSES, CACHED = 500, 20, 15
# What the issue allows pages to be slower.
LEAST = 0.9
USER = "www-data"

INCLUDE = """<?php
/** Part {number} of the page. */
final class Part_{number}
{{
    public const NAME = 'part {number}';

    public function render(int $width): string
    {{
        return str_pad(self::NAME, $width, '.') . sprintf('%04d', {number});
    }}
}}
return (new Part_{number}())->render({number} % 40);
"""

PAGE_1 = """<?php
$length = 0;
for ($number = 0; $number < 500; $number++) {
    $length += strlen(include __DIR__ . "/parts/part$number.php");
}
echo "includes $length";
"""

PAGE_2 = """<?php
require __DIR__ . '/page1.php';
$missing = $read = 0;
for ($number = 0; $number < 20; $number++) {
    $missing += (int) !file_exists(__DIR__ . "/parts/none$number.php");
}
for ($number = 0; $number < 15; $number++) {
    $file = fopen(__DIR__ . "/cache/$number.php", 'rb');
    flock($file, LOCK_SH);
    $read += strlen(fread($file, 8192));
    flock($file, LOCK_UN);
    fclose($file);
}
echo ", missing $missing, read $read";
"""

FPM = """
[global]
error_log = {folder}/fpm.log
daemonize = no
[www]
user = {user}
group = {user}
listen = {folder}/fpm.sock
pm = static
pm.max_children = 1
"""
PHP = {
    "zend_extension": "opcache", "opcache.enable": 1, "opcache.validate_timestamps": 1, "opcache.revalidate_freq": 0,
    "opcache.max_accelerated_files": 20000, "opcache.memory_consumption": 128,
}  # fmt: skip


def make_site(folder):
    for part in ["parts", "cache"]:
        (folder / part).mkdir(parents=True)
    for number in range(INCLUDES):
        (folder / f"parts/part{number}.php").write_text(INCLUDE.format(number=number))
    for number in range(CACHED):
        (folder / f"cache/{number}.php").write_text(f"<?php // {number}\n" + "x" * 3000)
    (folder / "page1.php").write_text(PAGE_1)
    (folder / "page2.php").write_text(PAGE_2)


class Fpm:
    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="bitrix-fpm-", dir="/tmp"))
        os.chmod(self.folder, 0o755)
        config = self.folder / "fpm.conf"
        config.write_text(FPM.format(folder=self.folder, user=USER))
        program = max(Path("/usr/sbin").glob("php-fpm*"))
        words = [program, "-n", "-F", "-y", config, *(f"-d{name}={value}" for name, value in PHP.items())]
        with open(self.folder / "out", "wb") as out:
            self.process = subprocess.Popen(list(map(str, words)), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.socket = self.folder / "fpm.sock"
        end = time.monotonic() + 20
        while not self.socket.exists():
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError(f"php-fpm does not start: {(self.folder / 'out').read_text()}")
            time.sleep(0.02)

    def get(self, script):
        return fastcgi.get(self.socket, str(script))

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        shutil.rmtree(self.folder)


def rate(fpm, script, seconds, wanted):
    """Requests per second."""
    count, started = 0, time.monotonic()
    while (took := time.monotonic() - started) < seconds:
        if (seen := fpm.get(script)) != wanted:
            raise RuntimeError(f"{script}: {seen[:500]}")
        count += 1
    return count / took


def measure_pages(table, sites, rounds, seconds):
    fpm = Fpm()
    try:
        found = {}
        wanted = {page: fpm.get(next(iter(sites.values())) / page) for page in ["page1.php", "page2.php"]}
        if b"missing 20" not in wanted["page2.php"]:
            raise RuntimeError(wanted["page2.php"][:500])
        # The first round fills opcache.
        for turn in range(rounds + 1):
            for page in wanted:
                # Each is first as often as it is last.
                for name in list(sites) if turn % 2 else reversed(list(sites)):
                    one = rate(fpm, sites[name] / page, seconds, wanted[page])
                    if turn > 0:
                        found.setdefault((page, name), []).append(one)
    finally:
        fpm.stop()
    ext4, other = sites
    for page in wanted:
        pairs = [there / here for here, there in zip(found[page, ext4], found[page, other])]
        ratio = statistics.median(pairs)
        rates = {name: f"{statistics.median(found[page, name]):.0f}" for name in sites}
        text = f"{rates[other]} req/s, {ext4} {rates[ext4]}; ratio {ratio:.2f} ({min(pairs):.2f}..{max(pairs):.2f}, {rounds} rounds)"
        table.row(f"PHP, {page[:-4]}", ratio >= LEAST, text)


def measure(table, ext4, mount, rounds, seconds, nfs=None):
    """`nfs`: a client of the NFS door with its root, for the same files."""
    sites = {"ext4": Path(ext4) / "site", "mount": Path(mount) / "site"}
    for site in sites.values():
        make_site(site)
    measure_pages(table, sites, rounds, seconds)
    measure_files(table, Path(ext4), Path(mount), nfs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs=2, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2)
    options, table = parser.parse_args(), Table()
    measure(table, *options.folders, options.rounds, options.seconds)
    sys.exit(1 if table.failed else 0)


if __name__ == "__main__":
    main()
