"""A browser's share of load: some connections at a time that ask for pages, each with a time limit, and never try again. Says what
failed, and for how long nothing was answered."""

import http.client
import json
import threading
import time
from dataclasses import dataclass, field

PACE = 0.05
TIMEOUT = 3


def failing(body):
    """Which of the demo's own checks failed, and why."""
    try:
        checks = json.loads(body)["checks"]
        return "".join(f" {name}: {check['detail'][:80]}" for name, check in checks.items() if not check["ok"])
    except (ValueError, KeyError, TypeError):
        return ""


@dataclass
class Answer:
    begun: float
    ended: float
    # Empty: it was answered, with 2xx.
    fault: str


@dataclass
class Load:
    """`address` answers for the portal; a new connection for each request unless `keep`."""

    address: str
    paths: list
    workers: int = 4
    keep: bool = False
    answers: list = field(default_factory=list)

    def __enter__(self):
        self.is_over = threading.Event()
        self.threads = [threading.Thread(target=self.ask, args=(number,), daemon=True) for number in range(self.workers)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        for thread in self.threads:
            thread.join()

    def ask(self, number):
        connection = None
        while not self.is_over.wait(PACE):
            path = self.paths[(number + len(self.answers)) % len(self.paths)]
            begun, fault = time.monotonic(), ""
            try:
                connection = connection or http.client.HTTPConnection(self.address, 80, timeout=TIMEOUT)
                connection.request("GET", path, headers={} if self.keep else {"Connection": "close"})
                answer = connection.getresponse()
                body = answer.read()
                if answer.status // 100 != 2:
                    fault = f"{path}: {answer.status}{failing(body)}"
                has_ended = not self.keep or answer.will_close
            except (OSError, http.client.HTTPException) as error:
                fault, has_ended = f"{path}: {type(error).__name__} {error}", True
            if has_ended and connection:
                connection.close()
                connection = None
            self.answers.append(Answer(begun, time.monotonic(), fault))

    def faults(self):
        return [one for one in self.answers if one.fault]

    def kinds(self):
        kinds = {}
        for one in self.faults():
            kinds[one.fault] = kinds.get(one.fault, 0) + 1
        return kinds

    def gap(self):
        """Longest time without an answer that was begun and ended in it."""
        good = sorted(one.ended for one in self.answers if not one.fault)
        return max((b - a for a, b in zip(good, good[1:])), default=float("inf"))

    def slowest(self):
        return max((one.ended - one.begun for one in self.answers if not one.fault), default=float("inf"))

    def summary(self):
        return f"{len(self.answers)} requests, {len(self.faults())} failed, longest without an answer {self.gap():.2f} s, slowest {self.slowest():.2f} s"
