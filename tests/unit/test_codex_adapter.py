"""The `codex` adapter against recorded runs, and against what no recording shows. No process is started here."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Mapping
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
from harness.agents.codex import CodexAdapter
from harness.agents.outcomes import (
    AgentOutcome,
    Auth,
    BadRequest,
    Billing,
    Crash,
    Empty,
    Interrupted,
    MaxTurns,
    NoResult,
    Ok,
    Overloaded,
    RateLimit,
    Refusal,
    Stalled,
    TimedOut,
    UsageLimit,
)
from harness.config import Credential
from harness.runner import Ended, EndReason
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

THREAD = "019b7c03-1580-72f0-8866-4abd4aabccdd"
BEFORE = {"input_tokens": 1000, "cached_input_tokens": 0, "output_tokens": 50}


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The recordings print times of day in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def codex(**more: Any) -> CodexAdapter:
    return CodexAdapter(agent("codex", **more))


def going_on(folder: Path, state: Mapping[str, Any], **more: Any) -> CodexAdapter:
    adapter = codex(**more)
    adapter.command(task(folder, resume=THREAD, round=2, state=state), {})
    return adapter


def message(text: str) -> dict[str, Any]:
    return {"type": "item.completed", "item": {"id": "item_1", "type": "agent_message", "text": text}}


def ran(command: str, status: str = "completed", mark: str = "item_2") -> dict[str, Any]:
    item = {"id": mark, "type": "command_execution", "command": command, "status": status}
    return {"type": "item.completed", "item": item}


def completed(**usage: Any) -> dict[str, Any]:
    return {"type": "turn.completed", "usage": usage}


def failed(text: str) -> Replayed:
    return say(codex(), {"type": "turn.failed", "error": {"message": text}}, ended=exited(1))


# recorded runs


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("plain", Ok()),
        ("commit", Ok()),
        ("resume", Ok()),
        ("bad_tool", Ok()),
        ("auth", Auth),
        ("billing", Billing(detail="Quota exceeded. Check your plan and billing details.")),
        ("cut", Overloaded),
        ("idle3s", Overloaded),
        ("overloaded", Overloaded(detail="Selected model is at capacity. Please try a different model.")),
        ("rate_short", RateLimit(detail="exceeded retry limit, last status: 429 Too Many Requests")),
        ("refusal", Refusal),
        ("usage_limit", UsageLimit),
        ("resume-missing", Crash),
        ("sigint", Crash(exit_code=1)),
    ],
)
def test_a_recorded_run_ends_as_what_it_was(name: str, outcome: AgentOutcome | type[AgentOutcome]) -> None:
    got = replay(codex(), f"codex-{name}").outcome
    assert isinstance(got, outcome) if isinstance(outcome, type) else got == outcome


def test_a_good_run_tells_what_it_does() -> None:
    run = replay(codex(model="m"), "codex-commit")
    assert run.of(Started) == [Started(session="019b7c0e-d3f8-72a3-8b26-4b47b3310fb8", model="m")]
    assert [text.text for text in run.of(Text)] == ["I will write the file.", "Done: hello.txt is committed."]
    assert [tool.name for tool in run.of(Tool)] == ["command_execution", "command_execution"]
    assert run.of(Tool)[0].detail == "/bin/bash -lc \"printf %s 'hello\n' > hello.txt\""
    assert run.of(Final) == [Final(text="Done: hello.txt is committed.")]
    assert [p.kind for p in run.of(Problem)] == ["warning"]
    assert run.usage == Usage(tokens_in=3000, tokens_cached=0, tokens_out=150, turns=4, model="m")


def test_a_used_up_plan_ends_when_the_message_says_in_local_time() -> None:
    end = replay(codex(), "codex-usage_limit").outcome
    assert isinstance(end, UsageLimit)
    assert end.resets_at == NOW - 200 + 2 * 3600 + 3 * 60 + 60  # at the end of the minute that is printed


@pytest.mark.parametrize(
    ("text", "after_s"),
    [
        ("You've hit your usage limit. Try again at 12:04 AM.", 100),
        ("You’ve hit your usage limit. Try again at 11:59 PM.", 86_400 - 200),
        ("You've hit your usage limit. Try again at Jan 3rd, 2026 12:03 AM.", 86_400 + 40),
        ("You've hit your usage limit. Try again in 3 days 4 hours 5 minutes.", 3 * 86_400 + 4 * 3600 + 300),
        ("You've hit your usage limit. Try again later.", None),
        ("You've hit your usage limit. Try again at 13:99 PM.", None),
        ("You've hit your usage limit. Try again at Feb 31st, 2026 1:00 AM.", None),
        ("You've hit your usage limit. Try again at Jan 1st, 2026 1:00 AM.", None),
    ],
)
def test_the_reset_of_a_plan_is_read_in_all_its_forms(text: str, after_s: float | None) -> None:
    end = failed(text).outcome
    assert isinstance(end, UsageLimit)
    assert end.resets_at == (None if after_s is None else NOW + after_s)


def test_a_time_of_day_that_has_just_passed_is_no_time_and_one_long_past_is_tomorrow() -> None:
    adapter = codex()
    adapter.feed(
        Stream.STDOUT, json.dumps({"type": "error", "message": "usage limit, try again at 2:03 AM"}).encode()
    )
    at_two = NOW - 200 + 2 * 3600 + 3 * 60
    assert adapter.finish(exited(1), at_two + 600) == UsageLimit(detail="usage limit, try again at 2:03 AM")
    late = adapter.finish(exited(1), at_two + 8 * 3600)
    assert isinstance(late, UsageLimit)
    assert late.resets_at == at_two + 86_400 + 60


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("unexpected status 401 Unauthorized: no", Auth),
        ("unexpected status 403 Forbidden: no", Auth),
        ("Your access token could not be refreshed because your refresh token was revoked.", Auth),
        ("Missing environment variable: `MY_KEY`.", Auth),
        ("unexpected status 400 Bad Request: no such field", BadRequest),
        ("unexpected status 404 Not Found: The model `x` does not exist", BadRequest),
        ("Codex ran out of room in the model's context window. Start a new thread", BadRequest),
        ("unexpected status 402 Payment Required: pay", Billing),
        ("Your workspace is out of credits. Add credits to continue.", Billing),
        ("You hit your spend cap set in your workspace.", Billing),
        ("We're currently experiencing high demand, which may cause temporary errors.", Overloaded),
        ("exceeded retry limit, last status: 503 Service Unavailable, request id: 429", Overloaded),
        ("Connection failed: error sending request for url (http://127.0.0.1:4290/)", Overloaded),
        ("something new", Crash),
    ],
)
def test_messages_that_no_recording_has_have_a_class(text: str, outcome: type[AgentOutcome]) -> None:
    assert isinstance(failed(text).outcome, outcome)


def test_a_rate_limit_within_a_stream_says_when_it_ends() -> None:
    text = "stream disconnected before completion: Rate limit reached for m on tokens per min. Please try again in 11.5s."
    assert failed(text).outcome == RateLimit(resume_at=NOW + 11.5, detail=text)


# while it tries again


def test_it_is_given_up_as_soon_as_it_tries_again_after_a_401() -> None:
    run = replay(codex(), "codex-auth", STOPPED)
    assert len(run.of(GiveUp)) == 1
    assert not run.of(Retrying)
    assert isinstance(run.outcome, Auth)
    assert run.of(GiveUp)[0].outcome == run.outcome


def test_attempts_that_follow_a_limit_are_told_with_a_delay() -> None:
    run = replay(codex(), "codex-rate_short")
    assert [r.attempt for r in run.of(Retrying)] == [1, 2, 3, 4, 5]
    assert {(r.kind, r.delay_s) for r in run.of(Retrying)} == {(LimitKind.RATE, 60.0)}
    assert {r.kind for r in replay(codex(), "codex-cut").of(Retrying)} == {LimitKind.OVERLOADED}


@pytest.mark.parametrize("ended", [STALLED, TIMED_OUT, KILLED])
def test_a_run_that_only_waited_for_a_limit_ends_as_that_limit(ended: Ended) -> None:
    assert isinstance(replay(codex(), "codex-rate_long", ended).outcome, RateLimit)
    assert isinstance(replay(codex(), "codex-stall_text", ended).outcome, Overloaded)


def test_a_run_that_went_on_after_a_limit_has_stalled() -> None:
    error = {"type": "error", "message": "Reconnecting... 1/5 (last status: 429 Too Many Requests)"}
    assert isinstance(say(codex(), error, message("hi"), ended=STALLED).outcome, Stalled)
    assert say(codex(), error, message("hi"), ended=TIMED_OUT).outcome == TimedOut(after_s=60.0)


def test_a_message_without_details_is_a_stream_that_broke() -> None:
    run = say(codex(), {"type": "error", "message": "Reconnecting... 2/5"}, ended=STALLED)
    assert run.of(Retrying) == [Retrying(kind=LimitKind.OVERLOADED, delay_s=60.0, attempt=2)]
    assert isinstance(run.outcome, Overloaded)


# what we did to it


def test_what_we_did_to_it_comes_first() -> None:
    assert replay(codex(), "codex-usage_limit", STOPPED).outcome == Interrupted(why="drain")
    assert replay(codex(), "codex-plain", STOPPED).outcome == Interrupted(why="drain")
    assert isinstance(replay(codex(), "codex-sigint", STALLED).outcome, Stalled)
    much = replay(codex(max_output_mb=3), "codex-plain", Ended(reason=EndReason.TOO_MUCH_OUTPUT)).outcome
    assert much == Crash(detail="wrote more than 3 MiB (agent.max_output_mb)")
    none = say(codex(), ended=Ended(reason=EndReason.NOT_STARTED, error="no such file")).outcome
    assert none == Crash(detail="could not be started: no such file")


@pytest.mark.parametrize("ended", [KILLED, STALLED, TIMED_OUT, exited(1)])
def test_a_run_that_had_its_result_keeps_it_however_it_ended(ended: Ended) -> None:
    assert replay(codex(), "codex-plain", ended).outcome == Ok()


# tokens


def test_what_a_run_has_used_is_the_difference_to_the_runs_before_it(tmp_path: Path) -> None:
    first = replay(codex(), "codex-plain")
    assert first.usage == Usage(tokens_in=1000, tokens_cached=0, tokens_out=50, turns=1)
    assert first.state == BEFORE
    second = replay(going_on(tmp_path, first.state), "codex-resume")
    assert second.usage == Usage(tokens_in=3000, tokens_cached=0, tokens_out=150, turns=4)
    assert second.state == {"input_tokens": 4000, "cached_input_tokens": 0, "output_tokens": 200}


def test_a_killed_run_leaves_its_tokens_to_the_next_difference(tmp_path: Path) -> None:
    killed = replay(going_on(tmp_path, BEFORE), "codex-sigint", KILLED)
    assert killed.usage == Usage(turns=0, estimated=True)
    lost = say(
        going_on(tmp_path, BEFORE),
        {"type": "thread.started", "thread_id": THREAD},
        message("a"),
        ended=KILLED,
    )
    assert (lost.usage, lost.state) == (Usage(turns=1, estimated=True), BEFORE)


def counted(tokens_in: int, cached: int, tokens_out: int) -> dict[str, Any]:
    """A line of the thread's own record, without what is not used of it."""
    total = {"input_tokens": tokens_in, "cached_input_tokens": cached, "output_tokens": tokens_out}
    return {"type": "event_msg", "payload": {"type": "token_count", "info": {"total_token_usage": total}}}


