"""Looking at what agents did: sessions, session, logs --session."""

from __future__ import annotations

import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import procs, reports, sessionrecord
from harness.agents.base import (
    AgentEvent,
    Final,
    GiveUp,
    Limit,
    LimitKind,
    LostSession,
    Problem,
    Started,
    Text,
    Tool,
    Usage,
)
from harness.agents.jsonl import MAX_LINE_BYTES
from harness.agents.outcomes import Budget
from harness.control import following, recounting, sessions
from harness.control.recounting import Entry
from harness.model import Outcome
from harness.reports import AgentReport
from harness.sessionevents import EventFile
from harness.sessionrecord import RunRecord, SessionRecord, Spent
from tests.cli import Said, ctl
from tests.stores import DAY, World
from tests.support import FakeClock, until

EVIL = "\x1b]0;owned\x07\x1b[2Jred\u202e\r\n"
KEY = "sk-ant-api03-" + "a" * 40


def run(k: int, attempt: str, **more: Any) -> RunRecord:
    values: dict[str, Any] = {
        "slot": "agent-1",
        "started_at": f"{DAY}T08:0{k}:00.000Z",
        "outcome": "ok",
        "duration_s": 30.0,
        "usage": Spent(tokens_in=1000, tokens_cached=400, tokens_out=50, cost_usd=0.25, turns=3),
    }
    return RunRecord(round=k, attempt=attempt, **{**values, **more})


def gate(ok: bool, name: str = "tests", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "ok": ok,
        "required": True,
        "seconds": 2.0,
        **({} if ok else {"reason": "exit 1"}),
        **more,
    }


def session(
    world: World, uid: str, *runs: RunRecord, n: int = 1, day: str = DAY, folder: str = "", **more: Any
) -> Path:
    """A session on disk, by the classes that write them. -> its folder"""
    path = world.layout.sessions / day / (folder or f"{uid}.{n}")
    path.mkdir(parents=True)
    for name in ("home", "ask"):
        (path / name).mkdir()
    values: dict[str, Any] = {
        "item": uid,
        "uid": uid,
        "agent": "claude",
        "adapter": "claude",
        "session": f"ours-{uid}-{n}",
    }
    sessionrecord.write(path / "summary.json", SessionRecord(runs=runs, **{**values, **more}))
    return path


def say(path: Path, k: int, *events: AgentEvent, clock: FakeClock | None = None) -> None:
    """Two seconds between events."""
    clock = clock or FakeClock(1_800_000_000.0)
    with closing(EventFile(path / f"events.{k}.jsonl", clock)) as file:
        for event in events:
            file.add(event)
            clock.advance(2)


def at_work(world: World, path: Path | None, slot: str = "agent-1") -> None:
    """A slot whose worker (this process) has the session in hand."""
    me = procs.self_id()
    report = AgentReport(
        agent=slot,
        pid=me.pid,
        start_ticks=me.start_ticks,
        boot_id=me.boot_id,
        state="running" if path else "idle",
        session=str(path.relative_to(world.layout.root)) if path else "",
    )
    reports.write(reports.agent_path(world.layout, slot), report)


def ask(world: World, *args: str) -> Said:
    return ctl(world.layout.root, *args)


def harmless(said: Said) -> bool:
    return not any(c in said.out + said.err for c in "\x1b\x07\r\u202e")


# ---- sessions --------------------------------------------------------------------------------------------------------


def test_sessions_are_listed_newest_first_with_what_they_used(world: World) -> None:
    session(world, "old", run(1, "old.1"), day="2027-01-14")
    estimated = Spent(tokens_in=12_345, tokens_out=5, cost_usd=1.5, turns=7, estimated=True)
    session(world, "fix", run(1, "fix.1", outcome="stalled"), run(2, "fix.2", usage=estimated))
    said = ask(world, "sessions", "--json").data
    assert [one["session"] for one in said["sessions"]] == ["fix.1", "old.1"]
    first = said["sessions"][0]
    assert (first["rounds"], first["attempts"], first["last_outcome"]) == (2, ["fix.1", "fix.2"], "ok")
    assert first["usage"] == {
        "tokens_in": 13_345,
        "tokens_cached": 400,
        "tokens_out": 55,
        "cost_usd": 1.75,
        "turns": 10,
        "estimated": True,
    }
    lines = ask(world, "sessions").out.splitlines()
    assert "~$1.75" in lines[1]
    assert "~13.3k in" in lines[1]
    assert "$0.25" in lines[2]
    assert "~" not in lines[2]


