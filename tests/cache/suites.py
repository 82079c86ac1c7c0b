"""The suites of others against one server each. Every suite gives {test: result}; a result is what passed of how much, and what did not."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import sources
from differential import differential
from limits import limits
from server import Server

PORT = 11211
PHP = "/usr/bin/php"
PYTHON = "/usr/bin/python3"
# The tests of one file of memcached's end within this, or hang.
FILE_SECONDS = 150
SUITE_SECONDS = 900
# Not even tried, by why.
LEFT_OUT = {
    "another build": "binary-extstore chunked-extstore error-extstore extstore extstore-buckets extstore-jbod proxy binary-sasl ssl_cert_refresh "
    "ssl_ports ssl_proto_version ssl_session_resumption ssl_settings ssl_verify_modes",
    "memcached's slabs, crawler and restart": "slabs-reassign-chunked slabs-reassign2 slabs_reassign slabhang lru-crawler lru-maintainer dyn-maxbytes "
    "restart misbehave refhang 64bit conn-limits",
    "its source": "whitespace",
}


def finished(words, seconds, **options):
    """Output of a program that gets a process group of its own, which ends with it."""
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, **options)
    try:
        text, _ = process.communicate(timeout=seconds)
        return process.returncode, text.decode(errors="replace")
    except subprocess.TimeoutExpired:
        return None, "does not end"
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def result(passed, of, failed, note=""):
    return {"passed": passed, "of": of, "failed": failed, "note": note}


def single(is_good, note=""):
    return result(int(is_good), 1, [] if is_good else ["*"], note)


def memccapable(kind, folder):
    with Server(kind, PORT):
        _, text = finished(["memccapable", "-h", "127.0.0.1", "-p", str(PORT)], 120)
    found = re.findall(r"^(ascii|binary) (.+?)\s+\[(\w+)\]$", text, re.MULTILINE)
    return {f"{protocol} {name}": single(word == "pass", word) for protocol, name, word in found}


def own_tests(kind, folder):
    root = sources.unpacked(sources.from_debian("memcached_1.6.18.orig.tar.xz"), folder / "memcached")
    subprocess.run(["cc", "-w", "-o", root / "timedrun", root / "timedrun.c"], check=True)
    kind.wrapper(root / "memcached-debug")
    left_out = set(" ".join(LEFT_OUT.values()).split())
    found = {}
    for test in sorted((root / "t").glob("*.t")):
        if test.stem not in left_out:
            code, text = finished(["perl", test], FILE_SECONDS, cwd=root)
            found[test.name] = tap(code, text)
    return found


def tap(code, text):
    """Reads the Test Anything Protocol."""
    if skipped := re.search(r"^1\.\.0 # SKIP (.*)", text, re.MULTILINE):
        return result(0, 0, [], f"skipped: {skipped.group(1)}")
    lines = re.findall(r"^(not )?ok (\d+)( # TODO)?", text, re.MULTILINE)
    plan = re.search(r"^1\.\.(\d+)", text, re.MULTILINE)
    # The same number twice is one child's and its parent's; the worse counts.
    failed = sorted({int(number) for bad, number, todo in lines if bad and not todo})
    numbers = {int(number) for _, number, _ in lines}
    of = int(plan.group(1)) if plan else len(numbers)
    passed = len(numbers) - len(failed)
    note = ""
    if code != 0 and not failed or len(numbers) < of:
        note = f"ends after {len(numbers)} of {of}: {last_words(text)}"
        failed = [*failed, "*"]
    return result(passed, of, failed, note)


def last_words(text):
    lines = [line for line in text.strip().splitlines() if line and not re.match(r"(ok|1\.\.)", line)]
    return lines[-1][:150] if lines else ""


def phpt(kind, folder):
    root = sources.unpacked(sources.from_debian("php-memcached_3.3.0.orig.tar.gz"), folder / "php-memcached")
    runner = sources.run_tests_php()
    environment = {**os.environ, "NO_INTERACTION": "1", "TEST_PHP_EXECUTABLE": PHP, "SKIP_ONLINE_TESTS": "1", "TZ": "UTC"}
    with Server(kind, PORT):
        _, text = finished([PHP, runner, "-q", "tests"], SUITE_SECONDS, cwd=root, env=environment)
    # Coloured, and each after the announcement of its test.
    text = re.sub(r"\x1b\[[\d;]*m|TEST \d+/\d+ \[.*?\]\r?", "", text)
    found = {}
    for word, path in re.findall(r"^(PASS|FAIL|SKIP|XFAIL|XLEAK|WARN|BORK)\b.*\[tests/(.+?)\.phpt\]", text, re.MULTILINE):
        found[path] = result(0, 0, [], "skipped") if word in ("SKIP", "XFAIL") else single(word == "PASS", word.lower())
    return found


def pytest(words, folder, environment):
    report = folder / "pytest.txt"
    line = [PYTHON, "-m", "pytest", "-q", "-rA", "--tb=line", "-p", "no:cacheprovider", "-o", "addopts=", *words]
    _, text = finished(line, SUITE_SECONDS, cwd=folder, env={**os.environ, **environment})
    report.write_text(text)
    found = {}
    for word, name in re.findall(r"^(PASSED|FAILED|ERROR) \S*?(\w+\.py::\S+)", text, re.MULTILINE):
        found[name] = single(word == "PASSED", word.lower())
    if not found:
        raise sources.Missing(f"no test ran: {text[-300:]}")
    return found


def pymemcache(kind, folder):
    root = sources.unpacked(sources.from_pypi("pymemcache"), folder / "pymemcache")
    with Server(kind, PORT):
        words = ["pymemcache/test/test_integration.py", "--server", "127.0.0.1", "--port", str(PORT), "-k", "not tls and not Tls"]
        return pytest(words, root, {"PYTHONPATH": str(root)})


def pylibmc(kind, folder):
    root = sources.unpacked(sources.from_pypi("pylibmc"), folder / "pylibmc")
    # Beside the tests the installed library is used, which is built.
    shutil.rmtree(root / "src", ignore_errors=True)
    with Server(kind, PORT):
        return pytest(["tests"], root, {})


ALL = {"memccapable": memccapable, "t": own_tests, "phpt": phpt, "pymemcache": pymemcache, "pylibmc": pylibmc, "limits": limits, "differential": differential}


def main():
    """Inside a network of its own: `suites.py KIND EXECUTABLE FOLDER SUITE,...` writes results.json there."""
    import json

    from server import Kind

    name, executable, folder, wanted = sys.argv[1:]
    folder, results = Path(folder), {}
    kind = Kind(name, executable)
    for suite in wanted.split(","):
        try:
            results[suite] = ALL[suite](kind, folder)
        except Exception as error:  # The other suites shall still run; this one is missing from the table, which fails.
            results[suite] = {"(all)": result(0, 1, ["*"], f"{type(error).__name__}: {error}")}
        (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
