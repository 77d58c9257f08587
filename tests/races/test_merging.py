"""Races of PROTOCOL section 13 around the merge lane, on a hub of memory. Races with real git are in tests/integration."""

from __future__ import annotations

import pytest

from harness.model import Outcome
from harness.store import attempts, lane, operators
from harness.store.attempts import Claimed
from harness.store.cells import Look, Standing
from harness.store.operators import Answer, Said
from tests.stores import Proc, World


def merging(world: World, uid: str, name: str = "merger") -> Proc[bool]:
    return world.proc(lane.judge(world.actor(name), "app", uid, 1))


def cancelling(world: World, uid: str) -> Proc[Answer]:
    return world.proc(operators.cancel(world.actor("cli"), uid, "me", "no", world.judging()))


def submitted(world: World, name: str = "a", **fields: object) -> str:
    uid = world.add(id=name, **fields)
    world.submit(uid)
    return uid


def merges(world: World, uid: str) -> int:
    return sum(u == uid for u, _, _ in world.hub.history)


def test_r26_a_merger_that_lost_the_lane_moves_nothing(world: World) -> None:
    """R26: merger A between gates and m5, B takes the lane and returns: A's transaction is refused."""
    uid = submitted(world)
    a = merging(world, uid, "a").before("swap_target")
    world.hub.red.add((uid, 1))
    assert merging(world, uid, "b").go()
    assert a.go() is False
    assert merges(world, uid) == 0
    assert world.cells(uid)["1.verdict"]["returned"] == "gate"
    assert merging(world, uid, "a").go()  # m0 again: it finds the verdict
    assert merges(world, uid) == 0


def test_r27_who_takes_the_lane_writes_the_refusal_that_was_decided_in_it_first(world: World) -> None:
    """R27: merger A between m5r and PUBLISH, B takes the lane: B writes A's verdict first."""
    uid = submitted(world)
    world.hub.red.add((uid, 1))
    a = merging(world, uid, "a").before("link", "1.verdict")
    world.hub.red.clear()  # B would merge, if it could
    assert merging(world, uid, "b").go()
    assert world.cells(uid)["1.verdict"]["returned"] == "gate"
    assert merges(world, uid) == 0
    assert a.go()


def test_r27_a_refusal_whose_merger_died_is_completed_by_the_next(world: World) -> None:
    """R27, A is killed instead of stopped; B works on another item."""
    uid, other = submitted(world), submitted(world, "b")
    world.hub.red.add((uid, 1))
    merging(world, uid, "a").before("fsync_dir", uid, times=2).kill()
    assert "1.verdict" not in world.cells(uid)
    assert merging(world, other, "b").go()
    assert world.cells(uid)["1.verdict"]["returned"] == "gate"
    assert merges(world, other) == 1


def test_r28_a_merge_whose_merger_died_before_its_verdict_is_found(world: World) -> None:
    """R28: merger killed between m5 and m6: m2 finds it: merged."""
    uid = submitted(world)
    merging(world, uid, "a").after("swap_target").kill()
    assert merges(world, uid) == 1
    world.hub.red.add((uid, 1))
    assert merging(world, uid, "b").go()
    assert merges(world, uid) == 1
    assert world.cells(uid)["1.verdict"]["merged"] == world.hub.target()


@pytest.mark.parametrize("stop", ["1.verdict", "item.json", "1.end"])
def test_r29_an_item_that_is_cancelled_and_archived_while_m1_reads_is_not_merged(
    world: World, stop: str
) -> None:
    """R29: merger between m1's two reads, the item is cancelled and archived: not merged."""
    uid = submitted(world)
    a = merging(world, uid, "a").before("read", stop)
    assert cancelling(world, uid).go().said is Said.DONE
    world.finish(uid)
    a.go()
    assert merges(world, uid) == 0
    stub = world.stub(uid)
    assert stub
    assert stub.outcome == "cancelled"


@pytest.mark.parametrize("stop", ["swap_lane", "target", "build_merge", "swap_target"])
def test_r30_a_cancel_before_the_target_moves_is_cancelled_and_not_on_target(world: World, stop: str) -> None:
    """R30: cancel of a submitted item against m5: cancelled and not on target."""
    uid = submitted(world)
    a = merging(world, uid).before(stop)
    assert cancelling(world, uid).go().said is Said.DONE
    a.go()
    merging(world, uid).go()
    assert merges(world, uid) == 0
    assert world.cells(uid)["1.verdict"]["cancelled"] == "me"
    assert world.standing(uid) is Standing.OVER