def test_of_one_day_what_changed_last_comes_first(world: World) -> None:
    for k, name in enumerate(("b", "c", "a")):
        path = session(world, f"it-{name}", run(1, "x.1"))
        os.utime(path, (1_000_000 + k, 1_000_000 + k))
    listed = ask(world, "sessions", "--json").data["sessions"]
    assert [one["uid"] for one in listed] == ["it-a", "it-c", "it-b"]


def test_a_limit_reads_no_more_than_it_shows_and_says_that_there_is_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(5):
        session(world, f"it-{k}", run(1, "x.1"), day=f"2027-01-1{k}")
    read: list[Path] = []
    real = sessionrecord.read

    def counted(path: Path) -> SessionRecord | None:
        read.append(path)
        return real(path)

    monkeypatch.setattr(sessionrecord, "read", counted)
    said = ask(world, "sessions", "--limit", "2")
    assert len(said.out.splitlines()) == 3
    assert "--limit 0" in said.err
    assert len(read) == 3


def test_filters_by_agent_and_item_and_by_who_is_at_work(world: World) -> None:
    uid = world.add(id="fix-login")
    session(world, uid, run(1, f"{uid}.1"))
    other = session(world, "other", run(1, "other.1", outcome=""), agent="codex")
    at_work(world, other)
    at_work(world, world.layout.sessions / DAY / "gone.1", "agent-2")

    def names(*options: str) -> list[str]:
        return [one["uid"] for one in ask(world, "sessions", "--json", *options).data["sessions"]]

    assert names("--item", "fix-login") == [uid]
    assert names("--agent", "codex") == ["other"]
    assert names("--running") == ["other"]
    assert names("--running", "--agent", "claude") == []
    assert ask(world, "sessions", "--item", "nothing").code == 3
    assert "running on agent-1" in ask(world, "sessions").out


def test_a_session_of_a_worker_that_has_died_does_not_run(world: World) -> None:
    path = session(world, "fix", run(1, "fix.1", outcome=""))
    place = str(path.relative_to(world.layout.root))
    dead = AgentReport(
        agent="agent-1", pid=2**22 - 1, start_ticks=1, boot_id="x", state="running", session=place
    )
    reports.write(reports.agent_path(world.layout, "agent-1"), dead)
    assert "broken off" in ask(world, "sessions").out
    assert ask(world, "sessions", "--running", "--json").data["sessions"] == []


def test_no_session_is_said(world: World) -> None:
    assert "no agent has run yet" in ask(world, "sessions").out


# ---- which one -------------------------------------------------------------------------------------------------------


def test_a_session_is_found_by_every_name_it_has(world: World) -> None:
    uid = world.add(id="fix-login")
    session(world, uid, run(1, f"{uid}.1"), day="2027-01-14")
    session(world, uid, run(1, f"{uid}.3"), n=3, conversation="0a1b2c3d-9e8f")
    for name in ("fix-login", uid, "fix-l", f"{uid}.3", "0a1b2c3d-9e8f", "0a1b2c", f"ours-{uid}-3"):
        assert ask(world, "session", name, "show", "--json").data["session"] == f"{uid}.3"
    data = ask(world, "session", f"{uid}.1", "--json").data
    assert (data["session"], data["other_sessions"]) == (f"{uid}.1", [f"{uid}.3"])


def test_sessions_outlive_what_the_store_knows(world: World) -> None:
    session(world, "ancient-x", run(1, "ancient-x.1"))
    for name in ("ancient-x", "ancient", "ancient-x.1"):
        assert ask(world, "session", name, "--json").data["session"] == "ancient-x.1"


