"""What `items` and `show` say of a ready item that nobody takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.agents.outcomes import Auth, UsageLimit
from harness.budgets import Amount
from harness.clock import SystemClock, rfc3339
from harness.config import Budget
from harness.control.desk import Desk
from harness.control.holdups import Holdups
from harness.limits import LimitRecord, Limits
from harness.model import End, Outcome
from harness.spend import Ledger, Payer
from harness.store import attempts
from tests.cli import ctl
from tests.stores import World
from tests.support import FakeClock

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


def fail(world: World, uid: str, not_before: str, ended_at: str = "2020-01-01T00:00:00Z") -> None:
    owned = world.claim(uid)
    record = End(n=owned.n, outcome=Outcome.FAILED, by="x", not_before=not_before, ended_at=ended_at)
    world.disk.run(attempts.end(world.me, owned, record))


def test_nothing_is_said_of_an_item_that_nothing_holds_up(world: World) -> None:
    world.add(id="fix")
    assert why(world, "fix") == ""


def test_a_pause_says_how_it_ends(world: World) -> None:
    world.add(id="fix")
    assert ctl(world.layout.root, "pause", "--project", "app").code == 0
    assert why(world, "fix") == "project app is paused, until: harnessctl resume --project app"
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


@pytest.mark.parametrize(
    ("ended_in", "not_before_in", "again_in"),
    [
        (-10.0, 20.0, 20.0),
        (-10.0, 10 * 86400.0, 290.0),  # never longer than retry.max_delay_s, counted from its end
        (-400.0, 10 * 86400.0, None),
        (-400.0, -5.0, None),
        (9 * 86400.0, 10 * 86400.0, 300.0),  # the clock went wrong
    ],
)
def test_a_failed_attempt_is_followed_after_its_delay(
    world: World, ended_in: float, not_before_in: float, again_in: float | None
) -> None:
    now = 1_800_000_000.0
    fail(world, world.add(id="fix"), rfc3339(now + not_before_in), rfc3339(now + ended_in))
    with Desk(world.layout, clock=FakeClock(wall=now)) as desk:
        said = Holdups(desk).told(desk.view.find("fix")).reason
    assert said == ("" if again_in is None else f"tried again from {rfc3339(now + again_in)}")


def test_an_agent_that_is_not_configured_any_more_is_named(world: World) -> None:
    world.add(id="fix", agent="shell")
    world.layout.config.write_text("\n".join(x for x in CONFIG.splitlines() if "shell" not in x))
    assert why(world, "fix") == "agent shell is not in config.yaml"


def test_a_title_is_shown_beside_what_holds_it_up(world: World) -> None:
    world.add(id="fix", title="Mend the login")
    ctl(world.layout.root, "pause")
    assert "Mend the login (paused, until: harnessctl resume)" in ctl(world.layout.root, "items").out


@pytest.mark.parametrize("moment", ["garbage", 5, True, {}, [], "9999-12-31T23:59:59-10:00"])
def test_a_moment_that_is_none_keeps_nobody_from_looking(world: World, moment: object) -> None:
    uid = world.add(id="fix")
    fail(world, uid, "2020-01-01T00:00:00Z")
    cell = world.layout.queue / "open" / uid / "1.end"
    changed = json.loads(cell.read_bytes()) | {"not_before": moment}
    cell.unlink()
    cell.write_text(json.dumps(changed))
    assert why(world, "fix") == ""


@pytest.mark.parametrize(
    "change",
    [{"until": 5}, {"until": None}, {"until": []}, {"credential": "a\0b"}, {"credential": "x" * 300}],
)
def test_a_limit_that_cannot_be_read_limits_nothing(world: World, change: dict[str, object]) -> None:
    world.add(id="fix")
    meet(world, UsageLimit(resets_at=SystemClock().wall() + 3600))
    path = world.layout.limits / "team.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"told": False} | change))
    assert why(world, "fix") == ""


def test_a_link_in_the_place_of_a_lock_keeps_nobody_from_looking(world: World) -> None:
    world.add(id="fix")
    meet(world, UsageLimit(resets_at=SystemClock().wall() + 3600))
    path = world.layout.limits / "team.json"
    over = {"told": False, "until": "2020-01-01T00:00:00Z"}
    path.write_text(json.dumps(json.loads(path.read_bytes()) | over))
    (world.layout.limits / "team.probe").symlink_to("/etc/passwd")
    assert why(world, "fix") == ""


def test_sums_that_cannot_be_read_are_made_again(world: World) -> None:
    world.add(id="fix")
    pay(world, 5.0)
    (world.layout.spend / "totals.json").write_text('{"v": 1, "place": ["2026-01-01", Infinity, 1]}')
    assert why(world, "fix").startswith("waits for budget project.app: 5.00 of 2.00 USD spent")


def test_limits_and_budgets_are_read_once_for_all_items(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(20):
        world.add(id=f"x{k}")
    reads: list[str] = []
    read = Limits.read

    def counted(self: Limits, name: str) -> LimitRecord | None:
        reads.append(name)
        return read(self, name)

    monkeypatch.setattr(Limits, "read", counted)
    assert ctl(world.layout.root, "items").code == 0
    assert reads == ["team"]


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