@pytest.mark.parametrize("operation", ["sync_hub", "link"])
def test_r30_a_cancel_after_the_target_moved_is_too_late(world: World, operation: str) -> None:
    """R30: or "already merged as sha"."""
    uid = submitted(world)
    a = merging(world, uid).after("swap_target").before(operation)
    answer = cancelling(world, uid).go()
    assert answer.said is Said.TOO_LATE
    assert answer.sha == world.hub.target()
    a.go()
    assert world.cells(uid)["1.verdict"]["merged"] == world.hub.target()


def test_r30_a_canceller_that_lost_the_lane_starts_again(world: World) -> None:
    """R30: the canceller stands before m5r, a merger takes the lane and merges."""
    uid = submitted(world)
    cancel = cancelling(world, uid).before("swap_lane", times=2)
    assert merging(world, uid).go()
    answer = cancel.go()
    assert answer.said is Said.TOO_LATE
    assert merges(world, uid) == 1


def test_r31_a_target_that_was_moved_by_somebody_else_is_merged_upon(world: World) -> None:
    """R31: target moved between m2 and m5: refused; m2 again; nothing overwritten."""
    uid = submitted(world)
    a = merging(world, uid).before("swap_target")
    world.hub.push("theirs")
    assert a.go()
    assert [m for _, _, m in world.hub.history] == ["theirs", f"m-{uid}-1-on-theirs"]
    assert world.cells(uid)["1.verdict"]["merged"] == f"m-{uid}-1-on-theirs"


def test_r32_a_result_returned_at_the_last_attempt_parks_the_item(world: World) -> None:
    """R32: returned at the last attempt, worker waiting: parked; n+1 only with a grant."""
    uid = submitted(world, max_attempts=1)
    world.hub.red.add((uid, 1))
    worker = world.proc(attempts.claim(world.actor("agent-1"), uid)).before("read", "1.verdict")
    merging(world, uid).go()
    assert isinstance(worker.go(), Look)
    assert world.standing(uid) is Standing.PARKED
    world.retry(uid)
    assert isinstance(world.run(attempts.claim(world.actor("agent-1"), uid)), Claimed)


def test_r34_a_merge_is_durable_before_the_target_names_it_and_the_target_before_the_verdict(
    world: World,
) -> None:
    """R34: no cell and no target ever names an unreadable object: syncfs between build and target, and before the verdict."""
    uid = submitted(world)
    a = merging(world, uid)
    a.go()
    steps = [op[0] for op in a.log if op[0] in ("build_merge", "sync_hub", "swap_target", "link")]
    assert steps == ["build_merge", "sync_hub", "swap_target", "sync_hub", "link"]


def test_r34_a_merge_that_was_found_is_made_durable_before_its_verdict(world: World) -> None:
    """R34: another's merge may be visible and not yet durable."""
    uid = submitted(world)
    merging(world, uid, "a").after("swap_target").kill()
    b = merging(world, uid, "b")
    b.go()
    steps = [op[0] for op in b.log if op[0] in ("merged_as", "sync_hub", "link")]
    assert steps == ["merged_as", "sync_hub", "link"]


def test_r34_a_refusal_is_durable_in_the_lane_before_it_is_a_cell(world: World) -> None:
    """R34: m5r, then syncfs, then the verdict."""
    uid = submitted(world)
    world.hub.red.add((uid, 1))
    a = merging(world, uid)
    a.go()
    steps = [op[0] for op in a.log if op[0] in ("build_merge", "swap_lane", "sync_hub", "link")]
    assert steps == ["swap_lane", "build_merge", "swap_lane", "sync_hub", "link"]


def test_r34_nothing_is_merged_that_can_vanish(world: World) -> None:
    """R34: the end is made durable by who acts on it, before the target moves."""
    uid = submitted(world)
    a = merging(world, uid).before("build_merge")
    assert ("fsync_dir", f"queue/open/{uid}") in a.log


def test_an_item_without_commits_gets_no_verdict(world: World) -> None:
    """I11: a verdict only for what needs a merge, whatever the end says."""
    uid = world.add(id="a", commit="none")
    world.attempt(uid, Outcome.DONE, "abc")
    assert merging(world, uid).go()
    assert "1.verdict" not in world.cells(uid)