def test_a_name_that_means_none_or_several_says_what_there_is(world: World) -> None:
    session(world, "fix-a", run(1, "fix-a.1"), conversation="abcdef-1")
    session(world, "fix-a", run(1, "fix-a.12"), n=12)
    session(world, "fix-b", run(1, "fix-b.1"), conversation="abcdef-2")
    said = ask(world, "session", "fix")
    assert said.code == 4
    assert "fix-a, fix-b" in said.err
    said = ask(world, "session", "abcdef")
    assert said.code == 4
    assert "fix-a.1, fix-b.1" in said.err
    said = ask(world, "session", "fix-a.2")
    assert said.code == 3
    assert "fix-a.12, fix-a.1" in said.err
    assert ask(world, "session", "nothing").code == 3
    assert ask(world, "session", "").code == 3
    assert ask(world, "session", "../../../etc").code == 3


def test_an_item_without_a_session_says_so(world: World) -> None:
    uid = world.add(id="fix")
    said = ask(world, "session", "fix")
    assert said.code == 3
    assert f"harnessctl show {uid}" in said.err


@pytest.mark.parametrize(
    "words",
    [
        ("show", "--all"),
        ("tools", "--raw"),
        ("show", "file"),
        ("export", "--json"),
        ("follow", "--raw", "--json"),
    ],
)
def test_an_option_of_another_view_is_refused(world: World, words: tuple[str, ...]) -> None:
    session(world, "fix", run(1, "fix.1"))
    assert ask(world, "session", "fix", *words).code == 2


# ---- show ------------------------------------------------------------------------------------------------------------


def test_show_says_in_which_round_red_gates_were_healed(world: World) -> None:
    session(
        world,
        "fix",
        run(1, "fix.1", gates=(gate(True, "lint"), gate(False))),
        run(2, "fix.1", gates=(gate(False, "lint"),)),
        run(3, "fix.1", gates=(gate(True, "lint"), gate(True), gate(False, "style", required=False))),
        run(4, "fix.2", slot="agent-2", resumed=True, gates=(gate(False),)),
    )
    said = ask(world, "session", "fix")
    assert "fix.1: healed in round 3: tests, lint had been red" in said.out
    assert "fix.2: still red in round 1: tests" in said.out
    assert "4 (goes on)" in said.out
    assert "exit 1" in said.out
    data = ask(world, "session", "fix", "--json").data
    assert data["healing"] == [
        {"attempt": "fix.1", "healed": True, "round": 3, "number": 3, "gates": ["tests", "lint"]},
        {"attempt": "fix.2", "healed": False, "round": 4, "number": 1, "gates": ["tests"]},
    ]
    assert [x["ok"] for x in data["runs"][2]["gates"]] == [True, True, False]


def test_show_names_the_files_by_round_and_how_to_read_on(world: World) -> None:
    path = session(world, "fix", run(1, "fix.1"), conversation="tool-id")
    for name in ("stdout.1.log", "prompt.10.md", "prompt.2.md", "setup.log"):
        (path / name).write_text("x")
    data = ask(world, "session", "fix", "--json").data
    assert data["files"] == ["setup.log", "summary.json", "stdout.1.log", "prompt.2.md", "prompt.10.md"]
    said = ask(world, "session", "fix").out
    for part in (
        "harnessctl session fix.1 timeline",
        "tool-id",
        "3 turns, 1.0k in, 50 out, $0.25",
        data["folder"],
    ):
        assert part in said
    assert " follow" not in said
    at_work(world, path)
    assert "harnessctl session fix.1 follow" in ask(world, "session", "fix").out


def test_show_of_an_item_names_the_session_of_each_attempt_also_one_that_went_on(world: World) -> None:
    uid = world.add(id="fix")
    session(world, uid, run(1, f"{uid}.1"), run(2, f"{uid}.2"))
    for _ in range(2):
        world.attempt(uid, Outcome.FAILED)
    data = ask(world, "show", "fix", "--json").data
    assert [one["session"] for one in data["attempts"]] == [f"state/sessions/{DAY}/{uid}.1"] * 2
    assert f"harnessctl session {uid}.1" in ask(world, "show", "fix").out


