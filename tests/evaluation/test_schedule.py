"""Units are handed out until they are done; who kills workers is found; memory stays constant."""

from __future__ import annotations

import random
import tracemalloc

from worldeval.errors import PolicyError, PolicyGoneError
from worldeval.evaluation.execution.schedule import LOSSES, MACHINES, Schedule, Unit


def unit(policy: str, *starts: str) -> Unit:
    return Unit(policy=policy, starts=starts)


def taken(schedule: Schedule) -> Unit:
    found = schedule.next()
    assert found is not None
    return found


def test_the_rollouts_of_a_worker_that_died_are_begun_again_one_at_a_time() -> None:
    schedule = Schedule([unit("p", "a", "b", "c")])
    schedule.lost(taken(schedule), ["b", "c"], "killed")
    again = [taken(schedule), taken(schedule)]
    assert [one.starts for one in again] == [("b",), ("c",)] and not schedule.settle()
    for one in again:
        schedule.done(one)
    assert schedule.next() is None and schedule.settle() and not schedule.given_up


def test_a_rollout_that_kills_every_worker_is_given_up() -> None:
    schedule = Schedule([unit("p", "a")])
    for _ in range(LOSSES):
        schedule.lost(taken(schedule), ["a"], "killed")
    assert schedule.next() is None and schedule.given_up == [("p", "a", "killed")]


def test_machines_that_go_are_not_the_rollouts_fault() -> None:
    schedule = Schedule([unit("p", "a", "b")])
    schedule.lost(taken(schedule), ["a", "b"], "killed")
    first, second = taken(schedule), taken(schedule)
    schedule.done(first)
    for _ in range(LOSSES):
        schedule.lost(second, ["b"], "its machine is gone", machine=True)
        second = taken(schedule)
    for _ in range(LOSSES - 2):
        schedule.lost(second, ["b"], "killed")
        second = taken(schedule)
    assert not schedule.given_up
    schedule.lost(second, ["b"], "killed")
    assert schedule.given_up == [("p", "b", "killed")] and schedule.settle()


def test_a_rollout_with_which_every_machine_goes_ends_too() -> None:
    schedule = Schedule([unit("p", "a", "b")])
    schedule.lost(taken(schedule), ["a"], "gone", machine=True)
    for _ in range(MACHINES - 1):
        schedule.lost(taken(schedule), ["a"], "gone", machine=True)
    assert schedule.next() is None and schedule.given_up == [("p", "a", "gone")]


def test_errors_are_a_policys_until_one_of_its_rollouts_is_kept() -> None:
    schedule = Schedule([unit("p", "a"), unit("p", "b"), unit("q", "a")])
    first, second, other = taken(schedule), taken(schedule), taken(schedule)
    schedule.doubtful(first, PolicyError("bad"))
    assert schedule.next() is None
    schedule.done(second)
    again = taken(schedule)
    assert again.starts == ("a",) and again.proven
    schedule.doubtful(other, PolicyError("worse"))
    schedule.done(again)
    assert schedule.settle() and str(schedule.failed["q"]) == "worse" and "p" not in schedule.failed


def test_a_policy_that_never_works_or_is_gone_gets_no_more_units() -> None:
    schedule = Schedule([unit("p", *"abcd"), unit("p", "e"), unit("q", "a"), unit("q", "b")])
    schedule.doubtful(taken(schedule), PolicyError("bad"))
    one = taken(schedule)
    assert one.policy == "q"
    schedule.gone(one, PolicyGoneError("away"))
    assert schedule.next() is None and schedule.settle() and set(schedule.failed) == {"p", "q"}


def test_a_million_rollouts_take_no_memory_and_each_is_done_once() -> None:
    count, each = 1_000_000, 100
    chance = random.Random(0)
    units = (unit("p", *(str(k) for k in range(i, i + each))) for i in range(0, count, each))
    schedule, done, at_work = Schedule(units), 0, []
    tracemalloc.start()
    while True:
        while len(at_work) < 16 and (one := schedule.next()) is not None:
            at_work.append(one)
        if not at_work:
            break
        one = at_work.pop(chance.randrange(len(at_work)))
        if chance.random() < 0.001:
            kept = chance.randrange(len(one.starts))
            done += kept
            schedule.lost(one, one.starts[kept:], "killed")
        else:
            done += len(one.starts)
            schedule.done(one)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert done == count and schedule.settle() and not schedule.given_up
    assert peak < 500_000
