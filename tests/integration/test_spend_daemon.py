"""Budgets in the real daemon: what cannot be paid is not started, a person is asked once, and more money lets it go on."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.clock import SystemClock
from harness.model import Outcome
from harness.spend import Ledger, entries
from harness.totals import Kind
from tests.daemons import Daemon, daemon
from tests.support import until

pytestmark = pytest.mark.timeout(180)

TOOL = """
import fcntl, json, os, pathlib, sys, time
place, name = pathlib.Path(sys.argv[1]), os.environ["HARNESS_ITEM"]
with open(place / "starts", "a") as starts:
    fcntl.flock(starts, fcntl.LOCK_EX)
    print(name, file=starts, flush=True)
print(json.dumps({"usd": float(sys.argv[2]), "in": 900, "out": 100}), flush=True)
while (place / f"wait.{name}").exists():
    time.sleep(0.01)
pathlib.Path(name).write_text(name)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "place"
    made.mkdir()
    (made / "tool.py").write_text(TOOL)
    return made


def agent(place: Path, usd: float = 0.25) -> dict[str, Any]:
    return {
        "adapter": "command",
        "argv": [sys.executable, str(place / "tool.py"), str(place), str(usd)],
        "output": "jsonl",
        "fields": {"cost_usd": "usd", "tokens_in": "in", "tokens_out": "out"},
        "instructions": "text",
    }


def started(place: Path) -> list[str]:
    try:
        return (place / "starts").read_text().split()
    except FileNotFoundError:
        return []


def states(d: Daemon) -> list[str]:
    return sorted(item.state.value for item in d.items().values())


def spent(d: Daemon) -> float:
    return Ledger(d.layout, SystemClock()).today().usd


def asked(d: Daemon) -> list[Path]:
    """What waits for a person; not the private names under which it is written."""
    return list(d.layout.interrupts.glob("*.json"))


FIVE = [{"id": f"i{k}", "prompt": "do it"} for k in range(5)]


def test_a_day_that_pays_three_of_five_items_starts_three_asks_once_and_goes_on_when_it_is_raised(
    tmp_path: Path, place: Path
) -> None:
    budgets = {"day": {"usd": 0.75}, "reserve_usd": 0.25}
    with daemon(tmp_path, workers=3, agents={"shell": agent(place)}, sandbox="none", budgets=budgets) as d:
        process = d.start()
        d.drop("five", FIVE)
        until(lambda: asked(d), 60, what=d.tail())
        until(lambda: states(d) == ["merged"] * 3 + ["ready"] * 2, 60, what=d.tail())
        until(lambda: d.status().budgets and d.status().budgets[0].waiting == 2, 30)
        until(lambda: d.status().needs, 30)
        seen = d.status()
        need = seen.needs[0]
        assert need.what.startswith("budget day: 0.75 of 0.75 USD spent; 2 items wait (i")
        assert seen.metrics["spend_usd_today"] == 0.75
        assert [e["budget"] for e in d.events("budget_met")] == ["day"]
        (question,) = asked(d)
        assert question.name == "budget.day.json"
        assert len(started(place)) == 3
        outcomes = [a.end.outcome for item in d.items().values() for a in item.attempts if a.end]
        assert outcomes == [Outcome.DONE] * 3
        d.config["budgets"] = {"day": {"usd": 1.25}, "reserve_usd": 0.25}
        d.write_config()
        process.send_signal(signal.SIGHUP)
        until(lambda: states(d) == ["merged"] * 5, 60, what=d.tail())
        until(lambda: not asked(d), 30)
        assert spent(d) == 1.25
        assert d.cli("spend", "--by", "agent") == 0


def test_until_idle_leaves_what_cannot_be_paid_to_a_person_and_a_budget_is_passed_only_by_what_runs(
    tmp_path: Path, place: Path
) -> None:
    budgets = {"fleet": {"usd": 1.0}, "reserve_usd": 0.3}
    agents = {"shell": agent(place, usd=0.5)}
    with daemon(tmp_path, workers=3, agents=agents, sandbox="none", budgets=budgets) as d:
        d.drop("five", FIVE)
        assert d.run_until_idle() == 1
        assert 1.0 <= spent(d) <= 1.0 + 3 * (0.5 - 0.3)
        (left,) = d.events("work_left")
        assert "until budgets.fleet is raised in config.yaml" in left["reason"]
        assert len(started(place)) == states(d).count("merged") in (2, 3)
        said = list(entries(d.layout))
        assert {e.uid for e in said if e.kind is Kind.RESERVE} == {
            e.uid for e in said if e.kind is Kind.SPENT
        }
        d.config["budgets"] = {}
        d.write_config()
        assert d.run_until_idle() == 0
        assert spent(d) == 2.5
        assert not asked(d)


def test_what_a_killed_worker_has_reserved_and_spent_is_given_back_and_paid_once(
    tmp_path: Path, place: Path
) -> None:
    budgets = {"fleet": {"usd": 0.6}, "reserve_usd": 0.3}
    (place / "wait.a").touch()
    with daemon(tmp_path, agents={"shell": agent(place)}, sandbox="none", budgets=budgets) as d:
        d.start()
        d.drop("a", {"id": "a", "prompt": "do it"})
        report = d.until_running("a")
        until(lambda: any("usd" in p.read_text() for p in d.layout.sessions.glob("*/*/stdout.1.log")), 30)
        d.kill(report)
        (place / "wait.a").unlink()
        d.until_state("a", "merged")
        until(
            lambda: not Ledger(d.layout, SystemClock()).read().items, 30
        )  # it is over, and all is given back
        charged = [(e.n, e.usd) for e in entries(d.layout) if e.kind is Kind.SPENT]
        assert charged == [(1, 0.25), (2, 0.25)]
        assert d.status().budgets == ()
        d.drop("b", {"id": "b", "prompt": "do it"})
        until(lambda: asked(d), 30)
        (question,) = asked(d)
        assert "0.50 of 0.60 USD spent: 1 items wait (b)" in json.loads(question.read_text())["what"]
        assert started(place) == ["a", "a"]
