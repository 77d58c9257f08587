"""The `claude` adapter, against recorded runs of Claude Code 2.1.329 and 2.1.197. No process is started here.

A recording holds the lines of stdout, and last how the run ended: its exit code (below 0: the signal) and stderr.
HARNESS_FUZZ_LINES says how many broken lines are tried (20,000).
"""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.agents.base import (
    Activity,
    AgentEvent,
    CannotInvoke,
    Final,
    GiveUp,
    Limit,
    LimitKind,
    LostSession,
    Problem,
    Retrying,
    Started,
    Stream,
    Task,
    Text,
    Tool,
    Usage,
)
from harness.agents.claude import STOP, ClaudeAdapter
from harness.agents.claudemeter import REPLIES
from harness.agents.outcomes import (
    AgentOutcome,
    Auth,
    BadRequest,
    Billing,
    Budget,
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
    described,
)
from harness.config import Agent, Credential
from harness.runner import Ended, EndReason

RECORDED = Path(__file__).parent.parent / "data" / "agents"
NOW = 1_767_310_000.0  # two and a half hours before the limit of the recordings ends
RESETS_AT = 1_767_318_737.0
FUZZ_LINES = int(os.environ.get("HARNESS_FUZZ_LINES", "20000"))
AGENT = Agent(adapter="claude")


class Run:
    """One run, fed to an adapter of its own."""

    def __init__(self, *lines: bytes | Mapping[str, Any], agent: Agent = AGENT) -> None:
        self.adapter = ClaudeAdapter(agent)
        self.events: list[AgentEvent] = []
        self.exited = Ended(reason=EndReason.EXITED, exit_code=0, duration_s=1.0)
        self.say(*lines)

    @classmethod
    def of(cls, name: str) -> Run:
        run = cls()
        *lines, last = (RECORDED / f"claude-{name}.jsonl").read_bytes().splitlines()
        run.say(*lines)
        end = json.loads(last)["_trailer"]
        for line in end["stderr"]:
            run.events += run.adapter.feed(Stream.STDERR, line.encode())
        code = end["exit"]
        run.exited = exited(code) if code >= 0 else exited(None, signal=-code)
        return run

    def say(self, *lines: bytes | Mapping[str, Any]) -> Run:
        for line in lines:
            raw = line if isinstance(line, bytes) else json.dumps(line).encode()
            self.events += self.adapter.feed(Stream.STDOUT, raw)
        return self

    def complain(self, *lines: bytes) -> Run:
        for line in lines:
            self.events += self.adapter.feed(Stream.STDERR, line)
        return self

    def finish(self, ended: Ended | None = None) -> AgentOutcome:
        return self.adapter.finish(ended or self.exited, NOW)

    @property
    def usage(self) -> Usage:
        usage = self.adapter.usage()
        assert usage is not None
        return usage

    def all(self, kind: type[AgentEvent]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def exited(code: int | None = 0, **more: Any) -> Ended:
    return Ended(reason=EndReason.EXITED, exit_code=code, duration_s=1.0, **more)


STALLED = Ended(reason=EndReason.STALLED, exit_code=143, duration_s=900.0)
TIMED_OUT = Ended(reason=EndReason.TIMED_OUT, exit_code=0, duration_s=3600.04)
STOPPED = Ended(reason=EndReason.STOPPED, exit_code=0, duration_s=9.0, stop_reason="drain")

INIT: Mapping[str, Any] = {
    "type": "system",
    "subtype": "init",
    "session_id": "5e55-1",
    "model": "claude-sonnet-4-5",
}
DONE: Mapping[str, Any] = {
    "subtype": "success",
    "is_error": False,
    "terminal_reason": "completed",
    "num_turns": 1,
    "result": "Done.",
    "total_cost_usd": 0.5,
    "type": "result",
}
REJECTED: Mapping[str, Any] = {
    "type": "rate_limit_event",
    "rate_limit_info": {"status": "rejected", "resetsAt": RESETS_AT, "rateLimitType": "five_hour"},
}


def reply(*content: Mapping[str, Any], name: str = "msg_1", **more: Any) -> dict[str, Any]:
    message = {
        "id": name,
        "model": "claude-sonnet-4-5",
        "content": list(content),
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 200,
            "cache_read_input_tokens": 3000,
            "output_tokens": 1,
        },
    }
    return {"type": "assistant", "message": message, "parent_tool_use_id": None, **more}


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def retry(**more: Any) -> dict[str, Any]:
    data = {
        "type": "system",
        "subtype": "api_retry",
        "attempt": 1,
        "retry_delay_ms": 500,
        "error": "rate_limit",
    }
    return data | {"error_status": 429} | more


# recorded runs: the end and the bill