# ---- tools, errors, timeline, metrics --------------------------------------------------------------------------------


def busy(world: World) -> Path:
    """A session with two rounds that has met everything."""
    path = session(
        world,
        "fix",
        run(1, "fix.1", outcome="budget", detail="0.30 USD of 0.25", gates=(gate(False),)),
        run(2, "fix.1", outcome="", usage=None, duration_s=0.0),
    )
    say(
        path,
        1,
        Started(session="tool-id", model="m-1"),
        Text(text="I look at it"),
        *(Tool(name="Bash", detail=f"ls {k}") for k in range(25)),
        Tool(name="Edit", detail="a.py"),
        Problem(kind="denied", text="not allowed"),
        Limit(kind=LimitKind.USAGE, utilization=0.9, blocked=False),
        Usage(tokens_in=1, turns=1),
        GiveUp(outcome=Budget(detail="0.30 USD of 0.25")),
        Final(text="bye"),
    )
    say(path, 2, LostSession(), Text(text="ü"), Usage(tokens_in=70, tokens_out=7, cost_usd=0.5, turns=2))
    (path / "stdout.1.log").write_text("x" * 99)
    return path


def test_tools_are_counted_and_the_last_uses_shown_in_order(world: World) -> None:
    busy(world)
    data = ask(world, "session", "fix", "tools", "--json").data
    assert data["tools"] == [{"name": "Bash", "count": 25}, {"name": "Edit", "count": 1}]
    assert (data["total"], data["truncated"], len(data["uses"])) == (26, True, 20)
    assert data["uses"][-1]["text"] == "a.py"
    everything = ask(world, "session", "fix", "tools", "--all", "--json").data
    assert (everything["truncated"], everything["uses"][0]["text"]) == (False, "ls 0")
    said = ask(world, "session", "fix", "tools").out
    assert "--all" in said
    assert "Bash: ls 24" in said
    assert "ls 5\n" not in said


def test_errors_are_all_that_went_wrong_and_nothing_else(world: World) -> None:
    busy(world)
    data = ask(world, "session", "fix", "errors", "--json").data
    assert [(one["round"], one["kind"], one["name"]) for one in data["errors"]] == [
        (1, "problem", "denied"),
        (1, "limit", "usage"),
        (1, "give_up", ""),
        (1, "end", "budget"),
        (1, "gate", "tests"),
        (2, "lost_session", ""),
        (2, "end", "unknown"),
    ]
    assert "0.30 USD of 0.25" in ask(world, "session", "fix", "errors").out
    session(world, "good", run(1, "good.1"))
    assert ask(world, "session", "good", "errors").out == "nothing went wrong\n"


def test_a_run_that_goes_on_is_no_error(world: World) -> None:
    path = session(world, "fix", run(1, "fix.1", outcome="", usage=None))
    at_work(world, path)
    assert ask(world, "session", "fix", "errors").out == "nothing went wrong\n"


def test_the_timeline_has_everything_in_order_with_the_time_between(world: World) -> None:
    path = session(world, "fix", run(1, "fix.1", gates=(gate(True),)))
    clock = FakeClock(recounting.moment(f"{DAY}T08:01:05.000Z") or 0.0)
    say(path, 1, Text(text="a\nb"), Tool(name="Bash", detail="make"), clock=clock)
    data = ask(world, "session", "fix", "timeline", "--json").data
    assert [one["kind"] for one in data["entries"]] == ["run", "text", "tool", "end", "gate"]
    assert data["entries"][3]["at"] == f"{DAY}T08:01:30.000Z"
    lines = ask(world, "session", "fix", "timeline").out.splitlines()
    assert lines[0] == DAY
    assert [line.split()[0] for line in lines[2:5]] == ["+5.00s", "+2.00s", "+23s"]
    assert "a b" in lines[2]
    assert "tests: ok (2.00s)" in lines[5]


