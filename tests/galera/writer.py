#!/usr/bin/python3
"""Writes rows by the database's port of one node, as PHP would, and notes each one that was acknowledged, by which server and when. Ends
when its standard input does.

    writer.py NODE RECORD < pipe
"""

import json
import select
import sys
import time

import pymysql

# As patient as PHP.
CONNECT, ANSWER = 10, 30
PAUSE = 0.02


def now():
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def once(node, number, said):
    connection = pymysql.connect(
        host="127.0.0.1", port=3306, user="bench", password="bench", database="bench", autocommit=True,
        connect_timeout=CONNECT, read_timeout=ANSWER, write_timeout=ANSWER,
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@wsrep_node_name")
            said["server"] = cursor.fetchone()[0]
            said["sent"] = now()
            cursor.execute("INSERT INTO rows_written (writer, number) VALUES (%s, %s)", (node, number))
            said["acknowledged"] = now()
    finally:
        connection.close()


def main():
    node, path = sys.argv[1:]
    number = 0
    with open(path, "a", buffering=1) as record:
        while not select.select([sys.stdin], [], [], PAUSE)[0]:
            number += 1
            said = {"node": node, "number": number, "begun": now()}
            try:
                once(node, number, said)
            except (pymysql.err.Error, OSError) as error:
                said["error"] = repr(error)[:200]
            said["ended"] = now()
            record.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
