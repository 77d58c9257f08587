"""What people do with it every day, in one run of the daemon: each test looks at what became of its own items.

Four workers and an end when nothing is left to do, as `harnessctl run --until-idle`: three projects (without a gate, with one
that turns green, with one that never does) and agents that say what was recorded of real ones (tests/replay.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import replay
from tests.daemons import Daemon, daemon, git
from tests.hubs import person
from tests.support import plain_environment

pytestmark = pytest.mark.timeout(300)
DATA = Path(__file__).resolve().parent.parent / "data" / "agents"
TOOLS = ("claude", "codex", "gemini", "opencode")
HELLO = "echo hello > $HARNESS_ITEM.txt; git add -A; git commit -q -m hello"
COMMITTED = "echo x > committed; git add -A; git commit -q -m 'by the agent'"
HEALED = 'if grep -q "say goo[d]" "$HARNESS_PROMPT_FILE"; then echo good > result; else echo bad > result; fi'


def agent(tmp: Path, adapter: str, orders: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A fake tool that this adapter takes for its own, and that does as it is told."""
    recording = str(DATA / f"{adapter}-commit.jsonl")
    env = {"REPLAY": json.dumps({"recording": recording, "shell": HELLO, **orders})}
    return {"adapter": adapter, "binary": replay.installed(tmp), "env": env, **more}


@pytest.fixture(scope="module")
def d(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """After the run."""
    tmp = tmp_path_factory.mktemp("one_run")
    with pytest.MonkeyPatch.context() as monkeypatch:
        plain_environment(monkeypatch)
        agents: dict[str, Any] = {tool: agent(tmp, tool, {}) for tool in TOOLS}
        agents["long"] = agent(tmp, "claude", {"long": 20 << 20})
        deaf = {"hang": True, "orphan": True, "deaf": ["INT", "TERM", "HUP"]}
        stop = ["INT", 0.2, "TERM", 0.2, "KILL"]
        agents["deaf"] = agent(tmp, "claude", deaf, stop=stop, timeout_s=5.0)
        agents["shell"] = {"adapter": "command", "argv": ["sh", "{prompt_file}"], "prompt": "file"}
        with daemon(tmp, workers=4, agents=agents, heal={"rounds": 1}) as made:
            for name, gate in (
                ("gated", "grep -q good result || { echo 'say' 'good'; exit 1; }"),
                ("never", "echo no luck; exit 3"),
            ):
                place = str(person(tmp / name, {"README.md": "hello\n"}))
                gates = [{"name": f"{name}-gate", "run": gate}]
                made.config["projects"][name] = {
                    **made.config["projects"]["app"],
                    "path": place,
                    "gates": gates,
                }
            made.write_config()
            forged = made.layout.queue / "forged.json"
            items: dict[str, Any] = {
                "committed": {"prompt": COMMITTED},
                "left": {"prompt": "echo 1 > left; echo 2 >> README.md"},
                "evil": {"prompt": f'echo "{{}}" > {forged}; pwd > where; env > env'},
                "heal": {"prompt": HEALED, "project": "gated"},
                "bad": {"prompt": "echo x > a", "project": "never", "max_attempts": 2},
                **{
                    name: {"prompt": "Create a file and commit it", "agent": name}
                    for name in agents
                    if name != "shell"
                },
            }
            for name, item in items.items():
                made.drop(name, {"project": "app", **item})
            plan: dict[str, dict[str, Any]] = {
                "last": {"prompt": "cat a b > c", "depends_on": ["a", "b"]},
                "a": {"prompt": "echo a > a"},
                "b": {"prompt": "cat a; echo b > b", "depends_on": ["a"]},
            }
            made.drop("plan", [{"id": name, "project": "app", **item} for name, item in plan.items()])
            made.run_until_idle(240)
            yield made


def test_its_exit_code_says_that_one_item_needs_a_person_and_no_process_is_left(d: Daemon) -> None:
    assert d.code == 1
    states = {name: seen.state for name, seen in d.items().items()}
    assert {name for name, state in states.items() if state != "merged"} == {"bad"}
    assert not d.ours()


def test_a_dropped_file_becomes_one_merged_commit_whoever_commits_it(d: Daemon) -> None:
    assert d.merges().count(f"committed: {COMMITTED}"[:107]) == 1
    assert d.merges().count("left: echo 1 > left; echo 2 >> README.md") == 1
    assert len(d.merges()) == len([s for s in d.items().values() if s.item and s.item.project == "app"])
    assert git(d.app, "show", "main:committed") == "x"
    assert git(d.app, "show", "main:left") == "1"
    assert git(d.app, "show", "main:README.md").endswith("2")


def test_a_dependant_starts_on_a_base_that_contains_its_dependency(d: Daemon) -> None:
    assert git(d.app, "show", "main:c") == "a\nb"


def test_a_red_gate_goes_back_to_the_agent_until_it_passes(d: Daemon) -> None:
    seen = d.items()["heal"]
    assert len(seen.attempts) == 1
    assert [e["round"] for e in d.events("heal_started") if e["id"] == "heal"] == [1]
    assert git(d.base / "gated", "show", "main:result") == "good"


def test_a_gate_that_stays_red_parks_the_item_with_the_reason(d: Daemon) -> None:
    seen = d.items()["bad"]
    assert seen.state == "parked"
    assert len(seen.attempts) == 2
    assert "2 of 2 attempts spent" in seen.reason
    assert "never-gate" in seen.reason
    assert git(d.base / "never", "rev-list", "--count", "main") == "1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file that root may read and others not")
def test_the_agent_runs_in_its_worktree_and_cannot_write_the_queue(d: Daemon) -> None:
    where = git(d.app, "show", "main:where")
    assert where.startswith(str(d.layout.state / "worktrees" / "app"))
    assert not any(e.get("name") == "forged.json" for e in d.events("drop_taken"))
    assert "HARNESS_ITEM=evil" in git(d.app, "show", "main:env")


@pytest.mark.parametrize("tool", TOOLS)
def test_what_was_recorded_of_a_good_run_is_a_merge(d: Daemon, tool: str) -> None:
    assert git(d.app, "show", f"main:{tool}.txt") == "hello"
    assert [run.outcome for run in d.session(tool).runs] == ["ok"]
    assert d.session(tool).used.tokens_in == 3000


def test_a_line_of_twenty_megabytes_and_what_comes_behind_it_are_taken(d: Daemon) -> None:
    assert git(d.app, "show", "main:long.txt") == "hello"
    assert d.session("long").used.cost_usd == pytest.approx(0.01125)
    assert [e["outcome"] for e in d.events("agent_finished") if e["id"] == "long"] == ["ok"]


def test_an_agent_that_hears_no_signal_and_leaves_a_child_is_ended_with_it(d: Daemon) -> None:
    assert git(d.app, "show", "main:deaf.txt") == "hello"  # its result was its last word: that counts
    assert len(d.items()["deaf"].attempts) == 1
    assert not d.ours()