BEGUN = {"type": "thread.started", "thread_id": THREAD}


def test_the_record_of_a_thread_says_what_a_run_has_used_so_far(tmp_path: Path) -> None:
    adapter = going_on(tmp_path, BEFORE)
    assert adapter.journal() is None
    say(adapter, BEGUN)
    assert adapter.journal() is None
    place = tmp_path / "home/.codex/sessions/2026/11/22"
    place.mkdir(parents=True)
    (place / f"rollout-2026-11-22T00-31-09-{SESSION}.jsonl").touch()
    assert adapter.journal() is None
    record = place / f"rollout-2026-11-22T00-31-09-{THREAD}.jsonl"
    record.symlink_to("/dev/zero")
    assert adapter.journal() is None
    record.unlink()
    record.touch()
    assert adapter.journal() == record
    assert note(adapter, counted(900, 0, 40)) == []  # of the run before
    (used,) = note(adapter, {"type": "x"}, counted(2000, 600, 90), counted(2000, 600, 90))
    assert used == Usage(tokens_in=1000, tokens_cached=600, tokens_out=40, turns=0, estimated=True)
    killed = say(adapter, ended=KILLED)
    assert killed.usage == used
    assert killed.state == {"input_tokens": 2000, "cached_input_tokens": 600, "output_tokens": 90}


