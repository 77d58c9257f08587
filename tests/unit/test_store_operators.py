"""What people do, and what they are told; promotion from waiting/; finishing. Races are in tests/races."""

from __future__ import annotations

import pytest

from harness.errors import StoreError
from harness.model import Outcome
from harness.store import attempts, operators, promotion
from harness.store.cells import Standing, claim_of
from harness.store.operators import Answer, Said
from harness.store.promotion import Waiting
from tests.stores import World


def finished(world: World, name: str, outcome: Outcome = Outcome.DONE) -> str:
    uid = world.add(id=name)
    if outcome is Outcome.CANCELLED:
        world.cancel(uid)
    else:
        world.attempt(uid, outcome)
    world.finish(uid)
    return uid


# ---- cancel, hold, retry, stop ---------------------------------------------------------------------------------------


def test_nobody_can_be_cancelled_held_or_retried(world: World) -> None:
    assert {world.cancel("nobody-x").said, world.hold("nobody-x").said, world.retry("nobody-x").said} == {
        Said.UNKNOWN
    }


def test_what_is_over_is_too_late(world: World) -> None:
    uid = world.add(id="a")
    world.attempt(uid, Outcome.DONE)
    for answer in (world.cancel(uid), world.hold(uid), world.retry(uid)):
        assert answer == Answer(said=Said.TOO_LATE, n=1, detail="it is done already")


def test_cancelling_twice_is_one_cancel(world: World) -> None:
    uid = world.add(id="a")
    assert world.cancel(uid) == world.cancel(uid) == Answer(said=Said.DONE, n=1)


def test_a_merged_item_says_as_what(world: World) -> None:
    uid = world.add(id="a")
    world.judge(uid, world.submit(uid))
    sha = world.hub.target()
    assert world.cancel(uid) == Answer(said=Said.TOO_LATE, n=1, sha=sha, detail=f"already merged as {sha}")


def test_a_submitted_item_is_not_held(world: World) -> None:
    uid = world.add(id="a")
    world.submit(uid)
    assert world.hold(uid).said is Said.NOT_NOW
    assert world.standing(uid) is Standing.SUBMITTED


def test_a_submitted_item_is_cancelled_in_the_lane(world: World) -> None:
    uid = world.add(id="a")
    world.submit(uid)
    assert world.cancel(uid) == Answer(said=Said.DONE, n=1)
    assert world.hub.history == ()
    assert world.cells(uid)["1.verdict"]["cancelled"] == "me"


def test_only_a_parked_item_is_retried(world: World) -> None:
    uid = world.add(id="a")
    assert world.retry(uid) == Answer(said=Said.NOT_NOW, n=0, detail="it is ready, not parked")


def test_a_retry_writes_a_hint(world: World) -> None:
    uid = world.add(id="a")
    world.hold(uid)
    assert list(world.disk.hints.find()) == []
    world.retry(uid)
    assert list(world.disk.hints.find()) == [uid]


def test_a_stop_costs_no_attempt_and_says_when_to_go_on(world: World) -> None:
    uid = world.add(id="a", max_attempts=1)
    world.claim(uid)
    stop = operators.stop(world.me, uid, 1, "coordinator", "limit", "2027-02-01T00:00:00Z")
    assert world.run(stop)
    assert world.cells(uid)["1.end"]["not_before"] == "2027-02-01T00:00:00Z"
    assert world.standing(uid) is Standing.READY
    assert not world.run(operators.stop(world.me, uid, 1, "coordinator", "again"))
    assert not world.run(operators.stop(world.me, uid, 2, "coordinator", "nobody"))


def test_an_operator_gives_up_when_an_item_changes_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "TRIES", 0)
    uid = world.add(id="a")
    assert world.hold(uid).said is Said.NOT_NOW
    assert world.cancel(uid).said is Said.NOT_NOW


# ---- promotion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "optional", "moves"),
    [
        (Outcome.DONE, False, True),
        (Outcome.DONE, True, True),
        (Outcome.CANCELLED, False, False),
        (Outcome.CANCELLED, True, True),
    ],
)
def test_a_dependency_is_met_when_it_is_done_and_an_optional_one_when_it_is_over(
    world: World, outcome: Outcome, optional: bool, moves: bool
) -> None:
    dep = world.add(id="dep")
    uid = world.add(id="later", depends_on=[{"id": "dep", "optional": optional}])
    assert world.promote(uid) == Waiting(for_=("dep",))
    if outcome is Outcome.CANCELLED:
        world.cancel(dep)
    else:
        world.attempt(dep, outcome)
    assert world.promote(uid) == Waiting(for_=("dep",))  # over, but without a stub
    world.finish(dep)
    assert (world.promote(uid) is None) == moves
    assert world.where(uid) == (["open"] if moves else ["waiting"])


