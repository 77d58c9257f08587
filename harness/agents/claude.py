"""The `claude` adapter: Claude Code without a terminal, one JSON object per line. Measured with 2.1.197 and 2.1.329.

What its lines say of the end is judged in `claudeend`, what they say of tokens and money is counted in `claudemeter`.
"""

from __future__ import annotations

import re
import signal
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.agents import jsonl
from harness.agents.base import (
    Activity,
    AgentEvent,
    CannotInvoke,
    Final,
    GiveUp,
    Invocation,
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
from harness.agents.claudeend import DETAIL_CHARS, NAME_CHARS, NO_ANSWER, End, Failure
from harness.agents.claudemeter import Meter
from harness.agents.ending import imposed
from harness.agents.outcomes import (
    AgentOutcome,
    Auth,
    Budget,
    Interrupted,
    RateLimit,
    Stalled,
    TimedOut,
    UsageLimit,
)
from harness.agents.starting import environment, refuse_too_long, seed
from harness.config import LOGINS, Agent, Credential
from harness.runner import Ended

STOP = ((signal.SIGINT, 5.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 0.0))
"""After INT it says what it has cost; after TERM it ends its tools; after KILL they live on."""
OWN = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "CLAUDE_CODE_MAX_RETRIES": "2",  # the tool's own 10 take three minutes, in which a slot waits
    "API_TIMEOUT_MS": "120000",
}
ARGUMENT_CHARS = 200
MAX_DELAY_S = 86_400.0
MAX_TIME = 1e11
"""Seconds since the epoch: a later one is no time."""
_ARGUMENTS = ("command", "file_path", "path", "pattern", "url", "query", "description", "prompt")
"""Of tools, the one that tells most first."""
_NEWS = b'{"type":"rate_limit_event"'
_SESSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}")


