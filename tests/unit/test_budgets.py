"""What an attempt asks of which budgets, and what there is room for."""

from __future__ import annotations

import pytest

from harness.budgets import Amount, OverBudget, Room, all_budgets, ask_of, budgets_of, used_up
from harness.config import Agent, Budget, Budgets, Config, Project
from harness.model import Item

TOOL = Agent(adapter="claude")


def item(**fields: object) -> Item:
    return Item(**{"uid": "a-1", "id": "a", "prompt": "x", "project": "app", **fields})  # type: ignore[arg-type]


def config(
    budget: Budgets | None = None, own: Budget | None = None, agents: dict[str, Agent] | None = None
) -> Config:
    project = Project(name="app", path="app", budget=own or Budget())
    return Config(
        v=1, projects={"app": project}, agents=agents or {"tool": TOOL}, budgets=budget or Budgets()
    )


def test_an_item_counts_for_the_budgets_that_say_something_and_that_it_is_part_of() -> None:
    known = config(
        Budgets(day=Budget(usd=5.0), convoys={"login": Budget(tokens=5), "other": Budget(usd=1.0)}),
        own=Budget(usd=3.0),
    )
    assert list(all_budgets(known)) == ["day", "project.app", "convoy.login", "convoy.other"]
    assert list(budgets_of(known, "app", "login")) == ["day", "project.app", "convoy.login"]
    assert list(budgets_of(known, "gone", "")) == ["day"]
    assert budgets_of(config(), "app", "login") == {}


@pytest.mark.parametrize(
    ("fields", "agent_usd", "spent", "mine", "expected"),
    [
        ({}, None, 0.0, 0.0, 1.0),
        ({"max_budget_usd": 3.0}, None, 0.5, 0.5, 2.5),
        ({}, 2.0, 7.0, 0.5, 1.5),
        ({"max_budget_usd": 3.0}, 2.0, 0.5, 0.5, 1.5),
        ({"max_budget_usd": 3.0}, 2.0, 2.5, 0.0, 0.5),
        ({"max_budget_usd": 3.0}, None, 4.0, 0.0, 0.0),
    ],
    ids=[
        "nothing is said",
        "the item's",
        "the agent's",
        "the agent's is less",
        "the item's is less",
        "spent",
    ],
)
def test_an_attempt_asks_for_what_it_may_still_cost(
    fields: dict[str, float], agent_usd: float | None, spent: float, mine: float, expected: float
) -> None:
    known = config(agents={"tool": Agent(adapter="claude", max_budget_usd=agent_usd)})
    ask = ask_of(known, item(**fields), ["tool"], Amount(usd=spent), Amount(usd=mine))
    assert ask == Amount(usd=expected)


def test_whichever_agent_will_run_there_is_enough() -> None:
    agents = {name: Agent(adapter="claude", max_budget_usd=usd) for name, usd in (("a", 2.0), ("b", 4.0))}
    assert ask_of(config(agents=agents), item(), ["a", "b"]).usd == 4.0


def test_tokens_are_reserved_as_the_item_or_the_configuration_says() -> None:
    known = config(Budgets(reserve_tokens=100))
    assert ask_of(known, item(), ["tool"]).tokens == 100
    assert ask_of(known, item(max_budget_tokens=70), ["tool"], Amount(tokens=20)).tokens == 50


@pytest.mark.parametrize(
    ("room", "ask", "fits", "exhausted"),
    [
        (Room(name="day", usd=None, tokens=None), Amount(usd=9.0), True, False),
        (Room(name="day", usd=1.0, tokens=None), Amount(usd=1.0), True, False),
        (Room(name="day", usd=1.0, tokens=None), Amount(usd=1.1), False, True),
        (Room(name="day", usd=1.0, tokens=None, held=Amount(usd=0.5)), Amount(usd=0.6), False, False),
        (Room(name="day", usd=1.0, tokens=None, spent=Amount(usd=0.5)), Amount(usd=0.6), False, True),
        (Room(name="day", usd=1.0, tokens=None, spent=Amount(usd=1.0)), Amount(), False, True),
        (Room(name="day", usd=1.0, tokens=5, spent=Amount(tokens=5)), Amount(), False, True),
        (Room(name="day", usd=None, tokens=5, spent=Amount(tokens=4)), Amount(usd=9.0), True, False),
        (Room(name="day", usd=None, tokens=5, spent=Amount(tokens=4)), Amount(tokens=2), False, True),
    ],
)
def test_there_is_room_for_what_is_neither_spent_nor_reserved(
    room: Room, ask: Amount, fits: bool, exhausted: bool
) -> None:
    assert (room.fits(ask), room.exhausted(ask)) == (fits, exhausted)


def test_a_budget_says_what_of_it_is_spent_and_where_it_is_set() -> None:
    room = Room(
        name="convoy.log in", usd=2.0, tokens=100, spent=Amount(usd=1.5, tokens=7), held=Amount(usd=0.5)
    )
    assert str(room) == "budget convoy.log in: 1.50 of 2.00 USD (0.50 reserved) and 7 of 100 tokens spent"
    assert room.setting == "budgets.convoys.log in"
    assert Room(name="project.app", usd=1.0, tokens=None).setting == "projects.app.budget"
    assert Room(name="day", usd=1.0, tokens=None).setting == "budgets.day"
    short = OverBudget(room=Room(name="day", usd=1.0, tokens=9), ask=Amount(usd=2.0, tokens=10))
    assert str(short).endswith("an attempt needs 2.00 USD and 10 tokens")


def test_an_item_whose_own_budget_is_spent_says_that_no_retry_helps() -> None:
    assert used_up(item(), Amount(usd=99.0, tokens=99)) == ""
    assert used_up(item(max_budget_usd=2.0), Amount(usd=1.9)) == ""
    assert "2.50 of the 2.00 USD" in used_up(item(max_budget_usd=2.0), Amount(usd=2.5))
    assert "70 of the 70 tokens" in used_up(item(max_budget_tokens=70), Amount(tokens=70))
