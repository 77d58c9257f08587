"""Real agents, run by hand against the model server: what they do is what the server's scripts say.

Not in the default run: `scripts/test-agents` installs the agents, and sets the variables without which these are skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agents.clis import VARIABLES, Place
from tests.agents.ledger import Escape
from tests.agents.scripts import Fail, Script, Tokens, Trouble, limited, writing
from tests.agents.server import ModelServer

LEAVES = ("codex", "opencode")
"""They look for news on other hosts whatever they are told; nobody answers, and they work all the same."""
EXITS = {
    "usage_limit": {"gemini": 429 % 256},
    "auth": {"gemini": 401 % 256},
}
"""How an agent that has failed ends, where it is not 1."""

everyone = pytest.mark.parametrize("name", list(VARIABLES))


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as made:
        yield made


@pytest.fixture
def place(server: ModelServer, tmp_path: Path) -> Iterator[Callable[[str], Place]]:
    """Makes folders for an agent. At the end: whether it has tried to leave."""
    made: list[Place] = []

    def new(name: str) -> Place:
        made.append(Place(name, server, tmp_path / name))
        return made[-1]

    yield new
    for used in made:
        assert used.name in LEAVES or server.escapes == ()
    assert all(_refused(escape) for escape in server.escapes)


def _refused(escape: Escape) -> bool:
    """Only asked for a way out, by a name and a port; nothing was said to anybody."""
    return escape.method == "CONNECT" and escape.target.endswith(":443")


@everyone
def test_a_text_is_answered(name: str, place: Callable[[str], Place]) -> None:
    agent = place(name)
    run = agent.run("plain")
    assert run.exit_code == 0, run
    assert agent.text(run) == "Hello from the model."
    assert [r.answer for r in agent.server.requests()] == ["text"]
    assert agent.commits() == []


@everyone
def test_files_are_written_and_committed(name: str, place: Callable[[str], Place]) -> None:
    agent = place(name)
    run = agent.run("commit")
    assert run.exit_code == 0, run
    assert agent.commits() == ["Write hello.txt"]
    assert (agent.worktree / "hello.txt").read_text() == "hello\n"
    assert [(r.turn, r.answer) for r in agent.server.requests()] == [(0, "tools"), (1, "tools"), (2, "text")]
    assert len(agent.server.conversations()) == 1


@everyone
def test_a_short_rate_limit_is_waited_for(name: str, place: Callable[[str], Place]) -> None:
    agent = place(name)
    run = agent.run("rate2_commit")
    assert run.exit_code == 0, run
    assert agent.commits() == ["Write hello.txt"]
    assert [r.status for r in agent.server.requests()] == [429, 429, 200, 200, 200]


@pytest.mark.parametrize("name", [name for name in VARIABLES if name != "opencode"])
def test_a_usage_limit_ends_the_run_and_when_it_is_over_the_next_one_works(
    name: str, place: Callable[[str], Place]
) -> None:
    agent = place(name)
    agent.server.limit(until=time.time() + 7200)
    limited = agent.run("commit")
    assert limited.exit_code == EXITS["usage_limit"].get(name, 1), limited
    assert {r.status for r in agent.server.requests()} == {429}
    assert agent.commits() == []
    agent.server.limit(until=0)
    run = agent.run("commit")
    assert run.exit_code == 0, run
    assert agent.commits() == ["Write hello.txt"]


def test_opencode_waits_until_a_usage_limit_is_reset(place: Callable[[str], Place]) -> None:
    agent = place("opencode")
    once = Fail(Trouble.USAGE_LIMIT, times=1, retry_after_s=3)
    agent.server.script("limited", limited(once, writing("hello.txt", "hello\n")))
    run = agent.run("limited")
    assert run.exit_code == 0, run
    assert agent.commits() == ["Write hello.txt"]
    first, second, *_ = agent.server.requests()
    assert (first.answer, second.answer) == ("usage_limit", "tools")
    assert second.at - first.at >= 3


@everyone
def test_a_key_that_is_refused_ends_the_run(name: str, place: Callable[[str], Place]) -> None:
    agent = place(name)
    run = agent.run("auth")
    assert run.exit_code == EXITS["auth"].get(name, 1), run
    assert {r.status for r in agent.server.requests()} == {401}
    assert agent.commits() == []


@everyone
def test_a_session_goes_on_with_what_was_said(name: str, place: Callable[[str], Place]) -> None:
    agent = place(name)
    first = agent.run("plain", "Say hello.")
    assert first.exit_code == 0, first
    session = agent.session(first)
    second = agent.run("commit", "Now create hello.txt and commit it.", resume=session)
    assert second.exit_code == 0, second
    assert agent.session(second) == session
    assert agent.commits() == ["Write hello.txt"]
    assert [(r.scenario, r.turn) for r in agent.server.requests()] == [
        ("plain", 0), ("commit", 0), ("commit", 1), ("commit", 2),
    ]  # fmt: skip
    assert len(agent.server.conversations()) == 1


claudes = pytest.mark.parametrize("name", ["claude", "claude-old"])


@claudes
def test_a_subscription_is_told_when_its_limit_is_reset(name: str, place: Callable[[str], Place]) -> None:
    agent = place(name)
    until = int(time.time()) + 7200
    agent.server.limit(until)
    run = agent.run("commit", ANTHROPIC_API_KEY="", CLAUDE_CODE_OAUTH_TOKEN="dummy")
    assert run.exit_code == 1, run
    told = run.event("rate_limit_event")["rate_limit_info"]
    assert (told["status"], told["resetsAt"]) == ("rejected", until)


@claudes
def test_an_endless_loop_is_ended_by_the_number_of_turns(name: str, place: Callable[[str], Place]) -> None:
    agent = place(name)
    run = agent.run("loop", "Do it.", "--max-turns", "3")
    assert run.exit_code == 1, run
    assert run.event("result")["subtype"] == "error_max_turns"
    assert [r.turn for r in agent.server.requests()] == [0, 1, 2]


@claudes
def test_costly_replies_are_ended_by_the_budget(name: str, place: Callable[[str], Place]) -> None:
    agent = place(name)
    run = agent.run("costly", "Do it.", "--max-budget-usd", "1.5")
    assert run.exit_code == 1, run
    assert run.event("result")["subtype"] == "error_max_budget_usd"
    assert agent.server.spent().cost_usd == pytest.approx(1.8)
    assert run.event("result")["total_cost_usd"] == pytest.approx(1.8)


@claudes
def test_claude_reckons_the_same_costs_to_the_cent(name: str, place: Callable[[str], Place]) -> None:
    agent = place(name)
    tokens = Tokens(fresh=20_000, cached=40_000, out=5_000)
    agent.server.script("dear", Script(writing("hello.txt", "hello\n", tokens=tokens)))
    run = agent.run("dear")
    assert run.exit_code == 0, run
    assert agent.server.spent().cost_usd == pytest.approx(3 * 0.147)
    assert run.event("result")["total_cost_usd"] == pytest.approx(3 * 0.147)


@everyone
def test_work_is_repaired_in_the_same_session(name: str, place: Callable[[str], Place]) -> None:
    agent = place(name)
    first = agent.run("heal", "Do the work.")
    assert (first.exit_code, (agent.worktree / "work.txt").read_text()) == (0, "bad\n"), first
    second = agent.run("heal", "A check failed. Repair it.", resume=agent.session(first))
    assert (second.exit_code, (agent.worktree / "work.txt").read_text()) == (0, "good\n"), second
    assert [r.correction for r in agent.server.requests()] == [0, 0, 0, 1, 1, 1]