class ClaudeAdapter:
    """One run of Claude Code."""

    def __init__(self, agent: Agent, credential: Credential | None = None) -> None:
        self._agent = agent
        self._credential = credential
        self._renewable = False
        self._end = End()
        self._meter = Meter()
        self._given_up: AgentOutcome | None = None
        self._denied: deque[str] = deque(maxlen=32)
        self._torn = b""

    @property
    def tail_bytes(self) -> int | None:
        return None

    @property
    def resumes(self) -> bool:
        return True

    def command(self, task: Task, environ: Mapping[str, str]) -> Invocation:
        agent = self._agent
        folder = task.home / ".claude"
        shared = seed(agent, task.home, Path(".claude"), environ, LOGINS["claude"])
        self._renewable = bool(shared) and self._credential is None
        own = OWN | {"CLAUDE_CONFIG_DIR": str(folder)} | ({"IS_SANDBOX": "1"} if agent.as_root else {})
        env = environment(agent, self._credential, task, environ, own)
        argv = self._argv(task)
        refuse_too_long(argv, env, task)
        return Invocation(
            argv=argv,
            env=env,
            stdin=task.prompt_file,
            stop=agent.stop or STOP,
            timeout_s=agent.timeout_s,
            stall_s=agent.stall_s,
            max_output_bytes=agent.max_output_mb << 20,
            shared=shared,
            keeps_budget="--max-budget-usd" in argv,
        )

    def _argv(self, task: Task) -> tuple[str, ...]:
        agent = self._agent
        words = [agent.binary or "claude", "-p"]
        if agent.allowed_tools:
            # It takes every word up to the next option: so one follows.
            words += ["--allowedTools", *agent.allowed_tools]
        words += ["--output-format", "stream-json", "--verbose"]
        words += ["--resume", task.resume] if task.resume else ["--session-id", task.session]
        if agent.model:
            words += ["--model", agent.model]
        if agent.max_turns is not None:
            words += ["--max-turns", str(agent.max_turns)]
        budgets = [usd for usd in (agent.max_budget_usd, task.budget_usd) if usd is not None]
        if budgets:
            words += ["--max-budget-usd", _dollars(min(budgets), task)]
        if agent.permission_mode:
            words += ["--permission-mode", agent.permission_mode]
        return (*words, *agent.args)

    def journal(self) -> Path | None:
        return None

    def feed(self, stream: Stream, line: bytes) -> list[AgentEvent]:
        if stream is Stream.STDERR:
            said = line[: 4 * DETAIL_CHARS].decode("utf-8", "replace").strip()
            self._end.complains(said)
            return [LostSession()] if self._end.loses(said) else []
        told = jsonl.parsed(line)
        if told is None:
            return self._broken(line)
        self._torn = b""
        return self._heard(told, line)

    def _broken(self, line: bytes) -> list[AgentEvent]:
        """A line that is no object. 2.1.74 wrote the news of a limit, newline and all, into the middle of another line
        (https://github.com/anthropics/claude-code/issues/49640): what was around it is put together again."""
        if not line.strip():
            return []
        whole = self._torn + line if self._torn else b""
        self._torn = b""
        mended = jsonl.parsed(whole)
        if mended is not None:
            return self._heard(mended, whole)
        events: list[AgentEvent] = [Problem(kind="line", text=line[:DETAIL_CHARS].decode("utf-8", "replace"))]
        news = jsonl.embedded(line, _NEWS)
        if news is not None:
            self._torn = line[: line.find(_NEWS)]
            events += self._limit(news)
        return events

    def _heard(self, said: Mapping[str, Any], line: bytes) -> list[AgentEvent]:
        match jsonl.text(said, "type"):
            case "assistant":
                return self._reply(said)
            case "user":
                return self._tool_results(said)
            case "system":
                return self._system(said)
            case "rate_limit_event":
                return self._limit(said)
            case "result":
                return self._result(said, line)
            case other:
                return [_activity(other or "unknown")]

    def _reply(self, said: Mapping[str, Any]) -> list[AgentEvent]:
        """One block of a reply, or an error in the guise of a reply. A subagent's error is not the run's."""
        message = jsonl.mapping(said, "message")
        main = said.get("parent_tool_use_id") is None
        error = jsonl.text(said, "error")
        if error:
            failure = Failure.told(said, jsonl.text(message, "stop_reason"), _shown(message))
            if main:
                info = jsonl.mapping(said, "api_error_params", "rate_limit_info")
                self._end.fails(failure, jsonl.number(info, "resetsAt"))
            return [Problem(kind="api", text=failure.text or error[:DETAIL_CHARS])]
        if jsonl.text(message, "model") == "<synthetic>":
            return [_activity("assistant")]
        events = [event for block in jsonl.items(message, "content") if (event := _of_block(block))]
        first = self._meter.reply(message, main=main)
        self._end.works(first=first, spoke=any(isinstance(event, Text | Tool) for event in events))
        usage = self._meter.usage() if first else None
        return [*events, *([usage] if usage else [])] or [_activity("assistant")]

    def _tool_results(self, said: Mapping[str, Any]) -> list[AgentEvent]:
        results = map(jsonl.mapping, jsonl.items(jsonl.mapping(said, "message"), "content"))
        failed = [
            r for r in results if r.get("is_error") is True and r.get("tool_use_id") not in self._denied
        ]
        problems = [Problem(kind="tool", text=_shown(result)[:DETAIL_CHARS]) for result in failed]
        return [*problems] or [_activity("user")]

    def _system(self, said: Mapping[str, Any]) -> list[AgentEvent]:
        match jsonl.text(said, "subtype"):
            case "init":
                return self._init(said)
            case "api_retry":
                return self._retry(said)
            case "permission_denied":
                self._denied.append(jsonl.text(said, "tool_use_id")[:NAME_CHARS])
                what = f"{jsonl.text(said, 'tool_name')}: {jsonl.text(said, 'message')}"
                return [Problem(kind="denied", text=what[:DETAIL_CHARS])]
            case "model_fallback":
                return [Problem(kind="warning", text=jsonl.text(said, "content")[:DETAIL_CHARS])]
            case other:
                return [_activity(f"system/{other}")]

    def _init(self, said: Mapping[str, Any]) -> list[AgentEvent]:
        session, model = jsonl.text(said, "session_id"), jsonl.text(said, "model")[:NAME_CHARS]
        self._end.begins()
        self._meter.begin(model)
        if not _SESSION.fullmatch(session):  # it becomes an argument
            return [_activity("system/init")]
        return [Started(session=session, model=model)]

    def _retry(self, said: Mapping[str, Any]) -> list[AgentEvent]:
        """A key that is refused stays refused. A login that sessions share may be renewed by the first retry."""
        status, name = jsonl.count(said, "error_status"), jsonl.text(said, "error")[:NAME_CHARS]
        attempt = min(jsonl.count(said, "attempt") or 1, 1_000_000)
        if status is None and name in ("", "unknown"):
            name = NO_ANSWER
        failure = Failure(
            names=frozenset((name,)),
            status=status,
            text=f"{name} {status or ''}".strip()[:DETAIL_CHARS],
            delay_s=min((jsonl.number(said, "retry_delay_ms") or 0.0) / 1000, MAX_DELAY_S),
        )
        self._end.retries(failure)
        outcome = self._end.meaning(failure, 0.0)
        if not isinstance(outcome, Auth):
            rate = isinstance(outcome, RateLimit | UsageLimit)
            kind = LimitKind.RATE if rate else LimitKind.OVERLOADED
            return [Retrying(kind=kind, delay_s=failure.delay_s or 0.0, attempt=attempt)]
        if self._given_up is not None or (self._renewable and attempt < 2):
            return [_activity("system/api_retry")]
        self._given_up = outcome
        return [GiveUp(outcome=outcome)]

    def _limit(self, said: Mapping[str, Any]) -> list[AgentEvent]:
        """News about a subscription. Rejected with a time: it is used up until then, unless the surplus is paid for;
        without one: too many requests."""
        info = jsonl.mapping(said, "rate_limit_info")
        status = jsonl.text(info, "status")
        if status not in ("rejected", "allowed_warning"):
            return [_activity("rate_limit_event")]
        resets_at = jsonl.number(info, "resetsAt")
        if resets_at is not None and resets_at > MAX_TIME:
            resets_at = None
        used = jsonl.number(info, "utilization")
        if used is None:
            used = jsonl.number(
                jsonl.mapping(info, "unifiedWindows", jsonl.text(info, "rateLimitType")), "utilization"
            )
        blocked = status == "rejected" and info.get("isUsingOverage") is not True
        if blocked:
            self._end.limited(resets_at)
        return [
            Limit(
                kind=LimitKind.RATE if blocked and resets_at is None else LimitKind.USAGE,
                resets_at=resets_at,
                utilization=None if used is None else min(used, 1.0),
                blocked=blocked,
            )
        ]

    def _result(self, said: Mapping[str, Any], line: bytes) -> list[AgentEvent]:
        if not self._meter.result(said, line):
            return [_activity("result")]
        text = self._end.results(said)
        lost = [LostSession()] if self._end.loses(text) else []
        usage = self._meter.usage()
        return [*lost, *([usage] if usage else []), *([Final(text=text)] if text else [])]

    def finish(self, ended: Ended, now: float) -> AgentOutcome:
        """What we did to the run comes before what it says; except where its end, or a limit, had come first."""
        match imposed(ended, self._agent.max_output_mb):
            case None:
                return self._end.by_itself(ended, now)
            case Interrupted() as stopped:
                return self._given_up or stopped
            case TimedOut() | Stalled() as late:
                return self._end.before(ended, now) or late
            case forced:
                return forced

    def usage(self) -> Usage | None:
        return self._meter.usage()

    def state(self) -> Mapping[str, Any]:
        return {}