def test_metrics_sum_up_rounds_and_take_what_a_broken_run_said_last(world: World) -> None:
    busy(world)
    data = ask(world, "session", "fix", "metrics", "--json").data
    assert data["usage"] == {
        "tokens_in": 1070,
        "tokens_cached": 400,
        "tokens_out": 57,
        "cost_usd": 0.75,
        "turns": 5,
        "estimated": True,
    }
    assert (data["tool_uses"], data["problems"], data["text_bytes"]) == (26, 1, 14)
    assert (data["agent_s"], data["gates_s"], data["stdout_bytes"]) == (30.0, 2.0, 99)
    assert data["tools"] == {"Bash": 25, "Edit": 1}
    assert [one["outcome"] for one in data["rounds"]] == ["budget", None]
    assert "~$0.75" in ask(world, "session", "fix", "metrics").out


# ---- what others wrote -----------------------------------------------------------------------------------------------

VIEWS = ("show", "tools", "errors", "timeline", "metrics", "follow")


def hostile(world: World) -> Path:
    told: dict[str, Any] = {
        "item": EVIL,
        "agent": EVIL,
        "adapter": EVIL,
        "conversation": EVIL,
        "project": EVIL,
        "worktree": EVIL,
    }
    bad = run(
        1,
        EVIL,
        slot=EVIL,
        outcome=EVIL,
        detail=EVIL,
        started_at=EVIL,
        gates=(gate(False, EVIL, reason=EVIL),),
    )
    path = session(
        world, "evil", bad, run(2, "evil.1", gates=({"name": 7, "seconds": -1, "ok": "no"},)), **told
    )
    say(
        path,
        1,
        Text(text=EVIL),
        Tool(name=EVIL, detail=EVIL),
        Problem(kind=EVIL, text=EVIL),
        Started(session=EVIL, model=EVIL),
    )
    with (path / "events.1.jsonl").open("ab") as file:
        for line in (
            {"t": 1e300, "kind": EVIL, "x": EVIL},
            {"t": "now", "kind": ["a"]},
            {"t": -5, "kind": "usage", "turns": "many", "cost_usd": 1e300, "tokens_in": 10**30},
            {"kind": "tool", "name": {}, "detail": 3},
            {"t": True, "kind": "text", "text": "\ud800"},
        ):
            file.write(json.dumps(line).encode() + b"\n")
        file.write(b'{"t": NaN, "kind": "limit", "what": Infinity}\nnothing\n\xff\n')
    (path / "stdout.1.log").write_bytes(EVIL.encode() + b"\xff" + KEY.encode() + b"\n")
    (path / f"x{EVIL.strip()}.log").write_text("")
    return path


@pytest.mark.parametrize("view", VIEWS)
def test_what_agents_wrote_cannot_steer_a_terminal(world: World, view: str) -> None:
    hostile(world)
    said = ask(world, "session", "evil", view)
    assert said.code == 0
    assert harmless(said)
    assert "red" in said.out or view == "metrics"
    assert "\x1b" not in ask(world, "session", "evil", view, "--json").out


def test_the_list_and_the_raw_stream_are_harmless_too(world: World) -> None:
    hostile(world)
    (world.layout.sessions / DAY / "evil.1" / "stdout.2.log").write_bytes(
        EVIL.encode() + b"\xff" + KEY.encode()
    )
    for words in (("sessions",), ("session", "evil", "follow", "--raw")):
        said = ask(world, *words)
        assert said.code == 0
        assert harmless(said)
        assert KEY not in said.out


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"v": 2}', b"[" * 100_000, b'{"v": 1, "uid": 3}']
)
def test_a_session_whose_summary_is_damaged_is_shown_by_its_files(world: World, content: bytes) -> None:
    path = session(world, "fix", run(1, "fix.1"))
    say(path, 1, Text(text="first"))
    say(path, 2, Tool(name="Bash", detail="ls"), Text(text="second"))
    (path / "summary.json").write_bytes(content)
    (one,) = ask(world, "sessions", "--json").data["sessions"]
    assert (one["session"], one["readable"], one["rounds"], one["usage"]) == ("fix.1", False, 2, None)
    assert "cannot be read" in ask(world, "sessions").out
    assert "events.2.jsonl" in ask(world, "session", "fix").out
    assert "second" in ask(world, "session", "fix", "timeline").out
    assert "second" in ask(world, "session", "fix", "follow").out
    assert ask(world, "session", "fix", "tools", "--json").data["total"] == 1


