"""The `gemini` adapter against recorded runs, and against what no recording shows. No process is started here."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from harness.agents.base import (
    Activity,
    CannotInvoke,
    Final,
    GiveUp,
    LimitKind,
    LostSession,
    Problem,
    Retrying,
    Started,
    Stream,
    Text,
    Tool,
    Usage,
)
from harness.agents.gemini import GeminiAdapter
from harness.agents.outcomes import (
    AgentOutcome,
    Auth,
    BadRequest,
    Crash,
    Empty,
    Interrupted,
    MaxTurns,
    NoResult,
    Ok,
    Overloaded,
    RateLimit,
    Stalled,
    TimedOut,
    UsageLimit,
)
from harness.config import Credential
from harness.runner import Ended
from tests.jsontools import (
    FUZZ_LINES,
    KILLED,
    NOW,
    RECORDINGS,
    SESSION,
    STALLED,
    STOPPED,
    TIMED_OUT,
    Replayed,
    agent,
    exited,
    kept_chars,
    note,
    replay,
    say,
    storm,
    task,
)

INIT = {"type": "init", "session_id": SESSION, "model": "gemini-2.5-pro"}
PROMPT = {"type": "message", "role": "user", "content": "p" * 400}
SHELL = {
    "type": "tool_use",
    "tool_name": "run_shell_command",
    "tool_id": "1",
    "parameters": {"command": "git log"},
}
DONE = {"type": "tool_result", "tool_id": "1", "status": "success", "output": "o" * 40}


def gemini(**more: Any) -> GeminiAdapter:
    return GeminiAdapter(agent("gemini", **more))


def reply(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": text, "delta": True}


def result(status: str = "success", **stats: Any) -> dict[str, Any]:
    return {"type": "result", "status": status, "stats": stats}


def error(text: Any) -> dict[str, Any]:
    return {"type": "result", "status": "error", "error": {"type": "unknown", "message": text}, "stats": {}}


def failed(text: str, code: int) -> Replayed:
    return say(gemini(), INIT, error(text), ended=exited(code))


# recorded runs


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("commit", Ok()),
        ("sid", Ok()),
        ("auth", Auth),
        ("overloaded", Overloaded(detail="[API Error: Overloaded]")),
        ("garbage", Overloaded),
        ("rate_short", RateLimit),
        ("sigterm", Crash(signal=9)),
    ],
)
def test_a_recorded_run_ends_as_what_it_was(name: str, outcome: AgentOutcome | type[AgentOutcome]) -> None:
    got = replay(gemini(), f"gemini-{name}").outcome
    assert isinstance(got, outcome) if isinstance(outcome, type) else got == outcome


def test_a_good_run_tells_what_it_does() -> None:
    run = replay(gemini(), "gemini-commit")
    assert run.of(Started) == [
        Started(session="b94a7e0f-9b75-4a2a-a9cc-914116cf11ea", model="gemini-2.5-pro")
    ]
    assert [text.text for text in run.of(Text)] == ["I will write the file.", "Done: hello.txt is committed."]
    assert [(tool.name, tool.detail[:9]) for tool in run.of(Tool)] == [
        ("write_file", "hello.txt"),
        ("run_shell_command", "git add -"),
    ]
    assert run.of(Final) == [Final(text="Done: hello.txt is committed.")]
    assert not run.of(Problem)
    assert run.usage == Usage(
        tokens_in=3000, tokens_cached=0, tokens_out=150, turns=3, model="gemini-2.5-pro"
    )
    assert run.of(Usage) == [run.usage]
    assert run.state == {}


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (144, BadRequest),
        (145, Auth),
        (147, Auth),
        (148, BadRequest),
        (173, RateLimit),
        (244, Overloaded),
        (247, Overloaded),
    ],
)
def test_an_exit_code_is_a_status_modulo_256(code: int, outcome: type[AgentOutcome]) -> None:
    assert isinstance(failed("[API Error: An unknown error occurred.]", code).outcome, outcome)
    assert isinstance(say(gemini(), INIT, ended=exited(code)).outcome, outcome)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(1, Crash), (41, Auth), (42, BadRequest), (52, BadRequest), (53, MaxTurns), (54, Crash), (130, Crash)],
)
def test_exit_codes_of_its_own_have_a_class(code: int, outcome: type[AgentOutcome]) -> None:
    assert isinstance(say(gemini(), "Error: something", ended=exited(code)).outcome, outcome)


@pytest.mark.parametrize(
    ("text", "code", "outcome"),
    [
        ("You have exhausted your daily quota on this model.", 1, UsageLimit()),
        (
            "You have exhausted your capacity on this model. Your quota will reset after 1h0m30s.",
            1,
            UsageLimit(resets_at=NOW + 3630),
        ),
        ("You exceeded your current quota. Please retry in 34.5s.", 173, RateLimit(resume_at=NOW + 34.5)),
        ("API key not valid. Please pass a valid API key.", 144, Auth()),
        ("models/x is not found for API version", 148, BadRequest()),
        ("fetch failed", 1, Overloaded()),
        ("some new words", 1, Crash(exit_code=1)),
    ],
)
def test_messages_that_no_recording_has_have_a_class(text: str, code: int, outcome: AgentOutcome) -> None:
    got = failed(f"[API Error: {text}]", code).outcome
    assert type(got) is type(outcome)
    for field in ("resets_at", "resume_at"):
        assert getattr(got, field, None) == getattr(outcome, field, None)


# while it tries again


def test_attempts_are_told_with_the_delay_that_stderr_names() -> None:
    waits = replay(gemini(), "gemini-rate_short").of(Retrying)
    assert [(r.kind, r.delay_s, r.attempt) for r in waits[:3]] == [
        (LimitKind.RATE, 5.207, 1),
        (LimitKind.RATE, 11.781, 2),
        (LimitKind.RATE, 21.599, 3),
    ]
    assert len(waits) == 9


def test_attempts_without_a_delay_are_told_with_one_that_lasts() -> None:
    waits = replay(gemini(), "gemini-overloaded").of(Retrying)
    assert [r.attempt for r in waits] == [1, 2, 3, 4, 5]
    assert {(r.kind, r.delay_s) for r in waits} == {(LimitKind.OVERLOADED, 60.0)}


@pytest.mark.parametrize(
    ("line", "wait"),
    [
        ("Attempt 2 failed: Please retry in 4s. Retrying after 4100ms...", (LimitKind.RATE, 4.1, 2)),
        ("Attempt 1 failed with 5xx error. Retrying with backoff... x", (LimitKind.OVERLOADED, 60.0, 1)),
        (
            "Attempt 1 failed with 429 error (no Retry-After header). Retrying with backoff...",
            (LimitKind.RATE, 60.0, 1),
        ),
        ("Attempt 1 failed: x. Retrying after 999999999999ms...", (LimitKind.RATE, 86_400.0, 1)),
        ("Attempt 10 failed: x. Max attempts reached", None),
        ("the model says: Attempt 1 failed with status 503. Retrying with backoff...", None),
        ("Retrying after 5000ms...", None),
    ],
)
def test_lines_about_attempts_are_read_in_all_their_forms(
    line: str, wait: tuple[LimitKind, float, int] | None
) -> None:
    waits = say(gemini(), line).of(Retrying)
    assert [(r.kind, r.delay_s, r.attempt) for r in waits] == ([] if wait is None else [wait])


def test_it_is_given_up_when_it_tries_again_after_a_401() -> None:
    run = say(gemini(), INIT, "Attempt 1 failed with status 401. Retrying with backoff... x", ended=STOPPED)
    assert [event.outcome for event in run.of(GiveUp)] == [run.outcome]
    assert isinstance(run.outcome, Auth)


@pytest.mark.parametrize(
    "line", ["Attempting to open authentication page in your browser.", "Waiting for authentication..."]
)
def test_it_is_given_up_when_it_waits_for_a_person_to_log_in(line: str) -> None:
    for stream in (Stream.STDOUT, Stream.STDERR):
        adapter = gemini()
        (given,) = adapter.feed(stream, line.encode())
        assert isinstance(given, GiveUp)
        assert isinstance(adapter.finish(STOPPED, NOW), Auth)


@pytest.mark.parametrize("ended", [STALLED, TIMED_OUT, KILLED])
def test_a_run_that_only_waited_for_a_limit_ends_as_that_limit(ended: Ended) -> None:
    assert isinstance(replay(gemini(), "gemini-rate_short", ended).outcome, RateLimit)


def test_a_run_that_went_on_after_a_limit_has_stalled() -> None:
    wait = "Attempt 1 failed with status 429. Retrying with backoff... x"
    assert isinstance(say(gemini(), INIT, wait, reply("hi"), ended=STALLED).outcome, Stalled)
    assert say(gemini(), INIT, wait, SHELL, ended=TIMED_OUT).outcome == TimedOut(after_s=60.0)


def test_lines_of_stderr_that_come_after_the_result_change_nothing() -> None:
    late = ("Attempt 1 failed with status 401. Retrying with backoff... x", "Waiting for authentication...")
    run = say(gemini(), INIT, reply("hi"), result(), *late)
    assert run.outcome == Ok()
    assert not run.of(GiveUp)


# what we did to it


def test_what_we_did_to_it_comes_first() -> None:
    assert replay(gemini(), "gemini-auth", STOPPED).outcome == Interrupted(why="drain")
    assert say(gemini(), INIT, ended=STOPPED).outcome == Interrupted(why="drain")  # TERM: it exits with 0
    assert isinstance(replay(gemini(), "gemini-sigterm", STALLED).outcome, Stalled)


@pytest.mark.parametrize("ended", [KILLED, STALLED, TIMED_OUT, exited(1)])
def test_a_run_that_had_its_result_keeps_it_however_it_ended(ended: Ended) -> None:
    assert replay(gemini(), "gemini-commit", ended).outcome == Ok()


# tokens and turns


def test_thoughts_are_paid_as_output() -> None:
    stats = result(input_tokens=100, output_tokens=10, total_tokens=160, cached=40)
    assert say(gemini(), INIT, reply("a"), stats).usage == Usage(
        tokens_in=100, tokens_cached=40, tokens_out=60, turns=1, model="gemini-2.5-pro"
    )


def test_a_run_that_was_killed_is_estimated_from_what_was_said() -> None:
    run = say(gemini(), INIT, PROMPT, reply("a" * 80), SHELL, DONE, reply("b" * 20), ended=KILLED)
    said = 80 + len("git log")
    assert run.usage == Usage(
        tokens_in=(400 + 400 + said + 40) // 4,
        tokens_out=(said + 20) // 4,
        turns=2,
        model="gemini-2.5-pro",
        estimated=True,
    )


def noted(mark: str, tokens_in: int, cached: int, tokens_out: int, thoughts: int = 0) -> dict[str, Any]:
    """A line of the conversation's own record, without what is not used of it."""
    total = tokens_in + tokens_out + thoughts
    tokens = {
        "input": tokens_in,
        "cached": cached,
        "output": tokens_out,
        "thoughts": thoughts,
        "total": total,
    }
    return {"id": mark, "type": "gemini", "tokens": tokens}


