#!/usr/bin/env python3
"""New TLS 1.3 connections to a server on loopback, one GET on each: how many a second.

    tls_load.py PORT PATH SECONDS full|resumed

Eight processes at once, so that the server never waits for a client. `resumed`: each connection takes up the session of the one before it,
which is checked. The answer must be 200 and end with the connection.
"""

import os
import socket
import ssl
import sys
import time

PORT, PATH, SECONDS, KIND = int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4]
WORKERS = 8
REQUEST = f"GET {PATH} HTTP/1.1\r\nHost: portal.test\r\nConnection: close\r\n\r\n".encode()


def context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def once(context, session):
    """One connection; the session that it leaves."""
    with socket.create_connection(("127.0.0.1", PORT), 10) as plain:
        with context.wrap_socket(plain, server_hostname="portal.test", session=session, suppress_ragged_eofs=True) as stream:
            if session is not None and not stream.session_reused:
                sys.exit("a session was not resumed")
            stream.sendall(REQUEST)
            answer = b""
            while piece := stream.recv(65536):
                answer += piece
            if not answer.startswith(b"HTTP/1.1 200 "):
                sys.exit(f"not 200: {answer[:100]}")
            return stream.session


def work():
    made, client, end = 0, context(), time.monotonic() + SECONDS
    session = once(client, None) if KIND == "resumed" else None
    while time.monotonic() < end:
        left = once(client, session)
        if session is not None:
            session = left
        made += 1
    return made


def main():
    pipes = []
    for _ in range(WORKERS):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writing, str(work()).encode())
            os._exit(0)
        os.close(writing)
        pipes.append((pid, reading))
    made = 0
    for pid, reading in pipes:
        text = os.read(reading, 100)
        if os.waitpid(pid, 0)[1] != 0 or not text:
            sys.exit("a worker failed")
        made += int(text)
    print(made / SECONDS)


main()
