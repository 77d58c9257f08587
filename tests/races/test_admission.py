"""Races of PROTOCOL section 13 from the drop box to open/, and the one about hints."""

from __future__ import annotations

import json
import os

import pytest

from harness.model import Outcome
from harness.store import admission, attempts
from harness.store.admission import Admission
from harness.store.attempts import Claimed
from harness.store.cells import Look, Standing
from harness.store.ops import Op
from harness.store.setup import lease_works
from tests.stores import DAY, Proc, World, end_record

BATCH = [{"id": "one", "prompt": "first"}, {"id": "two", "prompt": "second", "depends_on": ["one"]}]


def admitting(world: World, home: str, name: str = "coordinator") -> Proc[Admission]:
    return world.proc(admission.admit(world.actor(name), home, world.context, DAY))


def items_of(world: World) -> list[str]:
    """uids of everything in waiting/, open/ and archive/."""
    queue = world.layout.queue
    return sorted(
        p.parent.name
        for phase in ("waiting/*", "open/*", "archive/*/*")
        for p in queue.glob(f"{phase}/item.json")
    )


def test_r11_a_drop_that_is_opened_again_before_it_is_taken_waits_for_its_writer(world: World) -> None:
    """R11: writer has the drop open, between quiet and rename: not admitted before it closes."""
    if not lease_works(world.layout):
        pytest.skip("this file system has no leases")
    path = world.drop("a.json", {"prompt": "old"})
    taking = world.proc(admission.take()).before("rename")
    with path.open("r+") as writer:
        ((home, _),) = taking.go()
        assert admitting(world, home).go().pending
        writer.truncate()
        writer.write(json.dumps({"prompt": "new"}))
        writer.flush()
        assert admitting(world, home).go().pending
    assert admitting(world, home).go().items
    assert world.cells(home)["item.json"]["prompt"] == "new"


def test_r11_a_drop_that_is_open_for_writing_is_not_taken(world: World) -> None:
    """R11, before quiet: a whole file that somebody may still write is left alone."""
    if not lease_works(world.layout):
        pytest.skip("this file system has no leases")
    path = world.drop("a.json", {"prompt": "old"})
    with path.open("r+"):
        assert world.take() == []
        assert world.box.pending == 1
    assert len(world.take()) == 1


def test_r11_an_edit_after_admission_does_not_reach_the_item(world: World) -> None:
    """R11, after it: the item is a snapshot in an inode of our own."""
    uid = world.add(id="a", prompt="old")
    (raw,) = (world.layout.queue / "open" / uid).glob("raw.*")
    raw.write_text(json.dumps({"prompt": "new"}))
    assert world.claim(uid).item.prompt == "old"


def test_r12_two_admitters_make_one_item(world: World) -> None:
    """R12: two admitters, between PUBLISH item.json and rename: one rename; one item."""
    world.drop("a.json")
    (home,) = world.take()
    first = admitting(world, home, "one").before("rename", f"open/{home}")
    second = admitting(world, home, "two").go()
    assert [uid for uid, _, _ in second.items] == [home]
    assert first.go().items == ()
    assert items_of(world) == [home]


@pytest.mark.parametrize("operation", ["mkdir", "syncfs", "link", "fsync_dir"])
def test_r13_a_batch_that_another_completed_is_built_for_nothing(world: World, operation: str) -> None:
    """R13: two admitters of a batch, A between "no batch cell" and its own, B completes and the items run: A's tree is garbage; no item twice."""
    world.drop("plan.json", BATCH)
    (home,) = world.take()
    stalled = admitting(world, home, "a").before(operation)
    placed = admitting(world, home, "b").go().items
    uids = [uid for uid, _, _ in placed]
    assert len(uids) == 2
    world.attempt(uids[0], Outcome.DONE)
    world.finish(uids[0])
    world.promote(uids[1])
    running = world.claim(uids[1])
    assert stalled.go().items == ()
    world.end(running, Outcome.DONE)
    assert items_of(world) == sorted(uids)
    assert [world.where(uid) for uid in uids] == [["archive"], ["open"]]


def test_r14_a_batch_whose_admitter_died_between_two_moves_is_completed_by_another(world: World) -> None:
    """R14: admitter killed between two moves of a batch: another completes it."""
    world.drop("plan.json", BATCH)
    (home,) = world.take()
    dying = admitting(world, home).before("rename", times=2)
    assert len(items_of(world)) == 1
    dying.kill()
    world.recover()
    assert len(items_of(world)) == 2
    assert world.incoming() == []
    assert [p.name for p in world.layout.queue.glob("batches/*/*")] == [home]