LIMITED = RateLimit(
    detail="API Error: Request rejected (429) · This request would exceed your organization's rate limit. Please try again later."
)
SAMPLES: Mapping[str, tuple[AgentOutcome, tuple[int, int, int], float | None]] = {
    # name: outcome (of a detail only the beginning), (tokens in, tokens out, turns), cost; None: estimated
    "plain": (Ok(), (1000, 50, 1), 0.00375),
    "commit": (Ok(), (3000, 150, 3), 0.01125),
    "denied-default": (Ok(), (2000, 100, 2), 0.0075),
    "bad_tool": (Ok(), (2000, 100, 2), 0.0075),
    "unknown_tool": (Ok(), (2000, 100, 2), 0.0075),
    "partial": (Ok(), (1000, 50, 1), 0.00375),
    "cut": (Ok(), (3000, 70, 1), 0.01005),
    "rate2": (Ok(), (1000, 50, 1), 0.00375),
    "oauth-near": (Ok(), (1000, 50, 1), 0.00375),
    "stdin-stream-interrupt": (Ok(), (1000, 50, 3), 0.00375),
    "maxturns": (MaxTurns(detail="Reached maximum number of turns (3)"), (3000, 150, 4), 0.01125),
    "budget": (Budget(detail="Reached maximum budget ($1.5)"), (400_000, 40_000, 2), 1.80),
    "rate_long": (LIMITED, (0, 0, 1), 0.0),
    "rate_short": (LIMITED, (0, 0, 1), 0.0),
    "mid_rate": (LIMITED, (1000, 50, 2), 0.00375),
    "v197-rate": (LIMITED, (0, 0, 1), 0.0),
    "usage_limit": (RateLimit(detail="API Error: Request rejected (429) · The usage"), (0, 0, 1), 0.0),
    "oauth-rate": (RateLimit(detail="API Error: Server is temporarily limiting requests"), (0, 0, 1), 0.0),
    "oauth-usage": (UsageLimit(resets_at=RESETS_AT, detail="You've hit your limit"), (0, 0, 1), 0.0),
    "watchdog-long": (RateLimit(resume_at=NOW + 4398.653, detail="rate_limit 429"), (0, 0, 0), None),
    "overloaded": (Overloaded(detail="API Error: 529 Overloaded"), (0, 0, 1), 0.0),
    "server_error": (Overloaded(detail="API Error: 500 Internal server error"), (0, 0, 1), 0.0),
    "fallback": (Overloaded(detail="API Error: 529 Overloaded"), (0, 0, 1), 0.0),
    "watchdog": (Overloaded(detail="API Error: 529 Overloaded"), (0, 0, 1), 0.0),
    "timeout": (Overloaded(detail="Request timed out"), (0, 0, 1), 0.0),
    "stall_headers": (Overloaded(detail="no answer"), (0, 0, 0), None),
    "auth": (Auth(detail="authentication_failed 401"), (0, 0, 0), None),
    "auth-retries1": (Auth(detail="Invalid API key"), (0, 0, 1), 0.0),
    "oauth-auth": (Auth(detail="Not logged in"), (0, 0, 1), 0.0),
    "v197-auth": (Auth(detail="Invalid API key"), (0, 0, 1), 0.0),
    "noauth": (Auth(detail="Not logged in"), (0, 0, 1), 0.0),
    "forbidden": (Auth(detail="Failed to authenticate. API Error: 403"), (0, 0, 1), 0.0),
    "billing": (Billing(detail="Credit balance is too low"), (0, 0, 1), 0.0),
    "no_model": (BadRequest(detail="There's an issue with the selected model"), (0, 0, 1), 0.0),
    "too_long": (BadRequest(detail="Prompt is too long"), (0, 0, 1), 0.0),
    "refusal": (Refusal(detail="API Error: Sonnet 4.5 can't help with this"), (2000, 100, 2), 0.0075),
    "max_tokens": (Crash(exit_code=1, detail="API Error: Claude's response exceeded"), (4000, 200, 4), 0.015),
    "sse_overload": (Crash(exit_code=1, detail="[ede_diagnostic]"), (2000, 100, 2), 0.0075),
    "garbage": (Crash(exit_code=1, detail="[ede_diagnostic]"), (4000, 102, 2), 0.01353),
    # going on: what the session had cost before is not counted again
    "resume": (Ok(), (3000, 150, 3), 0.01125),
    "resume-othercwd": (Ok(), (1000, 50, 1), 0.00375),
    "resume-budget": (Budget(detail="Reached maximum budget ($0.01)"), (3000, 150, 3), 0.01125),
    "int1-resume": (Ok(), (3000, 150, 3), 0.01125),
    "v197-sess": (Ok(), (1000, 50, 1), 0.00375),
    "v197-resume": (Ok(), (1000, 50, 1), 0.00375),
    "v197-commit": (Ok(), (3000, 150, 3), 0.01125),
    # ended by a signal that was not ours
    "int1": (Crash(exit_code=0, detail="interrupted, and not by us"), (1000, 13, 2), 0.003195),
    "sigint-slow": (Crash(exit_code=0, detail="interrupted, and not by us"), (1000, 18, 2), 0.00327),
    "sigint-tool": (Crash(exit_code=0, detail="interrupted, and not by us"), (1000, 50, 3), 0.00375),
    "sigterm-slow": (Crash(exit_code=143), (0, 0, 0), None),
    "sigterm-tool": (Crash(exit_code=143), (1000, 17, 1), None),
    "kill1": (Crash(signal=9), (1000, 17, 1), None),
    "gkill-tool": (Crash(signal=9), (1000, 17, 1), None),
    "resume-missing": (Crash(exit_code=1, detail="no conversation: No conversation found"), (0, 0, 0), 0.0),
}
UNSTARTED: Mapping[str, AgentOutcome] = {
    "sess-dup": Crash(exit_code=1, detail="no conversation: Error: Session ID"),
    "badsess": BadRequest(detail="Error: Invalid session ID"),
    "badflag": BadRequest(detail="error: unknown option '--no-such-flag'"),
    "commit-root-skip": BadRequest(detail="--dangerously-skip-permissions cannot be used with root"),
}


