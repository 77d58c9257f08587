"""From a drop to items: ids, dependencies, batches, rejections, what is there already."""

from __future__ import annotations

import json
import os
import resource

import pytest

from harness.layout import Layout, fan
from harness.model import Item, Outcome
from harness.store import admission, names
from harness.store.admission import Admission
from harness.store.cells import Standing
from harness.store.drops import Context
from harness.store.names import Name, name_path, newest_of
from tests.stores import CONTEXT, DAY, World


def one(world: World, content: object, name: str = "drop.json") -> Admission:
    world.drop(name, content)
    (admitted,) = world.admit_all()
    return admitted


def item(world: World, uid: str) -> Item:
    found = world.layout.queue.glob(f"*/{uid}/item.json")
    return Item.from_record(json.loads(next(found).read_text()))


def over(world: World, uid: str, outcome: Outcome = Outcome.DONE) -> None:
    if outcome is Outcome.CANCELLED:
        world.cancel(uid)
    else:
        world.attempt(uid, outcome)
    world.finish(uid)


# ---- one -----------------------------------------------------------------------------------------------------------


def test_a_drop_becomes_a_ready_item_with_a_hint(world: World) -> None:
    uid = world.add(id="fix", priority="high")
    assert world.standing(uid) is Standing.READY
    assert list(world.disk.hints.find()) == [uid]
    assert world.disk.hints.all()[uid][0][0] == 2


def test_the_snapshot_holds_what_was_decided_at_admission(world: World) -> None:
    uid = world.add(prompt="  Fix it\nplease", agent=["shell", "claude"], max_attempts=7, labels={"a": "b"})
    it = item(world, uid)
    assert (it.uid, it.id, it.title, it.project) == (uid, "item", "Fix it", "app")
    assert (it.agents, it.max_attempts, it.labels) == (("shell", "claude"), 7, {"a": "b"})
    assert it.admitted_at
    assert it.digest


def test_defaults_come_from_the_project(world: World) -> None:
    it = item(world, world.add())
    assert (it.agents, it.max_attempts) == (("claude",), 3)


def test_what_a_person_wrote_stays_with_the_item(world: World) -> None:
    text = '{"prompt":   "do it"}   \n'
    world.drop("mine.json", text)
    world.admit_all()
    (raw,) = world.layout.queue.glob("open/*/raw.mine.json")
    assert raw.read_text() == text


def test_not_before_and_dependencies_wait(world: World) -> None:
    uid = world.add(id="later", not_before="2099-01-01T00:00:00Z")
    assert world.where(uid) == ["waiting"]
    assert list(world.disk.hints.find()) == []


def test_admitting_what_was_never_taken_says_so(world: World) -> None:
    assert world.admit("nobody-x") == Admission(drop="nobody-x")
    (world.layout.queue / "incoming" / "empty-x1").mkdir()
    assert world.admit("empty-x1").empty


# ---- ids -----------------------------------------------------------------------------------------------------------


def test_the_same_content_again_is_the_same_item(world: World) -> None:
    uid = world.add(id="x")
    again = one(world, {"id": "x", "prompt": "do it"})
    assert again.exists == uid
    assert again.items == ()
    assert world.where(again.drop) == ["rejected"]


def test_other_content_under_an_id_in_use_is_rejected_with_the_uid(world: World) -> None:
    uid = world.add(id="x")
    again = one(world, {"id": "x", "prompt": "something else"})
    assert not again.exists
    assert uid in again.rejected[0]
    assert "harnessctl cancel" in again.rejected[0]


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.CANCELLED])
def test_an_id_is_free_when_its_item_is_over(world: World, outcome: Outcome) -> None:
    first = world.add(id="x")
    over(world, first, outcome)
    second = world.add(id="x")
    assert second != first
    assert [json.loads(p.read_text())["uid"] for p in sorted(world.layout.queue.glob("ids/*/*"))] == [
        first,
        second,
    ]


def test_a_default_id_is_suffixed_and_never_rejected(world: World) -> None:
    uids = [one(world, {"prompt": "same"}, "task.json").items[0][0] for _ in range(3)]
    assert [item(world, uid).id for uid in uids] == ["task", "task-2", "task-3"]


def test_a_popular_default_id_ends_in_the_nonce(world: World) -> None:
    for _ in range(names.SUFFIXES):
        one(world, {"prompt": "same"}, "task.json")
    uid = one(world, {"prompt": "same"}, "task.json").items[0][0]
    assert uid.rsplit("-", 1)[1] in item(world, uid).id


def test_the_newest_holder_is_found_among_many(world: World) -> None:
    (world.layout.root / name_path("x", 1)).parent.mkdir()
    for k in range(1, 38):
        (world.layout.root / name_path("x", k)).write_bytes(Name(uid=f"u-{k}").to_bytes())
        holder, number = world.run(newest_of("x"))
        assert holder
        assert (holder.uid, number) == (f"u-{k}", k)


# ---- dependencies ----------------------------------------------------------------------------------------------------


def test_dependencies_are_resolved_once_and_the_newest_wins(world: World) -> None:
    old = world.add(id="dep")
    over(world, old)
    new = world.add(id="dep")
    later = world.add(id="later", depends_on=["dep", "unknown"])
    assert item(world, later).deps == {"dep": new, "unknown": None}


def test_a_holder_that_was_rejected_is_no_dependency(world: World) -> None:
    real = world.add(id="dep")
    over(world, real)
    (world.layout.root / name_path("dep", 2)).write_bytes(Name(uid="never-x", drop="plan-y").to_bytes())
    stub = world.layout.queue / "done" / fan("plan-y") / "plan-y"
    stub.parent.mkdir(exist_ok=True)
    stub.write_text('{"v": 1, "rejected": ["no"]}\n')
    assert item(world, world.add(id="later", depends_on=["dep"])).deps == {"dep": real}