def test_the_record_of_a_conversation_says_what_a_run_has_used_so_far(tmp_path: Path) -> None:
    adapter = gemini()
    adapter.command(task(tmp_path), {})
    say(adapter, INIT)
    assert adapter.journal() is None
    chats = tmp_path / "home/.gemini/tmp/agent-1/chats"
    chats.mkdir(parents=True)
    record = chats / f"session-2026-11-22T00-31-{INIT['session_id'][:8]}.jsonl"
    record.touch()
    assert adapter.journal() == record
    said = note(
        adapter,
        {"$set": {}},
        noted("m1", 1000, 0, 50),
        noted("m1", 1000, 0, 50),
        noted("m2", 1200, 900, 60, 9),
    )
    assert said[-1] == adapter.usage()
    killed = say(adapter, ended=KILLED)
    assert killed.usage == Usage(
        tokens_in=2200, tokens_cached=900, tokens_out=119, turns=0, model="gemini-2.5-pro", estimated=True
    )
    assert killed.state == {"input": 2200, "cached": 900, "output": 110, "total": 2319}

    later = gemini()
    later.command(task(tmp_path, resume=INIT["session_id"], round=2, state=killed.state), {})
    say(later, INIT)
    assert note(later, noted("m1", 1000, 0, 50), noted("m2", 1200, 900, 60, 9)) == []
    assert note(later, noted("m3", 1300, 0, 20)) == [
        Usage(tokens_in=1300, tokens_cached=0, tokens_out=20, turns=0, model="gemini-2.5-pro", estimated=True)
    ]
    ended = say(later, reply("x"), result(input_tokens=1310, output_tokens=21, total_tokens=1331, cached=0))
    assert ended.usage == Usage(
        tokens_in=1310, tokens_cached=0, tokens_out=21, turns=1, model="gemini-2.5-pro"
    )


