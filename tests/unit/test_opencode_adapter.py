"""The `opencode` adapter against recorded runs, and against what no recording shows. No process is started here."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from harness.agents.base import (
    Activity,
    Final,
    GiveUp,
    LostSession,
    Problem,
    Retrying,
    Started,
    Stream,
    Text,
    Tool,
    Usage,
)
from harness.agents.opencode import OpencodeAdapter
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
    UsageLimit,
)
from harness.config import Credential
from harness.runner import Ended
from tests.jsontools import (
    FUZZ_LINES,
    KILLED,
    NOW,
    RECORDINGS,
    STALLED,
    STOPPED,
    TIMED_OUT,
    Replayed,
    agent,
    exited,
    kept_chars,
    replay,
    say,
    storm,
    task,
)

SESSION = "ses_483fad17affeEpO0veWzSnTWdy"
START = {"type": "step_start", "sessionID": SESSION, "part": {"type": "step-start"}}


def opencode(**more: Any) -> OpencodeAdapter:
    return OpencodeAdapter(agent("opencode", **more))


def text(said: str, message: str = "msg_1") -> dict[str, Any]:
    return {"type": "text", "sessionID": SESSION, "part": {"messageID": message, "text": said}}


def tool(name: str, status: str = "completed", **given: Any) -> dict[str, Any]:
    state = {"status": status, "input": given, "error": "no such file"}
    return {"type": "tool_use", "sessionID": SESSION, "part": {"type": "tool", "tool": name, "state": state}}


def finish(mark: str = "prt_1", reason: str = "stop", cost: Any = 0.5, **tokens: Any) -> dict[str, Any]:
    part = {"id": mark, "reason": reason, "tokens": tokens, "cost": cost}
    return {"type": "step_finish", "sessionID": SESSION, "part": part}


def error(name: str = "APIError", **data: Any) -> dict[str, Any]:
    return {"type": "error", "sessionID": SESSION, "error": {"name": name, "data": data}}


def failed(name: str = "APIError", **data: Any) -> Replayed:
    return say(opencode(), error(name, **data), ended=exited(1))


# recorded runs


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("commit", Ok()),
        ("auth", Auth(detail="invalid x-api-key")),
        ("overloaded", Overloaded(detail="Overloaded")),
        (
            "rate_short",
            RateLimit(
                resume_at=NOW + 1,
                detail="This request would exceed your organization's rate limit. Please try again later.",
            ),
        ),
        ("garbage", Overloaded),
        ("sigterm", Crash(signal=signal.SIGTERM)),
    ],
)
def test_a_recorded_run_ends_as_what_it_was(name: str, outcome: AgentOutcome | type[AgentOutcome]) -> None:
    got = replay(opencode(), f"opencode-{name}").outcome
    assert isinstance(got, outcome) if isinstance(outcome, type) else got == outcome


def test_a_good_run_tells_what_it_does() -> None:
    run = replay(opencode(model="mock/m"), "opencode-commit")
    assert run.of(Started) == [Started(session=SESSION, model="mock/m")]
    assert [said.text for said in run.of(Text)] == ["I will write the file.", "Done: hello.txt is committed."]
    assert [(used.name, used.detail[:18]) for used in run.of(Tool)] == [
        ("write", "/repo/wt/hello.txt"),
        ("bash", "git add -A && git "),
    ]
    assert run.of(Final) == [Final(text="Done: hello.txt is committed.")]
    assert not run.of(Problem)
    assert run.usage == Usage(
        tokens_in=3000, tokens_cached=0, tokens_out=150, cost_usd=0.01125, turns=3, model="mock/m"
    )
    assert run.state == {}


def test_what_it_has_used_is_told_with_each_step() -> None:
    seen = replay(opencode(), "opencode-commit").of(Usage)
    assert [used.cost_usd for used in seen] == [0.00375, 0.0075, 0.01125]
    assert [used.turns for used in seen] == [1, 2, 3]


# errors


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        ({"statusCode": 400, "message": "bad"}, BadRequest),
        ({"statusCode": 400, "message": "API key not valid. Please pass a valid API key."}, Auth),
        ({"statusCode": 401, "message": "no"}, Auth),
        ({"statusCode": 402, "message": "no"}, Billing),
        ({"statusCode": 403, "message": "no"}, Auth),
        ({"statusCode": 404, "message": "no"}, BadRequest),
        ({"statusCode": 413, "message": "no"}, BadRequest),
        ({"statusCode": 429, "message": "no"}, RateLimit),
        (
            {"statusCode": 429, "message": "no", "responseBody": '{"error":{"code":"insufficient_quota"}}'},
            Billing,
        ),
        ({"statusCode": 429, "message": "no", "responseBody": '{"type":"FreeUsageLimitError"}'}, UsageLimit),
        ({"statusCode": 500, "message": "no"}, Overloaded),
        ({"statusCode": 529, "message": "no"}, Overloaded),
        ({"message": "Connection reset by server", "isRetryable": True}, Overloaded),
        ({"message": "who knows", "isRetryable": True}, Overloaded),
        ({"message": "who knows", "isRetryable": False}, Crash),
        ({"message": "who knows"}, Crash),
        ({}, Crash),
    ],
)
def test_an_error_of_the_service_has_the_class_of_its_status(
    data: dict[str, Any], outcome: type[AgentOutcome]
) -> None:
    assert isinstance(failed(**data).outcome, outcome)


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("ProviderAuthError", Auth),
        ("ContextOverflowError", BadRequest),
        ("ProviderModelNotFoundError", BadRequest),
        ("ContentFilterError", Refusal),
        ("MessageOutputLengthError", NoResult),
        ("MessageAbortedError", Crash),
        ("UnknownError", Crash),
        ("NewError", Crash),
    ],
)
def test_an_error_that_is_named_has_the_class_of_its_name(name: str, outcome: type[AgentOutcome]) -> None:
    run = failed(name, message="m")
    assert isinstance(run.outcome, outcome)
    assert run.of(Problem) == [Problem(kind="api", text="m")]


@pytest.mark.parametrize(
    ("headers", "body", "after_s"),
    [
        ({"retry-after": "30"}, "", 30.0),
        ({"Retry-After": "30"}, "", 30.0),
        ({"retry-after": "30", "retry-after-ms": "1500"}, "", 1.5),
        ({"retry-after": "Fri, 02 Jan 2026 00:05:00 GMT"}, "", 100.0),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "-1"}, "", None),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": 30}, "", None),
        ({}, '{"error":{"type":"usage_limit_reached","resets_in_seconds":600}}', 600.0),
        ({}, '{"error":{"type":"usage_limit_reached","resets_at":1767312300}}', 100.0),
        ({}, '{"error":{"resets_at":"x"}}', None),
        (7, "{", None),
    ],
)
def test_when_a_limit_ends_is_read_from_headers_and_body(
    headers: Any, body: str, after_s: float | None
) -> None:
    end = failed(statusCode=429, message="no", responseHeaders=headers, responseBody=body).outcome
    assert isinstance(end, RateLimit | UsageLimit)
    until = end.resume_at if isinstance(end, RateLimit) else end.resets_at
    assert until == (None if after_s is None else NOW + after_s)


def test_an_error_that_it_survived_is_none() -> None:
    run = say(
        opencode(), error("ContextOverflowError", message="m"), START, text("hi"), finish(), ended=exited(1)
    )
    assert run.outcome == Ok()


def test_what_the_filter_stopped_is_a_refusal() -> None:
    assert isinstance(say(opencode(), START, text("I"), finish(reason="content-filter")).outcome, Refusal)


# what we did to it


@pytest.mark.parametrize("ended", [STALLED, TIMED_OUT, KILLED])
def test_a_run_whose_last_word_was_a_limit_ends_as_that_limit(ended: Ended) -> None:
    assert isinstance(replay(opencode(), "opencode-rate_short", ended).outcome, RateLimit)


@pytest.mark.parametrize("ended", [KILLED, STALLED, TIMED_OUT, exited(1)])
def test_a_run_that_had_its_result_keeps_it_however_it_ended(ended: Ended) -> None:
    assert replay(opencode(), "opencode-commit", ended).outcome == Ok()
    assert not isinstance(say(opencode(), START, text("a"), finish(), START, ended=ended).outcome, Ok)


def test_what_we_did_to_it_comes_first() -> None:
    assert replay(opencode(), "opencode-rate_short", STOPPED).outcome == Interrupted(why="drain")
    assert isinstance(replay(opencode(), "opencode-sigterm", STALLED).outcome, Stalled)


# tokens, cost, turns


def test_input_is_all_that_the_model_read_and_output_all_that_it_thought() -> None:
    cache = {"read": 700, "write": 200}
    run = say(opencode(), START, text("a"), finish(input=100, output=50, reasoning=30, cache=cache))
    assert run.usage == Usage(tokens_in=1000, tokens_cached=700, tokens_out=80, cost_usd=0.5, turns=1)
    total = say(opencode(), START, text("a"), finish(input=100, output=80, reasoning=30, total=180, cache={}))
    assert total.usage == Usage(tokens_in=100, tokens_cached=0, tokens_out=80, cost_usd=0.5, turns=1)


def test_a_step_that_is_told_twice_counts_once() -> None:
    run = say(opencode(), START, text("a"), finish(input=5), finish(input=5), finish("prt_2", input=5))
    assert run.usage == Usage(tokens_in=10, tokens_cached=0, tokens_out=0, cost_usd=1.0, turns=2)


def test_a_run_that_was_killed_in_a_step_is_estimated() -> None:
    run = say(opencode(), START, tool("bash"), finish(reason="tool-calls", input=5), START, ended=KILLED)
    assert run.usage == Usage(
        tokens_in=5, tokens_cached=0, tokens_out=0, cost_usd=0.5, turns=1, estimated=True
    )
    assert isinstance(run.outcome, Crash)


def test_work_that_subagents_did_is_not_told_and_so_the_cost_is_estimated() -> None:
    run = say(
        opencode(), START, tool("task", prompt="p"), finish(reason="tool-calls"), START, finish("prt_2")
    )
    assert run.usage is not None
    assert run.usage.estimated


def test_nothing_is_known_of_a_run_that_had_no_step() -> None:
    assert replay(opencode(), "opencode-auth").usage is None


@pytest.mark.parametrize("wrong", [None, [], "x", True, -1, 1e308, 10**400, {"read": []}])
def test_counts_of_wrong_types_are_none(wrong: Any) -> None:
    tokens = {"input": wrong, "output": wrong, "reasoning": wrong, "total": wrong, "cache": wrong}
    run = say(opencode(), START, text("a"), *(finish(f"prt_{n}", cost=wrong, **tokens) for n in range(3)))
    assert run.outcome == Ok()
    assert run.usage is not None
    assert run.usage.tokens_in is not None
    assert run.usage.cost_usd is not None
    assert 0 <= run.usage.tokens_in < 1e16
    assert 0 <= run.usage.cost_usd < 1e16


def test_a_run_is_given_up_when_it_begins_one_step_too_many() -> None:
    assert not replay(opencode(max_turns=3), "opencode-commit").of(GiveUp)
    run = replay(opencode(max_turns=2), "opencode-commit", STOPPED)
    assert run.outcome == MaxTurns(detail="more than 2 steps (agent.max_turns)")
    assert [event.outcome for event in run.of(GiveUp)] == [run.outcome]


# its log


def logged(error: str, small: bool = False, level: str = "ERROR") -> bytes:
    """A line of its log, as 1.18.33 writes it."""
    who = f"session.id=ses_1 small={str(small).lower()} agent=build mode=primary"
    said = f'message="stream error" providerID=test modelID=m {who} error.error="AI_APICallError: {error}"'
    return f"timestamp=2026-11-22T00:40:07.292Z level={level} run=ccd80786 {said}".encode()


def test_a_used_up_plan_is_not_waited_for(tmp_path: Path) -> None:
    adapter = opencode()
    adapter.command(task(tmp_path), {})
    assert adapter.journal() is None
    log = tmp_path / "home/.local/share/opencode/log/opencode.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    assert adapter.journal() == log
    assert adapter.feed(Stream.JOURNAL, b"timestamp=x level=INFO message=loop") == []
    assert adapter.feed(Stream.JOURNAL, logged("The usage limit has been reached.", small=True)) == []
    (given,) = adapter.feed(Stream.JOURNAL, logged("The usage limit has been reached."))
    assert isinstance(given, GiveUp)
    assert isinstance(given.outcome, UsageLimit)
    assert isinstance(say(adapter, ended=STOPPED).outcome, UsageLimit)
    opencode().command(task(tmp_path, resume=SESSION, round=2), {})
    assert not log.exists()  # it says nothing of the next run


@pytest.mark.parametrize(
    ("error", "outcome"), [("Too Many Requests", RateLimit), ("Service Unavailable", Overloaded)]
)
def test_a_request_that_it_makes_again_is_waited_for_and_is_what_a_stall_was(
    error: str, outcome: type[AgentOutcome]
) -> None:
    adapter = opencode()
    for k in (1, 2):
        (again,) = adapter.feed(Stream.JOURNAL, logged(error))
        assert isinstance(again, Retrying)
        assert again.attempt == k
    assert isinstance(say(adapter, ended=STALLED).outcome, outcome)
    went_on = opencode()
    went_on.feed(Stream.JOURNAL, logged(error))
    assert isinstance(say(went_on, START, text("a"), ended=STALLED).outcome, Stalled)


def test_of_an_error_that_ends_the_run_its_log_says_nothing_new() -> None:
    assert opencode().feed(Stream.JOURNAL, logged("invalid x-api-key")) == []
    assert opencode().feed(Stream.JOURNAL, logged("Too Many Requests", level="WARN")) == []


# a conversation that is gone


@pytest.mark.parametrize(
    "line", ["\x1b[91m\x1b[1mError: \x1b[0mSession not found", "Error: Session not found: ses_1"]
)
def test_a_conversation_that_it_does_not_know_is_lost(tmp_path: Path, line: str) -> None:
    adapter = opencode()
    adapter.command(task(tmp_path, resume=SESSION), {})
    run = say(adapter, line, ended=exited(1))
    assert run.events == [LostSession()]
    assert isinstance(run.outcome, Crash)
    assert "Session not found" in run.outcome.detail
    assert not say(opencode(), line, ended=exited(1)).events


# ends that say little


def test_exit_0_without_the_last_event_is_no_result() -> None:
    said = "exit 0 without step_finish with a reason to stop"
    assert say(opencode(), START, text("a")).outcome == NoResult(detail=said)
    assert say(opencode(), START, tool("bash"), finish(reason="tool-calls")).outcome == NoResult(detail=said)


def test_a_run_without_a_word_is_empty() -> None:
    assert isinstance(say(opencode(), START, finish()).outcome, Empty)
    assert isinstance(say(opencode(), START, text("\n"), finish()).outcome, Empty)
    assert say(opencode(), START, tool("bash"), finish()).outcome == Ok()


def test_the_last_word_is_the_text_of_the_last_message() -> None:
    run = say(opencode(), START, text("a"), START, text("b", "msg_2"), text("c", "msg_2"), finish())
    assert run.of(Final) == [Final(text="b\n\nc")]


def test_a_tool_that_failed_and_one_that_was_denied_are_told() -> None:
    denied = "\x1b[93m!\x1b[0m permission requested: bash (git push); auto-rejecting"
    run = say(opencode(), START, tool("read", "error", filePath="x"), denied)
    assert [(problem.kind, problem.text) for problem in run.of(Problem)] == [
        ("tool", "no such file"),
        ("denied", "! permission requested: bash (git push); auto-rejecting"),
    ]


def test_what_it_says_on_stderr_explains_a_crash() -> None:
    assert say(opencode(), "Error: boom", ended=exited(1)).outcome == Crash(exit_code=1, detail="Error: boom")
    assert isinstance(say(opencode(), "Error: Model not found: a/b", ended=exited(1)).outcome, BadRequest)


def test_lines_that_are_no_events_are_told_and_unknown_ones_are_signs_of_life() -> None:
    adapter = opencode()
    assert adapter.feed(Stream.STDOUT, b"Welcome!") == [Problem(kind="line", text="Welcome!")]
    assert adapter.feed(Stream.STDOUT, b'{"type":"done"}') == [Activity(kind="done")]
    assert adapter.feed(Stream.STDOUT, b'{"type":"error","error":7,"sessionID":"-x"}') == [
        Problem(kind="api", text="an error without a message")
    ]


# how it is started


def test_it_is_started_with_its_prompt_on_stdin_and_without_asking(tmp_path: Path) -> None:
    made = task(tmp_path)
    invocation = opencode(model="a/b", args=("--variant", "high")).command(made, {})
    titled = ("--title=fix",)  # it asks a model for one otherwise
    assert invocation.argv == (
        "opencode",
        "run",
        "--format",
        "json",
        "-m",
        "a/b",
        *titled,
        "--variant",
        "high",
    )
    assert invocation.stdin == made.prompt_file
    assert invocation.env["OPENCODE_DISABLE_AUTOUPDATE"] == "1"
    assert invocation.env["OPENCODE_DISABLE_MODELS_FETCH"] == "1"
    assert json.loads(invocation.env["OPENCODE_CONFIG_CONTENT"]) == {
        "autoupdate": False,
        "share": "disabled",
        "permission": "allow",
    }
    assert invocation.stop == ((signal.SIGTERM, 3.0), (signal.SIGKILL, 0.0))
    assert (made.home / ".config" / "opencode").is_dir()


def test_going_on_names_the_conversation(tmp_path: Path) -> None:
    argv = opencode().command(task(tmp_path, resume=SESSION, round=2), {}).argv
    assert argv[4:] == ("--session", SESSION)


@pytest.mark.parametrize(
    ("own", "permission"),
    [('{"permission": {"bash": "deny"}, "x": 1}', {"bash": "deny"}), ('{"x": 1}', "allow")],
)
def test_configuration_in_the_environment_is_laid_over_ours(
    tmp_path: Path, own: str, permission: Any
) -> None:
    env = opencode(env={"OPENCODE_CONFIG_CONTENT": own}).command(task(tmp_path), {}).env
    found = json.loads(env["OPENCODE_CONFIG_CONTENT"])
    assert (found["permission"], found["share"], found["x"]) == (permission, "disabled", 1)


@pytest.mark.parametrize("own", ["[1]", "{// c\n}"])
def test_configuration_that_we_cannot_read_is_left_as_it_is(tmp_path: Path, own: str) -> None:
    env = opencode(env={"OPENCODE_CONFIG_CONTENT": own}).command(task(tmp_path), {}).env
    assert env["OPENCODE_CONFIG_CONTENT"] == own


def test_the_login_is_shared_from_where_the_tool_keeps_it(tmp_path: Path) -> None:
    source = tmp_path / "me" / ".config" / "opencode"
    data = tmp_path / "me" / ".local" / "share" / "opencode"
    source.mkdir(parents=True)
    data.mkdir(parents=True)
    (source / "opencode.json").write_text("{}")
    (data / "auth.json").write_text("{}")
    (data / "opencode.db").write_text("big")
    made = task(tmp_path)
    for _ in range(2):
        invocation = opencode(config_from=str(source)).command(made, {})
        assert tuple(invocation.shared.values()) == ((data / "auth.json").resolve(),)
    own = made.home / ".local" / "share" / "opencode"
    assert sorted(path.name for path in own.iterdir()) == ["auth.json", "log"]
    assert (own / "auth.json").is_symlink()
    assert (made.home / ".config" / "opencode" / "opencode.json").is_file()


def test_a_login_that_lies_in_the_folder_itself_comes_first(tmp_path: Path) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    (source / "auth.json").write_text("{}")
    made = task(tmp_path)
    invocation = opencode(config_from=str(source)).command(made, {})
    assert tuple(invocation.shared.values()) == ((source / "auth.json").resolve(),)
    link = made.home / ".local" / "share" / "opencode" / "auth.json"
    assert link.resolve() == (source / "auth.json").resolve()


def test_a_credential_is_for_its_process_alone(tmp_path: Path) -> None:
    adapter = OpencodeAdapter(agent("opencode"), Credential(variable="OPENAI_API_KEY"))
    assert adapter.command(task(tmp_path), {"OPENAI_API_KEY": "sesame"}).env["OPENAI_API_KEY"] == "sesame"


# what it must survive


def test_no_line_makes_it_raise_or_grow() -> None:
    names = [path.stem for path in RECORDINGS.glob("opencode-*.jsonl")]
    storm(
        opencode,
        sorted(names),
        FUZZ_LINES // 3,
        seed=19,
        noted=[logged("The usage limit has been reached."), logged("Too Many Requests")],
    )


def test_a_long_run_is_kept_as_counters_and_last_words() -> None:
    adapter = opencode()
    for n in range(800):
        for said in (
            START,
            text("x" * 1000),
            tool("bash", command="y" * 1000),
            finish(f"prt_{n}", "tool-calls"),
        ):
            adapter.feed(Stream.STDOUT, json.dumps(said).encode())
        adapter.feed(Stream.STDERR, b"Error: " + b"z" * 9000)
    assert kept_chars(adapter) < 80_000