def test_the_last_word_on_tokens_is_that_of_the_tool(tmp_path: Path) -> None:
    adapter = going_on(tmp_path, BEFORE)
    say(adapter, BEGUN)
    note(adapter, counted(2000, 0, 90))
    last = completed(input_tokens=3000, cached_input_tokens=0, output_tokens=150)
    run = say(adapter, message("a"), last)
    assert run.usage == Usage(tokens_in=2000, tokens_cached=0, tokens_out=100, turns=1)
    assert note(adapter, counted(9000, 0, 900)) == []
    assert adapter.usage() == run.usage


def test_a_new_thread_counts_from_nothing(tmp_path: Path) -> None:
    run = replay(going_on(tmp_path, BEFORE), "codex-commit")  # of another thread
    assert run.usage == Usage(tokens_in=3000, tokens_cached=0, tokens_out=150, turns=4)


def test_less_than_before_means_that_it_does_not_know(tmp_path: Path) -> None:
    zero = completed(input_tokens=0, cached_input_tokens=0, output_tokens=0)
    run = say(going_on(tmp_path, BEFORE), message("a"), zero)
    assert (run.outcome, run.usage, run.state) == (Ok(), Usage(turns=1, estimated=True), BEFORE)


def test_what_came_from_a_cache_is_part_of_the_input() -> None:
    run = say(codex(), message("a"), completed(input_tokens=100, cached_input_tokens=80, output_tokens=3))
    assert run.usage == Usage(tokens_in=100, tokens_cached=80, tokens_out=3, turns=1)
    assert run.of(Usage) == [run.usage]