def test_r15_a_batch_goes_to_batches_only_after_its_moves_are_durable(world: World) -> None:
    """R15: admitter between the last move and the rename to batches/, power loss: no item inside batches/."""
    world.drop("plan.json", BATCH)
    (home,) = world.take()
    process = admitting(world, home)
    process.go()
    moves = [k for k, op in enumerate(process.log) if op[0] == "rename"]
    *items, away = moves
    assert process.log[away][2] == f"queue/batches/{DAY}/{home}"
    synced = {op[1] for op in process.log[items[-1] : away] if op[0] == "fsync_dir"}
    tree = process.log[items[0]][1].rsplit("/", 1)[0]
    assert {"queue/open", "queue/waiting", tree} <= synced
    assert ("ensure_dir", f"queue/batches/{DAY}") in process.log[items[-1] : away]
    assert not list(world.layout.queue.glob(f"batches/*/{home}/b.*/*"))


def same_id(world: World, *contents: object) -> list[str]:
    for k, content in enumerate(contents):
        world.drop(f"{k}.json", content)
    return sorted(world.take())


@pytest.mark.parametrize("other", ["do it", "do something else"])
def test_r37_of_two_drops_with_one_id_one_becomes_an_item(world: World, other: str) -> None:
    """R37: two drops with the same explicit id, both before their id cell: one item; the other exists or is rejected with the uid."""
    homes = same_id(world, {"id": "x", "prompt": "do it"}, {"id": "x", "prompt": other})
    first = admitting(world, homes[0], "one").before("link", ".1")
    second = admitting(world, homes[1], "two").before("link", ".1")
    assert [uid for uid, _, _ in second.go().items] == [homes[1]]
    lost = first.go()
    assert lost.items == ()
    assert homes[1] in lost.rejected[0]
    assert lost.exists == (homes[1] if other == "do it" else "")
    assert items_of(world) == [homes[1]]
    assert world.where(homes[0]) == ["rejected"]


def test_r37_two_batches_that_want_one_id_are_decided_whole(world: World) -> None:
    """R37 for batches: the one that loses an id is rejected as a whole, and what it had taken is free again."""
    plan_a = [{"id": "a-only", "prompt": "1"}, {"id": "both", "prompt": "2"}]
    plan_b = [{"id": "both", "prompt": "3"}, {"id": "b-only", "prompt": "4"}]
    homes = same_id(world, plan_a, plan_b)
    loser = admitting(world, homes[0], "one").before("link", times=2)  # it has a-only already, not yet both
    assert len(admitting(world, homes[1], "two").go().items) == 2
    lost = loser.go()
    assert lost.items == ()
    assert "'both' is in use" in lost.rejected[0]
    assert len(items_of(world)) == 2
    world.drop("again.json", {"id": "a-only", "prompt": "other words"})
    (admitted,) = world.admit_all()
    assert [name for _, name, _ in admitted.items] == ["a-only"]


# ---- R33 -----------------------------------------------------------------------------------------------------------


def test_r33_a_hint_that_is_removed_just_after_it_was_made_anew_is_made_again_by_the_sweep(
    world: World,
) -> None:
    """R33: hint removed just after it was made anew: the sweep repairs."""
    uid = world.add(id="a")
    proc = world.proc(attempts.claim(world.actor("agent-1"), uid)).before("unhint")
    owned = world.disk.run(attempts.decided(_claimed(world, uid)))
    assert owned is None
    world.disk.hints.add(uid, 5)
    proc.disk.hints.remember(uid, world.disk.hints.all()[uid][-1][1])
    assert isinstance(proc.go(), Claimed)  # it removes the newest hint, which another process made
    world.run(attempts.end(world.me, _claimed(world, uid), end_record(1, Outcome.FAILED)))
    assert world.standing(uid) is Standing.READY
    world.disk.hints.add(uid, 5)
    assert uid in list(world.disk.hints.find())


@pytest.mark.parametrize("state", ["running", "parked", "archived"])
def test_r33_a_hint_for_an_item_that_cannot_run_starts_nothing(world: World, state: str) -> None:
    """R33: hint for a running, parked, archived item: nothing runs twice."""
    uid = world.add(id="a")
    match state:
        case "running":
            world.claim(uid)
        case "parked":
            world.hold(uid)
        case _:
            world.attempt(uid, Outcome.DONE)
            world.finish(uid)
    before = world.cells(uid)
    world.disk.hints.add(uid, 5)
    assert uid in list(world.disk.hints.find())
    assert isinstance(world.run(attempts.claim(world.actor("agent-2"), uid)), Look)
    assert world.cells(uid) == before


def _claimed(world: World, uid: str) -> Claimed:
    item = world.look(uid).item
    assert item
    return Claimed(uid=uid, n=1, item=item, attempts=(), ticket="", branch="")


def test_a_drop_is_durable_in_its_new_home_before_it_leaves_the_drop_box(world: World) -> None:
    """PROTOCOL section 5, rule 1 (M16): incoming/ is fsynced between mkdir and rename."""
    world.drop("a.json")
    process = world.proc(admission.take())
    process.go()
    names: list[Op] = [op for op in process.log if op[0] in ("mkdir", "fsync_dir", "rename")]
    assert [op[0] for op in names][:3] == ["mkdir", "fsync_dir", "rename"]
    assert names[1][1] == "queue/incoming"
    assert [op[1] for op in names[3:]] == [names[0][1], "queue/incoming", "queue"]
    assert os.listdir(world.layout.queue / "incoming")
