"""A table of every invariant: who breaks it is found, named with its place, and repaired only where nothing is guessed.

For each row: a healthy store, one thing made wrong, and then `fsck` says that, of that path, and nothing else that does
harm. What it repairs is well afterwards, what it leaves to a person is untouched, and no byte that was there is gone.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.errors import NotFoundError
from harness.model import Act, Claim, End, Grant, Identity, Outcome, Record, Verdict
from harness.store import admission, attempts
from harness.store.cells import stub_path
from harness.store.fsck import check
from harness.store.names import Name, name_path
from harness.store.repair import repair
from harness.store.violations import HARMLESS, Hubs, Violation
from tests.stores import DAY, MOMENT, World, end_record
from tests.support import ROOT

ME = Identity(incarnation="agent-1.1.x", name="agent-1")
HISTORY = {
    "I7": "a cell never changes: a tree has no earlier version to compare with; every cell is made by link(2)",
    "I8": "at most one effect of an item: there are none in the store, but for merges, which are I12",
    "I9": "an attempt is executed by one incarnation: a tree says who claimed, not who ran",
    "I10": "a live owner whom nobody suspected is never expired: a tree does not say who was alive",
    "I14": "a stop that we choose is decided before anything is killed: an order, not a state",
    "I17": "who gives up as superseded is: what a process concluded is in no cell",
}
"""Invariants of what happened. tests/model/invariants.py and tests/races/ check them while it happens."""


def none_missing(project: str, shas: frozenset[str]) -> frozenset[str]:
    return frozenset()


def nothing(project: str, uid: str, n: int, sha: str) -> str | None:
    return None


@dataclass(frozen=True)
class Broken:
    """`path`: what fsck must name. `repaired`: is it well after a repair? Else a person decides."""

    path: str
    repaired: bool = False
    hubs: Hubs | None = None


# ---- what is made wrong ----------------------------------------------------------------------------------------------


def home(world: World, uid: str) -> Path:
    return next(p for p in world.layout.queue.glob(f"**/{uid}") if p.is_dir())


def put(world: World, uid: str, name: str, record: Record) -> str:
    path = home(world, uid) / name
    path.write_bytes(record.to_bytes())
    return str(path.relative_to(world.layout.root))


def run(n: int, act: Act = Act.RUN) -> Claim:
    return Claim(n=n, act=act, owner=ME)


def over(world: World, name: str = "a") -> str:
    uid = world.add(id=name)
    world.attempt(uid, Outcome.DONE)
    world.finish(uid)
    return uid


def merged(world: World) -> str:
    uid = world.add(id="a")
    world.judge(uid, world.submit(uid))
    world.finish(uid)
    return uid


def away(world: World, path: Path) -> None:
    path.rename(world.layout.root / "away")


def in_two_places(world: World) -> Broken:
    uid = world.add(id="a")
    item = home(world, uid) / "item.json"
    waiting = world.layout.queue / "waiting" / uid
    waiting.mkdir()
    (waiting / "item.json").write_bytes(item.read_bytes())
    return Broken(f"queue/waiting/{uid}")


def gone_from_the_archive(world: World) -> Broken:
    uid, _ = over(world), over(world, "b")
    away(world, home(world, uid))
    return Broken(stub_path(uid))


def no_drop(world: World) -> Broken:
    folder = world.layout.queue / "incoming" / "a-0123456789"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    return Broken("queue/incoming/a-0123456789")


def an_end_of_nobody(world: World) -> Broken:
    uid = world.add(id="a")
    put(world, uid, "1.end", end_record(1, Outcome.FAILED))
    return Broken(f"queue/open/{uid}")


def torn_snapshot(world: World) -> Broken:
    uid = world.add(id="a")
    path = home(world, uid) / "item.json"
    path.write_bytes(path.read_bytes()[:20])
    return Broken(f"queue/open/{uid}/item.json")


def another_snapshot(world: World) -> Broken:
    uid, other = over(world), world.add(id="b")
    (home(world, uid) / "item.json").write_bytes((home(world, other) / "item.json").read_bytes())
    return Broken(f"queue/archive/{DAY}/{uid}/item.json")


def torn_cell(name: str) -> Callable[[World], Broken]:
    def plant(world: World) -> Broken:
        uid = world.add(id="a", max_attempts=1)
        world.hub.red.add((uid, 1))
        world.judge(uid, world.submit(uid))
        world.retry(uid)
        (home(world, uid) / name).write_bytes(b'{"v": 1, "n"')
        return Broken(f"queue/open/{uid}/{name}")

    return plant


def torn_record(path: Callable[[World], Path]) -> Callable[[World], Broken]:
    def plant(world: World) -> Broken:
        torn = path(world)
        whole = torn.read_bytes()
        torn.unlink()  # what else this file is, is whole
        torn.write_bytes(whole[:-9])
        return Broken(str(torn.relative_to(world.layout.root)))

    return plant


def the_stub(world: World) -> Path:
    return world.layout.root / stub_path(over(world))


def the_id(world: World) -> Path:
    world.add(id="a")
    return world.layout.root / name_path("a", 1)


def another_number(world: World) -> Broken:
    uid = world.add(id="a")
    world.claim(uid)
    return Broken(put(world, uid, "1.end", end_record(7, Outcome.FAILED)))


def life_after_the_end(world: World) -> Broken:
    uid = over(world)
    put(world, uid, "2.claim", run(2))
    put(world, uid, "2.end", end_record(2, Outcome.FAILED))
    return Broken(f"queue/archive/{DAY}/{uid}/2.claim")


def two_ends(world: World) -> Broken:
    uid = world.add(id="a")
    world.attempt(uid, Outcome.DONE)
    put(world, uid, "2.claim", run(2, Act.CANCEL))
    return Broken(put(world, uid, "2.end", end_record(2, Outcome.CANCELLED)))


def archived_alive(world: World) -> Broken:
    uid = world.add(id="a")
    (world.layout.queue / "archive" / DAY).mkdir()
    home(world, uid).rename(world.layout.queue / "archive" / DAY / uid)
    return Broken(f"queue/archive/{DAY}/{uid}")


def no_stub(world: World) -> Broken:
    uid = merged(world)
    (world.layout.root / stub_path(uid)).unlink()
    return Broken(f"queue/archive/{DAY}/{uid}", repaired=True)


def a_stub_too_early(world: World) -> Broken:
    uid = world.add(id="a")
    path = world.layout.root / stub_path(uid)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(End(n=1, outcome=Outcome.DONE, by="me").to_bytes())
    return Broken(stub_path(uid))


def a_stub_that_lies(world: World) -> Broken:
    uid = merged(world)
    path = world.layout.root / stub_path(uid)
    path.unlink()
    path.write_bytes(Verdict(n=1, cancelled="me", judged_at=MOMENT).to_bytes())
    return Broken(stub_path(uid))


def the_wrong_day(world: World) -> Broken:
    uid = over(world)
    path = home(world, uid)
    (world.layout.queue / "archive" / "2020-01-01").mkdir()
    path.rename(world.layout.queue / "archive" / "2020-01-01" / uid)
    return Broken(f"queue/archive/2020-01-01/{uid}")


def rejected(world: World) -> Path:
    world.drop("bad.json", {"prompt": ""})
    (admission,) = world.admit_all()
    return world.layout.queue / "rejected" / admission.drop


def rejected_without_a_stub(world: World) -> Broken:
    path = rejected(world)
    (world.layout.root / stub_path(path.name)).unlink()
    return Broken(f"queue/rejected/{path.name}", repaired=True)


def rejected_without_a_reason(world: World) -> Broken:
    path = rejected(world)
    (path / "why.json").unlink()
    return Broken(f"queue/rejected/{path.name}", repaired=True)


def a_verdict_of_nothing(world: World) -> Broken:
    uid = world.add(id="a")
    world.attempt(uid, Outcome.FAILED)
    return Broken(put(world, uid, "1.verdict", Verdict(n=1, merged="abc")))


def a_grant_too_early(world: World) -> Broken:
    uid = world.add(id="a")
    world.claim(uid)
    return Broken(put(world, uid, "1.grant", Grant(n=1, extra=1, by="me")))


def a_claim_before_the_verdict(world: World) -> Broken:
    uid = world.add(id="a")
    world.submit(uid)
    put(world, uid, "2.end", end_record(2, Outcome.FAILED))
    return Broken(put(world, uid, "2.claim", run(2)))


def not_on_the_target(world: World) -> Broken:
    uid = merged(world)
    hubs = Hubs(missing=none_missing, merged=nothing)
    return Broken(f"queue/archive/{DAY}/{uid}/1.verdict", hubs=hubs)


def returned_and_on_the_target(world: World) -> Broken:
    uid = world.add(id="a")
    world.hub.red.add((uid, 1))
    world.judge(uid, world.submit(uid))
    hubs = Hubs(missing=none_missing, merged=lambda project, u, n, sha: "m")
    return Broken(f"queue/open/{uid}/1.verdict", hubs=hubs)


def run_while_parked(world: World) -> Broken:
    uid = world.add(id="a", max_attempts=1)
    world.attempt(uid, Outcome.FAILED)
    put(world, uid, "2.end", end_record(2, Outcome.FAILED))
    return Broken(put(world, uid, "2.claim", run(2)))


def run_after_a_hold(world: World) -> Broken:
    uid = world.add(id="a")
    world.hold(uid)
    put(world, uid, "2.end", end_record(2, Outcome.FAILED))
    return Broken(put(world, uid, "2.claim", run(2)))


def a_hold_that_was_given_back(world: World) -> Broken:
    uid = world.add(id="a")
    put(world, uid, "1.claim", run(1, Act.HOLD))
    return Broken(put(world, uid, "1.end", end_record(1, Outcome.RELEASED)))


def run_too_early(world: World) -> Broken:
    world.add(id="first")
    uid = world.add(id="a", depends_on=["first"])
    home(world, uid).rename(world.layout.queue / "open" / uid)
    world.attempt(uid, Outcome.FAILED)
    return Broken(f"queue/open/{uid}")


def run_though_what_it_needs_was_cancelled(world: World) -> Broken:
    first = world.add(id="first")
    uid = world.add(id="a", depends_on=["first", "nobody"])
    world.cancel(first)
    world.finish(first)
    home(world, uid).rename(world.layout.queue / "open" / uid)
    world.attempt(uid, Outcome.DONE)
    world.finish(uid)
    return Broken(f"queue/archive/{DAY}/{uid}")


def the_batch(world: World) -> tuple[list[str], Path]:
    world.drop("plan.json", [{"prompt": "1"}, {"prompt": "2"}])
    (admitted,) = world.admit_all()
    (cell,) = world.layout.queue.glob("batches/*/*/batch")
    return [uid for uid, _, _ in admitted.items], cell.parent


def an_item_of_a_batch_is_nowhere(world: World) -> Broken:
    uids, batch = the_batch(world)
    away(world, home(world, uids[0]))
    return Broken(f"queue/batches/{DAY}/{batch.name}")


def a_batch_without_its_cell(world: World) -> Broken:
    _, batch = the_batch(world)
    (batch / "batch").unlink()
    return Broken(f"queue/batches/{DAY}/{batch.name}")


def placed_before_it_was_decided(world: World) -> Broken:
    world.drop("plan.json", [{"prompt": "1"}, {"prompt": "2"}])
    (drop,) = world.take()
    world.proc(admission.admit(world.actor("x"), drop, world.context, DAY)).before("link", "/batch").kill()
    built = next(world.layout.queue.glob("incoming/*/b.*/*"))
    out = world.layout.queue / "open" / built.name
    out.mkdir()
    (out / "item.json").write_bytes((built / "item.json").read_bytes())
    return Broken(f"queue/open/{built.name}")


def decided_and_twice(world: World) -> Broken:
    world.drop("plan.json", [{"prompt": "1"}, {"prompt": "2"}])
    (drop,) = world.take()
    world.proc(admission.admit(world.actor("x"), drop, world.context, DAY)).after("link", "/batch").kill()
    built = min(world.layout.queue.glob("incoming/*/b.*/*"))
    out = world.layout.queue / "open" / built.name
    out.mkdir()
    (out / "item.json").write_bytes((built / "item.json").read_bytes())
    return Broken(str(built.relative_to(world.layout.root)))


def a_lost_commit(cell: str) -> Callable[[World], Broken]:
    def plant(world: World) -> Broken:
        uid = merged(world)
        lost = f"sha-{uid}" if cell == "1.end" else world.hub.target()
        target = world.hub.target()
        hubs = Hubs(missing=lambda project, shas: shas & {lost}, merged=lambda *_: target)
        return Broken(f"queue/archive/{DAY}/{uid}/{cell}", hubs=hubs)

    return plant


def no_hub(world: World) -> Broken:
    def refuse(project: str, shas: frozenset[str]) -> frozenset[str]:
        raise NotFoundError(f"there is no project {project!r}")

    merged(world)
    return Broken("state/repos/app.git", hubs=Hubs(missing=refuse, merged=nothing))


def a_gap_of_numbers(world: World) -> Broken:
    uid = world.add(id="a")
    cell = world.layout.root / name_path("a", 3)
    cell.write_bytes(Name(uid=uid, id="a").to_bytes())
    return Broken(name_path("a", 3))


def an_id_of_nobody(world: World) -> Broken:
    away(world, home(world, world.add(id="a")))
    return Broken(name_path("a", 1), repaired=True)


def a_strangers_file(place: str) -> Callable[[World], Broken]:
    def plant(world: World) -> Broken:
        uid = world.add(id="a")
        path = world.layout.queue / place.replace("UID", uid)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text("what a person wrote")
        return Broken(f"queue/{place.replace('UID', uid)}", repaired=True)

    return plant


def no_format(world: World) -> Broken:
    (world.layout.queue / "FORMAT").unlink()
    return Broken("queue/FORMAT", repaired=True)


def a_newer_format(world: World) -> Broken:
    (world.layout.queue / "FORMAT").write_text('{"v": 9, "min_reader": 9}')
    return Broken("queue/FORMAT")


def no_folder(world: World) -> Broken:
    (world.layout.queue / "batches").rmdir()
    return Broken("queue/batches", repaired=True)


def a_file_for_a_folder(world: World) -> Broken:
    (world.layout.queue / "batches").rmdir()
    (world.layout.queue / "batches").write_text("mine")
    return Broken("queue/batches")


def open_to_all(world: World) -> Broken:
    world.layout.queue.chmod(0o1777)
    return Broken("queue", repaired=True)


def a_readable_folder(world: World) -> Broken:
    (world.layout.queue / "open").chmod(0o755)
    return Broken("queue/open", repaired=True)


def no_hint(world: World) -> Broken:
    uid = world.add(id="a")
    for places in world.disk.hints.all().values():
        for _, path in places:
            os.unlink(path)
    return Broken(f"queue/open/{uid}", repaired=True)


def private_files_of_the_dead(world: World) -> Broken:
    (world.layout.queue / "tmp" / "agent-1.5.x.3.end").write_text("garbage")
    return Broken("queue/tmp/agent-1.5.x.3.end", repaired=True)


def a_dead_owner(world: World) -> Broken:
    uid = world.add(id="a", max_attempts=1)
    process = world.proc(attempts.claim(world.actor("agent-1"), uid))
    process.go()
    process.kill()
    return Broken(f"queue/open/{uid}/1.claim", repaired=True)


def not_archived(world: World) -> Broken:
    uid = world.add(id="a")
    world.attempt(uid, Outcome.DONE)
    return Broken(f"queue/open/{uid}", repaired=True)


ROWS: dict[str, tuple[Callable[[World], Broken], ...]] = {
    "I1": (in_two_places, gone_from_the_archive, no_drop),
    "I2": (an_end_of_nobody,),
    "I3": (torn_snapshot, another_snapshot),
    "I4": (
        *(torn_cell(f"1.{kind}") for kind in ("claim", "end", "verdict", "grant")),
        torn_record(the_stub),
        torn_record(the_id),
        another_number,
    ),
    "I5": (life_after_the_end, two_ends),
    "I6": (
        archived_alive,
        no_stub,
        a_stub_too_early,
        a_stub_that_lies,
        the_wrong_day,
        rejected_without_a_stub,
    ),
    "I11": (a_verdict_of_nothing, a_grant_too_early, a_claim_before_the_verdict),
    "I12": (not_on_the_target, returned_and_on_the_target),
    "I13": (run_while_parked, run_after_a_hold, a_hold_that_was_given_back),
    "I15": (run_too_early, run_though_what_it_needs_was_cancelled),
    "I16": (
        an_item_of_a_batch_is_nowhere,
        a_batch_without_its_cell,
        placed_before_it_was_decided,
        decided_and_twice,
    ),
    "I18": (a_lost_commit("1.end"), a_lost_commit("1.verdict")),
    "hub": (no_hub,),
    "id": (a_gap_of_numbers, an_id_of_nobody),
    "foreign": tuple(
        a_strangers_file(place)
        for place in (
            "open/notes.txt",
            "open/UID/notes.md",
            "waiting/Not A Uid",
            "incoming/notes.txt",
            "rejected/notes.txt",
            "archive/2027-01-15/notes.txt",
            "done/zz/notes",
            "ids/aa/notes",
        )
    ),
    "why": (rejected_without_a_reason,),
    "format": (no_format, a_newer_format, no_folder, a_file_for_a_folder),
    "mode": (open_to_all, a_readable_folder),
    "hint": (no_hint,),
    "tmp": (private_files_of_the_dead,),
    "expire": (a_dead_owner,),
    "finish": (not_archived,),
}
CASES = [(word, k) for word, plants in ROWS.items() for k in range(len(plants))]


def wrong(world: World, word: str, hubs: Hubs | None) -> set[tuple[str, str]]:
    """What fsck says of everything that does harm, and of the word itself."""
    found: list[Violation] = check(world.disk, hubs=hubs)
    return {(v.invariant, v.path) for v in found if not v.harmless or v.invariant == word}


def contents(world: World) -> set[bytes]:
    """Of every file, but for private ones of the dead."""
    tmp = world.layout.queue / "tmp"
    return {p.read_bytes() for p in world.layout.root.rglob("*") if p.is_file() and p.parent != tmp}


@pytest.mark.parametrize(("word", "k"), CASES, ids=[f"{w} {k + 1}" for w, k in CASES])
def test_each_violation_is_named_alone_and_repaired_or_left_alone(world: World, word: str, k: int) -> None:
    broken = ROWS[word][k](world)
    before = contents(world)
    assert wrong(world, word, broken.hubs) == {(word, broken.path)}
    left = repair(world.disk, world.me, hubs=broken.hubs).left
    assert wrong(world, word, broken.hubs) == (set() if broken.repaired else {(word, broken.path)})
    assert bool([v for v in left if v.invariant == word]) != broken.repaired
    assert before <= contents(world)
    if not broken.repaired and (world.layout.root / broken.path).exists():
        assert repair(world.disk, world.me, hubs=broken.hubs).done == ()


def words_of_the_sources() -> set[str]:
    """Every invariant that the checking code can name: the keyword `invariant`, or the first part of a problem."""
    words = set(HARMLESS)
    for path in (ROOT / "harness" / "store").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.keyword)
                and node.arg == "invariant"
                and isinstance(node.value, ast.Constant)
            ):
                words.add(str(node.value.value))
            elif isinstance(node, ast.Constant) and re.fullmatch(r"I[0-9]+", str(node.value)):
                words.add(str(node.value))
    return words


def test_every_invariant_has_a_row_or_a_reason_why_no_tree_shows_it() -> None:
    assert words_of_the_sources() == set(ROWS)
    assert {f"I{k}" for k in range(1, 19)} == {w for w in ROWS if w[0] == "I"} | set(HISTORY)
    assert all(ROWS.values())


def test_the_protocol_names_every_invariant_and_those_that_no_tree_shows() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    section = text[text.index("## 9.") : text.index("## 10.")]
    named = set(re.findall(r"\bI[0-9]+\b", section))
    assert named == {f"I{k}" for k in range(1, 19)}
    untold = section[section.index("No tree shows") :]
    assert set(re.findall(r"\bI[0-9]+\b", untold.split("\n\n")[0])) == set(HISTORY)


def test_an_item_that_a_person_let_run_early_is_no_violation(world: World) -> None:
    world.add(id="first")
    uid = world.add(id="a", depends_on=["first", "nobody", {"id": "maybe", "optional": True}])
    world.retry(uid)
    world.promote(uid)
    world.attempt(uid, Outcome.FAILED)
    cancelled = world.add(id="b", depends_on=["first"])
    world.cancel(cancelled)
    assert [str(v) for v in check(world.disk) if not v.harmless] == []


def test_an_item_whose_dependencies_were_met_is_no_violation(world: World) -> None:
    uid = world.add(id="a", depends_on=["first", {"id": "maybe", "optional": True}])
    first, maybe = world.add(id="first"), world.add(id="maybe")
    world.attempt(first, Outcome.DONE)
    world.cancel(maybe)
    world.finish(first)
    world.finish(maybe)
    assert world.promote(uid) is None
    world.attempt(uid, Outcome.FAILED)
    assert [str(v) for v in check(world.disk) if not v.harmless] == []
