"""The ledger: reserved before a run, charged once after it, released with the attempt, whoever is killed in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness import spend
from harness.atomicfs import FileLock
from harness.budgets import Amount, OverBudget
from harness.clock import day
from harness.config import Budget
from harness.layout import Layout
from harness.spend import Ledger, Payer
from harness.totals import Kind, Totals
from tests.support import FakeClock, environment, make_root

DAY = {"day": Budget(usd=1.0)}


def ledger(layout: Layout, clock: FakeClock) -> Ledger:
    """As another process has one."""
    return Ledger(layout, clock, durable=True)


def payer(layout: Layout, uid: str = "a", n: int = 1, **more: Any) -> Payer:
    """An attempt that has no end yet."""
    (layout.queue / "open" / uid).mkdir(parents=True, exist_ok=True)
    return Payer(**{"uid": uid, "n": n, "project": "app", **more})


def ends(layout: Layout, uid: str, n: int = 1) -> None:
    (layout.queue / "open" / uid / f"{n}.end").touch()


def file(layout: Layout, clock: FakeClock) -> Path:
    return layout.spend / f"{day(clock.wall())}.jsonl"


def lines(layout: Layout) -> list[dict[str, Any]]:
    return [
        json.loads(x) for path in sorted(layout.spend.glob("*.jsonl")) for x in path.read_text().splitlines()
    ]


def spent(book: Ledger, who: Payer, k: int, usd: float, tokens: int = 0) -> bool:
    return book.charge(who, k, usd=usd, tokens=tokens)


def held(book: Ledger, budgets: Mapping[str, Budget]) -> float:
    (room,) = book.rooms(budgets).values()
    return room.held.usd


# ---- reserving -------------------------------------------------------------------------------------------------------


def test_what_is_reserved_is_not_there_for_others_until_it_is_released(
    layout: Layout, clock: FakeClock
) -> None:
    mine, other = ledger(layout, clock), ledger(layout, clock)
    a, b = payer(layout, "a"), payer(layout, "b")
    assert mine.reserve(a, Amount(usd=0.6), DAY) is None
    short = other.reserve(b, Amount(usd=0.6), DAY)
    assert isinstance(short, OverBudget)
    assert str(short) == "budget day: 0.00 of 1.00 USD (0.60 reserved) spent, an attempt needs 0.60 USD"
    mine.release(a)
    assert other.reserve(b, Amount(usd=0.6), DAY) is None


def test_what_an_attempt_has_spent_is_taken_from_its_reservation(layout: Layout, clock: FakeClock) -> None:
    book, a = ledger(layout, clock), payer(layout)
    book.reserve(a, Amount(usd=0.6), DAY)
    spent(book, a, 1, 0.25)
    (room,) = book.rooms(DAY).values()
    assert room.spent.usd == 0.25
    assert room.held.usd == pytest.approx(0.35)
    spent(book, a, 2, 0.5)
    assert held(book, DAY) == 0.0


def test_an_attempt_reserves_once_until_it_has_spent_that(layout: Layout, clock: FakeClock) -> None:
    book, a = ledger(layout, clock), payer(layout)
    for _ in range(3):
        assert book.reserve(a, Amount(usd=0.6), DAY) is None
    assert [e["kind"] for e in lines(layout)] == ["reserve"]
    spent(book, a, 1, 0.6)
    assert book.reserve(a, Amount(usd=0.6), DAY) is not None
    assert book.reserve(a, Amount(usd=0.4), DAY) is None


def test_sums_of_cents_fill_a_budget_exactly(layout: Layout, clock: FakeClock) -> None:
    book, budget = ledger(layout, clock), {"fleet": Budget(usd=0.3)}
    for uid in ("a", "b", "c"):
        who = payer(layout, uid)
        assert book.reserve(who, Amount(usd=0.1), budget) is None
        spent(book, who, 1, 0.1)
        book.release(who)
    assert book.reserve(payer(layout, "d"), Amount(usd=0.1), budget) is not None


def test_every_budget_of_an_item_must_have_room(layout: Layout, clock: FakeClock) -> None:
    book = ledger(layout, clock)
    budgets = {
        "fleet": Budget(usd=9.0),
        "project.app": Budget(usd=9.0),
        "convoy.log.in": Budget(tokens=100),
    }
    a = payer(layout, "a", convoy="log.in")
    assert book.reserve(a, Amount(usd=1.0), budgets) is None
    spent(book, a, 1, 0.1, tokens=99)
    assert book.short(budgets, Amount()) is None
    spent(book, a, 2, 0.1, tokens=1)
    short = book.short(budgets, Amount())
    assert short is not None
    assert str(short) == "budget convoy.log.in: 100 of 100 tokens spent"
    assert book.rooms({"project.app": Budget(usd=1.0)})["project.app"].spent.usd == pytest.approx(0.2)
    assert book.rooms({"project.web": Budget(usd=1.0)})["project.web"].spent.usd == 0.0


def test_a_budget_of_nothing_lets_nothing_start(layout: Layout, clock: FakeClock) -> None:
    assert ledger(layout, clock).reserve(payer(layout), Amount(), {"fleet": Budget(usd=0.0)}) is not None


def test_a_ledger_that_is_held_for_too_long_refuses_and_still_takes_what_was_spent(
    layout: Layout, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spend, "PATIENCE_S", 0.0)
    book, a = ledger(layout, clock), payer(layout)
    with FileLock(layout.spend / "lock") as lock:
        assert lock.try_lock()
        with pytest.raises(BlockingIOError):
            book.reserve(a, Amount(usd=0.1), DAY)
        assert book.settle() == 0
        assert spent(book, a, 1, 0.5)
    assert book.today().usd == 0.5


def test_nobody_else_reserves_between_the_look_and_the_line_of_one(
    layout: Layout, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spend, "PATIENCE_S", 0.0)
    mine, other = ledger(layout, clock), ledger(layout, clock)
    a, b = payer(layout, "a"), payer(layout, "b")
    append = mine._append

    def late(*args: Any, **more: Any) -> None:
        with pytest.raises(BlockingIOError):
            other.reserve(b, Amount(usd=0.6), DAY)
        append(*args, **more)

    monkeypatch.setattr(mine, "_append", late)
    assert mine.reserve(a, Amount(usd=0.6), DAY) is None
    assert other.reserve(b, Amount(usd=0.6), DAY) is not None


RACER = """
import sys
from pathlib import Path
from harness.budgets import Amount
from harness.clock import SystemClock
from harness.config import Budget
from harness.layout import Layout
from harness.spend import Ledger, Payer
book = Ledger(Layout(Path(sys.argv[1])), SystemClock())
print("ready", flush=True)
sys.stdin.readline()
won = 0
for k in range(40):
    payer = Payer(uid=f"{sys.argv[2]}-{k}", n=1, project="app")
    won += book.reserve(payer, Amount(usd=0.1), {"fleet": Budget(usd=3.0)}) is None
    book.charge(payer, 1, usd=0.0, tokens=1)
    book.charge(Payer(uid="shared", n=1, project="app"), k, usd=0.0, tokens=1000)
