"""A limit of a credential in the middle of a run: nobody starts on it, nothing is spent, and the same sessions go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness import sessionrecord
from harness.clock import parse_rfc3339
from harness.model import Outcome
from tests.daemons import Daemon, daemon, git
from tests.limited import agent, limited, starts
from tests.support import until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "place"


def sessions(d: Daemon, name: str) -> Mapping[str, sessionrecord.SessionRecord]:
    """Folder -> record, of all sessions of an item."""
    found = {p.parent.name: sessionrecord.read(p) for p in d.layout.sessions.glob("*/*/summary.json")}
    return {folder: record for folder, record in found.items() if record and record.item == name}


def test_a_usage_limit_in_the_middle_costs_nothing_and_the_same_sessions_go_on(
    tmp_path: Path, place: Path
) -> None:
    limited(place, at=5, lasts_s=3.0)
    with daemon(tmp_path, workers=3, agents={"shell": agent(place)}, sandbox="none") as d:
        d.drop("ten", [{"id": f"i{k}", "prompt": "do it"} for k in range(10)])
        assert d.run_until_idle() == 0
        ends = float((place / "until").read_text())
        items = d.items()
        assert {item.state for item in items.values()} == {"merged"}
        outcomes = [a.end.outcome for item in items.values() for a in item.attempts if a.end]
        assert outcomes.count(Outcome.DONE) == 10
        assert set(outcomes) == {Outcome.DONE, Outcome.RELEASED}
        assert outcomes.count(Outcome.RELEASED) <= 3
        late = [float(at) for at, *_ in starts(place) if float(at) > ends]
        assert 0 <= min(late) - ends < 20.0  # how late, is measured by ./scripts/bench limits
        for name in items:
            (record,) = sessions(d, name).values()
            assert record.runs[-1].outcome == "ok"
            assert len({s for _, item, how, s in starts(place) if item == name and how == "resume"}) <= 1
            if len(record.runs) > 1:
                assert record.runs[-1].resumed
                assert record.used.cost_usd == 0.25
                raw = next(d.layout.sessions.glob(f"*/{record.uid}.*/stdout.2.log")).read_text()
                assert json.loads(raw.splitlines()[1]) == {"found": "half of it"}
        assert len(d.merges()) == 10
        assert git(d.app, "ls-tree", "--name-only", "main").split() == sorted(["README.md", *items])
        met = [e["kind"] for e in d.events("limit_met")]
        assert set(met) == {"usage"}
        assert len(met) <= outcomes.count(
            Outcome.RELEASED
        )  # who comes right behind the first waits, and meets none


def test_while_a_limit_holds_status_says_what_waits_until_when_and_another_agent_goes_on(
    tmp_path: Path, place: Path
) -> None:
    limited(place, at=1, lasts_s=600.0)
    agents = {"shell": agent(place), "other": {"adapter": "command", "argv": ["sh", "{prompt_file}"]}}
    with daemon(tmp_path, agents=agents, sandbox="none") as d:
        d.start()
        d.drop("a", {"id": "a", "prompt": "x"})
        until(lambda: d.events("limit_met"), 30)
        d.drop("b", {"id": "b", "prompt": "x"})
        d.drop("c", {"id": "c", "prompt": "echo c > c", "agent": "other"})
        d.drop("d", {"id": "d", "prompt": "echo d > d", "agent": ["shell", "other"]})
        d.until_state("c", "merged")
        d.until_state("d", "merged")
        until(lambda: (report := d.coordinator()) is not None and report.limited == {"agent.shell": 2}, 30)
        seen = d.status()
        (limit,) = seen.limits
        assert (limit.credential, limit.kind, limit.waiting) == ("agent.shell", "usage", 2)
        assert limit.until is not None
        assert 590 < parse_rfc3339(limit.until) - float(starts(place)[0][0]) < 610
        assert len(starts(place)) == 1
        assert d.state("a") == d.state("b") == "ready"


def test_without_a_reset_time_one_attempt_tries_and_the_others_follow_when_it_has_an_answer(
    tmp_path: Path, place: Path
) -> None:
    limited(place, at=1, lasts_s=2.0, tells=False)
    with daemon(tmp_path, workers=3, agents={"shell": agent(place)}, sandbox="none") as d:
        d.drop("six", [{"id": f"i{k}", "prompt": "do it"} for k in range(6)])
        assert d.run_until_idle() == 0
        ends = float((place / "until").read_text())
        assert {item.state for item in d.items().values()} == {"merged"}
        first = float(starts(place)[0][0])
        early = [float(at) for at, *_ in starts(place) if first + 1.0 < float(at) < ends]
        assert len(early) <= 3  # after 1 and 2 s, one each
        assert list(d.layout.limits.glob("*.json")) == []


def test_a_refused_credential_stops_what_needs_it_asks_a_person_and_goes_on_when_told(
    tmp_path: Path, place: Path
) -> None:
    refused = tmp_path / "refused"
    refused.touch()
    script = f'test -e {refused} && echo "401 invalid key" && exit 1; echo ok > "$HARNESS_ITEM"'
    auth = {"match": "401", "class": "auth"}
    agents = {"shell": {"adapter": "command", "argv": ["sh", "-c", script], "patterns": [auth]}}
    with daemon(tmp_path, agents=agents, sandbox="none") as d:
        d.drop("a", {"id": "a", "prompt": "x"})
        d.drop("b", {"id": "b", "prompt": "x"})
        assert d.run_until_idle() == 1
        (question,) = d.layout.interrupts.glob("*.json")
        assert "401 invalid key" in json.loads(question.read_text())["what"]
        need = d.status().needs[0]
        assert "credential agent.shell is refused (auth)" in need.what
        (asked,) = d.status().to_json()["interrupts"]
        assert (asked["id"], asked["kind"]) == ("credential.agent.shell", "credential")
        refused.unlink()
        assert d.cli(*need.command.partition("   #")[0].split()[1:]) == 0
        assert d.run_until_idle() == 0
        assert {item.state for item in d.items().values()} == {"merged"}
        assert len(d.events("agent_started")) == 3
        assert not list(d.layout.interrupts.iterdir())
