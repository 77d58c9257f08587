"""Real agents run by the real daemon, against a model on loopback."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from harness.clock import parse_rfc3339
from harness.model import Outcome
from tests.agents.fleets import CONVERSATION, VARIABLES, fleet, session
from tests.agents.scripts import Fail, Say, Script, Shell, Trouble, commit, writing
from tests.agents.server import ModelServer
from tests.daemons import Daemon, git
from tests.support import until

pytestmark = pytest.mark.timeout(900)
ALL = pytest.mark.parametrize("name", list(VARIABLES))
CLAUDES = ("claude", "claude-old")
LONG_S = 400.0
SLEEP = "python3 -c 'import time; time.sleep(321)'"
WRITE = Say("I write it.", (Shell(f"echo hello > hello.txt; {commit('hello').command} || true"),))
BROKEN_OFF = Script(
    (Say("This takes long.", (Shell(SLEEP),)), Say("The tool has ended.")),
    "were interrupted",
    ((WRITE, WRITE),),  # the reply that was broken off counts as the first
)
"""A long tool; who is told that it was interrupted writes a file instead."""
TASK: dict[str, Any] = {"id": "a", "prompt": "Create hello.txt and commit it"}


@pytest.fixture
def server() -> Any:
    with ModelServer({"broken_off": BROKEN_OFF}, conversation=CONVERSATION) as made:
        yield made


def escaped(server: ModelServer, name: str) -> list[str]:
    """Hosts that were asked for, and refused. Codex is known to try some, whatever it is told."""
    hosts = sorted({escape.target for escape in server.escapes})
    return [] if name == "codex" else hosts


def outcomes(d: Daemon) -> list[str]:
    return [run.outcome for run in session(d, "a").runs]


def ends(d: Daemon) -> list[Outcome | None]:
    return [attempt.end.outcome if attempt.end else None for attempt in d.items()["a"].attempts]


def until_tool(d: Daemon) -> None:
    """The agent's long tool runs."""
    until(lambda: _sleepers(d), 120, what=f"the tool runs; {d.tail()}")


