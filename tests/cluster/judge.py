"""What the records of a run say. Pure: from lines to violations, with their evidence, and figures. `judge_test.py` shows each rule a history that
breaks it.

What is judged of machines that stand still or are dead: a frozen machine does not act; one whose processes were all killed has a kernel that
goes on to answer for its addresses, until they expire.
"""

import hashlib
from bisect import bisect_right
from collections import Counter

from ledger import content

# After a frozen machine goes on: a fence could do better, a supervisor that looks at its clock can not.
WAKE = 1.0
# Of a machine whose processes are dead: its kernel lets the address go by itself, some time after the seconds that it was told.
LEFT = 2.0
# A job that is silent so long between two acts did not act meanwhile.
SILENT = 0.2
# The mount or its server goes, or has no room; whether the change was made is open then. Other errors are answers, and wrong ones.
GOES = {"ENOTCONN", "EIO", "ESTALE", "ECONNABORTED", "ENODEV", "EINTR", "ETIMEDOUT", "ENOSPC"}


class Standing:
    """When each machine stood still or was dead, by the lines {machine, state} of the nemesis."""

    ENDS = {"freezing": "thawed", "killing": "started"}

    def __init__(self, lines):
        self.spans, self.woken, begun = {}, {}, {}
        for line in lines:
            if "machine" not in line:
                continue
            name, state = line["machine"], line["state"]
            if state in self.ENDS:
                begun.setdefault((name, self.ENDS[state]), line["t"])
            elif (name, state) in begun:
                self.spans.setdefault(name, []).append((begun.pop((name, state)), line["t"], state))
                if state == "thawed":
                    self.woken.setdefault(name, []).append(line["t"])
        for (name, state), since in begun.items():
            self.spans.setdefault(name, []).append((since, float("inf"), state))

    def is_awake(self, name, time):
        return not any(begin <= time < end for begin, end, _ in self.spans.get(name, []))

    def is_waking(self, name, time):
        return any(woken <= time < woken + WAKE for woken in self.woken.get(name, []))

    def edges(self, begin, end):
        """Moments between the two at which something changes."""
        moments = {begin, end}
        for spans in self.spans.values():
            moments |= {edge for span in spans for edge in span[:2]}
        for woken in self.woken.values():
            moments |= {edge for one in woken for edge in (one, one + WAKE)}
        return sorted(edge for edge in moments if begin <= edge <= end)


class Overlaps:
    """Seconds in which two had what one may have, by kind."""

    def __init__(self, standing):
        self.standing, self.bad, self.left, self.wake = standing, [], [], []

    def add(self, what, names, begin, end):
        for start, stop in zip(edges := self.standing.edges(begin, end), edges[1:]):
            middle = (start + stop) / 2
            awake = [name for name in names if self.standing.is_awake(name, middle)]
            text = f"{what}: {', '.join(names)} from {start:.3f} for {stop - start:.3f} s"
            if len(awake) < 2:
                self.left.append((stop - start, text))
            elif any(self.standing.is_waking(name, middle) for name in awake):
                self.wake.append((stop - start, text))
            else:
                self.bad.append(text)

    def longest(self, kind):
        return max((seconds for seconds, _ in getattr(self, kind)), default=0.0)

    def text(self):
        return (
            f"{len(self.left)} beside a machine that stood still or was dead (longest {self.longest('left'):.2f} s), "
            f"{len(self.wake)} within {WAKE} s of its wake (longest {self.longest('wake'):.2f} s)"
        )


def addresses(lines, standing):
    """Violations and a sentence."""
    overlaps, known, changes = Overlaps(standing), {}, 0
    lines = [line for line in lines if "address" in line or "looks" in line]
    for line in lines:
        for address in [line["address"]] if "address" in line else list(known):
            since, holders = known.get(address, (line["t"], []))
            if len(holders) > 1:
                overlaps.add(address, holders, since, line["t"])
            if "address" in line:
                changes += bool(line["holders"]) and line["holders"] != holders
                known[address] = line["t"], line["holders"]
    dead = [text for seconds, text in overlaps.left if seconds > LEFT and not frozen(text, standing)]
    longest = max((line["longest"] for line in lines if "looks" in line), default=0)
    nobody = [] if changes else ["nobody ever had one"]
    return overlaps.bad + dead + nobody, f"{changes} times held anew; two had one: {overlaps.text()}; looks at most {longest} s apart"