def shortened(outcome: AgentOutcome, like: AgentOutcome) -> AgentOutcome:
    """With as much of its detail as the expected one has."""
    detail, wanted = getattr(outcome, "detail", ""), getattr(like, "detail", "")
    if not wanted or isinstance(outcome, Interrupted | TimedOut | Ok):
        return outcome
    kind: Any = type(outcome)
    others = {name: getattr(outcome, name) for name in kind.__dataclass_fields__ if name != "detail"}
    return typing.cast(AgentOutcome, kind(**others, detail=detail[: len(wanted)]))


@pytest.mark.parametrize("name", SAMPLES)
def test_every_recorded_run_is_judged_and_charged_as_measured(name: str) -> None:
    outcome, (tokens_in, tokens_out, turns), cost = SAMPLES[name]
    run = Run.of(name)
    assert shortened(run.finish(), outcome) == outcome
    usage = run.usage
    assert (usage.tokens_in, usage.tokens_out, usage.turns) == (tokens_in, tokens_out, turns)
    assert usage.cost_usd == (None if cost is None else pytest.approx(cost, abs=1e-9))
    assert usage.estimated is (cost is None)


@pytest.mark.parametrize("name", UNSTARTED)
def test_a_run_that_only_complained_has_used_nothing(name: str) -> None:
    run = Run.of(name)
    assert shortened(run.finish(), UNSTARTED[name]) == UNSTARTED[name]
    assert run.adapter.usage() is None


def test_every_recording_is_in_a_table() -> None:
    names = {path.stem.removeprefix("claude-") for path in RECORDED.glob("claude-*.jsonl")}
    assert names == SAMPLES.keys() | UNSTARTED.keys()


# recorded runs: the events


def test_a_run_tells_what_it_does_while_it_does_it() -> None:
    run = Run.of("commit")
    seen = [event for event in run.events if not isinstance(event, Usage | Activity)]
    assert seen == [
        Started(session="1b6ff05e-946f-4bf2-9bf5-60297f5ab0b2", model="claude-sonnet-4-5"),
        Text(text="I will write the file."),
        Tool(name="Write", detail="/repo/wt/hello.txt"),
        Tool(
            name="Bash",
            detail="git add -A && git -c user.name=mock -c user.email=mock@localhost commit -q -m 'mock: add hello.txt' && git log --oneline…",
        ),
        Text(text="Done: hello.txt is committed."),
        Final(text="Done: hello.txt is committed."),
    ]


def test_usage_is_estimated_while_it_runs_and_exact_at_the_end() -> None:
    *running, last = Run.of("commit").all(Usage)
    assert [(usage.turns, usage.tokens_in, usage.estimated) for usage in running] == [
        (1, 1000, True),
        (2, 2000, True),
        (3, 3000, True),
    ]
    assert all(usage.cost_usd is None for usage in running)
    assert (last.turns, last.tokens_out, last.cost_usd, last.estimated) == (3, 150, 0.01125, False)
    assert last.model == "claude-sonnet-4-5"


def test_a_denied_permission_is_one_problem_and_no_failure() -> None:
    (problem,) = Run.of("denied-default").all(Problem)
    assert problem.kind == "denied"
    assert problem.text.startswith("Bash: touch in '/etc/mock-denied' needs approval")


@pytest.mark.parametrize("name", ["bad_tool", "unknown_tool"])
def test_a_tool_that_fails_is_a_problem(name: str) -> None:
    (problem,) = Run.of(name).all(Problem)
    assert problem.kind == "tool"
    assert "rror" in problem.text


def test_retries_say_what_they_wait_for_and_how_long() -> None:
    assert Run.of("rate2").all(Retrying)[0] == Retrying(kind=LimitKind.RATE, delay_s=2.248, attempt=1)
    assert [r.kind for r in Run.of("overloaded").all(Retrying)] == [LimitKind.OVERLOADED] * 2
    assert [r.kind for r in Run.of("server_error").all(Retrying)] == [LimitKind.OVERLOADED] * 2
    assert [r.kind for r in Run.of("stall_headers").all(Retrying)] == [LimitKind.OVERLOADED] * 2
    assert [r.delay_s for r in Run.of("watchdog-long").all(Retrying)] == [4428.653, 4398.653]


def test_a_refused_key_ends_the_run_at_the_first_retry() -> None:
    for name in ("auth", "auth-retries1", "oauth-auth", "v197-auth"):
        run = Run.of(name)
        assert run.all(GiveUp) == [GiveUp(outcome=Auth(detail="authentication_failed 401"))]
        assert run.all(Retrying) == []


def test_news_of_limits_tell_when_they_end_and_how_near_they_are() -> None:
    assert Run.of("oauth-usage").all(Limit) == [
        Limit(kind=LimitKind.USAGE, resets_at=RESETS_AT, utilization=1.0)
    ]
    assert Run.of("oauth-near").all(Limit) == [
        Limit(kind=LimitKind.USAGE, resets_at=RESETS_AT, utilization=0.93, blocked=False)
    ]
    assert Run.of("oauth-rate").all(Limit) == [Limit(kind=LimitKind.RATE)]


