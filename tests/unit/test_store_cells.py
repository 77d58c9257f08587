"""PUBLISH, and what a set of cells means: look, parked, spent."""

from __future__ import annotations

import os

import pytest

from harness.errors import StoreError, UnreadableRecordError
from harness.model import Act, Claim, Grant, Outcome, Stub
from harness.store.attempts import branch_of, claim, end
from harness.store.cells import Standing, Won, parking_reason, publish, stub_path
from harness.store.disk import is_locked
from harness.store.ops import Linked
from tests.stores import DAY, World, end_record

# ---- publish -------------------------------------------------------------------------------------------------------


def claim_record(world: World, n: int = 1, act: Act = Act.RUN) -> Claim:
    return Claim(n=n, act=act, owner=world.actor("agent-9").identity)


def test_publish_sets_a_whole_cell_and_leaves_nothing_in_tmp(world: World) -> None:
    uid = world.add(id="a")
    won, _ = world.run(publish(world.me, "end", end_record(1, Outcome.DONE), f"queue/open/{uid}/1.end"))
    assert won is Won.YES
    assert world.cells(uid)["1.end"]["outcome"] == "done"
    assert os.listdir(world.layout.queue / "tmp") == []


def test_the_second_publish_of_a_cell_loses_and_changes_nothing(world: World) -> None:
    uid = world.add(id="a")
    cell = f"queue/open/{uid}/1.end"
    world.run(publish(world.me, "end", end_record(1, Outcome.DONE), cell))
    won, _ = world.run(publish(world.me, "end", end_record(1, Outcome.FAILED), cell))
    assert won is Won.LOST
    assert world.cells(uid)["1.end"]["outcome"] == "done"


def test_publish_into_a_folder_that_moved_says_gone(world: World) -> None:
    won, _ = world.run(publish(world.me, "end", end_record(1, Outcome.DONE), "queue/open/nobody/1.end"))
    assert won is Won.GONE


def test_publish_makes_data_and_folder_durable_before_the_link_and_the_folder_after_it(world: World) -> None:
    uid = world.add(id="a")
    process = world.proc(
        publish(world.me, "end", end_record(1, Outcome.DONE), f"queue/open/{uid}/1.end", lock=True)
    )
    process.go()
    assert [op[0] for op in process.log] == ["make", "fsync", "fsync_dir", "link", "unlink", "fsync_dir"]
    folders = [op[1] for op in process.log if op[0] == "fsync_dir"]
    assert folders == [f"queue/open/{uid}"] * 2


def test_a_ticket_is_locked_before_anybody_can_see_it_and_stays_locked_for_the_winner(world: World) -> None:
    uid = world.add(id="a")
    process = world.proc(
        publish(world.me, "claim", claim_record(world), f"queue/open/{uid}/1.claim", lock=True)
    ).before("link")
    (ticket,) = (world.layout.queue / "tmp").iterdir()
    with ticket.open() as f:
        assert is_locked(f.fileno())
    process.go()
    with (world.layout.queue / "open" / uid / "1.claim").open() as f:
        assert is_locked(f.fileno())


def test_a_loser_of_a_claim_holds_no_lock(world: World) -> None:
    uid = world.add(id="a")
    cell = f"queue/open/{uid}/1.claim"
    process = world.proc(publish(world.me, "claim", claim_record(world), cell, lock=True)).before("link")
    world.claim(uid)
    assert process.go()[0] is Won.LOST
    assert process.disk._tickets == {}


def test_a_link_whose_reply_was_lost_counts_as_won(world: World) -> None:
    uid = world.add(id="a")
    step = publish(world.me, "end", end_record(1, Outcome.DONE), f"queue/open/{uid}/1.end")
    process = world.proc(step).before("link")
    process.lie(Linked.EXISTS, done=True)
    assert process.go()[0] is Won.YES


def test_a_link_that_failed_for_an_unknown_reason_ends_the_process(world: World) -> None:
    uid = world.add(id="a")
    step = publish(world.me, "end", end_record(1, Outcome.DONE), f"queue/open/{uid}/1.end")
    process = world.proc(step).before("link")
    process.lie(Linked.UNKNOWN, done=False)
    with pytest.raises(StoreError, match="nobody knows"):
        process.go()


