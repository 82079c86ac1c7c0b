#!/usr/bin/env python3
"""A client that asks for safe pages all the time, whatever comes: `web.py RECORD NAMESPACE NAME=URL...`

Each target is asked every 100 ms over a fresh connection, whether or not it has answered before. A line for each answer or error; `from` is the
node that says it made the page. Ends when its standard input does.
"""

import asyncio
import os
import sys

from shared import Record, now, set_namespace

EVERY = 0.1
PATIENCE = 3.0
# Requests of one target under way; further ones are not made, and counted as errors.
MOST = 40


async def get(address, path):
    reader, writer = await asyncio.open_connection(address, 80)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: portal\r\nconnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        return int(head.split()[1]), body[:40].decode(errors="replace").strip()
    finally:
        writer.close()


class Target:
    def __init__(self, name, url, record):
        self.name, self.record = name, record
        self.address, _, path = url.rpartition("/")
        self.path, self.count = "/" + path, 0

    async def ask(self):
        began = now()
        self.count += 1
        try:
            code, body = await asyncio.wait_for(get(self.address, self.path), PATIENCE)
            said = {"code": code, "from": body} if code == 200 else {"code": code}
        except (OSError, asyncio.TimeoutError, ValueError, IndexError) as error:
            said = {"error": type(error).__name__}
        self.count -= 1
        self.record.say(target=self.name, began=round(began, 4), **said)

    async def run(self):
        tasks = set()
        while True:
            if self.count < MOST:
                task = asyncio.create_task(self.ask())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            else:
                self.record.say(target=self.name, began=round(now(), 4), error="TooMany")
            await asyncio.sleep(EVERY)


async def ask_all(targets):
    running = [asyncio.create_task(target.run()) for target in targets]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for one in running:
        one.cancel()


def main():
    handle = os.open(sys.argv[2], os.O_RDONLY)
    set_namespace(handle)
    record = Record(sys.argv[1])
    asyncio.run(ask_all([Target(*word.split("=", 1), record) for word in sys.argv[3:]]))


if __name__ == "__main__":
    main()