def test_a_last_event_that_comes_twice_counts_once() -> None:
    last = completed(input_tokens=10, cached_input_tokens=0, output_tokens=1)
    assert say(codex(), message("a"), last, last).usage == Usage(
        tokens_in=10, tokens_cached=0, tokens_out=1, turns=1
    )


@pytest.mark.parametrize(
    "state", [{"input_tokens": "x"}, {"input_tokens": -5}, {"input_tokens": None}, {"v": 1}]
)
def test_a_state_that_is_broken_is_as_if_there_were_none(tmp_path: Path, state: dict[str, Any]) -> None:
    assert replay(going_on(tmp_path, state), "codex-resume").usage == Usage(
        tokens_in=4000, tokens_cached=0, tokens_out=200, turns=4
    )


def test_nothing_is_known_of_a_run_that_never_began() -> None:
    assert replay(codex(), "codex-resume-missing").usage is None


# turns


def test_a_run_is_given_up_when_it_has_more_turns_than_it_may() -> None:
    assert not replay(codex(max_turns=4), "codex-commit").of(GiveUp)
    run = replay(codex(max_turns=3), "codex-commit", STOPPED)
    assert run.outcome == MaxTurns(detail="more than 3 messages and tool calls (agent.max_turns)")
    assert [event.outcome for event in run.of(GiveUp)] == [run.outcome]