# ---- look ----------------------------------------------------------------------------------------------------------


def test_a_fresh_item_is_ready(world: World) -> None:
    seen = world.look(world.add(id="a"))
    assert (seen.standing, seen.n) == (Standing.READY, 0)


def test_an_item_that_nobody_knows_is_gone(world: World) -> None:
    assert world.standing("nobody") is Standing.GONE


def test_a_strangers_file_in_open_is_no_item(world: World) -> None:
    (world.layout.queue / "open" / "notes.txt").write_text("hello")
    assert world.standing("notes.txt") is Standing.GONE


@pytest.mark.parametrize(
    ("outcome", "sha", "expected"),
    [
        (Outcome.DONE, None, Standing.OVER),
        (Outcome.DONE, "abc", Standing.SUBMITTED),
        (Outcome.FAILED, None, Standing.READY),
        (Outcome.EXPIRED, None, Standing.READY),
        (Outcome.RELEASED, None, Standing.READY),
        (Outcome.HELD, None, Standing.PARKED),
        (Outcome.CANCELLED, None, Standing.OVER),
    ],
)
def test_each_end_leads_to_its_standing(
    world: World, outcome: Outcome, sha: str | None, expected: Standing
) -> None:
    uid = world.add(id="a")
    owned = world.claim(uid)
    assert world.standing(uid) is Standing.RUNNING
    world.end(owned, outcome, sha)
    assert world.standing(uid) is expected


def test_a_commit_of_an_item_without_commits_needs_no_merge(world: World) -> None:
    uid = world.add(id="a", commit="none")
    world.attempt(uid, Outcome.DONE, "abc")
    assert world.standing(uid) is Standing.OVER


def test_an_optional_commit_that_was_made_needs_a_merge(world: World) -> None:
    uid = world.add(id="a", commit="optional")
    world.attempt(uid, Outcome.DONE, "abc")
    assert world.standing(uid) is Standing.SUBMITTED


def test_a_verdict_decides_a_submitted_attempt(world: World) -> None:
    merged, returned = world.add(id="a"), world.add(id="b")
    for uid in (merged, returned):
        world.submit(uid)
    world.hub.red.add((returned, 1))
    assert world.judge(merged, 1)
    assert world.judge(returned, 1)
    assert world.standing(merged) is Standing.OVER
    assert world.standing(returned) is Standing.READY


# ---- spent and parked ----------------------------------------------------------------------------------------------


def test_an_item_is_parked_when_its_attempts_are_spent(world: World) -> None:
    uid = world.add(id="a", max_attempts=2)
    world.attempt(uid, Outcome.FAILED)
    assert world.standing(uid) is Standing.READY
    world.attempt(uid, Outcome.EXPIRED)
    seen = world.look(uid)
    assert seen.standing is Standing.PARKED
    assert seen.item
    assert parking_reason(seen.item, seen.attempts) == "2 of 2 attempts spent; last: expired"


def test_returned_results_are_spent_and_released_and_held_attempts_are_not(world: World) -> None:
    uid = world.add(id="a", max_attempts=2)
    world.attempt(uid, Outcome.RELEASED)
    world.hold(uid)
    world.retry(uid)
    n = world.submit(uid)
    world.hub.red.add((uid, n))
    world.judge(uid, n)
    assert world.standing(uid) is Standing.READY  # 1 spent, 2 + 1 allowed
    world.attempt(uid, Outcome.FAILED)
    assert world.standing(uid) is Standing.READY
    world.attempt(uid, Outcome.FAILED)
    assert world.standing(uid) is Standing.PARKED


def test_a_grant_allows_one_more_run_and_adds_to_what_may_be_spent(world: World) -> None:
    uid = world.add(id="a", max_attempts=1)
    world.attempt(uid, Outcome.FAILED)
    world.retry(uid, extra=2)
    for _ in range(2):
        assert world.standing(uid) is Standing.READY
        world.attempt(uid, Outcome.FAILED)
    assert world.standing(uid) is Standing.PARKED
    world.retry(uid)
    assert world.standing(uid) is Standing.READY
    world.attempt(uid, Outcome.FAILED)
    assert world.standing(uid) is Standing.PARKED


