"""OpenCode: ``opencode run --format json``. Measured with 1.18.33.

Each step says its tokens and its cost, of this run alone; those of subagents it does not say. Its errors are objects with status and
headers. While it tries again it says nothing; why, and no more, is in its log.

`config_from` is its folder of configuration (``~/.config/opencode``). Its login is kept elsewhere: ``auth.json`` is looked for in that
folder, then in ``.local/share/opencode`` beside ``.config``. What the person's files say about permissions does not hold: nobody
answers, and the limits are those of the sandbox.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.agents import jsonl
from harness.agents.base import (
    Activity,
    AgentEvent,
    Final,
    Invocation,
    Problem,
    Retrying,
    Started,
    Task,
    Text,
    Tool,
    Usage,
)
from harness.agents.home import own_file, own_folder
from harness.agents.jsontool import (
    FINAL_CHARS,
    UNKNOWN_DELAY_S,
    JsonTool,
    detail_of,
    found_below,
    kind_of,
    label,
)
from harness.agents.outcomes import MaxTurns, Overloaded, RateLimit, UsageLimit, name_of
from harness.agents.starting import environment, refuse_too_long, seed, share
from harness.agents.statuses import TEXT_CHARS, Failure, shown
from harness.atomicfs import replace_file
from harness.config import LOGINS, OPENCODE_DATA, Agent, Credential, OutcomeName, expand, logins

STOP = ((signal.SIGTERM, 3.0), (signal.SIGKILL, 0.0))
CONFIG = Path(".config/opencode")
LOG = OPENCODE_DATA / "log/opencode.log"
OURS: Mapping[str, Any] = {"autoupdate": False, "share": "disabled", "permission": "allow"}
INLINE = "OPENCODE_CONFIG_CONTENT"
"""Configuration that wins over files: https://opencode.ai/docs/config."""
NAMED = {
    "ProviderAuthError": OutcomeName.AUTH,
    "ContextOverflowError": OutcomeName.BAD_REQUEST,
    "ProviderModelNotFoundError": OutcomeName.BAD_REQUEST,
    "ProviderInitError": OutcomeName.BAD_REQUEST,
    "ContentFilterError": OutcomeName.REFUSAL,
    "MessageOutputLengthError": OutcomeName.NO_RESULT,
    "StructuredOutputError": OutcomeName.NO_RESULT,
    "MessageAbortedError": OutcomeName.CRASH,
}
"""Errors whose name says it all."""
PLUGINS = ("node_modules", "package.json", "plugin", "plugins", "tool", "tools")
"""A folder of configuration with one of these has, or wants, packages of its own."""
MAX_TOLD = 1e15
"""More tokens or dollars than that is no count."""
_LOST = re.compile(r"(?i)session not found|resource not found.*session")
_REFUSED = re.compile(
    rb'level=ERROR .{0,300}message="stream error" .{0,500}\bsmall=false .{0,500}\berror\.error="((?:[^"\\]|\\.){1,2000})'
)
_DENIED = "auto-rejecting"