def _sleepers(d: Daemon) -> list[int]:
    found = []
    for who in d.ours():
        try:
            line = Path(f"/proc/{who.pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"sleep(321)" in line:
            found.append(who.pid)
    return found


def exact(server: ModelServer, d: Daemon) -> None:
    """What the daemon charged is what the model server has counted."""
    used, truth = session(d, "a").used, server.spent("a")
    assert used.estimated is False
    if used.cost_usd is not None:
        assert used.cost_usd == pytest.approx(truth.cost_usd, abs=0.005)
    assert (used.tokens_in, used.tokens_out) == (truth.tokens_in, truth.tokens_out)


@ALL
def test_a_commit_of_the_agent_is_merged(tmp_path: Path, server: ModelServer, name: str) -> None:
    with fleet(name, server, "commit", tmp_path) as d:
        d.drop("a", TASK)
        assert d.run_until_idle(LONG_S) == 0
        assert git(d.app, "show", "main:hello.txt") == "hello"
        assert outcomes(d) == ["ok"]
        assert escaped(server, name) == []
        exact(server, d)


@ALL
def test_a_red_gate_goes_back_to_the_same_session_until_it_is_green(
    tmp_path: Path, server: ModelServer, name: str
) -> None:
    gate = {"name": "good", "run": "grep -q good work.txt"}
    with fleet(name, server, "heal2", tmp_path, project={"gates": [gate]}) as d:
        d.drop("a", TASK)
        assert d.run_until_idle(LONG_S) == 0
        record = session(d, "a")
        assert [run.resumed for run in record.runs] == [False, True, True]
        assert [next(g["ok"] for g in run.gates if g["name"] == "good") for run in record.runs] == [
            False,
            False,
            True,
        ]
        assert len(server.conversations()) == 1
        assert git(d.app, "show", "main:work.txt") == "good"
        assert escaped(server, name) == []
        exact(server, d)


@ALL
def test_a_short_rate_limit_that_passes_is_waited_for(tmp_path: Path, server: ModelServer, name: str) -> None:
    with fleet(name, server, "rate2_commit", tmp_path) as d:
        d.drop("a", TASK)
        assert d.run_until_idle(LONG_S) == 0
        assert ends(d)[-1] is Outcome.DONE
        assert set(ends(d)) <= {Outcome.DONE, Outcome.RELEASED}
        assert git(d.app, "show", "main:hello.txt") == "hello"
        assert escaped(server, name) == []


@ALL
def test_after_a_usage_limit_the_same_session_goes_on(tmp_path: Path, server: ModelServer, name: str) -> None:
    resets_at = float(int(time.time()) + 40)  # some need half of that until their first request
    steps = writing("hello.txt", "hello\n")
    server.script("amid", Script((steps[0], Fail(Trouble.USAGE_LIMIT, resets_at=resets_at), *steps[1:])))
    more = {"key_variable": "CLAUDE_CODE_OAUTH_TOKEN"} if name in CLAUDES else {}
    with fleet(name, server, "amid", tmp_path, **more) as d:
        d.drop("a", TASK)
        assert d.run_until_idle(LONG_S) == 0
        assert ends(d)[-1] is Outcome.DONE
        assert ends(d)[:-1] == [Outcome.RELEASED] * (len(ends(d)) - 1)
        assert len(ends(d)) > 1
        record = session(d, "a")
        assert set(outcomes(d)[:-1]) <= {"usage_limit", "rate_limit"}
        assert record.runs[-1].resumed
        assert escaped(server, name) == []


@ALL
def test_an_overload_stops_the_credential_for_a_while_and_costs_no_attempt(
    tmp_path: Path, server: ModelServer, name: str
) -> None:
    with fleet(name, server, "overloaded", tmp_path) as d:
        d.start()
        d.drop("a", TASK)
        until(lambda: d.events("limit_met"), LONG_S, what=d.tail())
        assert d.events("limit_met")[0]["kind"] == "overloaded"
        assert set(ends(d)) <= {Outcome.RELEASED, None}
        assert escaped(server, name) == []


@ALL
def test_a_refused_key_stops_the_credential_and_asks_a_person(
    tmp_path: Path, server: ModelServer, name: str
) -> None:
    with fleet(name, server, "auth", tmp_path) as d:
        d.drop("a", TASK)
        assert d.run_until_idle(LONG_S) == 1
        assert [e["kind"] for e in d.events("limit_met")] == ["auth"]
        assert "credential team is refused" in d.status().needs[0].what
        assert d.state("a") == "ready"
        assert ends(d) == [Outcome.RELEASED]
        assert "dummy-key" not in session(d, "a").runs[0].detail
        assert escaped(server, name) == []


@ALL
def test_a_budget_that_is_spent_ends_the_run(tmp_path: Path, server: ModelServer, name: str) -> None:
    more: dict[str, Any] = {"agent": {"max_budget_usd": 1.5}, "prices": {"*": {"input": 3, "output": 15}}}
    with fleet(name, server, "costly", tmp_path, **more) as d:
        d.drop("a", TASK | {"max_attempts": 1})
        assert d.run_until_idle(LONG_S) == 1
        assert outcomes(d) == ["budget"]
        used = session(d, "a").used
        assert used.cost_usd is not None
        assert 1.5 < used.cost_usd <= 2.8
        exact(server, d) if name in CLAUDES else None


@ALL
def test_too_many_turns_end_the_run(tmp_path: Path, server: ModelServer, name: str) -> None:
    with fleet(name, server, "loop", tmp_path, agent={"max_turns": 3}) as d:
        d.drop("a", TASK | {"max_attempts": 1})
        assert d.run_until_idle(LONG_S) == 1
        assert outcomes(d) == ["max_turns"]
        assert len(server.requests()) <= 8
        assert not _sleepers(d)


@ALL
def test_a_model_that_says_nothing_for_too_long_is_a_stall(
    tmp_path: Path, server: ModelServer, name: str
) -> None:
    health = {"beat_s": 0.5, "hang_s": 60.0, "stall_s": 12.0}
    with fleet(name, server, "stall_headers", tmp_path, health=health) as d:
        d.drop("a", TASK | {"max_attempts": 1})
        assert d.run_until_idle(LONG_S) == 1
        assert outcomes(d) == ["stalled"]
        assert not d.ours()


@ALL
def test_a_worker_that_is_killed_in_the_middle_of_a_tool_leaves_nothing_and_the_session_goes_on(
    tmp_path: Path, server: ModelServer, name: str
) -> None:
    with fleet(name, server, "broken_off", tmp_path) as d:
        d.start()
        d.drop("a", TASK)
        until_tool(d)
        d.kill(d.until_running("a"), signal.SIGKILL)
        until(lambda: not _sleepers(d), 10, what="the tool is dead")
        d.until_state("a", "merged", timeout_s=LONG_S)
        until(lambda: "hello.txt" in git(d.app, "ls-tree", "--name-only", "main"), 30, what="it is published")
        assert ends(d) == [Outcome.EXPIRED, Outcome.DONE]
        record = session(d, "a")
        assert [run.resumed for run in record.runs] == [False, True]
        assert git(d.app, "show", "main:hello.txt") == "hello"
        assert len(server.conversations()) == 1
        used, truth = record.used, server.spent("a")
        if used.tokens_in is not None:
            assert abs(used.tokens_in - truth.tokens_in) <= 1000
        if used.cost_usd is not None:
            assert abs(used.cost_usd - truth.cost_usd) <= 0.0075


@ALL
def test_after_a_stop_the_session_goes_on_where_it_was(
    tmp_path: Path, server: ModelServer, name: str
) -> None:
    with fleet(name, server, "broken_off", tmp_path) as d:
        process = d.start()
        d.drop("a", TASK)
        until_tool(d)
        assert d.cli("stop") == 0
        until(lambda: process.poll() is not None, 60, what=d.tail())
        assert not d.ours()
        assert ends(d) == [Outcome.RELEASED]
        assert d.run_until_idle(LONG_S) == 0
        assert ends(d) == [Outcome.RELEASED, Outcome.DONE]
        assert [run.resumed for run in session(d, "a").runs] == [False, True]
        assert git(d.app, "show", "main:hello.txt") == "hello"
        if name in CLAUDES:  # it says what it used when it is interrupted
            exact(server, d)


@pytest.mark.parametrize("name", CLAUDES)
def test_ten_items_meet_a_usage_limit_and_none_pays_an_attempt_for_it(
    tmp_path: Path, server: ModelServer, name: str
) -> None:
    """Three workers, and the limit comes in the middle: all are merged, each in its own conversation."""
    names = [f"i{k}" for k in range(10)]
    with fleet(name, server, "item", tmp_path, key_variable="CLAUDE_CODE_OAUTH_TOKEN", workers=3) as d:
        d.start()
        d.drop("ten", [{"id": one, "prompt": f"Create {one}.txt and commit it"} for one in names])
        until(lambda: any(d.state(one) == "merged" for one in names), LONG_S, what=d.tail())
        ends_at = float(int(time.time()) + 20)  # it is told in whole seconds
        server.limit(ends_at)
        until(lambda: all(d.state(one) == "merged" for one in names), LONG_S, what=d.tail())
        found = [a.end.outcome for item in d.items().values() for a in item.attempts if a.end]
        assert found.count(Outcome.DONE) == 10
        assert set(found) == {Outcome.DONE, Outcome.RELEASED}
        late = [parse_rfc3339(e["ts"]) - ends_at for e in d.events("agent_started")]
        assert 0 <= min(x for x in late if x > -1) < 2
        assert not [x for x in late if -8 < x < 0]
        for one in names:
            record = session(d, one)
            assert [run.resumed for run in record.runs] == [False, *[True] * (len(record.runs) - 1)]
        assert len(server.conversations()) == 10