def test_a_grant_of_nothing_still_allows_one_run(world: World) -> None:
    uid = world.add(id="a", max_attempts=1)
    world.attempt(uid, Outcome.FAILED)
    world.retry(uid, extra=0)
    world.attempt(uid, Outcome.FAILED)
    assert world.standing(uid) is Standing.PARKED


def test_a_grant_of_an_earlier_attempt_does_not_unpark_a_later_hold(world: World) -> None:
    uid = world.add(id="a")
    world.hold(uid)
    world.hold(uid)
    late = Grant(n=1, extra=1, by="me")
    world.run(publish(world.me, "grant", late, f"queue/open/{uid}/1.grant"))
    assert world.standing(uid) is Standing.PARKED


def test_more_than_twenty_releases_after_the_last_grant_park_an_item(world: World) -> None:
    uid = world.add(id="a")
    for _ in range(20):
        world.attempt(uid, Outcome.RELEASED)
    assert world.standing(uid) is Standing.READY
    world.attempt(uid, Outcome.RELEASED)
    seen = world.look(uid)
    assert seen.standing is Standing.PARKED
    assert seen.item
    assert parking_reason(seen.item, seen.attempts).startswith("released 21 times")
    world.retry(uid)
    for _ in range(20):
        assert world.standing(uid) is Standing.READY
        world.attempt(uid, Outcome.RELEASED)
    assert world.standing(uid) is Standing.READY
    world.attempt(uid, Outcome.RELEASED)
    assert world.standing(uid) is Standing.PARKED


def test_what_waited_for_a_limit_or_a_budget_is_never_parked_for_it(world: World) -> None:
    """An outage of the service can last for days."""
    uid = world.add(id="a")
    for _ in range(60):
        owned = world.claim(uid)
        record = end_record(owned.n, Outcome.RELEASED, waits="limit")
        world.run(end(world.me, owned, record))
    assert world.standing(uid) is Standing.READY


def test_releases_need_not_follow_each_other(world: World) -> None:
    uid = world.add(id="a", max_attempts=5)
    for k in range(21):
        world.attempt(uid, Outcome.RELEASED)
        if k == 10:
            world.attempt(uid, Outcome.FAILED)
    assert world.standing(uid) is Standing.PARKED


@pytest.mark.parametrize(
    "hidden", [{"1.claim"}, {"1.end"}, {"1.claim", "1.end"}, {"2.claim"}, {"2.end"}, {"2.claim", "2.end"}]
)
def test_what_is_spent_is_read_by_name_whatever_a_listing_leaves_out(world: World, hidden: set[str]) -> None:
    """readdir is no snapshot (M46): with one name missing the item is parked, or nothing can be claimed."""
    uid = world.add(id="a", max_attempts=2)
    world.attempt(uid, Outcome.FAILED)
    world.attempt(uid, Outcome.FAILED)
    process = world.proc(claim(world.actor("agent-1"), uid)).before("ls")
    names = process.disk.do_ls(f"queue/open/{uid}")
    assert names
    process.lie(tuple(x for x in names if x not in hidden), done=False)
    process.go()
    assert sorted(x for x in world.cells(uid) if x != "item.json") == ["1.claim", "1.end", "2.claim", "2.end"]


def test_stubs_spread_over_folders_by_the_hash_of_the_uid() -> None:
    assert stub_path("a-b") == "queue/done/d4/a-b"


def test_the_branch_of_an_attempt_holds_its_token() -> None:
    assert branch_of("fix-x1", 3) == "harness/fix-x1/3"


def test_a_stub_is_found_by_uid(world: World) -> None:
    uid = world.add(id="a")
    assert world.stub(uid) is None
    world.attempt(uid, Outcome.DONE)
    assert world.finish(uid) == world.stub(uid) == Stub(outcome="done", n=1, day=DAY)


@pytest.mark.parametrize(
    "said", [{"v": 1, "n": 1}, {"v": 2, "rejected": ["no"]}, {"v": 1, "n": 1, "returned": "gate"}, [], "done"]
)
def test_what_is_no_terminal_cell_is_no_stub(said: object) -> None:
    with pytest.raises(UnreadableRecordError):
        Stub.from_record(said)