@pytest.mark.parametrize("name", ["resume-missing", "sess-dup"])
def test_a_conversation_that_is_not_to_be_had_is_told_once(name: str) -> None:
    assert Run.of(name).all(LostSession) == [LostSession()]


def test_a_fallback_is_a_warning() -> None:
    assert Problem(kind="warning", text="Switched to Haiku 4.5 due to high demand for Sonnet 4.5") in Run.of(
        "fallback"
    ).all(Problem)


# what we did to it


@pytest.mark.parametrize("name", ["commit", "int1", "oauth-usage", "kill1"])
def test_a_run_that_we_stopped_is_interrupted_whatever_it_said(name: str) -> None:
    assert Run.of(name).finish(STOPPED) == Interrupted(why="drain")


def test_a_run_that_we_stopped_because_it_could_not_succeed_ends_as_that() -> None:
    assert isinstance(Run.of("auth").finish(STOPPED), Auth)


def test_the_result_that_our_signal_has_made_of_it_does_not_count() -> None:
    assert Run.of("sigint-slow").finish(TIMED_OUT) == TimedOut(after_s=3600.0)
    assert isinstance(Run.of("sigint-tool").finish(STALLED), Stalled)
    assert Run.of("sigint-tool").usage.cost_usd == 0.00375


def test_a_limit_that_it_waited_for_is_the_end() -> None:
    for ended in (STALLED, TIMED_OUT):
        assert isinstance(Run.of("watchdog-long").finish(ended), RateLimit)
        assert isinstance(Run.of("stall_headers").finish(ended), Overloaded)
        assert Run(INIT, REJECTED).finish(ended) == UsageLimit(
            resets_at=RESETS_AT, detail="rate_limit_event: rejected"
        )
    assert isinstance(Run(INIT).finish(STALLED), Stalled)
    assert isinstance(Run(INIT, retry(), reply(said("it goes on"))).finish(TIMED_OUT), TimedOut)


def test_a_process_that_hangs_after_its_result_is_judged_by_it() -> None:
    for ended in (STALLED, TIMED_OUT, exited(None, signal=9), exited(143)):
        assert Run.of("commit").finish(ended) == Ok()
        assert isinstance(Run.of("maxturns").finish(ended), MaxTurns)


def test_too_much_output_and_no_start_are_crashes() -> None:
    run = Run.of("commit")
    assert described(run.finish(Ended(reason=EndReason.TOO_MUCH_OUTPUT))) == (
        "crash: wrote more than 256 MiB (agent.max_output_mb)"
    )
    assert run.finish(Ended(reason=EndReason.NOT_STARTED, error="no such file")) == Crash(
        detail="could not be started: no such file"
    )


# made by hand: the end


def test_a_result_of_an_earlier_part_does_not_stand_for_a_later_one_that_broke_off() -> None:
    woken = (INIT, reply(said("a")), DONE, INIT, reply(said("the tests went on"), name="msg_2"))
    assert Run(*woken).finish(exited(None, signal=9)) == Crash(signal=9)
    assert isinstance(Run(*woken).finish(STALLED), Stalled)
    assert Run(*woken).finish() == Ok()
    assert Run(*woken).usage == Usage(
        tokens_in=3210,
        tokens_cached=3000,
        tokens_out=5,
        cost_usd=0.5,  # at least that
        turns=2,
        model="claude-sonnet-4-5",
        estimated=True,
    )


def test_what_trails_behind_a_result_changes_nothing() -> None:
    trailing = [{"type": "system", "subtype": "status"}, {"type": "new"}, reply(said("b"))]
    run = Run(INIT, reply(said("a")), DONE, *trailing)
    assert run.finish(exited(1)) == Ok()
    assert (run.usage.cost_usd, run.usage.estimated) == (0.5, False)


def test_a_result_that_comes_twice_is_charged_once() -> None:
    charged = {**DONE, "model_usage_since_last_result": {"m": {"inputTokens": 7, "costUSD": 0.25}}}
    run = Run(INIT, charged, charged)
    assert (run.usage.cost_usd, run.usage.tokens_in, run.usage.turns) == (0.25, 7, 1)
    assert len(run.all(Final)) == 1
    other = {**charged, "uuid": "2"}
    assert run.say(other).usage.cost_usd == 0.5


def test_no_result_is_no_success() -> None:
    assert Run(INIT, reply(said("all done"))).finish() == NoResult()
    assert Run().complain(b"Warning: old Node").finish() == NoResult(detail="Warning: old Node")
    assert Run().complain(b"a", b"b", b"", b"c", b"d").finish(exited(7)) == Crash(
        exit_code=7, detail="b; c; d"
    )


def test_a_success_without_a_word_or_a_tool_is_empty() -> None:
    silent = {**DONE, "result": " \n"}
    assert Run(INIT, silent).finish() == Empty()
    assert Run(INIT, reply(said("")), silent).finish() == Empty()
    assert Run(INIT, reply(said("text")), silent).finish() == Ok()
    assert Run(INIT, reply({"type": "tool_use", "name": "Bash"}), silent).finish() == Ok()