def test_of_a_conversation_whose_earlier_runs_were_not_counted_the_record_says_nothing(
    tmp_path: Path,
) -> None:
    adapter = gemini()
    adapter.command(task(tmp_path, resume=INIT["session_id"], round=2), {})
    say(adapter, INIT)
    chats = tmp_path / "home/.gemini/tmp/agent-1/chats"
    chats.mkdir(parents=True)
    (chats / f"session-2026-11-22T00-31-{INIT['session_id'][:8]}.jsonl").touch()
    assert adapter.journal() is None


def test_nothing_is_known_of_a_run_that_never_began() -> None:
    assert say(gemini(), "Error: x", ended=exited(41)).usage is None


def test_the_model_that_it_chose_by_itself_stands_in_its_result() -> None:
    models = {"a": {"total_tokens": 5}, "b": {"total_tokens": 50}, "c": 7}
    auto = {**INIT, "model": "auto-gemini-3"}
    run = say(gemini(), auto, reply("x"), result(input_tokens=1, output_tokens=1, models=models))
    assert run.usage is not None
    assert run.usage.model == "b"


def test_a_reply_with_several_tools_is_one_turn() -> None:
    assert not say(gemini(max_turns=2), INIT, reply("a"), SHELL, SHELL, DONE, DONE, reply("b")).of(GiveUp)
    run = say(gemini(max_turns=1), INIT, SHELL, DONE, reply("b"), ended=STOPPED)
    assert run.outcome == MaxTurns(detail="more than 1 replies (agent.max_turns)")
    assert [event.outcome for event in run.of(GiveUp)] == [run.outcome]


