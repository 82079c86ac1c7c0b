#!/usr/bin/env python3
"""The requests that the firewall is measured with, one JSON object a line: name, goal in milliseconds, method, target, headers, body.

All but the hostile ones are clean: a portal's pages and forms, as browsers send them.
"""

import json
import random
import re
from urllib.parse import urlencode

HOST = "portal.example.com"
COOKIES = (
    "PHPSESSID=ab12cd34ef56ab12cd34ef56; BITRIX_SM_LOGIN=ivanov; BITRIX_SM_SOUND_LOGIN_PLAYED=Y; BITRIX_CONVERSION_CONTEXT_s1="
    "%7B%22ID%22%3A1%2C%22EXPIRE%22%3A1753390740%2C%22UNIQUE%22%3A%5B%22conversion_visit_day%22%5D%7D; BITRIX_SM_TZ=Europe/Moscow"
)
HEADERS = [
    ("Host", HOST),
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    ),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("Accept-Language", "ru-RU,ru;q=0.9,en-US;q=0.8,en;q=0.7"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", f"https://{HOST}/company/personal/user/1/tasks/"),
    ("Cookie", COOKIES),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Upgrade-Insecure-Requests", "1"),
    ("Connection", "keep-alive"),
]
AJAX = "/bitrix/services/main/ajax.php"
FORM = "application/x-www-form-urlencoded"


def form():
    texts = ["Договор 12", "Y", "1234567", "ivanov@example.com", "2026-07-24 12:00"]
    return urlencode([(f"data[FIELD_{at}]", texts[at % 5] + ("" if at % 5 == 1 else str(at))) for at in range(52)])


def rich():
    part = '<p style="margin:0"><b>Отчёт {0}</b> за неделю: встреча с клиентом, <a href="https://{1}/docs/{0}/">протокол</a></p>\n'
    html = "".join(part.format(at, HOST) for at in range(53))
    return urlencode([("sessid", "0123456789abcdef"), ("data[subject]", "Отчёт"), ("data[message]", html)])


def items():
    return json.dumps(
        {"items": [{"id": at, "n": f"name {at}", "v": True, "k": None} for at in range(96)]}, separators=(",", ":")
    )


def sample(name, goal, method, target, kind="", body=""):
    headers = list(HEADERS)
    if method != "GET":
        headers += [("Content-Type", kind), ("Content-Length", str(len(body.encode())))]
    return {"name": name, "goal": goal, "method": method, "target": target, "headers": headers, "body": body}


def hostile(name, part):
    size = 128 << 10
    return sample(name, 60, "POST", AJAX, FORM, "a=" + (part * (size // len(part) + 1))[: size - 2])


def variants(body, count):
    """The body with other digits outside of escapes."""
    numbers = random.Random(1)
    free = re.compile(r"(?<![%\\\\])(?<![%\\\\].)[0-9]")
    return [free.sub(lambda _: str(numbers.randint(1, 9)), body) for _ in range(count if body else 1)]


def clean():
    return [one for one in samples() if not one["name"].startswith("hostile")]


def samples():
    return [
        sample("GET", 0.15, "GET", "/company/personal/user/12345/?page=1234567&b=list&from=menu"),
        sample("form", 0.4, "POST", f"{AJAX}?action=x.y.z", FORM, form()),
        sample("JSON", 0.6, "POST", "/rest/1/a1b2c3d4e5/crm.item.list.json", "application/json", items()),
        sample("rich text", 3, "POST", f"{AJAX}?c=bitrix:main.mail.form&action=send&mode=ajax", FORM, rich()),
        hostile("hostile $(", "$("),
        hostile("hostile words", "union select alias sleep exec <script "),
        hostile("hostile quotes", "'\"`;|\\x27 or 1=1--/* */"),
        hostile("hostile links", "a://b@"),
        hostile("hostile escapes", "%2525%u0041&#x41;\\u0041"),
        hostile("hostile text", "".join(chr(33 + at * 40503 // 7 % 94) for at in range(9973)).replace("&", "+").replace("%", "-")),
    ]


if __name__ == "__main__":
    for one in samples():
        print(json.dumps(one, ensure_ascii=False))
