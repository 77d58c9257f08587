"""What a tool says while it runs: read as it comes, heard once, and able to end the run or to keep it from being a stall."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness import sessionevents
from harness.agents.base import (
    AgentEvent,
    Bounds,
    Final,
    GiveUp,
    Invocation,
    LimitKind,
    LostSession,
    Problem,
    Retrying,
    Started,
    Stream,
    Task,
    Text,
    Usage,
)
from harness.agents.jsonl import MAX_LINE_BYTES
from harness.agents.outcomes import AgentOutcome, Auth, Budget, Ok
from harness.live import RETRY_GRACE_S, Live
from harness.runner import Ended, EndReason
from harness.sessionfolder import SessionFolder
from harness.stream import SHOWN_BYTES, Growing
from tests.support import FakeClock

KINDS = {kind.__name__: kind for kind in (Started, Final, LostSession, Problem, Retrying, Text, Usage)}


class Parrot:
    """Each line is a JSON list of events' names and fields."""

    tail_bytes: int | None = None
    resumes = True
    kept: Path | None = None

    def command(self, task: Task, environ: Mapping[str, str]) -> Invocation:
        raise NotImplementedError

    def journal(self) -> Path | None:
        return self.kept

    def feed(self, stream: Stream, line: bytes) -> list[AgentEvent]:
        if stream is Stream.JOURNAL and line.startswith(b"\0"):
            return []
        if line == b"auth":
            return [GiveUp(outcome=Auth(detail="401"))]
        return [KINDS[name](**fields) for name, fields in json.loads(line)]

    def finish(self, ended: Ended, now: float) -> AgentOutcome:
        return Ok()

    def usage(self) -> Usage | None:
        return None

    def state(self) -> Mapping[str, Any]:
        return {}


@pytest.fixture
def folder(tmp_path: Path) -> SessionFolder:
    made = SessionFolder(tmp_path / "session", tmp_path / "scratch")
    made.path.mkdir()
    return made


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def live(folder: SessionFolder, clock: FakeClock, heard: list[AgentEvent], **more: Any) -> Live:
    fields: dict[str, Any] = {"cost": lambda usage: usage.cost_usd, "bounds": Bounds(), "hear": heard.append}
    return Live(Parrot(), folder, 1, clock=clock, **{**fields, **more})


