"""Many clients in one process, on processor 0: they connect, wait, and see when something comes."""

import os
import select
import socket
import time

PATIENCE = 60
SOURCES = [f"127.0.0.{last}" for last in (2, 3, 4, 5)]
# Handshakes under way at once.
ABREAST = 200
HANDSHAKE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"


class Crowd:
    def __init__(self, port):
        self.port, self.epoll, self.sockets = port, select.epoll(), {}

    def connect(self, targets, fields, is_open):
        """Sends one request on each of as many connections. `is_open`: waits until each has been answered."""
        started = time.perf_counter()
        targets, waiting = list(targets), set()
        while targets or waiting:
            while targets and len(waiting) < ABREAST:
                sock = socket.socket()
                sock.bind((SOURCES[len(self.sockets) % len(SOURCES)], 0))
                sock.connect(("127.0.0.1", self.port))
                sock.setblocking(False)
                sock.send(request("GET", targets.pop(), fields))
                self.sockets[sock.fileno()] = sock
                self.epoll.register(sock.fileno(), select.EPOLLIN)
                if is_open:
                    waiting.add(sock.fileno())
            for number in self.ready(started + PATIENCE) if waiting else ():
                answer = self.sockets[number].recv(4096)
                if not answer.startswith(b"HTTP/1.1 101") or not answer.endswith(b"\r\n\r\n"):
                    raise OSError(f"not agreed: {answer[:200]}")
                waiting.discard(number)
        return time.perf_counter() - started

    def ready(self, until):
        events = self.epoll.poll(max(0, until - time.perf_counter()), 1024)
        if not events:
            raise TimeoutError
        return [number for number, _ in events]

    def hear(self, publisher, marker):
        """Publishes; the seconds after which each client had it."""
        waiting, times = set(self.sockets), []
        started = time.perf_counter()
        publisher.send(started)
        while waiting:
            for number in self.ready(started + PATIENCE):
                heard = self.sockets[number].recv(16384)
                if not heard:
                    raise OSError("closed by the server")
                if marker in heard and number in waiting:
                    waiting.discard(number)
                    times.append(time.perf_counter() - started)
        publisher.answered()
        return times

    def close(self):
        self.epoll.close()
        for sock in self.sockets.values():
            sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Publisher:
    """One connection on which messages are published, one after another."""

    def __init__(self, port, target, body):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.request = request("POST", target, f"Content-Length: {len(body)}\r\nMessage-Expiry: 60\r\nContent-Type: text/plain\r\n") + body

    def send(self, _):
        self.sock.sendall(self.request)

    def answered(self):
        answer = b""
        while b"\r\n\r\n" not in answer:
            come = self.sock.recv(65536)
            if not come:
                raise OSError("closed by the server before it answered")
            answer += come
        if answer.split(b" ", 2)[1][:1] != b"2":
            raise OSError(f"not published: {answer[:200]}")
        return answer

    def close(self):
        self.sock.close()


def request(method, target, fields):
    return f"{method} {target} HTTP/1.1\r\nHost: bench\r\n{fields}\r\n".encode()


def body(size=300):
    """A message as a portal sends them, with a word by which it is known."""
    marker = os.urandom(8).hex()
    head = f'{{"module_id":"bench","command":"{marker}","params":"'
    return (head + "x" * (size - len(head) - 2) + '"}').encode(), marker.encode()
