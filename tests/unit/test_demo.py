"""The demo's plan keeps its promises without a daemon, and its board tells what the events say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.config import load
from harness.demo.agent import _told
from harness.demo.board import Board
from harness.demo.scene import Scene, build, drop_first, drop_rest
from harness.demo.work import FORMATS, HEADLINES, PLAN, REPOSITORY, SLUGS, Manner
from harness.logs import Event
from harness.model import Attempt, End, Item, Outcome, Verdict
from harness.prompts import Brief, RedGate, attempt_prompt, heal_prompt
from harness.reports import AgentReport
from harness.store.drops import Context, parse


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def _tests_pass(folder: Path) -> bool:
    argv = (sys.executable, "-B", "-m", "unittest", "-q")
    return subprocess.run(argv, cwd=folder, capture_output=True, check=False).returncode == 0


def test_the_plan_done_in_order_passes_its_own_tests(tmp_path: Path) -> None:
    _write(tmp_path, REPOSITORY)
    for work in PLAN.values():
        assert set(work.after) <= set(PLAN)
        _write(tmp_path, work.files)
    (tmp_path / FORMATS).write_text('FORMATS = ["plain", "markdown", "html"]\n')
    assert _tests_pass(tmp_path)


@pytest.mark.parametrize("work", [SLUGS, HEADLINES], ids=lambda work: str(work.id))
def test_what_a_careless_agent_writes_is_red(tmp_path: Path, work: Any) -> None:
    _write(tmp_path, REPOSITORY)
    _write(tmp_path, work.wrong)
    assert not _tests_pass(tmp_path)


def test_the_plan_shows_every_manner_of_the_agent() -> None:
    assert {work.manner for work in PLAN.values()} == set(Manner)
    assert len(PLAN) == 12


def test_the_root_of_the_demo_is_valid_and_every_drop_is_admissible(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    build(scene, workers=3)
    config = load(scene.layout.config)
    drop_first(scene)
    drop_rest(scene)
    context = Context(
        projects={p.name: tuple(p.agent) for p in config.projects.values()},
        agents=tuple(config.agents),
        max_attempts=config.retry.max_attempts,
        max_bytes=config.intake.max_bytes,
    )
    ids = []
    for path in sorted(scene.layout.queue.iterdir()):
        if path.suffix in (".json", ".jsonl"):
            drop = parse(path.name, path.read_bytes(), context)
            assert not drop.reasons
            ids += [str(draft.id) for draft in drop.drafts]
    assert sorted(ids) == sorted(PLAN)


ITEM = Item(uid="x-1", id="x", prompt="Do it.", project="wordkit")


def test_the_agent_understands_what_the_prompts_of_the_harness_say() -> None:
    red = RedGate(name="tests", reason="exit 1", run="python3 -m unittest")
    failed = End(n=1, outcome=Outcome.FAILED, by="agent-1", reason="gate tests: exit 1")
    expired = End(n=1, outcome=Outcome.EXPIRED, by="coordinator", reason="it died")
    done = End(n=1, outcome=Outcome.DONE, by="agent-1", sha="0" * 40)
    returned = Verdict(n=1, returned="conflict", files=("a",))
    brief = Brief(target="main")
    assert _told(attempt_prompt(ITEM, brief)) == ""
    assert _told(heal_prompt(ITEM, brief, [red], number=1, rounds=1)) == "check tests failed"
    assert _told(attempt_prompt(ITEM, brief, [Attempt(n=1, claim=None, end=failed)])) == "attempt 1 failed"
    assert _told(attempt_prompt(ITEM, brief, [Attempt(n=1, claim=None, end=expired)])) == "attempt 1 expired"
    back = Attempt(n=1, claim=None, end=done, verdict=returned)
    assert _told(attempt_prompt(ITEM, brief, [back])) == "attempt 1 was not merged"


def _at(second: int, event: Event, **fields: object) -> dict[str, object]:
    return {"v": 1, "ts": f"2026-01-01T00:00:{second:02d}.000Z", "event": event.value, **fields}


def _board(records: Iterable[Mapping[str, Any]]) -> Board:
    board = Board({"tokens": "Split text into words"})
    for record in records:
        board.hear(record)
    return board


OF = {"uid": "tokens-1", "id": "tokens", "n": 1}


def test_the_board_follows_an_item_from_its_admission_to_its_merge() -> None:
    board = _board([_at(1, Event.ITEM_ADMITTED, uid="tokens-1", id="tokens", phase="open")])
    row = board.rows["tokens"]
    assert row.state == "ready"
    board.hear(_at(2, Event.ITEM_CLAIMED, agent="agent-1", **OF))
    board.see([AgentReport(agent="agent-1", pid=1, state="gates", item="tokens-1", id="tokens", attempt=1)])
    assert (row.state, row.agent, row.attempt) == ("gates", "agent-1", 1)
    board.hear(_at(3, Event.ITEM_SUBMITTED, agent="agent-1", **OF))
    assert row.state == "merging"
    board.hear(_at(4, Event.ITEM_MERGED, sha="a" * 40, **OF))
    assert board.merged == 1


def test_the_board_says_how_long_after_the_kill_the_attempt_ended_and_the_worker_was_replaced() -> None:
    board = _board([_at(1, Event.ITEM_CLAIMED, agent="agent-1", **OF)])
    worker = AgentReport(agent="agent-1", pid=77, state="running", item="tokens-1", id="tokens", attempt=1)
    board.note_kill(worker, at=1767225602.0)  # second 2
    board.hear(_at(3, Event.ATTEMPT_EXPIRED, uid="tokens-1", n=1, outcome="expired"))
    board.hear(_at(4, Event.WORKER_STARTED, agent="agent-1", pid=78))
    assert board.kill is not None
    assert (board.kill.expired_at, board.kill.replaced_at) == (1767225603.0, 1767225604.0)
    assert board.rows["tokens"].state == "ready"
    assert any("kill -9 77: on purpose" in line.text for line in board.lines)
    assert any("2.00 s after the kill" in line.text for line in board.lines)


def test_a_worker_that_died_by_itself_is_told_as_such() -> None:
    board = _board([_at(1, Event.WORKER_DIED, agent="agent-2", signal=9)])
    assert "not on purpose" in board.lines[-1].text