def test_a_cancelled_dependency_blocks_until_a_person_allows_it(world: World) -> None:
    dep = world.add(id="dep")
    uid = world.add(id="later", depends_on=["dep"])
    world.cancel(dep)
    world.finish(dep)
    assert world.promote(uid) == Waiting(for_=("dep was cancelled",), blocked=True)
    assert world.retry(uid) == Answer(said=Said.DONE, detail="it runs without waiting")
    assert world.retry(uid).detail == "it was allowed already"
    assert world.promote(uid) is None
    assert world.claim(uid).n == 1


def test_an_unknown_dependency_is_resolved_when_such_an_id_is_admitted(world: World) -> None:
    uid = world.add(id="later", depends_on=["dep"])
    assert world.promote(uid) == Waiting(for_=("dep (unknown id)",))
    dep = world.add(id="dep")
    assert world.promote(uid) == Waiting(for_=("dep",))
    world.attempt(dep, Outcome.DONE)
    world.finish(dep)
    assert world.promote(uid) is None


def test_an_unknown_dependency_means_its_first_holder_not_a_later_one(world: World) -> None:
    uid = world.add(id="later", depends_on=["dep"])
    finished(world, "dep")
    world.add(id="dep", prompt="again")
    assert world.promote(uid) is None


def test_not_before_is_the_wall_clock(world: World) -> None:
    uid = world.add(id="later", not_before="2027-01-20T00:00:00Z")
    assert world.promote(uid) == Waiting(for_=("not before 2027-01-20T00:00:00Z",))
    world.clock.jump(10 * 86400)
    assert world.promote(uid) is None


def test_promoting_what_was_moved_already_is_harmless(world: World) -> None:
    uid = world.add(id="a")
    assert world.run(promotion.move_to_open(uid, 5)) is False
    assert world.where(uid) == ["open"]


# ---- finish ----------------------------------------------------------------------------------------------------------


def test_finishing_twice_is_finishing_once(world: World) -> None:
    uid = finished(world, "a")
    assert world.finish(uid) == world.stub(uid)


def test_what_is_not_over_is_not_finished(world: World) -> None:
    uid = world.add(id="a")
    assert world.finish(uid) is None
    assert world.finish("nobody-x") is None


def test_an_item_is_archived_although_its_day_was_rolled_up_meanwhile(world: World) -> None:
    finished(world, "a")
    (day,) = (world.layout.queue / "archive").iterdir()
    day.rename(world.layout.root / "rolled")
    uid = world.add(id="b")
    world.attempt(uid, Outcome.DONE)
    world.finish(uid)  # the folder was there when this process looked last
    world.finish(uid)
    assert world.where(uid) == ["archive"]


def test_an_item_that_vanishes_before_its_stub_is_set_stops_the_process(world: World) -> None:
    uid = world.add(id="a")
    world.attempt(uid, Outcome.DONE)
    finisher = world.proc(attempts.finish(uid)).before("link", f"/{uid}")
    (world.layout.queue / "open" / uid).rename(world.layout.root / "taken")
    with pytest.raises(StoreError, match="vanished"):
        finisher.go()


def test_a_released_ticket_can_be_abandoned(world: World) -> None:
    uid = world.add(id="a")
    owned = world.claim(uid)
    assert world.disk._tickets
    world.run(attempts.abandon(owned))
    assert world.disk._tickets == {}
    assert world.run(claim_of(uid, 1))


def test_an_owner_learns_that_it_was_cancelled_also_when_the_item_is_archived_already(world: World) -> None:
    """Otherwise its agent would go on, at a cost, for an item that nobody wants."""
    uid = world.add(id="a")
    owned = world.claim(uid)
    assert world.run(attempts.decided(owned)) is None
    world.cancel(uid)
    world.finish(uid)
    assert world.where(uid) == ["archive"]
    end = world.run(attempts.decided(owned))
    assert end is not None
    assert end.outcome is Outcome.CANCELLED


def test_a_waiting_item_whose_canceller_died_is_not_said_to_run(world: World) -> None:
    uid = world.add(id="b", depends_on=["never"])
    canceller = world.proc(operators.cancel(world.me, uid, "me", "", world.judging()))
    canceller.after("link", "0.end").kill()
    assert world.retry(uid) == Answer(said=Said.TOO_LATE, detail="it is cancelled already")
    world.promote(uid)
    assert world.standing(uid) is Standing.OVER
