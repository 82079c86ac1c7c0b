#!/usr/bin/env python3
"""Turns the regression tests of the Core Rule Set (YAML) into JSON lines for tests/waf/corpus.rs. Usage: corpus.py RULE-SET > lines

Requests are completed as the rule set's own runner completes them: Content-Type, Content-Length, Connection, CRLF in multipart bodies,
encoding of forms that are not encoded yet.
"""

import base64
import json
import pathlib
import re
import sys
import urllib.parse

import yaml


def main(folder):
    tests = pathlib.Path(folder, "tests", "regression", "tests")
    for path in sorted([*tests.rglob("*.yaml"), *tests.rglob("*.yml")]):
        with open(path, encoding="utf-8") as file:
            document = yaml.safe_load(file)
        for test in (document or {}).get("tests", []):
            for number, stage in enumerate(test["stages"]):
                print(json.dumps(line(document["rule_id"], test["test_id"], number, stage)))


def line(rule, test, number, stage):
    stage = stage.get("stage", stage)
    asked, output = stage["input"], stage["output"]
    request = raw(asked) or built(asked)
    log = output.get("log") or {}
    return request | {
        "name": f"{rule}-{test}" + (f"/{number}" if number else ""),
        "status": output.get("status"),
        "expect": log.get("expect_ids", []),
        "refuse": log.get("no_expect_ids", []),
        "match": log.get("match_regex"),
        "miss": log.get("no_match_regex"),
    }


def built(asked):
    headers = [[str(name), str(value)] for name, value in (asked.get("headers") or {}).items()]
    for header in asked.get("ordered_headers") or []:
        headers.append([header["name"], header["value"]])
    names = {name.lower(): value for name, value in headers}
    data = asked.get("data")
    body = (data if isinstance(data, bytes) else str(data).encode()) if data is not None else b""
    if "encoded_data" in asked:
        body = base64.b64decode(asked["encoded_data"])
    completes = asked.get("autocomplete_headers", True)
    if completes and body and "content-type" not in names:
        headers.append(["Content-Type", "application/x-www-form-urlencoded"])
        names["content-type"] = headers[-1][1]
    kind = names.get("content-type", "")
    if kind.startswith("application/x-www-form-urlencoded"):
        body = encoded(body)
    if kind.startswith("multipart/form-data"):
        body = re.sub(rb"(?<!\r)\n", b"\r\n", body)
    if completes:
        if (body or asked.get("method") in ("POST", "PUT", "PATCH")) and "content-length" not in names:
            headers.append(["Content-Length", str(len(body))])
            names["content-length"] = headers[-1][1]
        if "connection" not in names:
            headers.append(["Connection", "close"])
    # A server reads no body that nothing announces.
    if not {"content-length", "transfer-encoding"} & names.keys():
        body = b""
    return {
        "method": str(asked.get("method", "GET")),
        "uri": str(asked.get("uri", "/")),
        "protocol": str(asked.get("version", "HTTP/1.1")),
        "headers": headers,
        "body": base64.b64encode(body).decode(),
    }


def encoded(body):
    text = body.decode("utf-8", "surrogateescape")
    if re.search("%(?![0-9a-fA-F]{2})", text):
        return body
    if urllib.parse.unquote_plus(text, errors="surrogateescape") != text:
        return body
    pairs = []
    for pair in text.split("&"):
        if ";" in pair:
            return body
        if pair:
            name, _, value = pair.partition("=")
            pairs.append((name, value))
    quote = lambda text: urllib.parse.quote_plus(text, safe="", errors="surrogateescape")
    return "&".join(f"{quote(name)}={quote(value)}" for name, value in sorted(pairs, key=lambda pair: pair[0])).encode()


def raw(asked):
    if "encoded_request" not in asked:
        return None
    head, _, body = base64.b64decode(asked["encoded_request"]).partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    uri, _, protocol = rest.rpartition(" ")
    headers = [[name, value.strip()] for name, _, value in (line.partition(":") for line in lines)]
    return {
        "method": method,
        "uri": uri,
        "protocol": protocol,
        "headers": headers,
        "body": base64.b64encode(body).decode(),
    }


main(sys.argv[1])