def say(folder: SessionFolder, *lines: object, end: str = "\n") -> None:
    with folder.stdout(1).open("a") as file:
        file.write("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + end)


def test_each_line_is_heard_once_when_it_is_whole(folder: SessionFolder, clock: FakeClock) -> None:
    heard: list[AgentEvent] = []
    with live(folder, clock, heard) as one:
        assert one.look() is None  # there is no file yet
        say(folder, [["Started", {"session": "s"}]])
        say(folder, '[["Final", {"te', end="")
        one.look()
        one.look()
        assert heard == [Started(session="s")]
        say(folder, 'xt": "done"}]]', end="")
        one.look()
        assert len(heard) == 1
        one.drain()
        assert heard[1:] == [Final(text="done")]
        assert one.text == "done"
    kept = [event["kind"] for event in sessionevents.read(folder.events(1))]
    assert kept == ["started", "final"]


def test_a_run_that_cannot_succeed_is_to_be_stopped_and_ends_as_what_it_said(
    folder: SessionFolder, clock: FakeClock
) -> None:
    with live(folder, clock, []) as one:
        say(folder, "auth")
        why = one.look()
        assert why == "auth: 401"
        stopped = Ended(reason=EndReason.STOPPED, stop_reason=why or "")
        assert one.verdict(stopped) == Auth(detail="401")
        assert one.verdict(Ended(reason=EndReason.STOPPED, stop_reason="cancelled by cli")) is None
        assert one.verdict(Ended(reason=EndReason.EXITED, exit_code=1)) is None


def test_while_an_announced_retry_counts_down_silence_is_no_stall(
    folder: SessionFolder, clock: FakeClock
) -> None:
    with live(folder, clock, []) as one:
        assert one.patient_s() == 0
        say(folder, [["Retrying", {"kind": LimitKind.RATE, "delay_s": 40.0, "attempt": 1}]])
        one.look()
        assert one.patient_s() == clock.monotonic() + 40 + RETRY_GRACE_S


def test_a_tool_that_passes_its_budget_of_tokens_is_stopped(folder: SessionFolder, clock: FakeClock) -> None:
    with live(folder, clock, [], bounds=Bounds(tokens=1000)) as one:
        say(folder, [["Usage", {"tokens_in": 900, "tokens_cached": 800, "tokens_out": 100}]])
        assert one.look() is None
        say(folder, [["Usage", {"tokens_in": 1900, "tokens_out": 150}]])
        assert one.look() == "budget: 2050 tokens of 1000"


def test_a_tool_that_passes_its_budget_is_stopped(folder: SessionFolder, clock: FakeClock) -> None:
    with live(folder, clock, [], bounds=Bounds(usd=1.0)) as one:
        say(folder, [["Usage", {"cost_usd": 0.9, "turns": 1}]])
        assert one.look() is None
        say(folder, [["Usage", {"cost_usd": 1.2, "turns": 2}]])
        why = one.look()
        assert why == "budget: 1.20 USD of 1.00"
        assert isinstance(one.verdict(Ended(reason=EndReason.STOPPED, stop_reason=why or "")), Budget)


def test_a_tool_that_has_said_its_last_word_is_not_stopped_for_what_it_cost(
    folder: SessionFolder, clock: FakeClock
) -> None:
    with live(folder, clock, [], bounds=Bounds(usd=1.0)) as one:
        say(folder, [["Usage", {"cost_usd": 1.2}], ["Final", {"text": "done"}]])
        assert one.look() is None
        say(folder, [["Text", {"text": "I have summed it up, and go on"}]])
        assert one.look() == "budget: 1.20 USD of 1.00"


class Ticking(FakeClock):
    """A hundredth of a second for each time that it is read."""

    def monotonic(self) -> float:
        self.advance(0.01)
        return super().monotonic()


def test_a_tool_that_says_more_than_can_be_heard_does_not_keep_its_worker_from_everything_else(
    folder: SessionFolder,
) -> None:
    heard: list[AgentEvent] = []
    beats: list[int] = []
    with live(folder, Ticking(), heard) as one:
        say(folder, *([["Problem", {"kind": "line", "text": str(k)}]] for k in range(1000)))
        one.look()
        assert 5 < len(heard) < 50
        say(folder, [["Final", {"text": "late"}]])
        one.look()
        assert 10 < len(heard) < 100
        one.drain(lambda: beats.append(len(heard)))
        assert [e.text for e in heard if isinstance(e, Problem)] == [str(k) for k in range(1000)]
        assert one.text == "late"
        assert len(beats) > 10


def test_what_would_take_too_long_to_hear_is_passed_over_but_for_its_end(folder: SessionFolder) -> None:
    heard: list[AgentEvent] = []
    with live(folder, Ticking(), heard) as one:
        long = "x" * 600
        say(folder, *([["Problem", {"kind": "line", "text": long}]] for _ in range(10_000)))
        say(folder, [["Final", {"text": "the end"}]])
        one.drain()
        assert len(heard) < 8_000
        assert one.text == "the end"


def test_a_record_without_end_and_without_a_line_holds_nobody_up(
    folder: SessionFolder, tmp_path: Path
) -> None:
    parrot = Parrot()
    parrot.kept = tmp_path / "record"
    with parrot.kept.open("wb") as file:
        file.truncate(1 << 40)
    beats: list[None] = []
    one = Live(parrot, folder, 1, clock=Ticking(), cost=lambda _: None, bounds=Bounds(), hear=lambda _: None)
    with one:
        say(folder, [["Final", {"text": "done"}]])
        assert one.look() is None
        one.drain(lambda: beats.append(None))
        assert one.text == "done"
        assert beats


@pytest.mark.parametrize("how", ["pipe", "folder", "link"])
def test_a_record_that_is_no_file_is_none(
    folder: SessionFolder, clock: FakeClock, tmp_path: Path, how: str
) -> None:
    parrot = Parrot()
    parrot.kept = tmp_path / "record"
    match how:
        case "pipe":
            os.mkfifo(parrot.kept)
        case "folder":
            parrot.kept.mkdir()
        case _:
            parrot.kept.symlink_to("/dev/zero")
    with Live(
        parrot, folder, 1, clock=clock, cost=lambda _: None, bounds=Bounds(), hear=lambda _: None
    ) as one:
        say(folder, [["Final", {"text": "done"}]])
        assert one.look() is None
        one.drain()
        assert one.text == "done"


def test_the_tools_own_record_is_read_when_it_is_known_and_after_what_the_tool_said(
    folder: SessionFolder, clock: FakeClock, tmp_path: Path
) -> None:
    heard: list[AgentEvent] = []
    parrot = Parrot()
    one = Live(
        parrot, folder, 1, clock=clock, cost=lambda _: None, bounds=Bounds(tokens=10), hear=heard.append
    )
    with one:
        assert one.look() is None
        parrot.kept = tmp_path / "record"
        parrot.kept.write_text('[["Usage", {"tokens_in": 11}]]\n')
        say(folder, [["Started", {"session": "s"}]])
        assert one.look() == "budget: 11 tokens of 10"
        assert heard == [Started(session="s"), Usage(tokens_in=11)]


def test_a_lost_conversation_is_remembered(folder: SessionFolder, clock: FakeClock) -> None:
    with live(folder, clock, []) as one:
        say(folder, [["LostSession", {}]])
        one.drain()
        assert one.lost


def test_of_a_line_without_end_only_the_beginning_is_kept_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "out"
    growing = Growing(path)
    path.write_bytes(b"x" * (MAX_LINE_BYTES + 5))
    (first,) = growing.lines()
    assert len(first) == SHOWN_BYTES
    with path.open("ab") as file:
        file.write(b"y" * 1000 + b"\nnext\nlast")
    assert list(growing.lines()) == [b"next"]
    assert list(growing.lines(whole=True)) == [b"last"]
    assert list(growing.lines(whole=True)) == []
    growing.close()
