"""Budgets in the coordinator: who gets a hint, what is told, and the one question to a person."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import reports
from harness.budgets import Amount
from harness.config import Agent, Budget, Budgets, Config, Project
from harness.coordinator.budgeting import Budgeting
from harness.coordinator.hinting import Hinting
from harness.coordinator.index import Index
from harness.events import EventStream, read
from harness.model import Outcome
from harness.reports import CoordinatorReport
from harness.spend import Ledger, Payer
from harness.status import collect
from harness.store.disk import Disk
from harness.store.hints import Hints
from tests.cli import ctl
from tests.stores import World
from tests.support import environment


class Bench:
    def __init__(self, world: World) -> None:
        self.world = world
        self.ledger = Ledger(world.layout, world.clock)
        self.config = config()
        self.hinting = self.coordinator()

    def coordinator(self) -> Hinting:
        """A new one."""
        world = self.world
        hints = Hints(world.layout)
        index = Index(world.layout, Disk(world.layout, world.clock, durable=False, hints=hints), world.clock)
        events = EventStream(world.layout, world.clock, "coordinator")
        budgeting = Budgeting(world.layout, world.clock, index, events, Ledger(world.layout, world.clock))
        return Hinting(world.layout, world.clock, index, hints, budgeting)

    def tick(self) -> set[str]:
        """-> uids that have a hint"""
        self.hinting.index.sweep()
        assert self.hinting.budgeting is not None
        self.hinting.budgeting.settle()
        self.hinting.rebuild()
        self.hinting.read_budgets(self.config)
        self.hinting.update()
        return set(self.hinting.hints.all())

    def add(self, *names: str, **fields: Any) -> list[str]:
        return [self.world.add(id=name, **fields) for name in names]

    def charge(self, usd: float, uid: str = "old", **more: Any) -> None:
        """What an item has cost that may be over."""
        payer = Payer(**{"uid": uid, "n": 1, "project": "app", **more})
        self.ledger.charge(payer, 1, usd=usd, tokens=0)

    @property
    def questions(self) -> dict[str, Any]:
        return {p.name: json.loads(p.read_text()) for p in self.world.layout.interrupts.iterdir()}

    @property
    def met(self) -> list[str]:
        return [e["budget"] for _, e in read(self.world.layout) if e["event"] == "budget_met"]


def config(own: Budget | None = None, most: float | None = None, **budgets: Any) -> Config:
    project = Project(name="app", path="app", budget=own or Budget())
    agents = {"claude": Agent(adapter="claude", max_budget_usd=most)}
    return Config(v=1, projects={"app": project}, agents=agents, budgets=Budgets(**budgets))


@pytest.fixture
def b(world: World) -> Bench:
    return Bench(world)


def test_no_more_items_are_hinted_than_can_be_paid(b: Bench) -> None:
    b.config = config(day=Budget(usd=2.5))
    uids = b.add("a", "b", "c")
    assert b.tick() == set(uids[:2])
    assert b.hinting.unpaid == {uids[2]: ("day",)}
    assert b.questions == {}  # those that are first may cost less than they ask for


def test_what_runs_counts_from_its_claim_on_and_once(b: Bench) -> None:
    b.config = config(day=Budget(usd=2.0))
    first, second, _ = b.add("a", "b", "c")
    owned = b.world.claim(first)
    assert b.tick() == {second}
    assert (
        b.ledger.reserve(Payer(uid=first, n=1, project="app"), Amount(usd=1.0), {"day": b.config.budgets.day})
        is None
    )
    assert b.tick() == {second}
    b.charge(0.1, uid=first)
    b.world.end(owned, Outcome.FAILED)
    assert len(b.tick()) == 1  # the released reservation leaves 1.90


def test_a_reservation_of_a_dead_worker_is_given_back_by_the_sweep(b: Bench) -> None:
    b.config = config(fleet=Budget(usd=1.0))
    (uid,) = b.add("a")
    owned = b.world.claim(uid)
    b.ledger.reserve(Payer(uid=uid, n=1, project="app"), Amount(usd=1.0), {"fleet": b.config.budgets.fleet})
    (other,) = b.add("b")
    assert b.tick() == set()
    b.world.end(owned, Outcome.EXPIRED)
    assert b.tick() in ({uid}, {other})
    assert (known := b.ledger.attempt(uid, 1)) is not None
    assert known.held == Amount()


def test_an_item_with_a_budget_of_its_own_asks_for_what_is_left_of_that(b: Bench) -> None:
    b.config = config(day=Budget(usd=1.0))
    small, big = b.add("a", max_budget_usd=0.4) + b.add("b", max_budget_usd=3.0)
    assert b.tick() == {small}
    b.charge(0.2, uid=small)
    (third,) = b.add("c", max_budget_usd=0.5)
    assert b.tick() == {small, third}
    assert set(b.hinting.unpaid) == {big}


def test_items_of_other_projects_and_convoys_are_not_held_back(b: Bench) -> None:
    b.config = config(convoys={"login": Budget(usd=0.5)})
    held, free = b.add("a", convoy="login") + b.add("b", convoy="other")
    assert b.tick() == {free}
    assert b.hinting.unpaid == {held: ("convoy.login",)}


def test_a_budget_that_begins_to_block_asks_a_person_once_and_takes_the_question_back(b: Bench) -> None:
    b.config = config(day=Budget(usd=2.0), own=Budget(usd=1.5))
    b.add("a", "b")
    b.charge(1.2)
    assert b.tick() == set()
    assert b.met == ["day", "project.app"]
    assert set(b.questions) == {"budget.day.json", "budget.project.app.json"}
    asked = b.questions["budget.project.app.json"]
    assert asked["what"] == "budget project.app: 1.20 of 1.50 USD spent: 2 items wait (a, b)"
    assert asked["remedy"] == "raise projects.app.budget in config.yaml, then send the daemon SIGHUP"
    b.charge(0.1, uid="more")
    b.tick()
    b.hinting = b.coordinator()
    b.tick()
    assert b.questions["budget.project.app.json"] == asked
    assert len(b.met) == 2
    b.config = config(day=Budget(usd=2.0))
    assert b.tick() == set()
    assert set(b.questions) == {"budget.day.json"}
    b.world.clock.advance(86_400)
    assert len(b.tick()) == 2
    assert b.questions == {}


def test_a_question_that_an_earlier_coordinator_left_goes_when_there_is_no_budget_any_more(b: Bench) -> None:
    stale = b.world.layout.interrupts / "budget.day.json"
    stale.write_text("{}")
    other = b.world.layout.interrupts / "credential.team.json"
    other.write_text("{}")
    b.tick()
    assert (stale.exists(), other.exists()) == (False, True)


def test_no_text_of_a_person_leads_a_question_elsewhere(b: Bench) -> None:
    names = ["../../x", "Login", "login"]
    b.config = config(convoys={name: Budget(usd=0.0) for name in names})
    for k, name in enumerate(names):
        b.add(f"i{k}", convoy=name)
    b.tick()
    assert len(b.questions) == 3
    assert "budget.convoy.login.json" in b.questions


def test_without_a_budget_the_ledger_is_not_read_for_hints(b: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(Ledger, "read", refuse)
    uids = b.add("a")
    b.hinting.index.sweep()
    b.hinting.read_budgets(b.config)
    b.hinting.update()
    assert set(b.hinting.hints.all()) == set(uids)


def test_a_ledger_that_cannot_be_read_stops_no_hints(b: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    b.config = config(day=Budget(usd=0.0))
    monkeypatch.setattr(Ledger, "read", broken)
    uids = b.add("a")
    assert b.tick() == set(uids)


# ---- status ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def report(b: Bench) -> Callable[[], None]:
    """The coordinator has said what it sees, and is gone."""

    def write() -> None:
        said = CoordinatorReport(pid=1, state="stopped", budgets=b.hinting.budgets)
        reports.write(reports.coordinator_path(b.world.layout), said)

    return write


def test_status_names_the_budget_the_items_that_wait_and_what_was_spent_today(
    b: Bench, report: Callable[[], None]
) -> None:
    b.config = config(day=Budget(usd=1.5, tokens=100))
    b.add("a", "b")
    b.charge(1.25)
    b.tick()
    report()
    seen = collect(b.world.layout, b.world.clock)
    assert seen.metrics["spend_usd_today"] == 1.25
    assert seen.needs[0].what == (
        "budget day: 1.25 of 1.50 USD and 0 of 100 tokens spent; 2 items wait (a, b); it begins anew at midnight UTC"
    )
    assert "budgets.day" in seen.needs[0].command
    (told,) = seen.to_json()["budgets"]
    assert told == {
        "name": "day",
        "usd": 1.5,
        "usd_spent": 1.25,
        "usd_reserved": 0.0,
        "tokens": 100,
        "tokens_spent": 0,
        "tokens_reserved": 0,
        "waiting": 2,
    }
    b.world.clock.advance(86_400)
    seen = collect(b.world.layout, b.world.clock)
    assert (seen.budgets, seen.metrics["spend_usd_today"]) == ((), 0.0)


def test_the_page_has_a_section_of_budgets_only_when_one_is_spent_or_waited_for(
    b: Bench, report: Callable[[], None]
) -> None:
    b.config = config(fleet=Budget(usd=1.5, tokens=100))
    b.add("a")
    b.tick()
    report()
    assert "Budgets" not in ctl(b.world.layout.root, "status").out
    b.charge(1.5)
    b.tick()
    report()
    said = ctl(b.world.layout.root, "status").out
    assert "1.50 of 1.50 USD  0 of 100 tokens" in said.partition("Budgets")[2]


def test_status_imports_nothing_heavy_for_what_was_spent(b: Bench) -> None:
    b.charge(1.0)
    code = (
        "import sys; from harness.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'pydantic', 'yaml', 'structlog', 'harness.config'} & sys.modules.keys();"
        "sys.exit(code or ','.join(sorted(heavy)) or 0)"
    )
    argv = [sys.executable, "-P", "-c", code, "--root", str(b.world.layout.root), "status", "--json"]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# ---- harnessctl spend ------------------------------------------------------------------------------------------------


@pytest.fixture
def history(world: World) -> Path:
    ledger = Ledger(world.layout, world.clock)  # 2027-01-15
    one = Payer(uid="a-1", n=1, project="app", convoy="login", agent="claude")
    ledger.reserve(one, Amount(usd=5.0), {})
    ledger.charge(one, 1, usd=0.5, tokens=1000)
    ledger.charge(one, 2, usd=0.25, tokens=500, estimated=True)
    world.clock.advance(86_400)
    ledger.charge(Payer(uid="b-1", n=1, project="web", agent="other"), 1, usd=1.0, tokens=10)
    ledger.charge(Payer(uid="c-1", n=1, project="web", agent="other"), 1, usd=None, tokens=70)
    return world.layout.root


def rows(root: Path, *args: str) -> list[tuple[str, float, int, int]]:
    said = ctl(root, "spend", *args, "--json")
    assert said.code == 0
    return [(r["key"], r["usd"], r["tokens"], r["runs"]) for r in said.data["rows"]]


def test_what_was_spent_is_told_by_day_project_convoy_agent_and_item(history: Path) -> None:
    first, second = "2027-01-15", "2027-01-16"
    assert rows(history) == [(first, 0.75, 1500, 2), (second, 1.0, 80, 2)]
    assert rows(history, "--since", second) == [(second, 1.0, 80, 2)]
    assert rows(history, "--by", "project") == [("web", 1.0, 80, 2), ("app", 0.75, 1500, 2)]
    assert rows(history, "--by", "convoy") == [("", 1.0, 80, 2), ("login", 0.75, 1500, 2)]
    assert rows(history, "--by", "agent") == [("other", 1.0, 80, 2), ("claude", 0.75, 1500, 2)]
    assert rows(history, "--by", "item") == [("b-1", 1.0, 10, 1), ("a-1", 0.75, 1500, 2), ("c-1", 0.0, 70, 1)]


def test_the_whole_and_its_estimated_part_are_told(history: Path) -> None:
    data = ctl(history, "spend", "--json").data
    assert (data["schema_version"], data["by"], data["since"]) == (1, "day", None)
    assert data["total"] == {
        "key": "",
        "usd": 1.75,
        "tokens": 1580,
        "runs": 4,
        "estimated_usd": 0.25,
        "unpriced": 1,
    }
    said = ctl(history, "spend", "--by", "convoy").out
    assert [line.split()[:3] for line in said.splitlines()[1:]] == [
        ["(none)", "1.00", "80"],
        ["login", "0.75", "1500"],
        ["all", "1.75", "1580"],
    ]
    assert "0.25 USD estimated" in said
    assert "1 runs without a price" in said


def test_a_day_that_is_none_is_refused_and_nothing_spent_is_said(world: World) -> None:
    assert ctl(world.layout.root, "spend", "--since", "yesterday").code == 2
    assert "nothing was spent" in ctl(world.layout.root, "spend").out