def _of_block(block: object) -> AgentEvent | None:
    part = jsonl.mapping(block)
    kind = jsonl.text(part, "type")
    if kind == "text":
        said = jsonl.text(part, "text")
        return Text(text=said) if said else None
    if kind.endswith("tool_use"):
        given = jsonl.mapping(part, "input")
        detail = next((said for key in _ARGUMENTS if (said := jsonl.text(given, key))), "")
        return Tool(name=jsonl.text(part, "name")[:NAME_CHARS], detail=detail[:ARGUMENT_CHARS])
    return _activity(kind or "assistant")


def _shown(message: Mapping[str, Any]) -> str:
    """The text of a content, which is a string or blocks."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    blocks = (jsonl.text(jsonl.mapping(block), "text") for block in jsonl.items(message, "content"))
    return "\n".join(text for text in blocks if text)


def _activity(kind: str) -> Activity:
    return Activity(kind=kind[:NAME_CHARS])


def _dollars(usd: float, task: Task) -> str:
    """As the tool takes it: above 0, no exponent."""
    if usd <= 0:
        what = "nothing is left of what it may cost"
        raise CannotInvoke(what, Budget(detail=what), where=f"agents.{task.agent}", remedy="allow it more")
    return f"{max(usd, 0.000001):.6f}".rstrip("0").rstrip(".")