def test_its_own_limit_of_turns_is_that_limit() -> None:
    own = {"type": "error", "severity": "error", "message": "Maximum session turns exceeded"}
    assert isinstance(say(gemini(), INIT, own, result()).outcome, MaxTurns)
    text = "Reached max session turns for this session. Increase the number of turns"
    assert say(gemini(), INIT, text, ended=exited(53)).outcome == MaxTurns(detail=text)


# a conversation that is gone


def test_a_conversation_that_it_does_not_find_is_lost(tmp_path: Path) -> None:
    adapter = gemini()
    adapter.command(task(tmp_path, resume=SESSION), {})
    line = f'Error resuming session: Invalid session identifier "{SESSION}".'
    run = say(adapter, line, "  Searched for sessions in x.", "Error: more", ended=exited(42))
    assert run.events == [LostSession()]
    assert run.outcome == Crash(exit_code=42, detail=line)
    assert not say(gemini(), line, ended=exited(42)).events


def test_a_conversation_that_began_unseen_is_gone_on_with_by_the_next_run(tmp_path: Path) -> None:
    adapter = gemini()
    adapter.command(task(tmp_path), {})
    line = f'Error starting session: Session ID "{SESSION}" already exists. Use --resume to resume it'
    run = say(adapter, line, ended=exited(42))
    assert run.events == [Started(session=SESSION)]
    assert run.outcome == Crash(exit_code=42, detail=line)
    assert run.usage is None


