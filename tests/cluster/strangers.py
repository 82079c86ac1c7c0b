"""A stranger in the same network: what the nodes' ports say to plain text, to TLS without a certificate, and to the certificate of another cluster.
Nothing may be answered but a refusal, and the node's log must name who tried; what is for the node itself may not be reachable at all."""

import socket
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from member import CONFIG
from shared import now, set_namespace

MESH = {0: "agent", 1: "storage", 2: "cache", 3: "push", 4: "proxy", 5: "database"}
FIRST = 7400
LOCAL = {2049: "files", 11211: "cache", 3306: "database"}
PATIENCE = 4.0
PROTOCOLS = ["bn-call/1", "h2", "bn-join/1"]
ALERT = 0x15
LOGGED = 10.0
TEXTS = [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x00\x00\x00\x04ping", b"stats\r\n", bytes(300)]


class Nobody(Exception):
    """Nobody listens there."""


def connect(host, port):
    try:
        return socket.create_connection((host, port), PATIENCE)
    except ConnectionRefusedError:
        raise Nobody from None


def read(stream):
    """All that comes until the other side closes; with the reason where it breaks off or stays open."""
    data = b""
    try:
        while more := stream.recv(4096):
            data += more
        return data, "closed"
    except socket.timeout:
        return data, "silent"
    except (ssl.SSLError, OSError) as error:
        return data, getattr(error, "reason", None) or type(error).__name__


def plain(host, port):
    """What is leaked to plain text, and how it ends."""
    leaked, ends = [], set()
    for text in TEXTS:
        with connect(host, port) as stream:
            stream.sendall(text)
            data, end = read(stream)
        ends.add("alert" if data[:1] == bytes([ALERT]) else end)
        leaked += [data[:60]] if data and data[0] != ALERT else []
    return leaked, ends


def context(trust=None):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if trust:
        made.load_cert_chain(trust / "node.pem", trust / "node.key")
    return made


def tls(host, port, trust=None):
    """The same over TLS. The handshake of TLS 1.3 is over for a client before the server looks at its certificate, so it asks for something."""
    leaked, ends = [], set()
    for protocol in PROTOCOLS if trust else [*PROTOCOLS, None]:
        one = context(trust)
        if protocol:
            one.set_alpn_protocols([protocol])
        with connect(host, port) as stream:
            try:
                with one.wrap_socket(stream, server_hostname="n1") as inner:
                    inner.sendall(TEXTS[0])
                    data, end = read(inner)
                    leaked += [data[:60]] if data else []
                    ends.add(end)
            except (ssl.SSLError, OSError) as error:
                ends.add(getattr(error, "reason", None) or type(error).__name__)
    return leaked, ends


def another_cluster(cluster):
    """Trust folder of a node of a cluster of its own."""
    folder = cluster.folder / "stranger"
    folder.mkdir()
    (folder / "config.toml").write_text(CONFIG.format(folder=folder, files=folder / "files", copies=3))
    address = f"10.77.0.{cluster.stranger}"
    line = [cluster.executable, "init", "--yes", "--name", "n1", "--address", address, "--config", folder / "config.toml"]
    enter = cluster.network.handle(cluster.stranger)
    done = subprocess.run(line, preexec_fn=lambda: set_namespace(enter), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RuntimeError(f"another cluster: {done.stdout[-300:]} {done.stderr}")
    return folder / "data/trust"


def attack(table, cluster):
    trust = another_cluster(cluster)
    ways = {"plain text": plain, "TLS without a certificate": tls, "another cluster's certificate": lambda *where: tls(*where, trust)}
    for way, attempt in ways.items():
        table.row(f"stranger: {way}", *everywhere(cluster, attempt))
    reached = [f"{node.name} {LOCAL[port]}" for node in cluster.nodes for port in LOCAL if is_open(cluster, node, port)]
    table.row("stranger: local ports", not reached, f"{', '.join(LOCAL.values())} cannot be reached", reached)


def everywhere(cluster, attempt):
    """One way at all mesh ports of all nodes, at once: many of them say nothing, which takes its time."""
    own, bad, said = f"10.77.0.{cluster.stranger}", [], {}
    before = {node.name: node.log().count(own) for node in cluster.nodes}

    def one(node, offset):
        try:
            return cluster.network.inside(cluster.stranger, lambda: attempt(node.address, FIRST + offset))
        except Nobody:
            return [], set()

    places = [(node, offset) for node in cluster.nodes for offset in MESH]
    with ThreadPoolExecutor(len(places)) as pool:
        for (node, offset), (leaked, ends) in zip(places, pool.map(lambda place: one(*place), places)):
            bad += [f"{node.name} {MESH[offset]}: answers {data!r}" for data in leaked]
            said.setdefault(MESH[offset], set()).update(ends)
    bad += [f"{node.name}: its log does not name {own}" for node in cluster.nodes if not is_logged(node, own, before[node.name])]
    return not bad, "; ".join(f"{module}: {', '.join(sorted(ends)) or 'nobody'}" for module, ends in said.items()), bad


def is_logged(node, own, before):
    end = now() + LOGGED
    while node.log().count(own) <= before:
        if now() > end:
            return False
        time.sleep(0.1)
    return True


def is_open(cluster, node, port):
    try:
        cluster.network.inside(cluster.stranger, lambda: connect(node.address, port)).close()
        return True
    except (Nobody, OSError):
        return False