def test_every_kind_of_tool_counts_as_a_turn() -> None:
    items = [
        {
            "id": "a",
            "type": "file_change",
            "changes": [{"path": "x.py", "kind": "add"}],
            "status": "completed",
        },
        {"id": "b", "type": "mcp_tool_call", "server": "s", "tool": "t", "status": "failed"},
        {"id": "c", "type": "web_search", "query": "q"},
        {"id": "d", "type": "command_execution", "command": "rm", "status": "declined"},
        {"id": "e", "type": "reasoning", "text": "hm"},
        {"id": "f", "type": "todo_list", "items": []},
    ]
    run = say(codex(), *({"type": "item.completed", "item": item} for item in items), completed())
    assert [(tool.name, tool.detail) for tool in run.of(Tool)] == [
        ("file_change", "x.py"),
        ("s.t", "t"),
        ("web_search", "q"),
        ("command_execution", "rm"),
    ]
    assert [problem.kind for problem in run.of(Problem)] == ["tool", "denied"]
    assert [event.kind for event in run.of(Activity)] == ["reasoning", "todo_list"]
    assert run.usage == Usage(turns=4, estimated=True)
    assert run.outcome == Ok()


# a conversation that is gone


def test_a_thread_that_it_does_not_know_is_lost(tmp_path: Path) -> None:
    run = replay(going_on(tmp_path, {}), "codex-resume-missing")
    assert run.events == [LostSession()]
    assert isinstance(run.outcome, Crash)
    assert "no rollout found" in run.outcome.detail


def test_a_run_that_went_on_with_nothing_loses_nothing(tmp_path: Path) -> None:
    adapter = codex()
    adapter.command(task(tmp_path), {})
    assert not replay(adapter, "codex-resume-missing").events


# ends that say little


def test_exit_0_without_the_last_event_is_no_result() -> None:
    assert say(codex(), message("done")).outcome == NoResult(detail="exit 0 without turn.completed")


def test_a_turn_without_a_word_is_empty() -> None:
    assert isinstance(say(codex(), {"type": "turn.started"}, completed(input_tokens=5)).outcome, Empty)
    assert isinstance(say(codex(), message("  "), completed()).outcome, Empty)
    assert say(codex(), ran("true"), completed()).outcome == Ok()


def test_arguments_that_it_does_not_know_never_work() -> None:
    run = say(codex(), "error: unexpected argument '--nope' found", "", "Usage: codex", ended=exited(2))
    assert run.outcome == BadRequest(detail="error: unexpected argument '--nope' found")


def test_what_it_says_last_on_stderr_explains_a_crash() -> None:
    assert say(codex(), "Error: boom", ended=exited(1)).outcome == Crash(exit_code=1, detail="Error: boom")
    assert isinstance(say(codex(), "Error: Not logged in", ended=exited(1)).outcome, Auth)


def test_lines_that_are_no_events_are_told_and_unknown_ones_are_signs_of_life() -> None:
    adapter = codex()
    assert adapter.feed(Stream.STDOUT, b'{"type": "turn.comp') == [
        Problem(kind="line", text='{"type": "turn.comp')
    ]
    assert adapter.feed(Stream.STDOUT, b"[1]") == [Problem(kind="line", text="[1]")]
    assert adapter.feed(Stream.STDOUT, b"  ") == []
    assert adapter.feed(Stream.STDOUT, b'{"type": "new.thing"}') == [Activity(kind="new.thing")]
    assert adapter.feed(Stream.STDOUT, b'{"no": "type"}') == [Activity(kind="unknown")]
    assert adapter.feed(Stream.STDERR, b"2026-01-02T00:03:29Z ERROR codex_core: \xff")[0] == Problem(
        kind="warning", text="2026-01-02T00:03:29Z ERROR codex_core: �"
    )