# ends that say little


def test_exit_0_without_the_last_event_is_no_result() -> None:
    assert say(gemini(), INIT, reply("done")).outcome == NoResult(detail="exit 0 without result")


def test_an_error_that_ends_well_is_no_result_either() -> None:
    empty = {"type": "error", "severity": "error", "message": "Invalid stream: malformed tool call."}
    run = say(gemini(), INIT, empty, result("error"))
    assert run.outcome == NoResult(detail="Invalid stream: malformed tool call.")
    assert [problem.kind for problem in run.of(Problem)] == ["api", "api"]


def test_a_result_without_a_word_is_empty() -> None:
    assert isinstance(say(gemini(), INIT, result()).outcome, Empty)
    assert isinstance(say(gemini(), INIT, reply(" "), result()).outcome, Empty)
    assert say(gemini(), INIT, SHELL, DONE, result()).outcome == Ok()


def test_a_warning_is_told_and_changes_nothing() -> None:
    loop = {"type": "error", "severity": "warning", "message": "Loop detected, stopping execution"}
    run = say(gemini(), INIT, reply("a"), loop, result())
    assert run.of(Problem) == [Problem(kind="warning", text="Loop detected, stopping execution")]
    assert run.outcome == Ok()


def test_a_tool_that_failed_is_told() -> None:
    bad = {"type": "tool_result", "status": "error", "output": "long", "error": {"message": "no such file"}}
    assert say(gemini(), INIT, SHELL, bad).of(Problem) == [Problem(kind="tool", text="no such file")]


def test_a_machine_that_was_too_busy_for_its_input_is_tried_again() -> None:
    line = "No input provided via stdin. Input can be provided by piping data into gemini"
    assert say(gemini(), line, ended=exited(42)).outcome == Overloaded(detail=line)


def test_lines_that_are_no_events_are_told_and_unknown_ones_are_signs_of_life() -> None:
    adapter = gemini()
    assert adapter.feed(Stream.STDOUT, b'{"type":"init') == [Problem(kind="line", text='{"type":"init')]
    assert adapter.feed(Stream.STDOUT, b'{"type":"new"}') == [Activity(kind="new")]
    assert adapter.feed(Stream.STDOUT, b'{"type":"init","session_id":"--list"}') == [Activity(kind="init")]
    assert adapter.feed(Stream.STDERR, b"    at async foo (x.js:1:1)") == []
    assert adapter.feed(Stream.STDERR, b"\xff\xfe") == []


@pytest.mark.parametrize("wrong", [None, [], "x", 7, True, -1, 1e308, {"models": 7}])
def test_a_result_of_wrong_types_is_read_as_far_as_it_goes(wrong: Any) -> None:
    last = {"type": "result", "status": "success", "stats": wrong}
    assert say(gemini(), INIT, reply("a"), last, last).outcome == Ok()
    odd = result(input_tokens=wrong, output_tokens=wrong, total_tokens=wrong, cached=wrong)
    used = say(gemini(), INIT, reply("a"), odd).usage
    assert used is not None


# how it is started


def test_it_is_started_with_the_id_that_we_chose_and_without_asking(tmp_path: Path) -> None:
    invocation = gemini(model="gemini-x", args=("--include-directories", "/data")).command(task(tmp_path), {})
    assert invocation.argv == (
        "gemini",
        "-o",
        "stream-json",
        "--skip-trust",
        "--approval-mode",
        "yolo",
        "-m",
        "gemini-x",
        "--session-id",
        SESSION,
        "--include-directories",
        "/data",
        "-p",
        "do it",
    )
    assert invocation.stdin is None
    assert invocation.stop == ((signal.SIGTERM, 2.0), (signal.SIGKILL, 0.0))


def test_going_on_names_the_conversation(tmp_path: Path) -> None:
    argv = gemini().command(task(tmp_path, resume="abc", round=2), {}).argv
    assert argv[6:8] == ("--resume", "abc")
    assert "--session-id" not in argv


