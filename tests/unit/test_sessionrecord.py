"""summary.json and events files of sessions, as they are read again, also when somebody else has written them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from harness import sessionevents, sessionrecord
from harness.agents.base import Activity, Text, Tool, Usage
from harness.agents.jsonl import MAX_LINE_BYTES
from harness.sessionevents import EventFile
from harness.sessionrecord import RunRecord, SessionRecord, Spent
from tests.support import FakeClock


def made(**more: Any) -> SessionRecord:
    run = RunRecord(
        round=1,
        attempt="fix.1",
        slot="agent-1",
        started_at="2027-01-15T08:00:00.000Z",
        outcome="ok",
        duration_s=3.5,
        usage=Spent(tokens_in=10, cost_usd=0.25, turns=2),
        gates=({"name": "tests", "ok": False, "required": True, "seconds": 1.5, "reason": "exit 1"},),
    )
    values = {
        "item": "fix",
        "uid": "fix",
        "agent": "claude",
        "adapter": "claude",
        "session": "s",
        "runs": (run,),
    }
    return SessionRecord(**{**values, **more})


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    record = made(state={"cost": 1.5}, conversation="c-1")
    sessionrecord.write(path, record)
    assert sessionrecord.read(path) == record


@pytest.mark.parametrize(
    "change",
    [
        {"uid": 7},
        {"runs": 7},
        {"runs": [7]},
        {"runs": [{"round": "one", "attempt": "a", "slot": "s", "started_at": ""}]},
        {"runs": [{"round": True, "attempt": "a", "slot": "s", "started_at": ""}]},
        {"runs": [{"round": 1, "attempt": "a", "slot": "s", "started_at": 5}]},
        {"runs": [{"round": 1, "attempt": "a", "slot": "s", "started_at": "", "duration_s": float("nan")}]},
        {"runs": [{"round": 1, "attempt": "a", "slot": "s", "started_at": "", "duration_s": 10**400}]},
        {"runs": [{"round": 1, "attempt": "a", "slot": "s", "started_at": "", "usage": {"tokens_in": "9"}}]},
        {"runs": [{"round": 1, "attempt": "a", "slot": "s", "started_at": "", "usage": [1]}]},
        {"runs": [{"round": 1, "attempt": "a", "slot": "s", "started_at": "", "gates": ["tests"]}]},
        {"state": []},
        {"worktree": {}},
        {"v": 2},
    ],
)
def test_a_record_that_does_not_hold_what_it_should_is_none(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(json.loads(json.dumps(made().to_record())) | change))
    assert sessionrecord.read(path) is None


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    sessionrecord.write(tmp_path / "other", made())
    for name in ("fifo", "link", ".", "nothing"):
        assert sessionrecord.read(tmp_path / name) is None
        assert list(sessionevents.read(tmp_path / name)) == []


def test_events_are_read_as_they_were_said_without_signs_of_life(tmp_path: Path) -> None:
    clock = FakeClock()
    file = EventFile(tmp_path / "events.1.jsonl", clock)
    for event in (
        Text(text="a"),
        Activity(kind="x"),
        Tool(name="Bash", detail="ls"),
        Usage(turns=1),
        Usage(turns=1),
    ):
        file.add(event)
    file.close()
    said = list(sessionevents.read(tmp_path / "events.1.jsonl"))
    assert [x["kind"] for x in said] == ["text", "tool", "usage"]
    assert said[1] == {"t": clock.wall(), "kind": "tool", "name": "Bash", "detail": "ls"}


def test_an_endless_line_hides_nothing_that_comes_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "events.1.jsonl"
    with path.open("wb") as file:
        file.write(b'{"kind": "' + b"x" * (MAX_LINE_BYTES + 100) + b'"}\n[1]\n\xff\n')
        file.write(b'{"kind": "text", "text": "after"}\n{"kind": "text", "text": "no newline"}')
    assert [x["text"] for x in sessionevents.read(path)] == ["after", "no newline"]
