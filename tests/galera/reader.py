#!/usr/bin/python3
"""Reads by the port for reads of one node, as PHP would, and notes what it saw of each writer, from which server and when. Ends when its
standard input does.

    reader.py NODE RECORD < pipe
"""

import json
import select
import sys
import time

import pymysql

CONNECT, ANSWER = 10, 30
PAUSE = 0.05


def now():
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def once(said):
    connection = pymysql.connect(
        host="127.0.0.1", port=3307, user="bench", password="bench", database="bench", autocommit=True,
        connect_timeout=CONNECT, read_timeout=ANSWER,
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@wsrep_node_name")
            said["server"] = cursor.fetchone()[0]
            said["begun"] = now()
            cursor.execute("SELECT writer, MAX(number) FROM rows_written GROUP BY writer")
            said["seen"] = dict(cursor.fetchall())
    finally:
        connection.close()


def main():
    node, path = sys.argv[1:]
    with open(path, "a", buffering=1) as record:
        while not select.select([sys.stdin], [], [], PAUSE)[0]:
            said = {"node": node, "begun": now()}
            try:
                once(said)
            except (pymysql.err.Error, OSError) as error:
                said.pop("seen", None)
                said["error"] = repr(error)[:200]
            said["ended"] = now()
            record.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
