"""Codex CLI: ``codex exec --json``. Measured with 0.169.0.

Its errors are text only. It reports tokens once, at the end, for the whole thread: `state` keeps what earlier runs have used.
Its own record of the thread (``sessions/<year>/<month>/<day>/rollout-*-<thread>.jsonl``) has them after every reply. It knows no
limit of turns and no price. An API key goes into ``CODEX_API_KEY``, unless config.toml names another variable.
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
from harness.agents.jsontool import (
    DETAIL_CHARS,
    FINAL_CHARS,
    UNKNOWN_DELAY_S,
    JsonTool,
    detail_of,
    found_below,
    kind_of,
    label,
    refused,
)
from harness.agents.outcomes import AgentOutcome, Auth, MaxTurns
from harness.agents.starting import environment, refuse_too_long, seed
from harness.agents.statuses import TEXT_CHARS, Failure, shown, status_in
from harness.config import LOGINS, Agent, Credential
from harness.runner import Ended

STOP = ((signal.SIGINT, 3.0), (signal.SIGKILL, 0.0))
OVERRIDES = ("check_for_update_on_startup=false", "analytics.enabled=false", 'otel.exporter="none"')
TOOLS = frozenset(["command_execution", "file_change", "mcp_tool_call", "web_search", "collab_tool_call"])
"""Types of items in which the model uses a tool. Each counts as a turn, and so does each message."""
USED = ("input_tokens", "cached_input_tokens", "output_tokens")
_RECONNECTING = re.compile(r"(?s)Reconnecting\.\.\. (\d{1,6})/\d{1,6}\b[ (]{0,2}(.*?)\)?$")
_UNKNOWN_THREAD = re.compile(r"(?i)no rollout found|thread/resume failed|no saved session|no thread with id")
_DATE = ("[0-9][0-9][0-9][0-9]", "[0-9][0-9]", "[0-9][0-9]")
_USAGE_ERROR = 2
"""Exit code for arguments that it does not know."""


class CodexAdapter(JsonTool):
    """One run of Codex."""

    last_event = "turn.completed"

    def __init__(self, agent: Agent, credential: Credential | None = None) -> None:
        super().__init__(agent, credential)
        self._before = dict.fromkeys(USED, 0)
        self._total: dict[str, int] | None = None
        self._noted: dict[str, int] | None = None
        """The same, from the record of the thread: without the reply that comes now."""
        self._thread = ""
        self._open: deque[str] = deque(maxlen=64)

    def command(self, task: Task, environ: Mapping[str, str]) -> Invocation:
        agent = self._agent
        self._task = task
        self._before = {key: jsonl.count(task.state, key) or 0 for key in USED}
        home = task.home / ".codex"
        shared = seed(agent, task.home, Path(".codex"), environ, LOGINS["codex"])
        env = environment(agent, self._credential, task, environ, {"CODEX_HOME": str(home)})
        argv = [agent.binary or "codex", "exec", "--json", "--dangerously-bypass-approvals-and-sandbox"]
        for override in OVERRIDES:
            argv += ("-c", override)
        if agent.model:
            argv += ("-m", agent.model)
        argv += agent.args
        # Behind all options: some, such as --add-dir, are known to `exec` and not to `resume`.
        argv += ("resume", task.resume, "-") if task.resume is not None else ("-",)
        refuse_too_long(tuple(argv), env, task)
        return Invocation(
            argv=tuple(argv),
            env=env,
            stdin=task.prompt_file,
            stop=agent.stop or STOP,
            timeout_s=agent.timeout_s,
            stall_s=agent.stall_s,
            max_output_bytes=agent.max_output_mb << 20,
            shared=shared,
        )

    def usage(self) -> Usage | None:
        """What a run that was ended had not noted yet, the next run of the thread has in its difference."""
        if not self._started:
            return None
        total = self._noted if self._total is None else self._total
        if total is None:
            return Usage(turns=self._turns, model=self._agent.model, estimated=True)
        used = {key: total[key] - self._before[key] for key in USED}
        return Usage(
            tokens_in=used["input_tokens"],
            tokens_cached=min(used["cached_input_tokens"], used["input_tokens"]),
            tokens_out=used["output_tokens"],
            turns=self._turns,
            model=self._agent.model,
            estimated=self._total is None,
        )

    def state(self) -> Mapping[str, Any]:
        """Tokens of the thread, all its runs included."""
        total = self._total or self._noted or self._before
        return dict(total) if any(total.values()) else {}

    def journal(self) -> Path | None:
        if self._task is None or not self._thread:
            return None
        name = f"rollout-*-{self._thread}.jsonl"
        return found_below(self._task.home, (".codex", "sessions", *_DATE, name))

    def _on_journal(self, line: bytes) -> list[AgentEvent]:
        payload = jsonl.mapping(jsonl.parsed(line), "payload")
        if jsonl.text(payload, "type") != "token_count":
            return []
        known = self._noted
        self._noted = self._counted(jsonl.mapping(payload, "info", "total_token_usage")) or known
        used = self.usage() if self._noted != known and self._total is None else None
        return [used] if used is not None else []

    def _counted(self, usage: Mapping[str, Any]) -> dict[str, int] | None:
        """Tokens of the thread; None when it does not know, and says less than before."""
        least = self._noted or self._before
        counts = {key: jsonl.count(usage, key) for key in USED}
        told = {key: n for key, n in counts.items() if n is not None and n >= least[key]}
        return told if len(told) == len(USED) else None

    def _on_event(self, kind: str, said: Mapping[str, Any]) -> list[AgentEvent]:
        match kind:
            case "thread.started":
                return self._begun(jsonl.identifier(said, "thread_id"))
            case "item.started" | "item.updated" | "item.completed":
                return self._item(kind, jsonl.mapping(said, "item"))
            case "error":
                return self._error(jsonl.text(said, "message")[:TEXT_CHARS])
            case "turn.failed":
                text = jsonl.text(jsonl.mapping(said, "error"), "message")[:TEXT_CHARS]
                self._done = False
                self._failure = Failure(text=text or "the turn failed")
                return [Problem(kind="api", text=shown(text))]
            case "turn.completed":
                return self._completed(jsonl.mapping(said, "usage"))
            case _:
                return [Activity(kind=label(kind))]

    def _begun(self, thread: str) -> list[AgentEvent]:
        self._started = True
        if not thread:
            return [Activity(kind="thread.started")]
        if self._task is not None and thread != self._task.resume:
            self._before = dict.fromkeys(USED, 0)
        self._thread = thread
        return [Started(session=thread, model=self._agent.model)]

    def _completed(self, usage: Mapping[str, Any]) -> list[AgentEvent]:
        self._started = self._done = True
        self._failure = None
        self._noted = None  # an agent can write that record, and not this line
        self._total = self._counted(usage) or self._total
        events: list[AgentEvent] = [Final(text=self._text)] if self._text else []
        used = self.usage()
        return [used, *events] if used is not None else events

    def _error(self, text: str) -> list[AgentEvent]:
        found = _RECONNECTING.match(text)
        reason = found[2] if found and found[2] else text
        self._done = False
        self._failure = Failure(text=reason or "an error without a message")
        if found is None:
            return [Problem(kind="api", text=shown(text))]
        if status_in(reason) == 401:
            return self._give_up(Auth(detail=shown(reason)))
        kind = kind_of(self._failure.judged(0.0))
        return [Retrying(kind=kind, delay_s=UNKNOWN_DELAY_S, attempt=int(found[1]))]

    def _item(self, event: str, item: Mapping[str, Any]) -> list[AgentEvent]:
        kind = jsonl.text(item, "type")
        if kind == "error":
            return [Problem(kind="warning", text=shown(jsonl.text(item, "message")))]
        self._failure = None  # it goes on
        completed = event == "item.completed"
        if kind == "agent_message" and completed:
            text = jsonl.text(item, "text")
            self._text = text[:FINAL_CHARS] or self._text
            return [Text(text=text), *self._turn()]
        if kind not in TOOLS:
            return [Activity(kind=label(kind))]
        self._tools = True
        events: list[AgentEvent] = []
        mark = jsonl.text(item, "id")[:64]
        if mark not in self._open:
            self._open.append(mark)
            events.append(Tool(name=_name_of(kind, item), detail=_detail_of(item)))
        if not completed:
            return events or [Activity(kind=label(kind))]
        if mark in self._open:
            self._open.remove(mark)
        status = jsonl.text(item, "status")
        if status in ("failed", "declined"):
            events.append(Problem(kind="tool" if status == "failed" else "denied", text=_detail_of(item)))
        return [*events, *self._turn()]

    def _turn(self) -> list[AgentEvent]:
        self._turns += 1
        limit = self._agent.max_turns
        if limit is None or self._turns <= limit:
            return []
        return self._give_up(MaxTurns(detail=f"more than {limit} messages and tool calls (agent.max_turns)"))

    def _on_stderr(self, text: str) -> list[AgentEvent]:
        if text.lower().startswith("error"):
            self._complaint = self._complaint if self._lost else text
            if _UNKNOWN_THREAD.search(text):
                return self._lose()
        elif " ERROR " in text:
            return [Problem(kind="warning", text=shown(text))]
        return []

    def _by_code(self, ended: Ended, now: float) -> AgentOutcome:
        if ended.exit_code == _USAGE_ERROR and self._failure is None:
            return refused(self._complaint or "exit 2")
        return super()._by_code(ended, now)


def _name_of(kind: str, item: Mapping[str, Any]) -> str:
    if kind == "mcp_tool_call":
        return f"{jsonl.text(item, 'server')[:64]}.{jsonl.text(item, 'tool')[:64]}"
    return kind


def _detail_of(item: Mapping[str, Any]) -> str:
    for change in jsonl.items(item, "changes")[:1]:
        return jsonl.text(jsonl.mapping(change), "path")[:DETAIL_CHARS]
    return detail_of(item, "command", "query", "tool", "prompt")