def test_a_summary_of_another_session_is_not_believed(world: World) -> None:
    session(world, "other", run(1, "other.1"), folder="fix.1")
    assert ask(world, "sessions", "--json").data["sessions"][0]["readable"] is False


def test_what_is_no_file_is_neither_waited_for_nor_followed(world: World, tmp_path: Path) -> None:
    path = session(world, "fix", run(1, "fix.1"), run(2, "fix.1"), run(3, "fix.1"))
    (tmp_path / "secret").write_text('{"kind": "text", "text": "secret"}\n')
    for name in ("summary.json", "events.1.jsonl", "stdout.1.log", "stdout.2.log"):
        (path / name).unlink(missing_ok=True)
        os.mkfifo(path / name)
    for name in ("events.2.jsonl", "stdout.3.log"):
        (path / name).symlink_to(tmp_path / "secret")
    (path / "events.3.jsonl").mkdir()
    (path.parent / "link.1").symlink_to(path)
    for words in (
        *(("session", "fix", view) for view in VIEWS),
        ("session", "fix", "follow", "--raw"),
        ("sessions",),
    ):
        said = ask(world, *words)
        assert said.code == 0
        assert "secret" not in said.out
    assert len(ask(world, "sessions", "--json").data["sessions"]) == 1
    assert ask(world, "session", "link.1").code == 3


def test_a_huge_events_file_is_read_with_bounded_memory(world: World) -> None:
    path = session(world, "fix", run(1, "fix.1"))
    with (path / "events.1.jsonl").open("wb") as file:
        file.write(b'{"kind": "text", "text": "' + b"x" * (MAX_LINE_BYTES + 1000) + b'"}\n')
        for k in range(50_000):
            file.write(b'{"kind": "tool", "name": "T%d"}\n' % (k % 5000))
    data = ask(world, "session", "fix", "tools", "--json").data
    assert (data["total"], len(data["tools"])) == (50_000, recounting.TOOL_NAMES + 1)
    assert ask(world, "session", "fix", "metrics", "--json").data["tool_uses"] == 50_000


# ---- follow ----------------------------------------------------------------------------------------------------------


class Heard:
    """What a follower in a thread of its own has said so far."""

    def __init__(self, follow: Callable[[], Iterator[Any]]) -> None:
        self.said: list[Any] = []
        self._thread = threading.Thread(target=lambda: self.said.extend(follow()), daemon=True)

    def start(self) -> Heard:
        self._thread.start()
        return self

    def ended(self) -> bool:
        self._thread.join(0.01)
        return not self._thread.is_alive()

    def texts(self) -> list[str]:
        return [f"{one.kind} {one.text}".strip() for one in self.said if isinstance(one, Entry)]


@contextmanager
def following_of(world: World, name: str, *, raw: bool = False) -> Iterator[Heard]:
    found = next(one for one in sessions.of_item(world.layout, name))
    follow = following.follow_raw if raw else following.follow
    heard = Heard(lambda: follow(world.layout, found)).start()
    yield heard
    at_work(world, None)
    until(heard.ended)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL_S", 0.005)