def test_an_error_is_not_hidden_by_the_word_success_nor_by_a_missing_flag() -> None:
    assert isinstance(Run(INIT, {**DONE, "is_error": True}).finish(), Crash)
    assert isinstance(Run(INIT, {**DONE, "is_error": "no"}).finish(), Crash)
    assert isinstance(Run(INIT, {**DONE, "subtype": "error_during_execution"}).finish(), Crash)
    no_flag = {key: value for key, value in DONE.items() if key != "is_error"}
    assert Run(INIT, no_flag).finish() == Ok()
    assert isinstance(Run(INIT, {**no_flag, "subtype": "new"}).finish(), Crash)


def test_an_error_that_names_nothing_is_what_the_last_retry_said() -> None:
    vague = {**DONE, "is_error": True, "subtype": "error_during_execution", "errors": ["[ede_diagnostic]"]}
    overloaded = retry(error_status=529, error="overloaded")
    assert isinstance(Run(INIT, overloaded, vague).finish(exited(1)), Overloaded)
    assert isinstance(Run(INIT, overloaded, reply(said("x")), vague).finish(exited(1)), Crash)
    refused = {**vague, "api_error_status": 404}
    assert isinstance(Run(INIT, retry(), refused).finish(exited(1)), BadRequest)


def test_an_unknown_error_behind_retries_without_an_answer_is_an_outage() -> None:
    lost = reply(said("API Error: Unable to connect"), error="unknown")
    failed = {**DONE, "is_error": True, "result": "API Error: Unable to connect"}
    retried = retry(error_status=None, error="unknown")
    assert isinstance(Run(INIT, retried, lost, failed).finish(exited(1)), Overloaded)
    assert isinstance(Run(INIT, lost, failed).finish(exited(1)), Crash)


def test_an_error_of_a_subagent_is_not_the_runs() -> None:
    theirs = reply(said("API Error: 529"), error="server_error", parent_tool_use_id="toolu_1")
    run = Run(INIT, theirs)
    assert run.all(Problem) == [Problem(kind="api", text="API Error: 529")]
    assert isinstance(run.finish(exited(1)), Crash)


def test_a_surplus_that_is_paid_for_blocks_nothing() -> None:
    info = {"status": "rejected", "resetsAt": RESETS_AT, "isUsingOverage": True}
    run = Run(INIT, {"type": "rate_limit_event", "rate_limit_info": info})
    assert run.all(Limit) == [Limit(kind=LimitKind.USAGE, resets_at=RESETS_AT, blocked=False)]
    assert isinstance(run.finish(STALLED), Stalled)


@pytest.mark.parametrize(
    ("resets_at", "believed"), [(NOW - 1, None), (NOW + 60, NOW + 60), (9e10, NOW + 366 * 86_400)]
)
def test_a_time_that_is_over_is_not_believed_and_no_wait_is_endless(
    resets_at: float, believed: float | None
) -> None:
    info = {"status": "rejected", "resetsAt": resets_at}
    outcome = Run(INIT, {"type": "rate_limit_event", "rate_limit_info": info}).finish(exited(1))
    assert isinstance(outcome, UsageLimit)
    assert outcome.resets_at == believed


def test_a_lost_conversation_is_only_one_that_never_began() -> None:
    line = b"No conversation found with session ID: x"
    assert Run(INIT).complain(line).all(LostSession) == []
    assert isinstance(Run(INIT, DONE).complain(line).finish(), Ok)


def test_a_login_that_sessions_share_may_be_renewed_by_the_first_retry(tmp_path: Path) -> None:
    refused = {"error_status": 401, "error": "authentication_failed"}
    source = tmp_path / "login"
    source.mkdir()
    (source / ".credentials.json").write_text("{}")
    run = Run(agent=Agent(adapter="claude", config_from=str(source)))
    run.adapter.command(task(tmp_path), {})
    assert run.say(INIT, retry(**refused)).all(GiveUp) == []
    assert len(run.say(retry(**refused, attempt=2), retry(**refused, attempt=3)).all(GiveUp)) == 1


# made by hand: lines


def test_news_of_a_limit_inside_of_another_line_are_found_and_the_line_is_mended() -> None:
    """https://github.com/anthropics/claude-code/issues/49640"""
    whole = json.dumps(reply(said("before and after"))).encode()
    at = whole.index(b" and after")
    news = json.dumps(REJECTED, separators=(",", ":")).encode()
    run = Run(INIT, whole[:at] + news, whole[at:])
    assert [type(event) for event in run.events] == [Started, Problem, Limit, Text, Usage]
    assert run.all(Text) == [Text(text="before and after")]
    cut_short = Run(INIT, whole[:at] + news, DONE, whole[at:])
    assert [p.kind for p in cut_short.all(Problem)] == ["line", "line"]
    assert Run(INIT, whole[:at] + news).finish(STALLED) == UsageLimit(
        resets_at=RESETS_AT, detail="rate_limit_event: rejected"
    )


@pytest.mark.parametrize(
    "line", [b"{", b"hello", b"[1]", b"null", b'{"a":1}{"b":2}', b"\xff\xfe", b'{"a":' * 99_999]
)
def test_a_line_that_is_no_object_is_a_problem(line: bytes) -> None:
    (problem,) = Run(line).events
    assert isinstance(problem, Problem)
    assert problem.kind == "line"
    assert len(problem.text) <= 500


def test_empty_lines_are_nothing_and_unknown_ones_a_sign_of_life() -> None:
    assert Run(b"", b"  \r").events == []
    assert Run({"type": "x" * 999}, {"type": "system", "subtype": "y"}, {}).events == [
        Activity(kind="x" * 60),
        Activity(kind="system/y"),
        Activity(kind="unknown"),
    ]


