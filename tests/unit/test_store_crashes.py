"""kill -9 before every single operation of every transition; then a new coordinator, and the store must be whole.

The same code recovers that runs every day: nothing here knows where the process was killed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.layout import Layout
from harness.model import Item, Outcome
from harness.store import admission, attempts, lane, operators, promotion
from harness.store.attempts import Claimed
from harness.store.cells import Standing
from harness.store.fsck import check
from harness.store.ops import Step
from tests.stores import DAY, World, end_record, killed_everywhere
from tests.support import make_root

Prepare = Callable[[World], Any]
PLAN = [{"id": "one", "prompt": "1"}, {"id": "two", "prompt": "2", "depends_on": ["one"]}, {"prompt": "3"}]


def whole(world: World) -> None:
    """Everything that a crash left is completed, and no invariant is broken, at once and after the recovery."""
    assert [str(v) for v in check(world.disk) if not v.harmless] == []
    world.recover()
    world.recover()
    assert [str(v) for v in check(world.disk) if v.invariant not in ("hint", "tmp")] == []
    assert [home for home in world.incoming() if world.disk.do_ls(f"queue/incoming/{home}")] == []


def everywhere(
    tmp_path: Path, prepare: Prepare, step: Callable[[World], Step[Any]], then: Callable[[World], None]
) -> int:
    serial = iter(range(1000))

    def make() -> World:
        world = World(Layout(make_root(tmp_path / str(next(serial))).root))
        prepare(world)
        return world

    return killed_everywhere(make, step, then)


def only_uid(world: World) -> str:
    (uid,) = {p.parent.name for p in world.layout.queue.glob("*/*/item.json")} | {
        p.parent.name for p in world.layout.queue.glob("archive/*/*/item.json")
    }
    return uid


def test_taking_a_drop_survives_a_kill_at_every_operation(tmp_path: Path) -> None:
    def then(world: World) -> None:
        whole(world)
        assert sorted(p.name for p in world.layout.queue.glob("open/*/raw.*")) == ["raw.a.json", "raw.b.json"]

    def prepare(world: World) -> None:
        world.drop("a.json")
        world.drop("b.json")

    assert everywhere(tmp_path, prepare, lambda _: admission.take(), then) > 8


def test_admitting_one_survives_a_kill_at_every_operation(tmp_path: Path) -> None:
    def then(world: World) -> None:
        whole(world)
        uid = only_uid(world)
        assert world.where(uid) == ["open"]
        assert world.cells(uid)["item.json"]["id"] == "x"

    def prepare(world: World) -> None:
        world.drop("a.json", {"id": "x", "prompt": "do"})
        world.take()

    def step(world: World) -> Step[Any]:
        return admission.admit(world.actor("c"), world.incoming()[0], world.context, DAY)

    assert everywhere(tmp_path, prepare, step, then) > 15


def test_admitting_under_a_default_id_keeps_its_id_after_a_kill(tmp_path: Path) -> None:
    def then(world: World) -> None:
        whole(world)
        assert world.cells(only_uid(world))["item.json"]["id"] == "a"

    def prepare(world: World) -> None:
        world.drop("a.json")
        world.take()

    def step(world: World) -> Step[Any]:
        return admission.admit(world.actor("c"), world.incoming()[0], world.context, DAY)

    everywhere(tmp_path, prepare, step, then)


@pytest.mark.parametrize(
    "content", [{"prompt": ""}, {"id": "x", "prompt": "other"}, {"id": "x", "prompt": "do it"}]
)
def test_rejecting_survives_a_kill_at_every_operation(tmp_path: Path, content: object) -> None:
    def then(world: World) -> None:
        whole(world)
        assert len(list(world.layout.queue.glob("rejected/*/why.json"))) == 1
        assert len(list(world.layout.queue.glob("open/*"))) == 1

    def prepare(world: World) -> None:
        world.add(id="x")
        world.drop("b.json", content)
        for _ in range(2):
            world.take()
            world.clock.advance(10)

    def step(world: World) -> Step[Any]:
        return admission.admit(world.actor("c"), world.incoming()[0], world.context, DAY)

    assert everywhere(tmp_path, prepare, step, then) > 10


def test_admitting_a_batch_survives_a_kill_at_every_operation(tmp_path: Path) -> None:
    def then(world: World) -> None:
        whole(world)
        items = [p.parent.name for p in world.layout.queue.glob("[ow]*/*/item.json")]
        assert len(items) == 3
        found = [
            world.disk.do_read(f"queue/{p}/{u}/item.json", Item) for p in ("open", "waiting") for u in items
        ]
        assert {x.id for x in found if isinstance(x, Item)} == {"one", "two", "plan-3"}
        assert [world.where(uid) for uid in items] == [["open"]] * 2 + [["waiting"]]

    def prepare(world: World) -> None:
        world.drop("plan.json", PLAN)
        world.take()

    def step(world: World) -> Step[Any]:
        return admission.admit(world.actor("c"), world.incoming()[0], world.context, DAY)

    assert everywhere(tmp_path, prepare, step, then) > 40


@pytest.mark.parametrize(
    ("outcome", "sha"), [(Outcome.DONE, None), (Outcome.DONE, "s"), (Outcome.FAILED, None)]
)
def test_an_attempt_survives_a_kill_at_every_operation(
    tmp_path: Path, outcome: Outcome, sha: str | None
) -> None:
    def step(world: World) -> Step[Any]:
        uid = only_uid(world)
        owned = yield from attempts.claim(world.actor("agent-1"), uid)
        assert isinstance(owned, Claimed)
        yield from attempts.end(world.actor("agent-1"), owned, end_record(1, outcome, sha))
        yield from attempts.finish(uid)

    def then(world: World) -> None:
        whole(world)
        uid = only_uid(world)
        cells = world.cells(uid)
        if "1.claim" not in cells:
            assert world.standing(uid) is Standing.READY
        elif cells["1.end"]["outcome"] == "done":
            assert world.where(uid) == ["archive"]
            assert ("1.verdict" in cells) == (sha is not None)
        else:
            assert cells["1.end"]["outcome"] in ("failed", "expired")
            assert world.standing(uid) is Standing.READY

    assert everywhere(tmp_path, lambda w: w.add(id="a"), step, then) > 18


def test_promotion_survives_a_kill_at_every_operation(tmp_path: Path) -> None:
    def prepare(world: World) -> None:
        dep = world.add(id="dep")
        world.add(id="later", depends_on=["dep"])
        world.attempt(dep, Outcome.DONE)
        world.finish(dep)

    def step(world: World) -> Step[Any]:
        (uid,) = world.disk.do_ls("queue/waiting") or ()
        item = world.disk.do_read(f"queue/waiting/{uid}/item.json", Item)
        assert isinstance(item, Item)
        return promotion.promote(item)

    def then(world: World) -> None:
        whole(world)
        (uid,) = world.disk.do_ls("queue/open") or ()
        assert world.standing(uid) is Standing.READY

    assert everywhere(tmp_path, prepare, step, then) > 4


@pytest.mark.parametrize("state", ["ready", "running", "held", "submitted", "waiting"])
def test_a_cancel_that_was_begun_is_completed_or_never_was(tmp_path: Path, state: str) -> None:
    def prepare(world: World) -> None:
        uid = world.add(id="a", **({"not_before": "2099-01-01T00:00:00Z"} if state == "waiting" else {}))
        match state:
            case "running":
                world.claim(uid)
            case "held":
                world.hold(uid)
            case "submitted":
                world.submit(uid)
            case _:
                pass

    def step(world: World) -> Step[Any]:
        return operators.cancel(world.actor("cli"), only_uid(world), "me", "", world.judging())

    def then(world: World) -> None:
        uid = only_uid(world)
        if state == "running" and "1.end" not in world.cells(uid) and "waiting" not in world.where(uid):
            return  # the owner lives, in this test process; nothing was begun
        decided = {
            n: c for n, c in world.cells(uid).items() if n in ("0.end", "1.claim", "2.claim", "1.verdict")
        }
        begun = any(c.get("act") == "cancel" or c.get("outcome") == "cancelled" for c in decided.values())
        whole(world)
        stub = world.stub(uid)
        if begun:
            assert stub
            assert stub.outcome == "cancelled"
        if state == "submitted":
            assert stub
            assert stub.outcome in ("merged", "cancelled")
            on_target = any(u == uid for u, _, _ in world.hub.history)
            assert on_target == (stub.outcome == "merged")

    assert everywhere(tmp_path, prepare, step, then) > 8


def test_a_hold_that_was_begun_is_completed_or_never_was(tmp_path: Path) -> None:
    def then(world: World) -> None:
        begun = "1.claim" in world.cells(only_uid(world))
        whole(world)
        assert world.standing(only_uid(world)) is (Standing.PARKED if begun else Standing.READY)

    def step(world: World) -> Step[Any]:
        return operators.hold(world.actor("cli"), only_uid(world), "me", "")

    everywhere(tmp_path, lambda w: w.add(id="a"), step, then)


@pytest.mark.parametrize("red", [False, True])
def test_judging_survives_a_kill_at_every_operation(tmp_path: Path, red: bool) -> None:
    def prepare(world: World) -> None:
        uid = world.add(id="a")
        world.submit(uid)
        if red:
            world.hub.red.add((uid, 1))

    def step(world: World) -> Step[Any]:
        return lane.judge(world.actor("merger"), "app", only_uid(world), 1)

    def then(world: World) -> None:
        whole(world)
        uid = only_uid(world)
        verdict = world.cells(uid)["1.verdict"]
        assert ("returned" in verdict) == red
        assert [m for u, _, m in world.hub.history if u == uid] == ([] if red else [verdict["merged"]])

    assert everywhere(tmp_path, prepare, step, then) > 10


def test_expiry_and_finishing_survive_a_kill_at_every_operation(tmp_path: Path) -> None:
    def prepare(world: World) -> None:
        uid = world.add(id="a", max_attempts=1)
        dying = world.proc(attempts.claim(world.actor("agent-1"), uid))
        dying.go()
        dying.kill()

    def step(world: World) -> Step[Any]:
        uid = only_uid(world)
        yield from attempts.expire(world.actor("m"), uid, 1)
        yield from operators.cancel(world.actor("cli"), uid, "me", "", world.judging())
        yield from attempts.finish(uid)

    def then(world: World) -> None:
        whole(world)
        uid = only_uid(world)
        assert world.cells(uid)["1.end"]["outcome"] in ("expired", "cancelled")
        assert world.where(uid) == ["archive"] or world.standing(uid) is Standing.PARKED

    assert everywhere(tmp_path, prepare, step, then) > 20