print(won)
"""


def test_processes_that_reserve_at_the_same_time_never_pass_a_budget_and_charge_a_run_once(
    layout: Layout, clock: FakeClock
) -> None:
    (layout.queue / "open" / "shared").mkdir(parents=True)
    names = ("x", "y", "z")
    for name in names:
        for k in range(40):
            (layout.queue / "open" / f"{name}-{k}").mkdir()
    racers = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", RACER, str(layout.root), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        for name in names
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        said = []
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        said = [racer.communicate(timeout=60)[0] for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    assert sum(int(x) for x in said) == 30
    room = ledger(layout, clock).rooms({"fleet": Budget(usd=3.0)})["fleet"]
    assert room.held.usd == pytest.approx(3.0)
    assert room.spent.tokens == 3 * 40 + 40 * 1000
    assert all("kind" in entry for entry in lines(layout))


# ---- charging --------------------------------------------------------------------------------------------------------


def test_a_run_is_charged_once_whoever_charges_it_again(layout: Layout, clock: FakeClock) -> None:
    a = payer(layout)
    assert spent(ledger(layout, clock), a, 1, 0.5)
    assert not spent(ledger(layout, clock), a, 1, 0.5)
    assert ledger(layout, clock).item("a").usd == 0.5
    assert spent(ledger(layout, clock), payer(layout, n=2), 1, 0.25)
    book = ledger(layout, clock)
    assert book.item("a").usd == 0.75
    assert (known := book.attempt("a", 2)) is not None
    assert known.spent.usd == 0.25


def test_a_run_of_unknown_cost_is_written_down_with_its_tokens(layout: Layout, clock: FakeClock) -> None:
    book = ledger(layout, clock)
    book.charge(payer(layout, agent="tool"), 1, usd=None, tokens=70, estimated=True)
    (line,) = lines(layout)
    assert line == {
        "t": line["t"],
        "kind": "spent",
        "uid": "a",
        "n": 1,
        "round": 1,
        "project": "app",
        "agent": "tool",
        "tokens": 70,
        "estimated": True,
    }
    assert book.today() == Amount(tokens=70)


def test_at_midnight_a_day_begins_with_nothing_spent_and_what_is_reserved(
    layout: Layout, clock: FakeClock
) -> None:
    book, a = ledger(layout, clock), payer(layout)
    book.reserve(a, Amount(usd=0.6), DAY)
    spent(book, a, 1, 0.2)
    clock.advance(86_400)
    assert book.today() == Amount()
    assert held(book, DAY) == pytest.approx(0.4)
    spent(book, a, 2, 0.3)
    assert book.today().usd == ledger(layout, clock).today().usd == 0.3
    assert len(list(layout.spend.glob("*.jsonl"))) == 2
    assert book.rooms({"fleet": Budget(usd=9.0)})["fleet"].spent.usd == 0.5


def test_a_clock_that_is_set_back_loses_nothing(layout: Layout, clock: FakeClock) -> None:
    book, other, a = ledger(layout, clock), ledger(layout, clock), payer(layout)
    clock.jump(3 * 86_400)
    spent(book, a, 1, 0.2)
    clock.jump(-3 * 86_400)
    spent(book, a, 2, 0.3)
    assert book.today().usd == other.today().usd == 0.3
    assert book.item("a").usd == other.item("a").usd == 0.5


# ---- releasing -------------------------------------------------------------------------------------------------------


def test_a_reservation_does_not_outlive_its_attempt_or_its_item(layout: Layout, clock: FakeClock) -> None:
    book = ledger(layout, clock)
    book.reserve(payer(layout, "a"), Amount(usd=0.3), DAY)
    book.reserve(payer(layout, "b"), Amount(usd=0.3), DAY)
    book.reserve(payer(layout, "c"), Amount(usd=0.3), DAY)
    assert book.settle() == 0
    ends(layout, "a")
    (layout.queue / "open" / "b").rename(layout.root / "archived")
    assert held(book, DAY) == pytest.approx(0.3)
    assert ledger(layout, clock).settle() == 2
    assert [(e["uid"], e.get("over")) for e in lines(layout)[3:]] == [("a", None), ("b", True)]
    assert book.settle() == 0
    assert book.attempt("b", 1) is None
    assert book.attempt("c", 1) is not None


def test_what_was_spent_stays_when_an_item_is_over(layout: Layout, clock: FakeClock) -> None:
    book, a = ledger(layout, clock), payer(layout)
    spent(book, a, 1, 0.3)
    (layout.queue / "open" / "a").rmdir()
    book.settle()
    assert book.today().usd == 0.3
    assert book.item("a").usd == 0.0


# ---- what is on disk -------------------------------------------------------------------------------------------------


def test_a_torn_line_is_passed_over_and_the_next_one_begins_anew(layout: Layout, clock: FakeClock) -> None:
    book, a = ledger(layout, clock), payer(layout)
    spent(book, a, 1, 0.3)
    with file(layout, clock).open("ab") as out:
        out.write(b'{"t": "2027-01-15T08:00:00.000Z", "kind": "spent", "uid": "a", "n": 1, "rou')
    assert book.today().usd == ledger(layout, clock).today().usd == 0.3
    spent(book, a, 2, 0.2)
    assert book.today().usd == ledger(layout, clock).today().usd == 0.5


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"\0\0\0\n",
        b"[]\n",
        b"null\n",
        b'{"kind": "gift"}\n',
        b'{"t": "", "kind": "spent", "uid": "a", "n": 1, "usd": -5}\n',
        b'{"t": "", "kind": "spent", "uid": "a", "n": 1, "usd": NaN}\n',
        b'{"t": "", "kind": "spent", "uid": "a", "n": 1, "usd": "much"}\n',
        b"[" * 5000 + b"\n",
    ],
    ids=str,
)
def test_a_line_that_says_nothing_costs_nothing(layout: Layout, clock: FakeClock, line: bytes) -> None:
    book = ledger(layout, clock)
    spent(book, payer(layout), 1, 0.3)
    with file(layout, clock).open("ab") as out:
        out.write(line)
    spent(book, payer(layout), 2, 0.2)
    for one in (book, ledger(layout, clock)):
        assert one.rooms({"fleet": Budget(usd=9.0)})["fleet"].spent.usd == 0.5


@pytest.mark.parametrize("damage", ["missing", "empty", "torn", "foreign", "reserving", "ahead", "inode"])
def test_sums_that_are_lost_or_damaged_are_added_up_again(
    layout: Layout, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(spend, "CHECKPOINT_BYTES", 0)
    book, a = ledger(layout, clock), payer(layout, convoy="c")
    book.reserve(a, Amount(usd=0.6), DAY)
    spent(book, a, 1, 0.2)
    clock.advance(86_400)
    spent(book, a, 2, 0.1)
    kept = layout.spend / "totals.json"
    said = json.loads(kept.read_text())
    match damage:
        case "missing":
            kept.unlink()
        case "empty":
            kept.write_text("")
        case "torn":
            kept.write_text(kept.read_text()[:50])
        case "foreign":
            kept.write_text(json.dumps(said | {"v": 2}))
        case "reserving":
            kept.write_text(json.dumps(said | {"reserving": [["b", 1]]}))
        case "ahead":
            kept.write_text(json.dumps(said | {"place": [*said["place"][:2], 10_000]}))
        case _:
            kept.write_text(json.dumps(said | {"place": [said["place"][0], 1, said["place"][2]]}))
    again = ledger(layout, clock)
    assert again.read() == book.read()
    assert again.item("a").usd == pytest.approx(0.3)
    assert not spent(again, a, 1, 0.2)
    spent(again, a, 3, 0.1)
    assert ledger(layout, clock).read() == again.read()


def test_who_begins_reads_the_kept_sums_and_only_what_came_later(
    layout: Layout, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = ledger(layout, clock)
    monkeypatch.setattr(spend, "CHECKPOINT_BYTES", 0)
    for k in range(1, 20):
        spent(book, payer(layout), k, 0.01)
    monkeypatch.setattr(spend, "CHECKPOINT_BYTES", 1 << 20)
    spent(book, payer(layout), 20, 0.01)
    other = ledger(layout, clock)
    taken: list[Kind] = []
    monkeypatch.setattr(Totals, "take", lambda _, entry: taken.append(entry.kind))
    assert other.today().usd == pytest.approx(0.19)
    assert taken == [Kind.SPENT]


def test_reading_again_opens_nothing_while_nothing_is_new(
    layout: Layout, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = ledger(layout, clock)
    spent(book, payer(layout), 1, 0.5)

    def refuse(*_: object) -> None:
        raise AssertionError("listed")

    monkeypatch.setattr(os, "listdir", refuse)
    assert book.today().usd == 0.5


def test_a_ledger_that_is_removed_begins_with_nothing_for_everybody(layout: Layout, clock: FakeClock) -> None:
    book = ledger(layout, clock)
    spent(book, payer(layout), 1, 0.5)
    for path in layout.spend.iterdir():
        path.unlink()
    assert book.today() == Amount()
    layout.spend.joinpath("x").touch()
    spent(book, payer(layout), 2, 0.25)
    assert book.today().usd == ledger(layout, clock).today().usd == 0.25


def test_a_root_where_nothing_was_spent_has_no_ledger(tmp_path: Path, clock: FakeClock) -> None:
    layout = make_root(tmp_path / "r")
    layout.spend.rmdir()
    book = ledger(layout, clock)
    assert book.today() == Amount()
    assert book.settle() == 0
    assert not layout.spend.exists()
    spent(book, payer(layout), 1, 0.5)
    assert book.today().usd == 0.5