@pytest.mark.parametrize("thread", ["--last", "a/b", "", "x" * 200, 7, None, "a b", "\ud800"])
def test_an_id_that_could_not_be_an_argument_is_none(thread: Any) -> None:
    assert not say(codex(), {"type": "thread.started", "thread_id": thread}).of(Started)


# how it is started


def test_it_is_started_with_its_prompt_on_stdin_and_without_asking(tmp_path: Path) -> None:
    made = task(tmp_path)
    invocation = codex(model="gpt-x", args=("--add-dir", "/data")).command(made, {})
    assert invocation.argv == (
        "codex",
        "exec",
        "--json",
        "--dangerously-bypass-approvals-and-sandbox",
        "-c",
        "check_for_update_on_startup=false",
        "-c",
        "analytics.enabled=false",
        "-c",
        'otel.exporter="none"',
        "-m",
        "gpt-x",
        "--add-dir",
        "/data",
        "-",
    )
    assert invocation.stdin == made.prompt_file
    assert invocation.env["CODEX_HOME"] == str(made.home / ".codex")
    assert (made.home / ".codex").is_dir()
    assert invocation.stop == ((signal.SIGINT, 3.0), (signal.SIGKILL, 0.0))
    assert invocation.shared == {}


def test_going_on_names_the_thread_behind_all_options(tmp_path: Path) -> None:
    argv = codex(binary="/opt/codex").command(task(tmp_path, resume=THREAD), {}).argv
    assert argv[:2] == ("/opt/codex", "exec")
    assert argv[-3:] == ("resume", THREAD, "-")


def test_settings_of_the_agent_come_before_its_own(tmp_path: Path) -> None:
    made = codex(stop=((signal.SIGTERM, 1.0),), timeout_s=5.0, stall_s=7.0, max_output_mb=2)
    invocation = made.command(task(tmp_path), {})
    assert invocation.stop == ((signal.SIGTERM, 1.0),)
    assert (invocation.timeout_s, invocation.stall_s, invocation.max_output_bytes) == (5.0, 7.0, 2 << 20)
    assert (made.tail_bytes, made.resumes) == (None, True)


def test_each_session_begins_with_a_copy_and_shares_the_login(tmp_path: Path) -> None:
    source = tmp_path / "mine"
    (source / "sessions").mkdir(parents=True)
    (source / "config.toml").write_text('model = "x"')
    (source / "auth.json").write_text("{}")
    made = task(tmp_path)
    invocation = codex(config_from=str(source)).command(made, {})
    own = made.home / ".codex"
    assert (own / "config.toml").read_text() == 'model = "x"'
    assert (own / "auth.json").is_symlink()
    assert tuple(invocation.shared.values()) == ((source / "auth.json").resolve(),)
    assert not (own / "sessions").exists()


def test_a_credential_is_for_its_process_alone(tmp_path: Path) -> None:
    adapter = CodexAdapter(agent("codex"), Credential(variable="CODEX_API_KEY"))
    assert adapter.command(task(tmp_path), {"CODEX_API_KEY": "sesame"}).env["CODEX_API_KEY"] == "sesame"
    with pytest.raises(CannotInvoke):
        adapter.command(task(tmp_path), {})


# what it must survive


def test_no_line_makes_it_raise_or_grow() -> None:
    names = [path.stem for path in RECORDINGS.glob("codex-*.jsonl")]
    storm(codex, sorted(names), FUZZ_LINES // 3, seed=17, noted=[json.dumps(counted(2000, 600, 90)).encode()])


def test_a_long_run_is_kept_as_counters_and_last_words() -> None:
    adapter = codex()
    for n in range(800):
        adapter.feed(Stream.STDOUT, json.dumps(ran("x" * 1000, "failed", mark=f"item_{n}")).encode())
        adapter.feed(Stream.STDOUT, json.dumps(message("y" * 1000)).encode())
        adapter.feed(Stream.STDERR, b"Error: " + b"z" * 1000)
    assert kept_chars(adapter) < 20_000