class OpencodeAdapter(JsonTool):
    """One run of OpenCode."""

    last_event = "step_finish with a reason to stop"

    def __init__(self, agent: Agent, credential: Credential | None = None) -> None:
        super().__init__(agent, credential)
        self._session = ""
        self._message = ""
        """Whose text `_text` is."""
        self._open = False
        """A step has begun and has not ended: it is paid, and not told."""
        self._delegated = False
        self._finished: deque[str] = deque(maxlen=64)
        self._used = dict.fromkeys(("in", "cached", "out"), 0)
        self._cost_usd = 0.0
        self._refusals = 0

    def command(self, task: Task, environ: Mapping[str, str]) -> Invocation:
        agent = self._agent
        self._task = task
        shared = seed(agent, task.home, CONFIG, environ, LOGINS["opencode"])
        _spare_install(task.home / CONFIG)
        own_file(own_folder(task.home, LOG.parent) / LOG.name).unlink(missing_ok=True)  # of the run before
        if agent.config_from is not None:
            source = Path(expand(agent.config_from, environ, where="agents"))
            shared = share(_logins(source, own_folder(task.home, OPENCODE_DATA)), task.home)
        own = {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"}
        env = environment(agent, self._credential, task, environ, own)
        env[INLINE] = _inline(env.get(INLINE, ""))
        argv = [agent.binary or "opencode", "run", "--format", "json"]
        if agent.model:
            argv += ("-m", agent.model)
        # Without a title it asks a model for one, and does not say what that has cost.
        argv += ("--session", task.resume) if task.resume is not None else (f"--title={task.item}",)
        argv += agent.args
        refuse_too_long(tuple(argv), env, task)
        return Invocation(
            argv=tuple(argv),
            env=env,
            stdin=task.prompt_file,  # as an argument it would be put into quotes when it holds a space
            stop=agent.stop or STOP,
            timeout_s=agent.timeout_s,
            stall_s=agent.stall_s,
            max_output_bytes=agent.max_output_mb << 20,
            shared=shared,
        )

    def usage(self) -> Usage | None:
        if not self._turns and not self._open:
            return None
        told_all = self._done or self._failure is not None
        return Usage(
            tokens_in=self._used["in"],
            tokens_cached=self._used["cached"],
            tokens_out=self._used["out"],
            cost_usd=self._cost_usd,
            turns=self._turns,
            model=self._agent.model,
            estimated=self._open or self._delegated or not told_all,
        )

    def _on_event(self, kind: str, said: Mapping[str, Any]) -> list[AgentEvent]:
        events: list[AgentEvent] = []
        session = jsonl.identifier(said, "sessionID")
        if session and session != self._session:
            self._session = session
            events.append(Started(session=session, model=self._agent.model))
        part = jsonl.mapping(said, "part")
        match kind:
            case "step_start":
                return [*events, *self._step()]
            case "text":
                return [*events, self._said(jsonl.text(part, "messageID")[:128], jsonl.text(part, "text"))]
            case "tool_use":
                return [*events, *self._tool(jsonl.text(part, "tool")[:128], jsonl.mapping(part, "state"))]
            case "step_finish":
                return [*events, *self._step_finished(part)]
            case "error":
                return [*events, self._error(jsonl.mapping(said, "error"))]
            case _:
                return [*events, Activity(kind=label(kind))]

    def _step(self) -> list[AgentEvent]:
        self._open = True
        self._done = False
        limit = self._agent.max_turns
        if limit is not None and self._turns >= limit:
            return self._give_up(MaxTurns(detail=f"more than {limit} steps (agent.max_turns)"))
        return [Activity(kind="step_start")]

    def _said(self, message: str, text: str) -> AgentEvent:
        self._failure = None
        before = self._text if message == self._message else ""
        self._message = message
        self._text = (f"{before}\n\n{text}" if before else text)[:FINAL_CHARS]
        return Text(text=text)

    def _tool(self, name: str, state: Mapping[str, Any]) -> list[AgentEvent]:
        self._tools = True
        self._failure = None
        self._delegated = self._delegated or name == "task"
        detail = detail_of(
            jsonl.mapping(state, "input"),
            "command",
            "filePath",
            "path",
            "pattern",
            "url",
            "query",
            "description",
        )
        events: list[AgentEvent] = [Tool(name=name, detail=detail)]
        if jsonl.text(state, "status") == "error":
            events.append(Problem(kind="tool", text=shown(jsonl.text(state, "error"))))
        return events

    def _step_finished(self, part: Mapping[str, Any]) -> list[AgentEvent]:
        mark = jsonl.text(part, "id")[:128]
        self._open = False
        self._failure = None
        if not mark or mark not in self._finished:
            self._finished.append(mark)
            self._turns += 1
            self._count(jsonl.mapping(part, "tokens"), jsonl.number(part, "cost") or 0.0)
        reason = jsonl.text(part, "reason")
        self._done = reason not in ("tool-calls", "content-filter", "error", "")
        if reason == "content-filter":
            self._failure = Failure(text="content filter", name=OutcomeName.REFUSAL)
        used = self.usage()
        events: list[AgentEvent] = [used] if used is not None else []
        if self._done and self._text:
            events.append(Final(text=self._text))
        return events

    def _count(self, tokens: Mapping[str, Any], cost_usd: float) -> None:
        """What is read from a cache and what is written to it is not in its `input`."""
        cache = jsonl.mapping(tokens, "cache")
        read = _told(cache, "read")
        tokens_in = _told(tokens, "input") + read + _told(cache, "write")
        out = _told(tokens, "output")
        total = _told(tokens, "total")
        # Whether thoughts are in `output` depends on the version; `total` always has them.
        out = max(out, total - tokens_in) if total else out + _told(tokens, "reasoning")
        for key, n in (("in", tokens_in), ("cached", read), ("out", out)):
            self._used[key] += n
        self._cost_usd = min(self._cost_usd + min(cost_usd, MAX_TOLD), MAX_TOLD)

    def _error(self, error: Mapping[str, Any]) -> AgentEvent:
        self._done = False
        data = jsonl.mapping(error, "data")
        name = jsonl.text(error, "name")[:128]
        text = jsonl.text(data, "message")[:TEXT_CHARS] or name or "an error without a message"
        body = jsonl.text(data, "responseBody")[:TEXT_CHARS]
        status = jsonl.count(data, "statusCode")
        failure = Failure(text=text, status=status, name=NAMED.get(name))
        if failure.name is None:
            failure = _with_waiting(failure, body, jsonl.mapping(data, "responseHeaders"))
        if failure.judged(0.0) is None and data.get("isRetryable") is True:
            failure = Failure(text=text, name=OutcomeName.OVERLOADED)
        self._failure = failure
        return Problem(kind="api", text=shown(text))

    def journal(self) -> Path | None:
        return found_below(self._task.home, LOG.parts) if self._task is not None else None

    def _on_journal(self, line: bytes) -> list[AgentEvent]:
        """Why a request failed that it makes again. It waits as long as the service says, and does not say how long."""
        found = _REFUSED.search(line[:TEXT_CHARS])
        if found is None:
            return []
        failure = Failure(text=found[1].decode("utf-8", "replace"))
        outcome = failure.judged(time.time())
        if isinstance(outcome, UsageLimit):
            return self._give_up(outcome)
        if not isinstance(outcome, RateLimit | Overloaded):
            return []
        self._failure = failure
        self._refusals += 1
        return [Retrying(kind=kind_of(outcome), delay_s=UNKNOWN_DELAY_S, attempt=self._refusals)]

    def _on_stderr(self, text: str) -> list[AgentEvent]:
        if _DENIED in text and text.lstrip("! ").startswith("permission requested"):
            return [Problem(kind="denied", text=shown(text))]
        if text.lower().startswith("error"):
            self._complaint = self._complaint if self._lost else text
            if _LOST.search(text):
                return self._lose()
        return []


def _with_waiting(failure: Failure, body: str, headers: Mapping[str, Any]) -> Failure:
    """What it is by all that the service said, and until when: from headers, else from the body of a used up plan."""
    named = Failure(text=f"{failure.text}\n{body}", status=failure.status).judged(0.0)
    lower = {key.lower(): value for key, value in headers.items() if isinstance(value, str)}
    delay_s, at = _seconds(lower.get("retry-after-ms", ""), 0.001), None
    if delay_s is None:
        delay_s = _seconds(lower.get("retry-after", ""), 1.0)
    if delay_s is None:
        at = _date(lower.get("retry-after", ""))
        detail = jsonl.mapping(jsonl.parsed(body.encode("utf-8", "replace")), "error")
        at = at if at is not None else jsonl.number(detail, "resets_at")
        delay_s = jsonl.number(detail, "resets_in_seconds") if at is None else None
    return Failure(
        text=failure.text,
        status=failure.status,
        name=name_of(named) if named is not None else None,
        delay_s=delay_s,
        at=at,
    )


def _seconds(value: str, unit_s: float) -> float | None:
    try:
        seconds = float(value) * unit_s
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _date(value: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _told(data: Mapping[str, Any], key: str) -> int:
    return int(min(jsonl.number(data, key) or 0.0, MAX_TOLD))


def _inline(own: str) -> str:
    """Our settings; those of `agents.<name>.env` are laid over them."""
    try:
        theirs = json.loads(own) if own else {}
    except (ValueError, RecursionError):
        return own  # with comments, perhaps: the person's word, whole
    return json.dumps({**OURS, **theirs}) if isinstance(theirs, dict) else own


def _spare_install(folder: Path) -> None:
    """When it starts, it fetches a library for plugins from npm into each folder of configuration that does not list it.

    A session's folder in which nothing can use that library is made to list it: nobody pays for it, or waits. Raises OSError.
    """
    if any(os.path.lexists(folder / name) for name in PLUGINS):
        return
    (folder / "node_modules").mkdir()
    listed = {"packages": {"": {"dependencies": {"@opencode-ai/plugin": "*"}}}}
    replace_file(own_file(folder / "package-lock.json"), json.dumps(listed).encode(), durable=False)


def _logins(source: Path, folder: Path) -> dict[Path, Path]:
    """Link -> login, where one is. Raises OSError."""
    found: dict[Path, Path] = {}
    for login in logins("opencode", source):
        found.setdefault(folder / login.name, login)
    return found
