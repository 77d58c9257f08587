"""Races of PROTOCOL section 13 between what people do and what runs."""

from __future__ import annotations

import pytest

from harness.model import Act, End, Outcome
from harness.store import admission, attempts, operators
from harness.store.attempts import Claimed, Ended
from harness.store.cells import Look, Standing
from harness.store.operators import Answer, Said
from harness.store.promotion import move_to_open
from tests.stores import DAY, Proc, World, end_record


def holding(world: World, uid: str) -> Proc[Answer]:
    return world.proc(operators.hold(world.actor("cli"), uid, "me", "wait"))


def cancelling(world: World, uid: str) -> Proc[Answer]:
    return world.proc(operators.cancel(world.actor("cli"), uid, "me", "no", world.judging()))


def retrying(world: World, uid: str) -> Proc[Answer]:
    return world.proc(operators.retry(world.actor("cli"), uid, "me", ""))


def test_r19_a_hold_that_is_first_means_that_it_never_runs(world: World) -> None:
    """R19: hold against a worker, both before link(n+1.claim): hold first: it never runs."""
    uid = world.add(id="a")
    worker = world.proc(attempts.claim(world.actor("agent-1"), uid)).before("link", "1.claim")
    hold = holding(world, uid).before("link", "1.claim")
    assert hold.go().said is Said.DONE
    assert isinstance(worker.go(), Look)
    assert world.standing(uid) is Standing.PARKED


def test_r19_a_worker_that_is_first_is_held_by_its_end(world: World) -> None:
    """R19: worker first: held by n+1.end."""
    uid = world.add(id="a")
    worker = world.proc(attempts.claim(world.actor("agent-1"), uid)).before("link", "1.claim")
    hold = holding(world, uid).before("link", "1.claim")
    owned = worker.go()
    assert isinstance(owned, Claimed)
    assert hold.go() == Answer(said=Said.DONE, n=1)
    assert world.hand.interrupted == [(uid, 1)]
    end = Proc(worker.disk, attempts.end(world.me, owned, end_record(1, Outcome.DONE)))
    assert end.go() is Ended.SUPERSEDED
    assert world.standing(uid) is Standing.PARKED


def test_r20_a_canceller_killed_half_way_is_completed_as_cancelled(world: World) -> None:
    """R20: canceller killed between n+1.claim and n+1.end, item held before: completed as cancelled; never runs."""
    uid = world.add(id="a")
    world.hold(uid)
    cancelling(world, uid).before("link", "2.end").kill()
    assert world.run(attempts.expire(world.actor("monitor"), uid, 2)) is Outcome.CANCELLED
    assert world.standing(uid) is Standing.OVER
    world.recover()
    stub = world.stub(uid)
    assert stub
    assert stub.outcome == "cancelled"


def test_r20_nothing_of_the_person_is_killed_to_complete_an_operators_claim(world: World) -> None:
    """R20: completing needs no kill; `clear` is for attempts that ran."""
    uid = world.add(id="a")
    holding(world, uid).before("link", "1.end").kill()
    assert world.run(attempts.expire(world.actor("monitor"), uid, 1)) is Outcome.HELD
    assert world.hand.cleared == []


@pytest.mark.parametrize("act", ["hold", "stop"])
def test_r20_a_cancel_that_was_begun_is_not_undone_by_another_act(world: World, act: str) -> None:
    """R20, with another operator instead of the monitor: an operator's claim is completed by its act, never overruled."""
    uid = world.add(id="a")
    canceller = cancelling(world, uid).before("link", "1.end")
    if act == "hold":
        assert holding(world, uid).go().said is Said.TOO_LATE
    else:
        assert not world.run(operators.stop(world.actor("coordinator"), uid, 1, "coordinator", "drain"))
    assert canceller.go().said is Said.DONE
    assert world.cells(uid)["1.end"]["outcome"] == "cancelled"


def test_r20_a_hold_that_was_begun_is_completed_before_a_cancel(world: World) -> None:
    """R20: a cancel finds a hold without its end: held first, then cancelled on a number of its own."""
    uid = world.add(id="a")
    hold = holding(world, uid).before("link", "1.end")
    assert cancelling(world, uid).go() == Answer(said=Said.DONE, n=2)
    assert hold.go() == Answer(said=Said.DONE, n=1)
    assert [world.cells(uid)[f"{n}.end"]["outcome"] for n in (1, 2)] == ["held", "cancelled"]


@pytest.mark.parametrize("first", ["cancel", "owner"])
def test_r21_cancel_and_done_decide_one_end(world: World, first: str) -> None:
    """R21: cancel of a running item against the owner's done, both before link(n.end): one; kill only after winning."""
    uid = world.add(id="a")
    owned = world.claim(uid)
    end = Proc(world.disk, attempts.end(world.me, owned, end_record(1, Outcome.DONE))).before("link", "1.end")
    cancel = cancelling(world, uid).before("link", "1.end")
    if first == "cancel":
        assert cancel.go().said is Said.DONE
        assert world.hand.interrupted == [(uid, 1)]
        assert end.go() is Ended.SUPERSEDED
    else:
        assert end.go() is Ended.WON
        assert cancel.go().said is Said.TOO_LATE
        assert world.hand.interrupted == []
    assert world.cells(uid)["1.end"]["outcome"] == ("cancelled" if first == "cancel" else "done")


def test_r22_a_worker_sees_at_its_next_beat_that_it_was_cancelled(world: World) -> None:
    """R22: canceller killed between n.end = cancelled and the kill: the worker stops at its next beat."""
    uid = world.add(id="a")
    owned = world.claim(uid)
    assert world.run(attempts.decided(owned)) is None
    cancelling(world, uid).before("interrupt").kill()
    assert world.hand.interrupted == []
    seen = world.run(attempts.decided(owned))
    assert isinstance(seen, End)
    assert seen.outcome is Outcome.CANCELLED


