"""What `items` and `show` say of a ready item that nobody takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.agents.outcomes import Auth, UsageLimit
from harness.budgets import Amount
from harness.clock import SystemClock, rfc3339
from harness.config import Budget
from harness.control.desk import Desk
from harness.control.holdups import Holdups
from harness.limits import Limits
from harness.model import Outcome
from harness.spend import Ledger, Payer
from harness.store import attempts
from tests.cli import ctl
from tests.stores import World, end_record

CONFIG = """
v: 1
projects:
  app:
    path: /srv/app
    agent: claude
    budget: {usd: 2}
agents:
  claude: {adapter: claude, credential: team}
  shell: {adapter: command, argv: ["true"]}
credentials:
  team: {variable: ANTHROPIC_API_KEY}
"""


@pytest.fixture
def world(world: World) -> World:
    world.layout.config.write_text(CONFIG)
    return world


def why(world: World, item: str) -> str:
    said = ctl(world.layout.root, "show", item, "--json").data
    (listed,) = (one for one in ctl(world.layout.root, "items", "--json").data["items"] if one["id"] == item)
    assert listed["reason"] == said["reason"]
    reason: str = said["reason"]
    return reason


def meet(world: World, outcome: UsageLimit | Auth) -> None:
    clock = SystemClock()
    limits = Limits(world.layout, clock)
    assert limits.met("team", outcome, started_at=clock.wall(), by="x.1", agent="claude") is not None


def pay(world: World, usd: float) -> None:
    ledger = Ledger(world.layout, SystemClock())
    ledger.charge(
        Payer(uid="x", n=1, project="app", agent="claude"), 1, usd=usd, tokens=None, estimated=False
    )


def test_nothing_is_said_of_an_item_that_nothing_holds_up(world: World) -> None:
    world.add(id="fix")
    assert why(world, "fix") == ""


def test_a_pause_says_how_it_ends(world: World) -> None:
    world.add(id="fix")
    assert ctl(world.layout.root, "pause", "--project", "app").code == 0
    assert why(world, "fix").endswith("harnessctl resume --project app")
    assert ctl(world.layout.root, "pause").code == 0
    assert why(world, "fix") == "paused, until: harnessctl resume"


def test_a_limit_holds_up_those_that_no_other_agent_can_run(world: World) -> None:
    world.add(id="fix")
    world.add(id="other", agent=["claude", "shell"])
    until = SystemClock().wall() + 3600
    meet(world, UsageLimit(resets_at=until))
    assert why(world, "fix").startswith("waits for credential team: usage until ")
    assert why(world, "other") == ""
    page = ctl(world.layout.root, "show", "fix").out
    assert "ready: waits for credential team" in page
    assert "waits for credential team" in ctl(world.layout.root, "items").out


def test_a_refused_credential_has_no_end(world: World) -> None:
    world.add(id="fix")
    meet(world, Auth())
    assert why(world, "fix") == "waits for credential team: auth"


def test_a_budget_that_is_spent_is_named(world: World) -> None:
    world.add(id="fix")
    world.add(id="small", max_budget_usd=0.2)
    pay(world, 1.5)
    assert why(world, "fix").startswith("waits for budget project.app: 1.50 of 2.00 USD spent")
    assert why(world, "small") == ""
    ledger = Ledger(world.layout, SystemClock())
    held = Payer(uid=world.claim(world.add(id="runs")).uid, n=1, project="app")
    assert ledger.reserve(held, Amount(usd=0.4), {"project.app": Budget(usd=2.0)}) is None
    assert "0.40 reserved" in why(world, "small")


def test_a_failed_attempt_is_followed_after_its_delay_and_a_clock_that_was_wrong_does_not_make_it_longer(
    world: World,
) -> None:
    uid = world.add(id="fix")
    now = SystemClock().wall()
    owned = world.claim(uid)
    world.disk.run(
        attempts.end(
            world.me, owned, end_record(owned.n, Outcome.FAILED, not_before=rfc3339(now + 10 * 86400))
        )
    )
    with Desk(world.layout) as desk:
        holdups = Holdups(desk)
        holdups._now = now
        assert holdups.told(desk.view.find("fix")).reason == f"tried again from {rfc3339(now + 300)}"
        holdups._now = now + 11 * 86400
        assert holdups.told(desk.view.find("fix")).reason == ""


def test_a_project_that_is_not_configured_any_more_is_named(world: World) -> None:
    world.add(id="fix")
    world.layout.config.write_text("v: 1\n")
    assert why(world, "fix") == "project app is not in config.yaml"


def test_a_configuration_that_cannot_be_read_keeps_nobody_from_looking(world: World, tmp_path: Path) -> None:
    world.add(id="fix")
    world.layout.config.write_text("v: [\n")
    assert why(world, "fix") == ""
    assert "fix" in ctl(world.layout.root, "items").out


def test_what_is_not_ready_says_what_it_said_before(world: World) -> None:
    world.add(id="late", depends_on=["fix"])
    with Desk(world.layout) as desk:
        seen = desk.view.find("late")
        assert Holdups(desk).told(seen) == seen
