"""Processes that work in one mount each and do what they are told, and rows of a table that are played by them.

The director itself never touches a mount, so that a call that hangs is a row that fails, not a program that hangs.
"""

import multiprocessing
import os
import re
import signal
import time
import traceback

# No single act takes longer on the busiest machine.
PATIENCE = 30
# A killed process is gone by then.
DEATH = 5
ROWS = []


class Failed(Exception):
    pass


class Late(Failed):
    pass


def row(claim, is_long=False):
    """A function of two actors is a row; it returns what there is to say beside `ok`."""

    def add(function):
        ROWS.append((claim, function, is_long))
        return function

    return add


class Actor:
    """A process in a folder. What it opens it keeps by a name, in `OPEN`."""

    everyone = []

    def __init__(self, folder, uid=0):
        self.folder = folder
        self.pipe, other = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            for one in Actor.everyone:
                one.pipe.close()
            self.pipe.close()
            self.play(other, uid)
        other.close()
        Actor.everyone.append(self)

    def play(self, pipe, uid):
        try:
            os.setgid(uid)
            os.setuid(uid)
            os.chdir(self.folder)
            while True:
                function, arguments = pipe.recv()
                try:
                    pipe.send((True, function(*arguments)))
                except Exception as error:
                    pipe.send((False, (error, traceback.format_exc())))
        except (EOFError, OSError):
            pass
        finally:
            os._exit(0)

    def another(self, uid=0):
        """One more at the same place."""
        return Actor(self.folder, uid)

    def begin(self, function, *arguments):
        self.pipe.send((function, arguments))
        return self

    def is_done(self, seconds=0.0):
        return self.pipe.poll(seconds)

    def result(self, seconds=PATIENCE):
        """Of what was begun; an error there is one here."""
        if not self.is_done(seconds):
            raise Late(f"no answer after {seconds} s, in state {self.state()}")
        try:
            is_good, value = self.pipe.recv()
        except EOFError:
            raise Failed("the actor has ended") from None
        if is_good:
            return value
        error, text = value
        if isinstance(error, OSError):
            raise error
        raise Failed(text)

    def do(self, function, *arguments, seconds=PATIENCE):
        return self.begin(function, *arguments).result(seconds)

    def state(self):
        try:
            with open(f"/proc/{self.pid}/stat") as file:
                return file.read().rsplit(")")[-1].split()[0]
        except OSError:
            return "gone"

    def tell(self, number):
        os.kill(self.pid, number)

    def kill(self, number=signal.SIGKILL):
        """Ends it, and says in how many seconds."""
        if self in Actor.everyone:
            self.tell(number)
        return self.death(number)

    def death(self, number):
        """Seconds until it is gone, which it was told by that signal."""
        started = time.monotonic()
        if self in Actor.everyone:
            Actor.everyone.remove(self)
            while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                if time.monotonic() - started > DEATH:
                    raise Late(f"not dead {DEATH} s after signal {number}, in state {self.state()}")
                time.sleep(0.005)
            self.pipe.close()
        return time.monotonic() - started


def play(base, number, function, a_folder, b_folder):
    """One row in a folder of its own."""
    place = f"{base}/{number:02d}-{re.sub('[^a-z]+', '-', function.__name__)}"
    a = Actor(a_folder)
    try:
        a.do(os.makedirs, place)
        a.do(os.chmod, place, 0o777)
        a.kill()
        return function(Actor(f"{a_folder}/{place}"), Actor(f"{b_folder}/{place}"))
    finally:
        for one in list(Actor.everyone):
            one.kill()