def test_r24_of_two_retries_one_grants(world: World) -> None:
    """R24: two retries: one grant."""
    uid = world.add(id="a", max_attempts=1)
    world.attempt(uid, Outcome.FAILED)
    one, two = retrying(world, uid).before("link", "1.grant"), retrying(world, uid).before("link", "1.grant")
    assert two.go().detail == ""
    assert one.go().detail == "it was retried already"
    assert [x for x in world.cells(uid) if x.endswith("grant")] == ["1.grant"]


def test_r24_a_retry_that_comes_after_a_cancel_changes_nothing(world: World) -> None:
    """R24: retry against cancel of a parked item: cancelled stays cancelled."""
    uid = world.add(id="a")
    world.hold(uid)
    retry = retrying(world, uid).before("link", "1.grant")
    assert world.cancel(uid).said is Said.DONE
    retry.go()
    assert world.standing(uid) is Standing.OVER
    assert isinstance(world.run(attempts.claim(world.actor("agent-1"), uid)), Look)


def test_r24_a_retry_that_comes_first_is_cancelled_like_any_ready_item(world: World) -> None:
    """R24, the other order."""
    uid = world.add(id="a")
    world.hold(uid)
    cancel = cancelling(world, uid).before("link", "2.claim")
    world.retry(uid)
    assert cancel.go() == Answer(said=Said.DONE, n=2)
    assert world.standing(uid) is Standing.OVER


def waiting_item(world: World) -> tuple[str, str]:
    dep = world.add(id="dep")
    return dep, world.add(id="later", depends_on=["dep"])


def test_r38_a_waiting_item_that_was_cancelled_never_runs(world: World) -> None:
    """R38: cancel of a waiting item against promoter and worker, between 0.end and the move: never runs."""
    dep, uid = waiting_item(world)
    cancel = cancelling(world, uid).after("link", "0.end")
    world.attempt(dep, Outcome.DONE)
    world.finish(dep)
    world.promote(uid)
    assert isinstance(world.run(attempts.claim(world.actor("agent-1"), uid)), Look)
    assert cancel.go().said is Said.DONE
    assert world.standing(uid) is Standing.OVER
    assert sorted(world.cells(uid)) == ["0.end", "item.json"]


def test_r38_an_item_that_was_promoted_first_is_cancelled_as_a_ready_one(world: World) -> None:
    """R38: or it was promoted first: cancelled as a running or ready one."""
    dep, uid = waiting_item(world)
    cancel = cancelling(world, uid).before("link", "0.end")
    world.attempt(dep, Outcome.DONE)
    world.finish(dep)
    world.promote(uid)
    assert cancel.go() == Answer(said=Said.DONE, n=1)
    assert world.cells(uid)["1.claim"]["act"] == Act.CANCEL


def test_r38_an_item_that_was_promoted_and_claimed_first_is_cancelled_as_a_running_one(world: World) -> None:
    """R38: promoted and claimed while the canceller stood before 0.end."""
    dep, uid = waiting_item(world)
    cancel = cancelling(world, uid).before("link", "0.end")
    world.attempt(dep, Outcome.DONE)
    world.finish(dep)
    world.promote(uid)
    world.claim(uid)
    assert cancel.go() == Answer(said=Said.DONE, n=1)
    assert world.hand.interrupted == [(uid, 1)]


def test_r16_of_two_promoters_one_moves_the_item(world: World) -> None:
    """R16: two promoters: one rename."""
    dep, uid = waiting_item(world)
    world.attempt(dep, Outcome.DONE)
    world.finish(dep)
    one = world.proc(move_to_open(uid, 5)).before("rename", uid)
    assert world.run(move_to_open(uid, 5)) is True
    assert one.go() is False
    assert world.where(uid) == ["open"]


def test_r16_a_claim_right_after_the_move_stands(world: World) -> None:
    """R16: promoter and worker right after the rename: the claim stands."""
    dep, uid = waiting_item(world)
    world.attempt(dep, Outcome.DONE)
    world.finish(dep)
    one = world.proc(move_to_open(uid, 5)).before("rename", uid)
    two = world.proc(move_to_open(uid, 5)).after("rename", uid)
    owned = world.claim(uid)
    one.go()
    two.go()
    assert world.where(uid) == ["open"]
    world.end(owned, Outcome.DONE)


def test_r16_a_move_to_open_is_built_on_a_durable_move_to_waiting(world: World) -> None:
    """Whoever moved it to waiting/ may not have made that durable yet, and the first claim makes only this one durable."""
    _, uid = waiting_item(world)
    process = world.proc(move_to_open(uid, 5))
    process.go()
    (move,) = (k for k, op in enumerate(process.log) if op[0] == "rename")
    assert ("fsync_dir", "queue/waiting") in process.log[:move]


@pytest.mark.parametrize("operation", ["read", "rename"])
def test_r39_a_dependency_that_is_archived_during_admission_is_found_by_the_sweep(
    world: World, operation: str
) -> None:
    """R39: dependency archived while the dependant is being admitted to waiting/: promoted by the sweep at the latest."""
    dep = world.add(id="dep")
    world.drop("later.json", {"prompt": "do", "depends_on": ["dep"]})
    (home,) = world.take()
    admitting = world.proc(admission.admit(world.actor("coordinator"), home, world.context, DAY))
    admitting.before(operation)
    world.attempt(dep, Outcome.DONE)
    world.finish(dep)
    admitting.go()
    assert world.where(home) == ["waiting"]
    world.recover()
    assert world.where(home) == ["open"]
    assert world.standing(home) is Standing.READY