def test_delays_are_fractions_and_no_delay_hides_a_stall_for_ever() -> None:
    run = Run(retry(retry_delay_ms=532.6714596821859), retry(retry_delay_ms=1e300, attempt=1e300))
    assert run.all(Retrying) == [
        Retrying(kind=LimitKind.RATE, delay_s=0.5326714596821859, attempt=1),
        Retrying(kind=LimitKind.RATE, delay_s=86_400.0, attempt=1),
    ]


def test_a_short_wait_does_not_say_when_a_limit_ends() -> None:
    assert Run(INIT, retry(retry_delay_ms=59_000)).finish(STALLED) == RateLimit(detail="rate_limit 429")
    assert Run(INIT, retry(retry_delay_ms=60_000)).finish(STALLED) == RateLimit(
        resume_at=NOW + 60, detail="rate_limit 429"
    )


@pytest.mark.parametrize("session", ["", "--evil", "a b", 7, None, "x" * 101])
def test_a_session_that_could_not_be_an_argument_is_not_told(session: object) -> None:
    assert Run({**INIT, "session_id": session}).events == [Activity(kind="system/init")]


@pytest.mark.parametrize(
    "wrong",
    [None, True, -1, 1e400, 10**300, "", "x", [], [[]], {}, {"": {}}, [None, 7]],
    ids=lambda wrong: f"{wrong!r:.9}",
)
def test_a_wrong_type_anywhere_is_as_if_it_had_not_been_said(wrong: object) -> None:
    lines = [line for name in SAMPLES for line in recorded(name)[:40]]
    for line in lines[:: 1 + len(lines) // 40]:
        for path in paths(line):
            run = Run(INIT, replaced(line, path, wrong))
            check(run.adapter, run.events, exited(1))


def test_huge_numbers_are_no_numbers() -> None:
    models = {"m": {"inputTokens": 10**300, "outputTokens": 1e300, "costUSD": 1e300}}
    run = Run({**DONE, "model_usage_since_last_result": models, "num_turns": 10**300})
    assert run.usage == Usage(tokens_in=0, tokens_cached=0, tokens_out=0, turns=0)


# the estimate


def test_blocks_of_one_reply_are_counted_once_and_their_text_in_full() -> None:
    call = {"type": "tool_use", "name": "Bash", "input": {"command": "x" * 392}}
    run = Run(INIT, reply(said("y" * 400)), reply(call), reply(said("z"), name="msg_2"))
    assert run.usage == Usage(
        tokens_in=6420,
        tokens_cached=6000,
        tokens_out=(400 + 4 + 7 + 392 + 3) // 4 + 1,
        turns=2,
        model="claude-sonnet-4-5",
        estimated=True,
    )


def test_subagents_spend_tokens_but_no_turns_of_the_run() -> None:
    run = Run(INIT, reply(said("a")), reply(said("b"), name="msg_2", parent_tool_use_id="toolu_1"))
    assert (run.usage.turns, run.usage.tokens_in) == (1, 6420)


def test_cached_tokens_are_part_of_all_tokens() -> None:
    model = {"inputTokens": 1, "cacheReadInputTokens": 20, "cacheCreationInputTokens": 300, "outputTokens": 4}
    usage = Run({**DONE, "model_usage_since_last_result": {"a": model, "b": model}}).usage
    assert (usage.tokens_in, usage.tokens_cached, usage.tokens_out) == (642, 40, 8)
    assert usage.cost_usd is None, "no cost is not a cost of 0"
    assert not usage.estimated


def test_without_the_sums_of_models_the_plain_usage_is_taken() -> None:
    spent = {"input_tokens": 5, "cache_read_input_tokens": 6, "output_tokens": 7}
    usage = Run({**DONE, "usage": spent, "modelUsage": {}}).usage
    assert (usage.tokens_in, usage.tokens_cached, usage.tokens_out, usage.cost_usd) == (11, 6, 7, 0.5)


def test_a_long_run_is_counted_in_bounded_memory() -> None:
    run = Run(INIT)
    for number in range(2000):
        run.say(reply(said("x" * 100), name=f"msg_{number}"))
        run.events.clear()
    assert run.usage.turns == 2000
    assert run.usage.tokens_in == 2000 * 3210
    assert kept(run.adapter) < REPLIES * 200


# how it is started


def task(tmp_path: Path, **more: Any) -> Task:
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    given: dict[str, Any] = {
        "item": "fix",
        "mark": "fix-x7.2",
        "slot": "agent-1",
        "agent": "claude",
        "session": "0cbb0302-76ef-4856-b518-b491fa9698ab",
        "round": 1,
        "prompt": "do it",
        "prompt_file": tmp_path / "prompt.1.md",
        "worktree": tmp_path / "tree",
        "folder": tmp_path,
        "home": home,
        "tmp": tmp_path / "tmp",
        "interrupt_file": tmp_path / "ask" / "interrupt.json",
        "findings_file": tmp_path / "ask" / "findings.md",
    }
    return Task(**given | more)


def argv(tmp_path: Path, agent: Agent = AGENT, **more: Any) -> tuple[str, ...]:
    return ClaudeAdapter(agent).command(task(tmp_path, **more), {}).argv


def env(tmp_path: Path, agent: Agent = AGENT) -> Mapping[str, str]:
    return ClaudeAdapter(agent).command(task(tmp_path), {"PATH": "/bin"}).env


def test_a_new_conversation_begins_with_our_id_and_the_prompt_on_standard_input(tmp_path: Path) -> None:
    invocation = ClaudeAdapter(AGENT).command(task(tmp_path), {})
    assert invocation.argv == (
        "claude",
        "-p",
        "--allowedTools",
        "Bash",
        "Edit",
        "Write",
        "NotebookEdit",
        "WebFetch",
        "WebSearch",
        "--output-format",
        "stream-json",
        "--verbose",
        "--session-id",
        "0cbb0302-76ef-4856-b518-b491fa9698ab",
        "--permission-mode",
        "acceptEdits",
    )
    assert invocation.stdin == tmp_path / "prompt.1.md"
    assert invocation.stop == STOP == ((2, 5.0), (15, 5.0), (9, 0.0))
    assert (invocation.timeout_s, invocation.stall_s) == (None, None)
    assert invocation.max_output_bytes == 256 << 20
    assert ClaudeAdapter(AGENT).resumes
    assert ClaudeAdapter(AGENT).tail_bytes is None
    assert ClaudeAdapter(AGENT).state() == {}


def test_a_conversation_goes_on_by_the_id_of_the_tool(tmp_path: Path) -> None:
    words = argv(tmp_path, resume="5e55-9")
    assert words[words.index("--resume") + 1] == "5e55-9"
    assert "--session-id" not in words


def test_every_setting_becomes_an_argument_and_the_agents_own_come_last(tmp_path: Path) -> None:
    agent = Agent(
        adapter="claude",
        binary="/opt/claude",
        model="opus",
        max_turns=40,
        max_budget_usd=3.0,
        permission_mode="dontAsk",
        allowed_tools=("Bash(git *)", "Write"),
        args=("--fallback-model", "haiku"),
        stop=((signal.SIGTERM, 1.0),),
        timeout_s=60.0,
        stall_s=30.0,
    )
    invocation = ClaudeAdapter(agent).command(task(tmp_path), {})
    assert invocation.argv == (
        "/opt/claude",
        "-p",
        "--allowedTools",
        "Bash(git *)",
        "Write",
        "--output-format",
        "stream-json",
        "--verbose",
        "--session-id",
        "0cbb0302-76ef-4856-b518-b491fa9698ab",
        "--model",
        "opus",
        "--max-turns",
        "40",
        "--max-budget-usd",
        "3",
        "--permission-mode",
        "dontAsk",
        "--fallback-model",
        "haiku",
    )
    assert invocation.stop == ((signal.SIGTERM, 1.0),)
    assert (invocation.timeout_s, invocation.stall_s) == (60.0, 30.0)


def test_without_allowed_tools_the_option_is_left_out(tmp_path: Path) -> None:
    assert "--allowedTools" not in argv(tmp_path, Agent(adapter="claude", allowed_tools=()))


@pytest.mark.parametrize(
    ("ours", "left", "told"),
    [
        (None, 0.25, "0.25"),
        (2.0, None, "2"),
        (2.0, 0.25, "0.25"),
        (0.25, 2.0, "0.25"),
        (1e-9, None, "0.000001"),
    ],
)
def test_the_smaller_budget_is_told(
    tmp_path: Path, ours: float | None, left: float | None, told: str
) -> None:
    words = argv(tmp_path, Agent(adapter="claude", max_budget_usd=ours), budget_usd=left)
    assert words[words.index("--max-budget-usd") + 1] == told


def test_a_run_without_any_budget_left_is_not_started(tmp_path: Path) -> None:
    with pytest.raises(CannotInvoke, match="nothing is left") as caught:
        argv(tmp_path, budget_usd=0.0)
    assert isinstance(caught.value.outcome, Budget)


def test_it_keeps_to_itself_and_calls_nobody(tmp_path: Path) -> None:
    found = env(tmp_path)
    assert found["CLAUDE_CONFIG_DIR"] == str(tmp_path / "home" / ".claude")
    assert (tmp_path / "home" / ".claude").is_dir()
    assert found["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] == "1"
    assert (
        found["DISABLE_AUTOUPDATER"] == found["DISABLE_TELEMETRY"] == found["DISABLE_ERROR_REPORTING"] == "1"
    )
    assert (found["CLAUDE_CODE_MAX_RETRIES"], found["API_TIMEOUT_MS"]) == ("2", "120000")


def test_an_agents_own_variables_win(tmp_path: Path) -> None:
    found = env(tmp_path, Agent(adapter="claude", env={"CLAUDE_CODE_MAX_RETRIES": "5"}))
    assert found["CLAUDE_CODE_MAX_RETRIES"] == "5"


def test_only_who_says_so_works_for_root_without_questions(tmp_path: Path) -> None:
    assert "IS_SANDBOX" not in env(tmp_path, Agent(adapter="claude", permission_mode="bypassPermissions"))
    assert env(tmp_path, Agent(adapter="claude", as_root=True))["IS_SANDBOX"] == "1"


def test_settings_are_copied_and_the_login_is_shared(tmp_path: Path) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    (source / ".claude.json").write_text('{"mcpServers": {}}')
    (source / ".credentials.json").write_text("secret")
    agent = Agent(adapter="claude", config_from=str(source))
    invocation = ClaudeAdapter(agent).command(task(tmp_path), {})
    folder = tmp_path / "home" / ".claude"
    assert (folder / ".claude.json").read_text() == '{"mcpServers": {}}'
    assert not (folder / ".claude.json").is_symlink()
    assert (folder / ".credentials.json").resolve() == source / ".credentials.json"
    assert tuple(invocation.shared.values()) == (source / ".credentials.json",)


def test_a_credential_is_handed_over_in_the_environment_alone(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame\n")
    credential = Credential(variable="ANTHROPIC_API_KEY", file=str(tmp_path / "key"))
    invocation = ClaudeAdapter(AGENT, credential).command(task(tmp_path), {})
    assert invocation.env["ANTHROPIC_API_KEY"] == "sesame"
    assert "sesame" not in repr(invocation)


# whatever it says


def recorded(name: str) -> list[bytes]:
    return (RECORDED / f"claude-{name}.jsonl").read_bytes().splitlines()[:-1]


def paths(line: bytes) -> Iterator[tuple[str | int, ...]]:
    def inside(value: object, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
        if path:
            yield path
        if isinstance(value, dict):
            for key, part in value.items():
                yield from inside(part, (*path, key))
        elif isinstance(value, list):
            for index, part in enumerate(value):
                yield from inside(part, (*path, index))

    return inside(json.loads(line), ())


def replaced(line: bytes, path: tuple[str | int, ...], value: object) -> bytes:
    data = json.loads(line)
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(data).encode()


def kept(adapter: ClaudeAdapter) -> int:
    """About how many bytes an adapter remembers."""
    return len(pickle.dumps((vars(adapter._end), vars(adapter._meter), adapter._denied, adapter._torn)))


def check(adapter: ClaudeAdapter, events: list[AgentEvent], ended: Ended) -> None:
    """What everybody relies on, whatever a tool has said."""
    outcome = adapter.finish(ended, NOW)
    assert isinstance(outcome, typing.get_args(AgentOutcome))
    assert len(described(outcome)) < 2000
    usages = [event for event in events if isinstance(event, Usage)]
    last = adapter.usage()
    for usage in [*usages, *([last] if last else [])]:
        numbers = (usage.tokens_in, usage.tokens_cached, usage.tokens_out, usage.turns, usage.cost_usd)
        assert all(number is None or 0 <= number < 1e18 for number in numbers)
    for event in events:
        match event:
            case Retrying(delay_s=delay_s):
                assert 0 <= delay_s <= 86_400
            case Limit(resets_at=resets_at, utilization=used):
                assert resets_at is None or 0 <= resets_at <= 1e11
                assert used is None or 0 <= used <= 1
            case Problem(text=text):
                assert len(text) <= 500
            case _:
                pass


STRANGE: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    0,
    1e308,
    10**400,
    "",
    "x",
    "\ud800",
    [],
    {},
    [{}],
    {"type": "result"},
    "429",
)


def flipped(line: bytes, rnd: random.Random) -> bytes:
    data = bytearray(line)
    for _ in range(rnd.randint(1, 4)):
        if data:
            data[rnd.randrange(len(data))] = rnd.randrange(256)
    return bytes(data)


def cut(line: bytes, rnd: random.Random) -> bytes:
    return (
        line[: rnd.randrange(len(line) + 1)] if rnd.random() < 0.5 else line[rnd.randrange(len(line) + 1) :]
    )


def joined(line: bytes, rnd: random.Random) -> bytes:
    other = rnd.choice(LINES)
    at = rnd.choice((0, len(line), rnd.randrange(len(line) + 1)))
    return line[:at] + other[: rnd.choice((len(other), rnd.randrange(len(other) + 1)))] + line[at:]


def swapped(line: bytes, rnd: random.Random) -> bytes:
    """One value, somewhere inside, becomes a strange one."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return line
    place: Any = data
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = rnd.choice(keys)
        if not isinstance(place[key], dict | list) or not place[key] or rnd.random() < 0.3:
            place[key] = rnd.choice(STRANGE)
            break
        place = place[key]
    return json.dumps(data).encode()


LINES = [
    line for path in sorted(RECORDED.glob("claude-*.jsonl")) for line in path.read_bytes().splitlines()[:-1]
]
MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (flipped, cut, joined, swapped, swapped)
ENDS = (*map(exited, (0, 1, 143)), exited(None, signal=9), STALLED, TIMED_OUT, STOPPED)


@pytest.mark.timeout(3600)
def test_no_line_can_break_an_adapter_or_make_it_grow() -> None:
    rnd = random.Random(20260101)
    lasting = ClaudeAdapter(AGENT)
    fed = 0
    while fed < FUZZ_LINES:
        adapter, events = ClaudeAdapter(AGENT), list[AgentEvent]()
        for _ in range(rnd.randint(1, 60)):
            line = rnd.choice(LINES)
            for mutate in rnd.choices(MUTATIONS, k=rnd.choice((0, 1, 1, 2, 3))):
                line = mutate(line, rnd)
            stream = Stream.STDERR if rnd.random() < 0.05 else Stream.STDOUT
            events += adapter.feed(stream, line)
            lasting.feed(stream, line)
            fed += 1
        check(adapter, events, rnd.choice(ENDS))
    check(lasting, [], exited(0))
    assert kept(lasting) < 200_000