# ---- batches ---------------------------------------------------------------------------------------------------------

PLAN: list[dict[str, object]] = [
    {"id": "schema", "prompt": "1", "priority": 0},
    {"id": "api", "prompt": "2", "depends_on": ["schema"]},
    {"prompt": "3", "depends_on": ["api", "plan-4"]},
    {"prompt": "4"},
]
NAMED = [x for x in PLAN if "id" in x]


def test_a_batch_is_admitted_whole(world: World) -> None:
    admitted = one(world, PLAN, "plan.json")
    assert [(name, phase) for _, name, phase in admitted.items] == [
        ("schema", "open"),
        ("api", "waiting"),
        ("plan-3", "waiting"),
        ("plan-4", "open"),
    ]
    uids = {name: uid for uid, name, _ in admitted.items}
    assert item(world, uids["plan-3"]).deps == {"api": uids["api"], "plan-4": uids["plan-4"]}
    assert list(world.disk.hints.find()) == [uids["schema"], uids["plan-4"]]
    assert sorted(p.name for p in world.layout.queue.glob(f"batches/{DAY}/*/*") if p.is_file()) == [
        "batch",
        "raw.plan.json",
    ]


def test_a_batch_with_one_fault_admits_nothing(world: World) -> None:
    admitted = one(world, [*PLAN, {"prompt": ""}], "plan.json")
    assert len(admitted.rejected) == 1
    assert list(world.layout.queue.glob("*/*/item.json")) == []
    assert list(world.layout.queue.glob("ids/*/*")) == []


def test_a_batch_that_wants_an_id_in_use_admits_nothing(world: World) -> None:
    uid = world.add(id="api", prompt="other")
    admitted = one(world, PLAN, "plan.json")
    assert uid in admitted.rejected[0]
    assert [p.parent.name for p in world.layout.queue.glob("*/*/item.json")] == [uid]
    assert world.add(id="schema")  # nothing was taken for the batch that was rejected


def test_a_batch_that_was_dropped_twice_is_there_once(world: World) -> None:
    first = one(world, NAMED, "plan.json")
    second = one(world, NAMED, "plan.json")
    assert len(first.items) == 2
    assert second.items == ()
    assert second.rejected == ()
    (cell,) = [p for p in world.layout.queue.glob("batches/*/*/batch") if second.drop in str(p)]
    assert json.loads(cell.read_text())["present"] == {name: uid for uid, name, _ in first.items}


def test_a_batch_with_what_is_there_already_adds_the_rest(world: World) -> None:
    uid = world.add(id="schema", prompt="1", priority=0)
    admitted = one(world, PLAN, "plan.json")
    assert len(admitted.items) == 3
    assert item(world, admitted.items[0][0]).deps == {"schema": uid}


def test_default_ids_of_a_batch_avoid_those_that_it_names(world: World) -> None:
    admitted = one(world, [{"prompt": "a"}, {"prompt": "b", "id": "plan-1"}], "plan.json")
    assert [name for _, name, _ in admitted.items] == ["plan-1-2", "plan-1"]


def test_a_batch_of_thousands_needs_few_descriptors(layout: Layout) -> None:
    """With fsync, each private file was kept open until the batch was linked."""
    world = World(layout, durable=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(os.listdir("/proc/self/fd")) + 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        admitted = one(world, [{"prompt": str(k)} for k in range(200)], "plan.json")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        world.close()
    assert len(admitted.items) == 200


# ---- rejections ------------------------------------------------------------------------------------------------------


def test_a_rejection_keeps_the_drop_and_says_why(world: World) -> None:
    admitted = one(world, {"promt": "x", "priority": 77}, "bad.json")
    place = world.layout.queue / "rejected" / admitted.drop
    assert sorted(p.name for p in place.iterdir()) == ["item.json", "raw.bad.json", "why.json"]
    why = json.loads((place / "why.json").read_text())
    assert why["rejected"] == list(admitted.rejected)
    assert why["drop"] == "bad.json"
    assert len(why["rejected"]) == 3
    stub = world.stub(admitted.drop)
    assert stub
    assert stub.outcome == "rejected"


def test_two_admitters_with_different_opinions_decide_once(world: World) -> None:
    """The project was removed from the configuration in between: valid for one, invalid for the other."""
    world.drop("a.json", {"prompt": "x", "project": "app"})
    (home,) = world.take()
    yes = world.proc(admission.admit(world.actor("old"), home, world.context, DAY)).before(
        "link", "item.json"
    )
    world.context = Context(projects={"web": ("claude",)}, agents=("claude",))
    refused = world.admit(home)
    assert "there is no project 'app'" in refused.rejected[0]
    assert yes.go().items == ()
    assert world.where(home) == ["rejected"]
    world.context = Context(projects={"app": ("claude",)}, agents=("claude",))
    assert world.add(id="a")  # the id that the other had taken is free


def test_a_rejected_batch_frees_the_ids_it_had_taken(world: World) -> None:
    """An admitter dies after it took ids; the next finds the drop invalid."""
    world.drop("plan.json", [{**x, "project": "app"} for x in NAMED])
    (home,) = world.take()
    world.proc(admission.admit(world.actor("old"), home, world.context, DAY)).before("link", "/batch").kill()
    assert len(list(world.layout.queue.glob("ids/*/*"))) == 2
    world.context = Context(projects={"web": ("claude",)}, agents=("claude",))
    assert world.admit(home).rejected
    world.context = CONTEXT
    for name in ("schema", "api"):
        assert item(world, world.add(id=name)).id == name