def losses(lines, is_loss):
    """[(time, node)] of the faults that take a node out, in rounds with quorum. `lines`: of the nemesis."""
    found, has_quorum = [], True
    for line in lines:
        has_quorum = line.get("quorum", has_quorum)
        if has_quorum and is_loss(line.get("strike")):
            found.append((line["t"], line["node"]))
    return found


def moves(lines, strikes, soon=30.0):
    """Seconds from a fault of an address's holder until another machine has it. `strikes`: of `losses`."""
    held = {}
    for line in lines:
        if "address" in line:
            held.setdefault(line["address"], []).append((line["t"], line["holders"]))
    took = []
    for time, node in strikes:
        for changes in held.values():
            before = [holders for at, holders in changes if at <= time]
            after = [at for at, holders in changes if time < at < time + soon and set(holders) - {node}]
            if before and before[-1] == [node] and after:
                took.append(after[0] - time)
    return took


def frozen(text, standing):
    """Whether one of the holders named was frozen then: its own kernel would have stood still too."""
    names, rest = text.split(": ")[1].split(" from ")
    time = float(rest.split()[0]) + 0.001
    return any(
        begin <= time < end and state == "thawed" for name in names.split(", ") for begin, end, state in standing.spans.get(name, [])
    )


def segments(acts):
    """Of one run's acts: from when to when it acted without a silence."""
    begin = last = None
    for time in sorted(acts):
        if begin is None:
            begin = time
        elif time - last > SILENT:
            yield begin, last
            begin = time
        last = time
    if begin is not None:
        yield begin, last


def jobs(acts, standing):
    """`acts`: node -> [(time, run)]."""
    overlaps, spans, runs = Overlaps(standing), [], Counter()
    for node, lines in acts.items():
        by_run = {}
        for time, run in lines:
            by_run.setdefault(run, []).append(time)
        runs[node] = len(by_run)
        spans += [(begin, end, node, run) for run, times in by_run.items() for begin, end in segments(times)]
    spans.sort()
    for at, (begin, end, node, run) in enumerate(spans):
        for other_begin, other_end, other_node, other_run in spans[at + 1 :]:
            if other_begin >= end:
                break
            if (node, run) != (other_node, other_run):
                overlaps.add("jobs", [node, other_node], other_begin, min(end, other_end))
    count = ", ".join(f"{node} {number}" for node, number in sorted(runs.items()))
    nobody = [] if spans else ["nobody ever ran them"]
    return overlaps.bad + [text for _, text in overlaps.left] + nobody, f"runs: {count or 'none'}; two at once: {overlaps.text()}"


def epochs(lines):
    bad, seats, holders = [], {}, {}
    versions = sorted((line for line in lines if "seats" in line), key=lambda line: line["revision"])
    for line in lines:
        if "other" in line:
            bad.append(f"version {line['revision']} is {line['image']} on {line['copy']} and {line['other']} elsewhere")
    for line in versions:
        for seat, (holder, epoch) in line["seats"].items():
            old_holder, old_epoch = seats.get(seat, (None, 0))
            where = f"{seat} in version {line['revision']}"
            if epoch < old_epoch:
                bad.append(f"{where}: epoch {epoch} after {old_epoch}")
            if epoch == old_epoch and holder not in (None, old_holder):
                bad.append(f"{where}: {holder} after {old_holder} in epoch {epoch}")
            if holder is not None and holders.setdefault((seat, epoch), holder) != holder:
                bad.append(f"{where}: epoch {epoch} of {holder} was {holders[seat, epoch]}'s")
            seats[seat] = holder, epoch
        bad += [f"{seat} is gone in version {line['revision']}" for seat in seats if seat not in line["seats"]]
    if not versions:
        bad.append("no version was seen")
    last = ", ".join(f"{seat} {epoch}" for seat, (_, epoch) in sorted(seats.items()))
    missing = versions[-1]["revision"] - versions[0]["revision"] + 1 - len(versions) if versions else 0
    return bad, f"{len(versions)} versions, {missing} not seen; epochs: {last or 'none'}"