@pytest.mark.usefixtures("quick")
def test_following_tells_what_is_said_until_the_worker_works_on_something_else(world: World) -> None:
    first = run(1, "fix.1")
    now = run(2, "fix.1", outcome="", usage=None)
    path = session(world, "fix", first, now)
    say(path, 1, Text(text="long ago"))
    at_work(world, path)
    with (
        following_of(world, "fix") as heard,
        closing(EventFile(path / "events.2.jsonl", FakeClock())) as file,
    ):
        until(lambda: heard.texts() == ["run attempt fix.1 by agent-1"])
        file.add(Text(text="one"))
        file.flush()
        until(lambda: heard.texts()[1:] == ["text one"])
        file.add(Text(text="two"))
        file.flush()
        until(lambda: heard.texts()[2:] == ["text two"])
        over = run(2, "fix.1")
        summary = path / "summary.json"
        record = sessionrecord.read(summary)
        assert record is not None
        sessionrecord.write(summary, replace(record, runs=(first, over)))
        until(lambda: heard.texts()[3:] == ["end"])
        over = replace(over, gates=(gate(False),))
        sessionrecord.write(summary, replace(record, runs=(first, over)))
        until(lambda: heard.texts()[4:] == ["gate exit 1"])
        sessionrecord.write(summary, replace(record, runs=(first, over, run(3, "fix.1", outcome=""))))
        say(path, 3, Text(text="three"))
        until(lambda: heard.texts()[5:] == ["run attempt fix.1 by agent-1", "text three"])
        assert not heard.ended()
    assert heard.texts()[-1].startswith("end whoever ran it was ended")


@pytest.mark.usefixtures("quick")
def test_following_raw_gives_both_streams_line_by_line(world: World) -> None:
    path = session(world, "fix", run(1, "fix.1", outcome="", usage=None))
    at_work(world, path)
    with (
        (path / "stdout.1.log").open("ab", buffering=0) as out,
        following_of(world, "fix", raw=True) as heard,
    ):
        out.write(b"half")
        (path / "stderr.1.log").write_bytes(b"oops\n")
        until(lambda: [one.line for one in heard.said] == [b"oops"])
        out.write(b" and half\nno newline")
        until(lambda: [one.line for one in heard.said[1:]] == [b"half and half"])
    assert heard.said[-1].line == b"no newline"
    assert [one.stream.value for one in heard.said] == ["stderr", "stdout", "stdout"]


def test_following_what_nobody_works_on_tells_its_last_run_and_ends(world: World) -> None:
    path = session(world, "fix", run(1, "fix.1"), run(2, "fix.1", gates=(gate(True),)))
    say(path, 2, Text(text="bye"))
    said = ask(world, "session", "fix", "follow")
    assert "bye" in said.out
    assert "nobody" in said.err
    lines = [json.loads(x) for x in ask(world, "session", "fix", "follow", "--json").out.splitlines()]
    assert [(x["schema_version"], x["kind"]) for x in lines] == [
        (1, "run"),
        (1, "text"),
        (1, "end"),
        (1, "gate"),
    ]


def test_ctrl_c_while_following_is_130_without_a_traceback(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = session(world, "fix", run(1, "fix.1", outcome=""))
    at_work(world, path)

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)
    said = ask(world, "session", "fix", "follow")
    assert said.code == 130
    assert said.err.strip() == "harnessctl: interrupted"


def test_logs_of_an_agents_session_show_the_end_of_what_it_has_in_hand(world: World) -> None:
    path = session(world, "fix", run(1, "fix.1", outcome="", usage=None))
    say(path, 1, Text(text="one"), Text(text=f"two{EVIL}"))
    at_work(world, None)
    said = ask(world, "logs", "agent-1", "--session")
    assert said.code == 3
    assert "harnessctl sessions" in said.err
    at_work(world, path)
    said = ask(world, "logs", "agent-1", "--session", "-n", "1")
    assert "two" in said.out
    assert "one" not in said.out
    assert harmless(said)
    assert "agent-1" in ask(world, "logs", "agent-9", "--session").err


