"""What people see: every item with its state, wherever it is, by uid, id or prefix."""

from __future__ import annotations

import pytest

from harness.errors import ConflictError, NotFoundError
from harness.model import Attempt, Outcome, State, VerdictKind
from harness.store.view import Seen, View
from tests.stores import DAY, World


def seen(world: World, name: str) -> Seen:
    return View(world.disk).find(name)


def test_each_state_is_seen(world: World) -> None:
    uids = {
        x: world.add(id=x, max_attempts=1) for x in ("ready", "running", "parked", "merging", "held", "gone")
    }
    uids["waits"] = world.add(id="waits", depends_on=["ready", "nobody"])
    uids["done"] = world.add(id="done", commit="none")
    uids["merged"] = world.add(id="merged")
    world.claim(uids["running"])
    world.attempt(uids["parked"], Outcome.FAILED)
    world.submit(uids["merging"])
    world.hold(uids["held"])
    world.cancel(uids["gone"])
    world.attempt(uids["done"], Outcome.DONE)
    world.finish(uids["done"])
    world.judge(uids["merged"], world.submit(uids["merged"]))
    world.finish(uids["merged"])
    world.drop("bad.json", {"prompt": ""})
    (bad,) = world.admit_all()
    world.drop("new.json")
    (taken,) = world.take()
    states = {name: seen(world, uid).state for name, uid in uids.items()}
    assert states == {
        "ready": State.READY,
        "running": State.RUNNING,
        "parked": State.PARKED,
        "merging": State.MERGING,
        "held": State.PARKED,
        "gone": State.CANCELLED,
        "waits": State.WAITING,
        "done": State.DONE,
        "merged": State.MERGED,
    }
    assert seen(world, bad.drop).state is State.REJECTED
    assert "prompt" in seen(world, bad.drop).reason
    assert seen(world, taken).state is State.INCOMING
    assert seen(world, "waits").waits_for == ("ready", "nobody (unknown id)")
    assert seen(world, "parked").reason == "1 of 1 attempts spent; last: failed"
    assert seen(world, "held").reason == "held by me: wait"
    assert seen(world, "done").place == f"queue/archive/{DAY}/{uids['done']}"
    assert {s.id for s in View(world.disk).all_live()} == {
        "ready", "running", "parked", "merging", "held", "gone", "waits"
    }  # fmt: skip


@pytest.mark.parametrize("end", [State.MERGED, State.CANCELLED])
def test_an_item_that_is_archived_while_it_is_read_is_what_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch, end: State
) -> None:
    uid = world.add(id="a")
    if end is State.MERGED:
        world.judge(uid, world.submit(uid))
    else:
        owned = world.claim(uid)
        world.end(owned, Outcome.CANCELLED)
    read = View._with_claims

    def moved(self: View, place: str, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
        if world.where(uid) == ["open"]:
            world.finish(uid)
        return read(self, place, attempts)

    monkeypatch.setattr(View, "_with_claims", moved)
    assert seen(world, uid).state is end


def test_an_item_that_waits_for_a_cancelled_one_is_parked(world: World) -> None:
    dep = world.add(id="dep")
    world.add(id="later", depends_on=["dep"])
    world.cancel(dep)
    world.finish(dep)
    found = seen(world, "later")
    assert (found.state, found.blocked, found.reason) == (State.PARKED, True, "dep was cancelled")


def test_attempts_are_shown_with_all_their_cells(world: World) -> None:
    uid = world.add(id="a")
    n = world.submit(uid)
    world.hub.red.add((uid, n))
    world.judge(uid, n)
    world.hold(uid)
    world.retry(uid)
    one, two = seen(world, uid).attempts
    assert one.claim
    assert one.end
    assert one.verdict
    assert one.verdict.kind is VerdictKind.RETURNED
    assert two.grant
    assert seen(world, uid).last == two


def test_an_item_that_was_cancelled_while_it_waited_says_by_whom(world: World) -> None:
    uid = world.add(id="a", not_before="2099-01-01T00:00:00Z")
    world.cancel(uid)
    found = seen(world, "a")
    assert (found.state, found.reason, found.last) == (State.CANCELLED, "by me", None)
    assert found.zero
    world.finish(uid)
    assert seen(world, "a").state is State.CANCELLED


def test_an_id_names_the_newest_item_that_had_it(world: World) -> None:
    first = world.add(id="x")
    world.attempt(first, Outcome.DONE)
    world.finish(first)
    assert seen(world, "x").uid == first
    second = world.add(id="x")
    assert seen(world, "x").uid == second
    assert seen(world, first).uid == first


def test_a_prefix_that_is_unique_is_enough(world: World) -> None:
    uid = world.add(id="login")
    assert seen(world, uid[:-4]).uid == uid
    world.add(id="logout")
    with pytest.raises(ConflictError, match="not unique"):
        seen(world, "log")


@pytest.mark.parametrize("name", ["nobody", "..", ".", "a/b", "x" * 5000, "", "\0", "a\udcff", "../tmp"])
def test_an_unknown_name_is_not_found_whatever_it_is(world: World, name: str) -> None:
    with pytest.raises(NotFoundError) as error:
        seen(world, name)
    assert error.value.remedy


def test_archived_items_are_listed_by_day(world: World) -> None:
    uids = [world.add(id=x) for x in ("a", "b")]
    for uid in uids:
        world.attempt(uid, Outcome.DONE)
        world.finish(uid)
    assert sorted(View(world.disk).archived()) == sorted((DAY, uid) for uid in uids)
