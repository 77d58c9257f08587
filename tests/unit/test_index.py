"""What the coordinator knows of the items: seen when it changed, forgotten when it went, counted as people see it."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import pytest

from harness.clock import rfc3339
from harness.coordinator.index import Entry, Index
from harness.model import Outcome
from harness.store import attempts
from harness.store.cells import Standing
from tests.stores import World, end_record


@pytest.fixture
def index(world: World) -> Index:
    return Index(world.layout, world.disk, world.clock, max_delay_s=300.0)


def fail(world: World, uid: str, outcome: Outcome = Outcome.FAILED, **more: Any) -> None:
    owned = world.claim(uid)
    world.run(attempts.end(world.me, owned, end_record(owned.n, outcome, **more)))


def standing(index: Index, uid: str) -> tuple[int, Standing] | None:
    entry = index.open.get(uid)
    return (entry.n, entry.standing) if entry else None


# ---- looking ---------------------------------------------------------------------------------------------------------


def test_a_sweep_finds_what_is_new_and_says_it_once(world: World, index: Index) -> None:
    uid = world.add(id="a")
    assert [e.uid for e in index.sweep()] == [uid]
    assert index.sweep() == []
    assert standing(index, uid) == (0, Standing.READY)


def test_every_step_of_an_item_is_noticed(world: World, index: Index) -> None:
    uid = world.add(id="a")
    index.sweep()
    owned = world.claim(uid)
    assert index.look_at(uid)
    assert standing(index, uid) == (1, Standing.RUNNING)
    world.end(owned, Outcome.DONE, "sha")
    index.look_at(uid)
    assert standing(index, uid) == (1, Standing.SUBMITTED)
    world.judge(uid, 1)
    index.look_at(uid)
    assert standing(index, uid) == (1, Standing.OVER)
    world.finish(uid)
    assert index.look_at(uid) is None
    assert uid not in index.open


def test_an_item_that_left_is_forgotten_by_the_sweep(world: World, index: Index) -> None:
    uid = world.add(id="a")
    index.sweep()
    before = index.version
    world.cancel(uid)
    world.finish(uid)
    index.sweep()
    assert uid not in index.open
    assert index.version > before


def test_an_untouched_item_costs_no_look(world: World, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = world.add(id="a")
    index.sweep()
    folder = world.layout.queue / "open" / uid
    os.utime(folder, ns=(0, 0))  # long ago
    index.look_at(uid)
    assert not index.may_differ(uid)
    os.utime(folder)
    assert index.may_differ(uid)


def test_a_folder_that_changed_just_now_is_looked_at_once_more(world: World, index: Index) -> None:
    """Two changes may fall into one tick of the kernel's clock: then the mtime is the same."""
    uid = world.add(id="a")
    folder = world.layout.queue / "open" / uid
    now = int(world.clock.wall() * 1e9)
    os.utime(folder, ns=(now, now))
    index.look_at(uid)
    assert index.may_differ(uid)
    world.clock.advance(1)
    assert not index.may_differ(uid)


def test_what_strangers_put_between_items_is_no_item(world: World, index: Index) -> None:
    queue = world.layout.queue
    (queue / "open" / "file").write_text("x")
    (queue / "open" / "empty").mkdir()
    (queue / "waiting" / "empty").mkdir()
    (queue / "waiting" / "file").write_text("x")
    (queue / "open" / ".hidden").mkdir()
    assert index.sweep() == []
    assert index.open == {}
    assert index.waiting == {}


def test_phases_that_are_missing_are_empty(world: World, index: Index) -> None:
    (world.layout.queue / "open").rmdir()
    (world.layout.queue / "waiting").rmdir()
    assert index.sweep() == []


# ---- backoff ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "in_s", "waits_s"),
    [
        (Outcome.FAILED, 30.0, 30.0),
        (Outcome.FAILED, 1e6, 300.0),  # no longer than retry.max_delay_s: a clock may have been wrong
        (Outcome.FAILED, -5.0, 0.0),
        (Outcome.RELEASED, 5 * 3600.0, 5 * 3600.0),  # a limit resets when it resets
        (Outcome.RELEASED, 1e9, 7 * 86400.0),
    ],
)
def test_backoff_is_kept_and_never_trusted_too_far(
    world: World, index: Index, outcome: Outcome, in_s: float, waits_s: float
) -> None:
    uid = world.add(id="a")
    fail(world, uid, outcome, not_before=rfc3339(world.clock.wall() + in_s))
    index.sweep()
    (ready,) = index.ready()
    assert ready.not_before == pytest.approx(world.clock.monotonic() + waits_s, abs=0.01)