@pytest.mark.parametrize("prompt", ["- a list", "x" * (128 << 10), "a\0b", "ä" * (65 << 10), ""])
def test_a_prompt_that_cannot_be_an_argument_is_read_from_stdin(tmp_path: Path, prompt: str) -> None:
    made = task(tmp_path, prompt=prompt)
    invocation = gemini().command(made, {})
    assert "-p" not in invocation.argv
    assert invocation.stdin == made.prompt_file


def settings(folder: Path, adapter: GeminiAdapter, environ: dict[str, str] | None = None) -> dict[str, Any]:
    made = task(folder)
    adapter.command(made, environ or {})
    read: dict[str, Any] = json.loads((made.home / ".gemini" / "settings.json").read_text())
    return read


def test_its_settings_send_nothing_home(tmp_path: Path) -> None:
    assert settings(tmp_path, gemini()) == {
        "privacy": {"usageStatisticsEnabled": False},
        "general": {"enableAutoUpdate": False},
        "telemetry": {"enabled": False},
    }


def test_its_settings_name_the_key_and_the_limit_of_turns(tmp_path: Path) -> None:
    adapter = GeminiAdapter(agent("gemini", max_turns=7), Credential(variable="GEMINI_API_KEY"))
    found = settings(tmp_path, adapter, {"GEMINI_API_KEY": "sesame"})
    assert found["security"] == {"auth": {"selectedType": "gemini-api-key"}}
    assert found["model"] == {"maxSessionTurns": 7}
    assert "sesame" not in json.dumps(found)


def test_settings_of_the_person_are_kept_and_their_file_is_not_touched(tmp_path: Path) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    text = '{// mine\n"mcpServers": {"a": {"url": "http://x//y"}}, /* b */ "general": {"vimMode": true}, "telemetry": 1}'
    (tmp_path / "dotfile").write_text(text)
    (source / "settings.json").symlink_to(tmp_path / "dotfile")
    (source / "oauth_creds.json").write_text("{}")
    made = task(tmp_path)
    adapter = gemini(config_from=str(source))
    invocation = adapter.command(made, {})
    found = json.loads((made.home / ".gemini" / "settings.json").read_text())
    assert found["mcpServers"] == {"a": {"url": "http://x//y"}}
    assert found["general"] == {"vimMode": True, "enableAutoUpdate": False}
    assert found["telemetry"] == {"enabled": False}
    assert (tmp_path / "dotfile").read_text() == text
    assert tuple(invocation.shared.values()) == ((source / "oauth_creds.json").resolve(),)
    assert gemini(config_from=str(source)).command(made, {}).shared == invocation.shared


@pytest.mark.parametrize("text", ["[1]", "{", "7", "[" * 100_000])
def test_settings_that_cannot_be_read_are_refused_with_a_way_out(tmp_path: Path, text: str) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    (source / "settings.json").write_text(text)
    with pytest.raises(CannotInvoke, match=r"settings\.json") as caught:
        gemini(config_from=str(source)).command(task(tmp_path), {})
    assert isinstance(caught.value.outcome, BadRequest)


# what it must survive


def test_no_line_makes_it_raise_or_grow() -> None:
    names = [path.stem for path in RECORDINGS.glob("gemini-*.jsonl")]
    storm(
        gemini,
        sorted(names),
        FUZZ_LINES // 3,
        seed=18,
        noted=[json.dumps(noted("m1", 1000, 600, 50)).encode()],
    )


def test_a_long_run_is_kept_as_counters_and_last_words() -> None:
    adapter = gemini()
    for n in range(800):
        for said in (reply("x" * 1000), {**SHELL, "tool_id": str(n)}, {**DONE, "tool_id": str(n)}):
            adapter.feed(Stream.STDOUT, json.dumps(said).encode())
        adapter.feed(Stream.STDERR, b"Attempt 1 failed: " + b"z" * 9000)
    assert kept_chars(adapter) < 80_000
