#!/usr/bin/env python3
"""Each judge against histories that break its rule, and ones that do not; and the plan by its seed."""

import hashlib
import unittest

import judge
from ledger import content
from plan import Planner, victims

A = "10.0.0.10"


def held(time, *names):
    return {"t": time, "address": A, "holders": list(names)}


def machine(time, name, state):
    return {"t": time, "machine": name, "state": state}


def standing(*lines):
    return judge.Standing(lines)


END = {"t": 100.0, "looks": 1, "longest": 0.03}


class Addresses(unittest.TestCase):
    def judged(self, *lines, states=()):
        return judge.addresses([*lines, END], standing(*states))[0]

    def test_one_holder_after_another_is_good(self):
        self.assertEqual(self.judged(held(1, "n1"), held(5), held(6, "n2")), [])

    def test_two_holders_awake_are_a_violation(self):
        self.assertEqual(len(self.judged(held(1, "n1"), held(5, "n1", "n2"), held(5.1, "n2"))), 1)

    def test_two_holders_to_the_very_end_are_one_too(self):
        self.assertEqual(len(self.judged(held(1, "n1", "n2"))), 1)

    def test_a_frozen_machine_does_not_act(self):
        states = machine(2, "n1", "freezing"), machine(9, "n1", "thawed")
        self.assertEqual(self.judged(held(1, "n1"), held(5, "n1", "n2"), held(8, "n2"), states=states), [])

    def test_a_machine_that_has_been_awake_for_long_acts(self):
        states = machine(2, "n1", "freezing"), machine(6, "n1", "thawed")
        holding = held(1, "n1"), held(5, "n1", "n2")
        self.assertEqual(self.judged(*holding, held(6.5, "n2"), states=states), [])
        self.assertEqual(len(self.judged(*holding, held(8, "n2"), states=states)), 1)

    def test_a_dead_node_lets_go_soon(self):
        states = [machine(2, "n1", "killing")]
        holding = held(1, "n1"), held(5, "n1", "n2")
        self.assertEqual(self.judged(*holding, held(6, "n2"), states=states), [])
        self.assertEqual(len(self.judged(*holding, held(9, "n2"), states=states)), 1)

    def test_a_node_that_is_started_again_acts(self):
        states = machine(2, "n1", "killing"), machine(4, "n1", "started")
        self.assertEqual(len(self.judged(held(1, "n1"), held(5, "n1", "n2"), held(5.2, "n2"), states=states)), 1)


    def test_addresses_that_nobody_ever_had_are_told(self):
        self.assertEqual(len(self.judged(held(1))), 1)

    def test_a_move_is_timed_from_the_fault_of_the_holder(self):
        lines = [held(1, "n1"), held(5), held(6.5, "n2"), held(50), held(51, "n1")]
        self.assertEqual(judge.moves(lines, [(2, "n1"), (2, "n3"), (10, "n2")]), [4.5])


    def test_only_losses_with_quorum_count_as_moves(self):
        lines = [
            {"t": 1, "quorum": True},
            {"t": 2, "strike": "cut", "node": "n1"},
            {"t": 3, "strike": "slow", "node": "n2"},
            {"t": 4, "quorum": False},
            {"t": 5, "strike": "cut", "node": "n3"},
        ]
        self.assertEqual(judge.losses(lines, lambda name: name == "cut"), [(2, "n1")])


class Jobs(unittest.TestCase):
    def acts(self, begin, end, run=1):
        return [(begin + 0.02 * step, run) for step in range(int((end - begin) / 0.02) + 1)]

    def test_one_after_the_other_is_good(self):
        acts = {"n1": self.acts(1, 5), "n2": self.acts(5.5, 8)}
        self.assertEqual(judge.jobs(acts, standing())[0], [])

    def test_two_nodes_at_once_are_a_violation(self):
        acts = {"n1": self.acts(1, 5), "n2": self.acts(4.9, 8)}
        self.assertEqual(len(judge.jobs(acts, standing())[0]), 1)

    def test_two_runs_on_one_node_are_one_too(self):
        acts = {"n1": self.acts(1, 5) + self.acts(4, 6, run=2)}
        self.assertEqual(len(judge.jobs(acts, standing())[0]), 1)

    def test_jobs_that_nobody_ever_ran_are_told(self):
        self.assertEqual(len(judge.jobs({}, standing())[0]), 1)

    def test_a_run_that_was_frozen_did_not_act(self):
        states = machine(3, "n1", "freezing"), machine(9, "n1", "thawed")
        acts = {"n1": self.acts(1, 2.98) + self.acts(9, 9.1), "n2": self.acts(7, 12)}
        self.assertEqual(judge.jobs(acts, standing(*states))[0], [])
        late = {"n1": self.acts(1, 2.98) + self.acts(9, 11), "n2": self.acts(7, 12)}
        self.assertEqual(len(judge.jobs(late, standing(*states))[0]), 1)