def test_a_backoff_that_is_no_moment_delays_nothing_and_ends_nobody(world: World, index: Index) -> None:
    uid = world.add(id="a")
    fail(world, uid, not_before="soon")
    index.sweep()
    (ready,) = index.ready()
    assert ready.not_before <= world.clock.monotonic()
    assert world.disk.do_passed("soon")


def test_a_grant_ends_the_backoff(world: World, index: Index) -> None:
    uid = world.add(id="a", max_attempts=1)
    fail(world, uid, not_before=rfc3339(world.clock.wall() + 99))
    # The time of the file system, so that the index knows that the folder may change twice in one tick of it.
    world.clock.jump(time.time() - world.clock.wall())
    index.sweep()
    assert index.open[uid].standing is Standing.PARKED
    assert "1 of 1 attempts spent" in index.open[uid].reason
    world.retry(uid)
    index.sweep()
    (ready,) = index.ready()
    assert ready.not_before <= world.clock.monotonic()


# ---- waiting ---------------------------------------------------------------------------------------------------------


def test_who_waits_for_an_item_is_known_by_its_uid_and_by_its_id(world: World, index: Index) -> None:
    first = world.add(id="first")
    fixed = world.add(id="fixed", depends_on=["first"])
    early = world.add(id="early", depends_on=["later"])
    later = world.add(id="later", depends_on=["nobody"])
    index.sweep()
    assert index.dependants(first, "first") == {fixed}
    assert index.dependants(later, "later") == {early}
    assert index.dependants("unknown-0000000000", "unknown") == set()


def test_an_item_that_was_promoted_waits_no_more(world: World, index: Index) -> None:
    first = world.add(id="first", commit="none")
    second = world.add(id="second", depends_on=["first"])
    index.sweep()
    world.attempt(first, Outcome.DONE)
    world.finish(first)
    assert world.promote(second) is None
    index.left_waiting(second)
    assert second not in index.waiting
    assert index.open[second].standing is Standing.READY
    assert index.dependants(first, "first") == set()


def test_an_item_that_somebody_else_promoted_is_found_by_the_sweep(world: World, index: Index) -> None:
    second = world.add(id="second", depends_on=["first"])
    index.sweep()
    (world.layout.queue / "waiting" / second).rename(world.layout.queue / "open" / second)
    assert [e.uid for e in index.sweep()] == [second]
    assert index.waiting == {}


def test_the_chain_of_who_waits_counts_from_item_to_item(world: World, index: Index) -> None:
    root = world.add(id="root")
    world.add(id="alone")
    world.add(id="middle", depends_on=["root"])
    world.add(id="leaf", depends_on=["middle"])
    index.sweep()
    assert {r.uid: r.chain for r in index.ready()}[root] == 2
    assert sorted(r.chain for r in index.ready()) == [0, 2]


# ---- asking ----------------------------------------------------------------------------------------------------------


def test_counts_are_those_that_people_see(world: World, index: Index) -> None:
    world.add(id="ready")
    world.claim(world.add(id="claimed"))
    world.submit(world.add(id="merging"))
    world.hold(world.add(id="parked"))
    waiting, blocked = world.add(id="w", depends_on=["x"]), world.add(id="b", depends_on=["y"])
    index.sweep()
    why = world.promote(waiting)
    assert why is not None
    index.why[waiting] = why
    assert index.counts() == {"waiting": 2, "ready": 1, "claimed": 1, "merging": 1, "parked": 1}
    index.why[blocked] = replace(why, blocked=True)
    assert index.counts() == {"waiting": 1, "ready": 1, "claimed": 1, "merging": 1, "parked": 2}


def test_busy_is_what_runs_or_is_being_merged(world: World, index: Index) -> None:
    world.add(id="ready", files=["a"])
    running = world.add(id="running", files=["b"])
    merging = world.add(id="merging", files=["c"])
    world.claim(running)
    world.submit(merging)
    index.sweep()
    assert {b.uid: b.files for b in index.busy()} == {running: ("b",), merging: ("c",)}


def test_entries_say_since_when(world: World, index: Index) -> None:
    uid = world.add(id="a")
    index.sweep()
    since = index.open[uid].since
    world.clock.advance(100)
    os.utime(world.layout.queue / "open" / uid)
    index.sweep()
    entry: Entry = index.open[uid]
    assert entry.since == since