class Books:
    """What one writer was told."""

    def __init__(self, name, lines):
        self.name, self.state, self.wrong, self.errors = name, {}, [], Counter()
        for line in lines:
            for kind in ["do", "ok", "error"]:
                if kind in line:
                    self.state[line["number"], line[kind]] = kind
            if "error" in line:
                self.errors[line["errno"]] += 1
                if line["errno"] not in GOES:
                    self.wrong.append(f"{name}: {line['error']} of {line['number']} was answered {line['errno']}")
        self.acknowledged = sum(state == "ok" for state in self.state.values())

    def of(self, number, what):
        return self.state.get((number, what))

    def may_be(self, number):
        """Sets of names that may be there, each with its whole content; None in place of a set: the draft may also be half written."""
        draft, name = f"{number}.new", str(number)
        if self.of(number, "unlink"):
            return [set()] if self.of(number, "unlink") == "ok" else [set(), {name}]
        if self.of(number, "rename"):
            return [{name}] if self.of(number, "rename") == "ok" else [{name}, {draft}]
        return [{draft}] if self.of(number, "write") == "ok" else None

    def judge(self, where, found):
        """`found`: what `read_back` has of the folder on that node."""
        for number in sorted({number for number, what in self.state if what == "write"}):
            draft, name = f"{number}.new", str(number)
            there = {one for one in (draft, name) if one in found["files"]}
            allowed = self.may_be(number)
            if allowed is None:
                if name in there:
                    yield f"{self.name} on {where}: {name} is there, but was never renamed"
                continue
            if there not in allowed:
                yield f"{self.name} on {where}: {sorted(there)} instead of {' or '.join(str(sorted(one)) for one in allowed)}"
            wanted = hashlib.sha256(content(self.name, number)).hexdigest()
            yield from (f"{self.name} on {where}: wrong bytes in {one}" for one in there if found["files"][one] != wanted)
        known = {f"{number}{end}" for number, _ in self.state for end in ("", ".new")}
        yield from (f"{self.name} on {where}: nobody made {one}" for one in found["files"] if one not in known)
        yield from self.judge_log(where, found["log"])

    def judge_log(self, where, lines):
        count = Counter(lines)
        for number, what in self.state:
            if what == "append" and self.of(number, what) == "ok" and not count[str(number)]:
                yield f"{self.name} on {where}: line {number} is lost"
        for line, times in count.items():
            if times > 1:
                yield f"{self.name} on {where}: line {line} is there {times} times"
            if not line.isdigit() or not self.of(int(line), "append"):
                yield f"{self.name} on {where}: nobody wrote the line {line!r}"
        numbers = [int(line) for line in lines if line.isdigit()]
        if numbers != sorted(numbers):
            yield f"{self.name} on {where}: lines out of order"


def files(records, found):
    """`records`: writer -> lines; `found`: node -> writer -> what is read back there."""
    bad, words = [], []
    for name, lines in records.items():
        books = Books(name, lines)
        bad += books.wrong
        for where, by_writer in found.items():
            bad += list(books.judge(where, by_writer[name])) if name in by_writer else [f"{name} is not read back on {where}"]
        errors = " ".join(f"{kind} {count}" for kind, count in sorted(books.errors.items()))
        words.append(f"{name} {books.acknowledged} acknowledged{', ' + errors if errors else ''}")
        if not books.acknowledged:
            bad.append(f"{name} was never acknowledged anything")
    return bad, f"{'; '.join(words)}; read back on {', '.join(found)}"


def web(lines, calm):
    """`calm`: spans in which nothing was disturbed, so nothing may fail. Figures by target."""
    by_target, bad, words = {}, [], []
    begins = [begin for begin, _ in calm]
    for line in lines:
        by_target.setdefault(line["target"], []).append(line)
    for target, answers in sorted(by_target.items()):
        good = sorted(line["t"] for line in answers if line.get("code") == 200)
        gap = max((later - earlier for earlier, later in zip(good, good[1:])), default=float("inf"))
        took = sorted(line["t"] - line["began"] for line in answers if line.get("code") == 200)
        failed = [line for line in answers if line.get("code") != 200]
        quiet = [line for line in failed if is_within(line["began"], line["t"], calm, begins)]
        kinds = Counter(str(line.get("code") or line.get("error")) for line in failed)
        if quiet:
            bad.append(f"{target}: {len(quiet)} of {len(answers)} failed while nothing was disturbed, first {quiet[0]}")
        if not good:
            bad.append(f"{target} never answered")
        text = f"{len(good)} good, {len(failed)} failed ({', '.join(f'{kind} {count}' for kind, count in kinds.most_common(4))})"
        median = took[len(took) // 2] if took else float("inf")
        words.append(f"{target}: {text}, longest gap {gap:.1f} s, median {median * 1000:.0f} ms")
    return bad, words


def is_within(begin, end, spans, begins):
    at = bisect_right(begins, begin) - 1
    return at >= 0 and end <= spans[at][1]


def percentiles(values):
    if not values:
        return "none"
    ordered = sorted(values)

    def at(share):
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return f"{len(ordered)}, p50 {at(0.5):.1f} p99 {at(0.99):.1f} max {ordered[-1]:.1f} s"