def test_logs_of_an_agents_session_go_on_with_its_next_session(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = session(world, "fix", run(1, "fix.1", outcome="", usage=None))
    second = session(world, "new", run(1, "new.1", outcome="", usage=None))
    at_work(world, first)
    turns: list[Path | None] = [None, second]

    def next_turn(_: float) -> None:
        if not turns:
            raise KeyboardInterrupt
        at_work(world, turns.pop())

    monkeypatch.setattr("time.sleep", next_turn)
    said = ask(world, "logs", "agent-1", "--session", "-f")
    assert said.code == 130
    assert [x for x in said.err.splitlines() if "==>" in x] == [
        "==> session fix.1 <==",
        "==> session new.1 <==",
    ]


# ---- export ----------------------------------------------------------------------------------------------------------


def test_an_export_holds_what_was_said_without_home_keys_and_links(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_KEY", "plainly-no-key-like-thing")
    world.layout.config.write_text("v: 1\ncredentials: {team: {variable: TEAM_KEY}}\n")
    path = session(world, "fix", run(1, "fix.1", detail=KEY))
    (path / "home" / "login").write_text("token")
    (path / "ask" / "interrupt.json").write_text("may I?")
    (path / "ask" / "deep").mkdir()
    (tmp_path / "outside").write_text("outside")
    (path / "stderr.1.log").symlink_to(tmp_path / "outside")
    os.link(tmp_path / "outside", path / "ask" / "hard")
    os.mkfifo(path / "setup.log")
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----\n"
    text = f"before\n{KEY}\nmine: plainly-no-key-like-thing\n{key}after\n".encode() + b"\xff\xfe\n"
    (path / "stdout.1.log").write_bytes(text)
    target = tmp_path / "out.tar.gz"
    said = ask(world, "session", "fix", "export", str(target))
    assert said.code == 0
    assert said.out == f"{target}\n"
    assert target.stat().st_mode & 0o777 == 0o600
    for name in ("ask/deep", "ask/hard", "setup.log", "stderr.1.log"):
        assert f"left out: {name}" in said.err
    with tarfile.open(target) as archive:
        assert sorted(archive.getnames()) == [
            "fix.1/ask/interrupt.json",
            "fix.1/stdout.1.log",
            "fix.1/summary.json",
        ]
        member = archive.extractfile("fix.1/stdout.1.log")
        assert member is not None
        said_then = member.read()
        summary = archive.extractfile("fix.1/summary.json")
        assert summary is not None
        assert json.loads(summary.read())["runs"][0]["detail"] == "[redacted]"
    assert said_then.startswith(b"before\n[redacted]\nmine: [redacted]\n[redacted]")
    assert said_then.endswith(b"after\n\xff\xfe\n")
    assert b"MIIE" not in said_then
    assert b"IBAAKC" not in said_then


def test_an_export_overwrites_nothing_and_leaves_nothing_half(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session(world, "fix", run(1, "fix.1"))
    monkeypatch.chdir(tmp_path)
    assert ask(world, "session", "fix", "export").out == "fix.1.tar.gz\n"
    before = Path("fix.1.tar.gz").read_bytes()
    said = ask(world, "session", "fix", "export")
    assert said.code == 4
    assert Path("fix.1.tar.gz").read_bytes() == before
    Path("link").symlink_to("elsewhere")
    assert ask(world, "session", "fix", "export", "link").code == 4
    assert not Path("elsewhere").exists()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.control.exporting._add", full)
    assert ask(world, "session", "fix", "export", "half").code == 1
    assert not Path("half").exists()


def test_a_line_without_an_end_is_cut_in_an_export(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.control.exporting.MAX_LINE_BYTES", 100_000)
    path = session(world, "fix", run(1, "fix.1"))
    (path / "stdout.1.log").write_bytes(b"x" * 200_005 + b"\nafter\n")
    assert ask(world, "session", "fix", "export", str(tmp_path / "x")).code == 0
    with tarfile.open(tmp_path / "x") as archive:
        member = archive.extractfile("fix.1/stdout.1.log")
        assert member is not None
        lines = member.read().splitlines()
    assert lines[0].endswith(b"left out]")
    assert len(lines[0]) < 100_000
    assert lines[1:] == [b"after"]