class Epochs(unittest.TestCase):
    def judged(self, *seats):
        return judge.epochs([{"revision": number, "seats": {"cron": seat} if seat else {}} for number, seat in enumerate(seats, 1)])[0]

    def test_each_new_holder_has_a_greater_epoch(self):
        self.assertEqual(self.judged(["n1", 1], [None, 1], ["n2", 2], ["n2", 2]), [])

    def test_an_epoch_has_one_holder(self):
        self.assertEqual(len(self.judged(["n1", 1], ["n2", 1])), 2)
        self.assertEqual(len(self.judged(["n1", 1], [None, 1], ["n2", 1])), 2)

    def test_an_epoch_never_shrinks(self):
        self.assertEqual(len(self.judged(["n1", 3], [None, 2])), 1)

    def test_a_seat_is_never_removed(self):
        self.assertEqual(len(self.judged(["n1", 3], None)), 1)

    def test_a_version_is_the_same_everywhere(self):
        seen = {"revision": 3, "image": "b", "copy": "n1", "seats": {}}
        self.assertEqual(judge.epochs([seen])[0], [])
        self.assertEqual(len(judge.epochs([seen, {"revision": 3, "image": "a", "copy": "n2", "other": "b"}])[0]), 1)

    def test_an_observer_that_saw_nothing_is_told(self):
        self.assertEqual(len(judge.epochs([])[0]), 1)


def told(*events):
    """`do write 1`, then `ok` or an error's name, or nothing."""
    lines = []
    for what, number, end in events:
        lines.append({"do": what, "number": number})
        if end == "ok":
            lines.append({"ok": what, "number": number})
        elif end:
            lines.append({"error": what, "number": number, "errno": end})
    return lines


def there(*names, log=()):
    files = {name: hashlib.sha256(content("n1", int(name.split(".")[0]))).hexdigest() for name in names}
    return {"n2": {"n1": {"files": files, "log": [str(line) for line in log]}}}


WRITTEN = ("write", 1, "ok")
MOVED = ("rename", 1, "ok")


class Files(unittest.TestCase):
    def judged(self, lines, found):
        return judge.files({"n1": lines}, found)[0]

    def test_what_was_acknowledged_is_there(self):
        lines = told(WRITTEN, MOVED, ("append", 1, "ok"))
        self.assertEqual(self.judged(lines, there("1", log=[1])), [])
        self.assertEqual(len(self.judged(lines, there(log=[1]))), 1)
        self.assertEqual(len(self.judged(lines, there("1.new", log=[1]))), 1)
        self.assertEqual(len(self.judged(lines, there("1"))), 1)
        self.assertEqual(len(self.judged(lines, there("1", log=[1, 1]))), 1)

    def test_bytes_are_those_that_were_written(self):
        found = there("1")
        found["n2"]["n1"]["files"]["1"] = "other"
        self.assertEqual(len(self.judged(told(WRITTEN, MOVED), found)), 1)

    def test_what_was_not_answered_may_have_happened_once(self):
        lines = told(WRITTEN, ("rename", 1, None))
        self.assertEqual(self.judged(lines, there("1")), [])
        self.assertEqual(self.judged(lines, there("1.new")), [])
        self.assertEqual(len(self.judged(lines, there("1", "1.new"))), 1)
        self.assertEqual(len(self.judged(lines, there())), 1)

    def test_what_was_removed_stays_removed(self):
        lines = told(WRITTEN, MOVED, ("unlink", 1, "ok"))
        self.assertEqual(self.judged(lines, there()), [])
        self.assertEqual(len(self.judged(lines, there("1"))), 1)

    def test_nobody_else_writes(self):
        self.assertEqual(len(self.judged(told(WRITTEN, MOVED), there("1", "2"))), 1)
        self.assertEqual(len(self.judged(told(WRITTEN, MOVED), there("1", log=[5]))), 1)

    def test_a_dead_mount_is_no_answer_but_a_missing_name_is(self):
        self.assertEqual(self.judged(told(WRITTEN, ("rename", 1, "ENOTCONN")), there("1")), [])
        self.assertEqual(len(self.judged(told(WRITTEN, ("rename", 1, "ENOENT")), there("1"))), 1)

    def test_a_node_that_cannot_be_read_is_told(self):
        self.assertEqual(len(self.judged(told(WRITTEN), {"n2": {}})), 1)


class Pages(unittest.TestCase):
    def test_nothing_fails_while_nothing_is_disturbed(self):
        lines = [{"t": time + 0.1, "began": time, "target": "n1", "code": 200 if time != 5 else 502} for time in range(10)]
        self.assertEqual(judge.web(lines, [(0, 4.5), (6, 9)])[0], [])
        self.assertEqual(len(judge.web(lines, [(0, 9)])[0]), 1)

    def test_a_target_that_never_answers_is_told(self):
        self.assertEqual(len(judge.web([{"t": 1, "began": 0, "target": "n1", "error": "OSError"}], [])[0]), 1)


class Plan(unittest.TestCase):
    def rounds(self, seed, count=3):
        planner = Planner(seed, count)
        return [planner.next() for _ in range(60)]

    def test_a_seed_makes_the_same_plan_again(self):
        self.assertEqual(list(map(str, self.rounds(5))), list(map(str, self.rounds(5))))
        self.assertNotEqual(list(map(str, self.rounds(5))), list(map(str, self.rounds(6))))

    def test_a_round_with_quorum_loses_a_minority(self):
        from faults import FAULTS

        for count in [3, 5]:
            kinds = set()
            for one in self.rounds(1, count):
                lost = {step.victim for step in one.steps if FAULTS[step.fault].is_loss}
                kinds.add(one.has_quorum)
                self.assertEqual(one.has_quorum, len(lost) <= (count - 1) // 2, str(one))
            self.assertEqual(kinds, {True, False})

    def test_victims_differ(self):
        import random

        names = ["n1", "n2", "n3"]
        for seed in range(20):
            chosen = victims(["edge", "edge", "any"], {"edge": ["n2"]}, names, random.Random(seed))
            self.assertEqual(sorted(chosen), names)
            self.assertEqual(chosen[0], "n2")


if __name__ == "__main__":
    unittest.main()
