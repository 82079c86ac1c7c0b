"""Browsers of the push server: WebSockets in the text form that go from node to node with the newest id that they have, and write down what
they get. All in one thread, which is in the namespace of the clients' machine."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import random
import struct
import threading
from urllib.parse import quote

from shared import set_namespace

BEGIN, END = b"#!NGINXNMS!#", b"#!NGINXNME!#"
PATIENCE = 10
AGAIN = 0.3
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


def channel(number):
    return hashlib.md5(f"channel {number}".encode()).hexdigest()


class Browser:
    """Listens to one channel."""

    def __init__(self, crowd, number):
        self.crowd, self.number, self.channel = crowd, number, number % crowd.channels
        self.mid, self.got, self.faults = None, {}, []
        self.node, self.writer, self.visits = None, None, 0

    async def run(self):
        while not self.crowd.is_over:
            self.node = random.choice(self.crowd.open)
            try:
                await self.listen()
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError):
                pass
            if self.writer:
                self.writer.transport.abort()
            await asyncio.sleep(random.random() * AGAIN)

    async def listen(self):
        name = channel(self.channel)
        target = f"/bitrix/subws/?CHANNEL_ID={quote(f'{name}.{self.crowd.sign(name)}')}&revision=19"
        if self.mid:
            target += f"&mid={self.mid}"
        reader, self.writer = await asyncio.wait_for(asyncio.open_connection(self.node, 80), PATIENCE)
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET {target} HTTP/1.1\r\nHost: portal\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        self.writer.write(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        if not answer.startswith(b"HTTP/1.1 101"):
            raise ValueError(answer)
        self.visits += 1
        while True:
            kind, payload = await self.frame(reader)
            if kind == CLOSE:
                return
            if kind == PING:
                self.writer.write(bytes([0x80 | PONG, 0x80 | len(payload), 0, 0, 0, 0]) + payload)
            if kind == TEXT:
                self.hear(payload)

    async def frame(self, reader):
        first, length = await reader.readexactly(2)
        if length == 126:
            (length,) = struct.unpack(">H", await reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", await reader.readexactly(8))
        return first & 15, await reader.readexactly(length)

    def hear(self, payload):
        for part in payload.split(BEGIN)[1:]:
            said = json.loads(part.partition(END)[0])
            mid, number = said["mid"], said["text"]["n"]
            if self.mid and mid <= self.mid:
                self.faults.append(f"browser {self.number} got {mid} after {self.mid}")
            if number in self.got:
                self.faults.append(f"browser {self.number} got message {number} twice: {self.got[number]}, {mid}")
            if self.crowd.ids.setdefault(mid, number) != number:
                self.faults.append(f"{mid} is message {number} and {self.crowd.ids[mid]}")
            self.mid, self.got[number] = mid, mid

    def leave(self):
        if self.writer:
            self.writer.transport.abort()


class Crowd:
    """`open`: addresses of nodes where a browser may go."""

    def __init__(self, handle, key, count, channels):
        self.key, self.channels, self.open, self.is_over = key, channels, [], False
        # What has each id, on all nodes.
        self.ids = {}
        self.browsers = [Browser(self, number) for number in range(count)]
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.live, args=(handle,), daemon=True)

    def sign(self, text):
        return hmac.new(self.key, text.encode(), "sha1").hexdigest()

    def live(self, handle):
        set_namespace(handle)
        self.loop.run_until_complete(self.all())

    async def all(self):
        await asyncio.gather(*(browser.run() for browser in self.browsers))

    def move(self, of, share):
        """So many of a node's browsers notice that it is gone, and go elsewhere."""
        there = [browser for browser in self.browsers if browser.node == of and random.random() < share]

        def leave():
            for browser in there:
                browser.leave()

        self.loop.call_soon_threadsafe(leave)
        return len(there)

    def end(self):
        self.is_over = True
        self.loop.call_soon_threadsafe(lambda: [browser.leave() for browser in self.browsers])
        self.thread.join(20)

    def faults(self):
        return [fault for browser in self.browsers for fault in browser.faults]

    def missing(self, acknowledged):
        """`acknowledged`: messages of each channel. Who lacks which."""
        lacking = []
        for browser in self.browsers:
            lacks = [number for number in acknowledged[browser.channel] if number not in browser.got]
            lacking += [f"browser {browser.number} lacks {number}" for number in lacks]
        return lacking


