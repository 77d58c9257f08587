"""fsck: one planted violation of every invariant that shows on the tree; what it repairs and what it leaves to people."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import NotFoundError
from harness.model import Act, Claim, End, Grant, Identity, Outcome, Record, Verdict
from harness.store import admission, attempts, operators
from harness.store.cells import Standing, stub_path
from harness.store.fsck import check, nobody
from harness.store.repair import repair
from harness.store.violations import Hubs, Repair, Violation
from tests.stores import DAY, World, end_record

ME = Identity(incarnation="agent-1.1.x", name="agent-1")


def serious(world: World, hubs: Hubs | None = None) -> list[Violation]:
    return [v for v in check(world.disk, hubs=hubs) if not v.harmless]


def found(world: World, alive: Callable[[str], bool] = nobody) -> list[Violation]:
    """Everything but hints, which are not the point."""
    return [v for v in check(world.disk, alive=alive) if v.invariant != "hint"]


def only(world: World, hubs: Hubs | None = None) -> Violation:
    violations = serious(world, hubs)
    assert len(violations) == 1, [str(v) for v in violations]
    return violations[0]


def home(world: World, uid: str) -> Path:
    return next(p for p in world.layout.queue.glob(f"**/{uid}") if p.is_dir())


def put(folder: Path, name: str, record: Record) -> None:
    (folder / name).write_bytes(record.to_bytes())


def claim_of(n: int, act: Act = Act.RUN) -> Claim:
    return Claim(n=n, act=act, owner=ME)


def busy_world(world: World) -> dict[str, str]:
    """One item in every state there is."""
    uids = {
        x: world.add(id=x, max_attempts=2) for x in ("done", "merged", "held", "spent", "failed", "cancelled")
    }
    uids["ready"] = world.add(id="ready")
    uids["waiting"] = world.add(id="waiting", depends_on=["ready"])
    uids["free"] = world.add(id="free", depends_on=["ready"])
    world.retry(uids["free"])
    world.promote(uids["free"])
    world.attempt(uids["done"], Outcome.DONE)
    world.finish(uids["done"])
    world.judge(uids["merged"], world.submit(uids["merged"]))
    world.finish(uids["merged"])
    world.hold(uids["held"])
    world.attempt(uids["spent"], Outcome.FAILED)
    world.attempt(uids["spent"], Outcome.FAILED)
    world.attempt(uids["failed"], Outcome.FAILED)
    world.cancel(uids["cancelled"])
    world.finish(uids["cancelled"])
    uids["running"] = world.add(id="running")
    world.claim(uids["running"])
    world.drop("plan.json", [{"prompt": "1"}, {"prompt": "2", "depends_on": ["plan-1"]}])
    world.drop("bad.json", {"prompt": ""})
    world.admit_all()
    return uids


def test_a_healthy_store_has_no_violation(world: World) -> None:
    busy_world(world)
    assert serious(world) == []


def test_nothing_is_left_to_do_after_a_repair_of_a_healthy_store(world: World) -> None:
    busy_world(world)
    assert [v.invariant for v in repair(world.disk, world.me).left] == []
    assert check(world.disk) == []


# ---- I1 ------------------------------------------------------------------------------------------------------------


def test_i1_an_item_in_two_places_is_found(world: World) -> None:
    uid = world.add(id="a")
    other = world.layout.queue / "waiting" / uid
    other.mkdir()
    (other / "item.json").write_bytes((home(world, uid) / "item.json").read_bytes())
    violation = only(world)
    assert violation.invariant == "I1"
    assert violation.repair is None


def test_i1_an_item_that_vanished_from_the_archive_is_found(world: World) -> None:
    uids = [world.add(id=x) for x in ("a", "b")]
    for uid in uids:
        world.attempt(uid, Outcome.DONE)
        world.finish(uid)
    home(world, uids[0]).rename(world.layout.root / "away")
    assert only(world).invariant == "I1"
    assert only(world).path == stub_path(uids[0])


def test_a_day_that_was_rolled_up_is_not_missed(world: World) -> None:
    uid = world.add(id="a")
    world.attempt(uid, Outcome.DONE)
    world.finish(uid)
    (world.layout.queue / "archive" / DAY).rename(world.layout.root / "away")
    assert serious(world) == []


# ---- I2, I5, I11, I13: cells that cannot be together -----------------------------------------------------------------


def failed(n: int) -> End:
    return end_record(n, Outcome.FAILED)


Plant = Callable[[Path], None]


def plant(*cells: tuple[str, Record]) -> Plant:
    def into(folder: Path) -> None:
        for name, record in cells:
            put(folder, name, record)

    return into


IMPOSSIBLE = {
    "I2 a hole in the claims": ("I2", plant(("2.claim", claim_of(2)))),
    "I2 an end without a claim": ("I2", plant(("1.end", failed(1)))),
    "I2 two open attempts": ("I2", plant(("1.claim", claim_of(1)), ("2.claim", claim_of(2)))),
    "I5 a claim after done": (
        "I5",
        plant(("1.claim", claim_of(1)), ("1.end", end_record(1, Outcome.DONE)), ("2.claim", claim_of(2))),
    ),
    "I5 two terminal cells": (
        "I5",
        plant(
            ("1.claim", claim_of(1)),
            ("1.end", end_record(1, Outcome.DONE)),
            ("2.claim", claim_of(2)),
            ("2.end", end_record(2, Outcome.CANCELLED)),
        ),
    ),
    "I5 a claim after it was cancelled while it waited": (
        "I5",
        plant(("0.end", end_record(0, Outcome.CANCELLED)), ("1.claim", claim_of(1))),
    ),
    "I11 a verdict of a failed attempt": (
        "I11",
        plant(("1.claim", claim_of(1)), ("1.end", failed(1)), ("1.verdict", Verdict(n=1, merged="abc"))),
    ),
    "I11 a grant of a running attempt": (
        "I11",
        plant(("1.claim", claim_of(1)), ("1.grant", Grant(n=1, extra=1, by="me"))),
    ),
    "I11 a claim while a result is being judged": (
        "I11",
        plant(
            ("1.claim", claim_of(1)), ("1.end", end_record(1, Outcome.DONE, "abc")), ("2.claim", claim_of(2))
        ),
    ),
    "I13 a run after a hold": (
        "I13",
        plant(
            ("1.claim", claim_of(1, Act.HOLD)),
            ("1.end", end_record(1, Outcome.HELD)),
            ("2.claim", claim_of(2)),
        ),
    ),
    "I13 a run when all attempts are spent": (
        "I13",
        plant(
            ("1.claim", claim_of(1)),
            ("1.end", failed(1)),
            ("2.claim", claim_of(2)),
            ("2.end", failed(2)),
            ("3.claim", claim_of(3)),
        ),
    ),
    "I13 a hold that was overruled": (
        "I13",
        plant(("1.claim", claim_of(1, Act.HOLD)), ("1.end", end_record(1, Outcome.RELEASED))),
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_cells_that_cannot_be_together_are_found_and_left_to_a_person(world: World, name: str) -> None:
    invariant, into = IMPOSSIBLE[name]
    uid = world.add(id="a", max_attempts=2)
    into(home(world, uid))
    violations = serious(world)
    assert invariant in {v.invariant for v in violations}
    assert all(v.repair is None for v in violations)
    assert all(uid in v.path for v in violations)


# ---- I3, I4 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b'{"v": 1, "uid": "a', b"\0" * 100, b'{"v": 99}', b"[]", b"{}"])
def test_i3_a_torn_or_foreign_snapshot_is_found(world: World, content: bytes) -> None:
    uid = world.add(id="a")
    (home(world, uid) / "item.json").write_bytes(content)
    assert only(world).invariant == "I3"


def test_i3_a_missing_snapshot_is_found(world: World) -> None:
    uid = world.add(id="a")
    (home(world, uid) / "item.json").unlink()
    assert only(world).invariant == "I3"


def test_i3_a_snapshot_of_another_item_is_found(world: World) -> None:
    a, b = world.add(id="a"), world.add(id="b")
    (home(world, a) / "item.json").write_bytes((home(world, b) / "item.json").read_bytes())
    assert only(world).what == f"says that it is {b}"


@pytest.mark.parametrize("content", [b"", b"{", b'{"v": 2}', b'{"v": 1, "n": 1}'])
@pytest.mark.parametrize("name", ["1.claim", "1.end"])
def test_i4_a_torn_cell_is_found(world: World, name: str, content: bytes) -> None:
    uid = world.add(id="a")
    world.attempt(uid, Outcome.FAILED)
    (home(world, uid) / name).write_bytes(content)
    violation = only(world)
    assert (violation.invariant, violation.path) == ("I4", f"queue/open/{uid}/{name}")


def test_i4_a_cell_that_is_a_symbolic_link_is_found(world: World) -> None:
    uid = world.add(id="a")
    world.claim(uid)
    (home(world, uid) / "1.end").symlink_to("1.claim")
    assert "I4" in {v.invariant for v in serious(world)}


def test_i4_a_cell_of_another_number_is_found(world: World) -> None:
    uid = world.add(id="a")
    world.claim(uid)
    put(home(world, uid), "1.end", failed(7))
    assert only(world).what == "says that it is of attempt 7"


# ---- I6 ------------------------------------------------------------------------------------------------------------


def archived(world: World) -> str:
    uid = world.add(id="a")
    world.attempt(uid, Outcome.DONE)
    world.finish(uid)
    return uid


def test_i6_an_archived_item_that_is_not_over_is_found(world: World) -> None:
    uid = world.add(id="a")
    (world.layout.queue / "archive" / DAY).mkdir()
    home(world, uid).rename(world.layout.queue / "archive" / DAY / uid)
    assert only(world).what == "is archived without a terminal cell"


def test_i6_a_missing_stub_is_written_again_from_the_archive(world: World) -> None:
    uid = archived(world)
    before = (world.layout.root / stub_path(uid)).read_bytes()
    (world.layout.root / stub_path(uid)).unlink()
    assert only(world).repair is Repair.STUB
    assert repair(world.disk, world.me).left == ()
    assert (world.layout.root / stub_path(uid)).read_bytes() == before


@pytest.mark.parametrize(
    "change", [{"outcome": "cancelled"}, {"n": 3}, {"sha": "abc"}, {"ended_at": "2020-01-01T00:00:00Z"}]
)
def test_i6_a_stub_that_says_something_else_than_the_cells_is_found(
    world: World, change: dict[str, object]
) -> None:
    uid = archived(world)
    path = world.layout.root / stub_path(uid)
    said = json.loads(path.read_text())
    path.unlink()  # else the cell itself would say it
    path.write_text(json.dumps(said | change))
    assert only(world).invariant == "I6"


def test_i6_a_stub_of_an_item_that_is_not_over_is_found(world: World) -> None:
    uid = world.add(id="a")
    path = world.layout.root / stub_path(uid)
    path.parent.mkdir()
    path.write_bytes(End(n=1, outcome=Outcome.DONE, by="me").to_bytes())
    assert only(world).invariant == "I6"


# ---- I12, I18 ------------------------------------------------------------------------------------------------------


def git(world: World, lost: str = "") -> Hubs:
    return Hubs(
        missing=lambda project, shas: shas & {lost},
        merged=lambda project, uid, n, sha: world.hub.merged_as(world.hub.target(), uid, n, sha),
    )


def judged(world: World, red: bool = False) -> str:
    uid = world.add(id="a")
    n = world.submit(uid)
    if red:
        world.hub.red.add((uid, n))
    world.judge(uid, n)
    return uid


@pytest.mark.parametrize("red", [False, True])
def test_what_the_target_holds_agrees_with_the_verdicts_of_a_healthy_store(world: World, red: bool) -> None:
    judged(world, red)
    assert serious(world, git(world)) == []


def test_i12_a_merged_verdict_that_the_target_does_not_hold_is_found(world: World) -> None:
    judged(world)
    world.hub.history = ()
    assert only(world, git(world)).invariant == "I12"


def test_i12_a_returned_result_that_the_target_holds_is_found(world: World) -> None:
    uid = judged(world, red=True)
    world.hub.history = ((uid, 1, "m"),)
    assert only(world, git(world)).invariant == "I12"


@pytest.mark.parametrize("cell", ["1.end", "1.verdict"])
def test_i18_a_commit_that_cannot_be_read_is_found(world: World, cell: str) -> None:
    uid = judged(world)
    lost = f"sha-{uid}" if cell == "1.end" else world.hub.target()
    violation = only(world, git(world, lost))
    assert violation.invariant == "I18"
    assert violation.path.endswith(cell)


def test_i18_results_of_an_item_that_is_over_may_be_given_up_unless_they_were_merged(world: World) -> None:
    """`hub.history.retire` removes their pins, and a later `git gc` the commits."""
    cancelled, merged, returned = (world.add(id=name) for name in "abc")
    for uid in (cancelled, merged, returned):
        world.submit(uid)
    world.hub.red.add((returned, 1))
    for uid in (merged, returned):
        world.judge(uid, 1)
    for uid in (cancelled, returned):
        world.cancel(uid)
    given_up = {f"sha-{cancelled}", f"sha-{returned}"}
    hubs = replace(git(world), missing=lambda project, shas: shas & given_up)
    assert [v.invariant for v in serious(world, hubs)] == ["I18", "I18"]  # not over yet
    for uid in (cancelled, merged, returned):
        assert world.finish(uid)
    assert serious(world, hubs) == []
    assert only(world, git(world, f"sha-{merged}")).invariant == "I18"


def test_a_project_whose_hub_cannot_be_asked_is_said_once(world: World) -> None:
    for name in ("a", "b"):
        world.submit(world.add(id=name))

    def refuse(project: str, shas: frozenset[str]) -> frozenset[str]:
        raise NotFoundError(f"there is no project {project!r}")

    violation = only(world, Hubs(missing=refuse, merged=lambda *_: None))
    assert (violation.invariant, violation.path) == ("hub", "state/repos/app.git")


# ---- I16 -----------------------------------------------------------------------------------------------------------


def batch(world: World) -> list[str]:
    world.drop("plan.json", [{"prompt": "1"}, {"prompt": "2"}])
    (admitted,) = world.admit_all()
    return [uid for uid, _, _ in admitted.items]


def test_i16_an_item_of_a_batch_that_is_nowhere_is_found(world: World) -> None:
    uids = batch(world)
    home(world, uids[0]).rename(world.layout.root / "away")
    assert "I16" in {v.invariant for v in serious(world)}


def test_i16_an_item_that_went_to_batches_with_its_drop_is_found(world: World) -> None:
    uids = batch(world)
    (cell,) = world.layout.queue.glob("batches/*/*/batch")
    tree = json.loads(cell.read_text())["tree"]
    home(world, uids[0]).rename(cell.parent / tree / uids[0])
    assert {"I16"} <= {v.invariant for v in serious(world)}


def test_i16_an_item_of_an_undecided_batch_that_is_out_is_found(world: World) -> None:
    world.drop("plan.json", [{"prompt": "1"}, {"prompt": "2"}])
    (drop,) = world.take()
    proc = world.proc(admission.admit(world.actor("x"), drop, world.context, DAY)).before("link", "/batch")
    (built,) = world.layout.queue.glob("incoming/*/b.*/*0")
    out = world.layout.queue / "open" / built.name
    out.mkdir()
    (out / "item.json").write_bytes((built / "item.json").read_bytes())
    assert "I16" in {v.invariant for v in serious(world)}
    proc.kill()


def test_a_batch_that_was_decided_and_not_completed_is_no_violation(world: World) -> None:
    world.drop("plan.json", [{"prompt": "1"}, {"prompt": "2"}])
    (drop,) = world.take()
    world.proc(admission.admit(world.actor("x"), drop, world.context, DAY)).before("rename", times=2).kill()
    assert serious(world) == []


# ---- ids, rejections -----------------------------------------------------------------------------------------------


def test_an_id_that_is_held_by_nobody_is_freed(world: World) -> None:
    uid = world.add(id="mine")
    home(world, uid).rename(world.layout.root / "away")
    assert only(world).invariant == "id"
    assert repair(world.disk, world.me).left == ()
    assert world.add(id="mine") != uid


def test_a_gap_in_the_numbers_of_an_id_is_found(world: World) -> None:
    world.add(id="mine")
    (cell,) = world.layout.queue.glob("ids/*/*.1")
    cell.with_suffix(".3").write_bytes(cell.read_bytes())
    assert only(world).what == "there is no number 2 before it"


def test_a_rejection_without_its_reason_or_stub_is_completed(world: World) -> None:
    world.drop("bad.json", {"prompt": ""})
    (rejected,) = world.admit_all()
    place = world.layout.queue / "rejected" / rejected.drop
    (place / "why.json").unlink()
    (world.layout.root / stub_path(rejected.drop)).unlink()
    assert {v.repair for v in serious(world)} == {Repair.WHY, Repair.STUB}
    assert repair(world.disk, world.me).left == ()
    assert "prompt" in (place / "why.json").read_text()


def test_a_rejection_that_can_say_nothing_any_more_is_a_rejection_still(world: World) -> None:
    world.drop("bad.json", {"prompt": ""})
    (rejected,) = world.admit_all()
    place = world.layout.queue / "rejected" / rejected.drop
    for cell in ("why.json", "item.json"):
        (place / cell).unlink()
    (world.layout.root / stub_path(rejected.drop)).unlink()
    repair(world.disk, world.me)
    stub = world.stub(rejected.drop)
    assert stub
    assert stub.outcome == "rejected"


def test_what_a_start_left_has_its_hour(world: World) -> None:
    path = world.layout.queue / "tmp" / "selftest.0a"
    path.touch()
    now = world.disk.clock.wall()
    os.utime(path, (now, now))
    assert found(world) == []
    os.utime(path, (0, 0))
    assert [v.repair for v in found(world)] == [Repair.SWEEP]


# ---- what crashes leave behind ---------------------------------------------------------------------------------------


def test_a_claim_of_a_dead_owner_is_expired_only_by_who_can_kill(world: World) -> None:
    uid = world.add(id="a")
    proc = world.proc(attempts.claim(world.actor("agent-1"), uid))
    proc.go()
    assert found(world) == []
    proc.kill()
    (violation,) = found(world)
    assert (violation.repair, violation.harmless) == (Repair.EXPIRE, True)
    world.disk.hands = None
    repair(world.disk, world.me)
    assert found(world) == [violation]
    world.disk.hands = world.hand
    assert repair(world.disk, world.me).done == (violation,)
    assert world.hand.cleared == [(uid, 1)]


def test_a_claim_whose_owner_is_present_is_left_alone(world: World) -> None:
    uid = world.add(id="a")
    proc = world.proc(attempts.claim(world.actor("agent-1"), uid))
    proc.go()
    proc.kill()
    assert found(world, lambda incarnation: incarnation.startswith("agent-1")) == []


def test_a_claim_of_a_person_is_completed_by_its_act(world: World) -> None:
    uid = world.add(id="a")
    cancel = world.proc(operators.cancel(world.actor("cli"), uid, "me", "", world.judging()))
    cancel.before("link", "1.end").kill()
    world.disk.hands = None
    repair(world.disk, world.me)
    assert world.cells(uid)["1.end"]["outcome"] == "cancelled"
    repair(world.disk, world.me)
    assert world.where(uid) == ["archive"]


def test_what_is_over_is_finished(world: World) -> None:
    uid = world.add(id="a")
    world.attempt(uid, Outcome.DONE)
    assert [v.repair for v in found(world)] == [Repair.FINISH]
    repair(world.disk, world.me)
    assert world.where(uid) == ["archive"]


def test_private_files_of_the_dead_are_swept_and_those_of_the_living_are_not(world: World) -> None:
    for name in ("agent-1.5.x.3.end", "agent-2.5.x.1.claim", "agent-1.5.x.ballast", "selftest.0123"):
        (world.layout.queue / "tmp" / name).write_text("garbage")
    repair(world.disk, world.me, alive=lambda incarnation: incarnation == "agent-2.5.x")
    assert os.listdir(world.layout.queue / "tmp") == ["agent-2.5.x.1.claim"]


def test_a_ticket_that_is_locked_is_never_swept(world: World) -> None:
    uid = world.add(id="a")
    proc = world.proc(attempts.claim(world.actor("agent-1"), uid)).before("link", "1.claim")
    repair(world.disk, world.me)
    assert isinstance(proc.go(), attempts.Claimed)


def test_hints_are_rebuilt(world: World) -> None:
    ready, parked = world.add(id="ready"), world.add(id="parked")
    world.hold(parked)
    for _, path in [x for places in world.disk.hints.all().values() for x in places]:
        os.unlink(path)
    world.disk.hints.add(parked, 3)
    world.disk.hints.add("nobody-x", 3)
    assert {v.invariant for v in check(world.disk)} == {"hint"}
    assert repair(world.disk, world.me).left == ()
    assert list(world.disk.hints.all()) == [ready]


def test_an_item_that_waits_for_its_backoff_needs_no_hint(world: World) -> None:
    uid = world.add(id="a")
    owned = world.claim(uid)
    record = end_record(1, Outcome.FAILED, not_before="2099-01-01T00:00:00Z")
    world.run(attempts.end(world.me, owned, record))
    assert world.standing(uid) is Standing.READY
    assert check(world.disk) == []


def test_an_empty_folder_of_an_old_drop_is_removed_and_a_young_one_is_not(world: World) -> None:
    for name, age in (("old-x1", 7200), ("new-x2", 60)):
        folder = world.layout.queue / "incoming" / name
        folder.mkdir()
        moment = world.clock.wall() - age
        os.utime(folder, (moment, moment))
    repair(world.disk, world.me)
    assert world.incoming() == ["new-x2"]


# ---- what people do ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["open/notes.txt", "waiting/Not A Uid", "done/zz", "archive/x", "rejected/f", "ids/q"]
)
def test_what_is_not_ours_is_moved_aside_and_never_removed(world: World, place: str) -> None:
    world.add(id="a")
    path = world.layout.queue / place
    if place in ("done/zz", "archive/x", "ids/q"):
        path.mkdir()
        path = path / "FILE"
    path.write_text("mine")
    assert {v.invariant for v in serious(world)} == {"foreign"}
    assert repair(world.disk, world.me).left == ()
    (kept,) = [p for p in world.layout.kept.rglob("*") if p.is_file()]
    assert kept.read_text() == "mine"


def test_a_strangers_file_in_an_items_folder_is_moved_aside(world: World) -> None:
    uid = world.add(id="a")
    (home(world, uid) / "notes.md").write_text("mine")
    assert only(world).invariant == "foreign"
    repair(world.disk, world.me)
    assert serious(world) == []
    assert world.standing(uid) is Standing.READY


def test_modes_are_restored(world: World) -> None:
    world.layout.queue.chmod(0o1777)
    (world.layout.queue / "open").chmod(0o755)
    assert {v.path for v in serious(world)} == {"queue", "queue/open"}
    assert repair(world.disk, world.me).left == ()
    assert (world.layout.queue / "open").stat().st_mode & 0o7777 == 0o700


def test_missing_folders_and_format_are_made_again(world: World) -> None:
    (world.layout.queue / "FORMAT").unlink()
    (world.layout.queue / "batches").rmdir()
    assert {v.path for v in serious(world)} == {"queue/FORMAT", "queue/batches"}
    assert repair(world.disk, world.me).left == ()


def test_a_store_of_a_newer_program_is_left_alone(world: World) -> None:
    (world.layout.queue / "FORMAT").write_text('{"v": 9, "min_reader": 9}')
    assert only(world).repair is None


def test_what_is_seen_only_once_is_not_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Things move while a store that runs is checked."""
    uid = world.add(id="a")
    foreign = home(world, uid) / "notes.md"
    foreign.write_text("mine")
    listing = world.disk.do_ls

    def ls_then_gone(folder: str) -> tuple[str, ...] | None:
        names = listing(folder)
        if folder == "queue/tmp":
            foreign.unlink(missing_ok=True)
        return names

    monkeypatch.setattr(world.disk, "do_ls", ls_then_gone)
    assert check(world.disk) == []


def test_a_violation_says_where_what_and_which_invariant() -> None:
    violation = Violation(invariant="I3", path="queue/open/a/item.json", what="is torn")
    assert str(violation) == "queue/open/a/item.json: is torn [I3]"
