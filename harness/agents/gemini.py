"""Gemini CLI: ``gemini -o stream-json``. Measured with 0.61.0.

Its exit code is the HTTP status modulo 256. While it waits and tries again it says so on stderr only. It says no price; its tokens
come with its last event, for this run alone, and after every reply in its own record of the conversation (``tmp/*/chats``). It
keeps conversations by the working directory: in another one it does not find them.
"""

from __future__ import annotations

import errno
import json
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
    Invocation,
    Problem,
    Retrying,
    Started,
    Task,
    Text,
    Tool,
    Usage,
)
from harness.agents.home import own_file, put_aside, read_own
from harness.agents.jsontool import (
    FINAL_CHARS,
    UNKNOWN_DELAY_S,
    JsonTool,
    detail_of,
    found_below,
    kind_of,
    label,
    refused,
)
from harness.agents.outcomes import AgentOutcome, Auth, Crash, MaxTurns, Overloaded
from harness.agents.starting import MAX_ARGUMENT_BYTES, environment, refuse_too_long, seed
from harness.agents.statuses import TEXT_CHARS, Failure, shown
from harness.atomicfs import replace_file
from harness.config import LOGINS, Agent, Credential, OutcomeName
from harness.runner import Ended

STOP = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 0.0))
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "privacy": {"usageStatisticsEnabled": False},
    "general": {"enableAutoUpdate": False},
    "telemetry": {"enabled": False},
}
CHARS_PER_TOKEN = 4
MAX_SETTINGS_BYTES = 1 << 20
NOTED = ("input", "cached", "output", "total")
"""Tokens, as its own record calls them."""
STATS = {"input": "input_tokens", "cached": "cached", "output": "output_tokens", "total": "total_tokens"}
"""And as its last event does."""
_NAMED_BY = 8
"""So much of a conversation's id is in the name of its record."""
_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_ATTEMPT = re.compile(r"Attempt (\d{1,6}) failed(?: with (?:status )?(\d{3})\b)?(.*)")
_AFTER = re.compile(r"\bRetrying after (\d{1,12})(?:\.\d{1,9})?ms")
_LOGIN = re.compile(
    r"(?i)(?:.{1,32} authentication page in your browser|Code Assist login required|Waiting for authentication)"
)
_TURN_LIMIT = re.compile(r"(?i)max(?:imum)? session turns")
_EXISTS = re.compile(r"Session ID \S{1,130} already exists")
_NO_INPUT = "No input provided via stdin"
_FOREIGN_STATUS = 144
"""Exit codes from here to 255 are statuses of HTTP minus 256; 400 is the smallest."""


class GeminiAdapter(JsonTool):
    """One run of Gemini CLI."""

    last_event = "result"

    def __init__(self, agent: Agent, credential: Credential | None = None) -> None:
        super().__init__(agent, credential)
        self._model = agent.model
        self._stats: Mapping[str, int] | None = None
        self._session = ""
        self._before = dict.fromkeys(NOTED, 0)
        self._noted: dict[str, int] | None = None
        """Tokens of the conversation, from its own record: without the reply that comes now."""
        self._replies: deque[str] = deque(maxlen=64)
        self._ended = False
        self._between = True
        """The model's next word begins a reply."""
        self._context_chars = 0
        self._in_chars = 0
        self._out_chars = 0
        self._retry: tuple[int, Failure] | None = None
        """An attempt that failed, until the line that says how long it waits."""

    def command(self, task: Task, environ: Mapping[str, str]) -> Invocation:
        agent = self._agent
        self._task = task
        self._before = {key: jsonl.count(task.state, key) or 0 for key in NOTED}
        folder = task.home / ".gemini"
        shared = seed(agent, task.home, Path(".gemini"), environ, LOGINS["gemini"])
        _settle(folder / "settings.json", self._settings())
        env = environment(agent, self._credential, task, environ, {})
        argv = [agent.binary or "gemini", "-o", "stream-json", "--skip-trust", "--approval-mode", "yolo"]
        if agent.model:
            argv += ("-m", agent.model)
        argv += ("--resume", task.resume) if task.resume is not None else ("--session-id", task.session)
        argv += agent.args
        by_argument = _can_be_argument(task.prompt)
        if by_argument:
            argv += ("-p", task.prompt)
        refuse_too_long(tuple(argv), env, task)
        return Invocation(
            argv=tuple(argv),
            env=env,
            stdin=None if by_argument else task.prompt_file,
            stop=agent.stop or STOP,
            timeout_s=agent.timeout_s,
            stall_s=agent.stall_s,
            max_output_bytes=agent.max_output_mb << 20,
            shared=shared,
        )

    def _settings(self) -> dict[str, Mapping[str, Any]]:
        settings = dict(SETTINGS)
        if self._credential is not None and self._credential.variable == "GEMINI_API_KEY":
            settings["security"] = {"auth": {"selectedType": "gemini-api-key"}}
        if self._agent.max_turns is not None:
            settings["model"] = {"maxSessionTurns": self._agent.max_turns}
        return settings

    def usage(self) -> Usage | None:
        used = self._stats or (self._since() if self._started else None)
        if used is not None:
            return Usage(
                tokens_in=used["input"],
                tokens_cached=min(used["cached"], used["input"]),
                # Thoughts are in the total only, and are paid as output.
                tokens_out=max(used["output"], used["total"] - used["input"]),
                turns=self._turns,
                model=self._model,
                estimated=self._stats is None,
            )
        if not self._started:
            return None
        return Usage(
            tokens_in=self._in_chars // CHARS_PER_TOKEN,
            tokens_out=self._out_chars // CHARS_PER_TOKEN,
            turns=self._turns,
            model=self._model,
            estimated=True,
        )

    def state(self) -> Mapping[str, Any]:
        """Tokens of the conversation, all its runs included, as its own record has them."""
        return dict(self._noted or self._before) if self._noted or any(self._before.values()) else {}

    def journal(self) -> Path | None:
        task = self._task
        if task is None or len(self._session) < _NAMED_BY:
            return None
        if task.resume == self._session and not any(self._before.values()):
            return None  # what is new in it cannot be told from what earlier runs have used
        name = f"session-*-{self._session[:_NAMED_BY]}.jsonl"
        return found_below(task.home, (".gemini", "tmp", "*", "chats", name))

    def _on_journal(self, line: bytes) -> list[AgentEvent]:
        """A reply is written again with what came of its tools."""
        said = jsonl.mapping(jsonl.parsed(line))
        tokens, reply = jsonl.mapping(said, "tokens"), jsonl.text(said, "id")[:64]
        if not tokens or not reply or reply in self._replies:
            return []
        self._replies.append(reply)
        known = self._noted or dict.fromkeys(NOTED, 0)
        self._noted = {key: known[key] + (jsonl.count(tokens, key) or 0) for key in NOTED}
        used = self.usage() if self._stats is None and self._since() is not None else None
        return [used] if used is not None else []

    def _since(self) -> dict[str, int] | None:
        """What this run has noted; None: nothing, or it is read only up to where the run began."""
        if self._noted is None:
            return None
        since = {key: self._noted[key] - self._before[key] for key in NOTED}
        return since if min(since.values()) >= 0 and any(since.values()) else None

    def _on_event(self, kind: str, said: Mapping[str, Any]) -> list[AgentEvent]:
        match kind:
            case "init":
                self._started = True
                self._model = jsonl.text(said, "model")[:128] or self._model
                self._session = session = jsonl.identifier(said, "session_id")
                if self._task is not None and session != self._task.resume:
                    self._before = dict.fromkeys(NOTED, 0)
                return [Started(session=session, model=self._model) if session else Activity(kind="init")]
            case "message":
                return self._message(jsonl.text(said, "role"), jsonl.text(said, "content"))
            case "tool_use":
                return self._tool(jsonl.text(said, "tool_name")[:128], jsonl.mapping(said, "parameters"))
            case "tool_result":
                return self._tool_result(said)
            case "error":
                return self._error(jsonl.text(said, "severity"), jsonl.text(said, "message")[:TEXT_CHARS])
            case "result":
                return self._result_told(said)
            case _:
                return [Activity(kind=label(kind))]

    def _message(self, role: str, text: str) -> list[AgentEvent]:
        if role != "assistant":
            self._context_chars += len(text)
            return [Activity(kind="prompt")]
        events = self._spoke(len(text))
        self._text = (self._text + text)[:FINAL_CHARS]
        return [Text(text=text), *events]

    def _tool(self, name: str, parameters: Mapping[str, Any]) -> list[AgentEvent]:
        self._tools = True
        detail = detail_of(parameters, "command", "file_path", "path", "pattern", "query", "url", "prompt")
        events = self._spoke(sum(len(value) for value in parameters.values() if isinstance(value, str)))
        return [Tool(name=name, detail=detail), *events]

    def _tool_result(self, said: Mapping[str, Any]) -> list[AgentEvent]:
        self._went_on()
        self._between = True
        output = jsonl.text(said, "output")
        self._context_chars += len(output)
        if jsonl.text(said, "status") != "error":
            return [Activity(kind="tool_result")]
        return [
            Problem(kind="tool", text=shown(jsonl.text(jsonl.mapping(said, "error"), "message") or output))
        ]

    def _spoke(self, chars: int) -> list[AgentEvent]:
        """The model has said something: each reply is paid with all that came before it."""
        self._went_on()
        begins = self._between
        if begins:
            self._between = False
            self._turns += 1
            self._text = ""
            self._in_chars += self._context_chars
        self._context_chars += chars
        self._out_chars += chars
        limit = self._agent.max_turns
        if not begins or limit is None or self._turns <= limit:
            return []
        return self._give_up(MaxTurns(detail=f"more than {limit} replies (agent.max_turns)"))

    def _went_on(self) -> None:
        self._failure = self._retry = None
        self._done = self._ended = False

    def _error(self, severity: str, text: str) -> list[AgentEvent]:
        problem = Problem(kind="warning" if severity == "warning" else "api", text=shown(text))
        if _TURN_LIMIT.search(text):
            return [problem, *self._give_up(MaxTurns(detail=shown(text)))]
        if severity != "warning":
            self._failure = Failure(text=text or "an error without a message")
        return [problem]

    def _result_told(self, said: Mapping[str, Any]) -> list[AgentEvent]:
        self._started = self._ended = True
        self._note_stats(jsonl.mapping(said, "stats"))
        events: list[AgentEvent] = []
        used = self.usage()
        if used is not None:
            events.append(used)
        self._done = jsonl.text(said, "status") == "success"
        if self._done:
            self._failure = None
            return [*events, Final(text=self._text)] if self._text else events
        text = jsonl.text(jsonl.mapping(said, "error"), "message")[:TEXT_CHARS]
        if text or self._failure is None:
            self._failure = Failure(text=text or "ended with an error that it does not name")
        return [*events, Problem(kind="api", text=shown(self._failure.text))]

    def _note_stats(self, stats: Mapping[str, Any]) -> None:
        counts = {key: jsonl.count(stats, name) for key, name in STATS.items()}
        if counts["input"] is None or counts["output"] is None:
            return
        self._stats = {key: n or 0 for key, n in counts.items()}
        if self._model.startswith("auto") or not self._model:  # which one it took stands here only
            models = jsonl.mapping(stats, "models")
            sizes = {
                name: jsonl.count(jsonl.mapping(models, name), "total_tokens") or 0 for name in models if name
            }
            self._model = max(sizes, key=lambda name: sizes[name])[:128] if sizes else self._model

    def _on_other(self, text: str) -> list[AgentEvent]:
        return self._asks_for_login(text) or super()._on_other(text)

    def _on_stderr(self, text: str) -> list[AgentEvent]:
        if not text or self._ended or text.startswith(("at ", "}")):
            return []  # late, or a stack
        found = _ATTEMPT.match(text)
        if found is not None:
            return self._attempt(int(found[1]), found[2], text)
        after = _AFTER.search(text)
        if after is not None and self._retry is not None:
            return self._waits(float(after[1]) / 1000)
        asks = self._asks_for_login(text)
        if asks:
            return asks
        if _TURN_LIMIT.search(text) or text.startswith(("Error", "[ERROR]", "Please ", "No input")):
            self._complaint = self._complaint if self._lost else text
            if "Error resuming session" in text:
                return self._lose()
            if _EXISTS.search(text) and self._task is not None and not self._lost:
                # A run was killed before it could say that it had begun: the next one resumes it.
                self._lost = True
                return [Started(session=self._task.session, model=self._model)]
        return []

    def _attempt(self, number: int, status: str | None, text: str) -> list[AgentEvent]:
        """It says how long it waits only when the service did, and then perhaps on the next line."""
        failure = Failure(text=text, status=int(status) if status else None)
        if failure.judged(0.0) is None:
            failure = Failure(text=text, name=OutcomeName.RATE_LIMIT)
        self._failure = failure
        self._retry = (number, failure)
        if status == "401":
            return self._give_up(Auth(detail=shown(text)))
        after = _AFTER.search(text)
        if after is not None:
            return self._waits(float(after[1]) / 1000)
        return self._waits(UNKNOWN_DELAY_S) if "Retrying with backoff" in text else []

    def _waits(self, delay_s: float) -> list[AgentEvent]:
        if self._retry is None:
            return []
        (number, failure), self._retry = self._retry, None
        return [Retrying(kind=kind_of(failure.judged(0.0)), delay_s=min(delay_s, 86_400.0), attempt=number)]

    def _asks_for_login(self, text: str) -> list[AgentEvent]:
        """It would wait for a person."""
        if not _LOGIN.match(text):
            return []
        return self._give_up(Auth(detail=f"it asks for a login: {shown(text)}"))

    def finish(self, ended: Ended, now: float) -> AgentOutcome:
        """A text that says nothing may stand beside an exit code that does."""
        code = ended.exit_code or 0
        failure = self._failure
        if failure is not None and code >= _FOREIGN_STATUS and failure.judged(now) is None:
            self._failure = Failure(text=failure.text, status=code + 256)
        return super().finish(ended, now)

    def _by_code(self, ended: Ended, now: float) -> AgentOutcome:
        code = ended.exit_code
        text = self._failure.text if self._failure is not None else self._complaint
        if self._lost:
            return Crash(exit_code=code, detail=shown(text))
        match code:
            case 41:
                return Auth(detail=shown(text or "exit 41"))
            case 42 if _NO_INPUT in text:
                # It looks for its input for half a second only: this machine was too busy.
                return Overloaded(detail=shown(text))
            case 42 | 52 | 55:
                return refused(text or f"exit {code}")
            case 53:
                return MaxTurns(detail=shown(text or "exit 53"))
            case int() if code >= _FOREIGN_STATUS:
                said = Failure(text=text, status=code + 256).judged(now)
                return said or super()._by_code(ended, now)
            case _:
                return super()._by_code(ended, now)


def _can_be_argument(prompt: str) -> bool:
    """On stdin it is read for half a second only, and on a busy machine not at all; so there only what has to be."""
    size = len(prompt.encode("utf-8", "replace"))
    return 0 < size < MAX_ARGUMENT_BYTES and not prompt.startswith("-") and "\0" not in prompt


def _settle(path: Path, ours: Mapping[str, Mapping[str, Any]]) -> None:
    """Merges our settings into those of the session. Raises CannotInvoke, OSError."""
    try:
        raw = read_own(own_file(path), MAX_SETTINGS_BYTES)
    except FileNotFoundError:
        raw = b""
    except OSError as e:
        if e.errno != errno.EFBIG:
            raise
        put_aside(path)
        raw = b""
    try:
        text = raw.decode()
        settings = json.loads(_COMMENT.sub(lambda found: found[1] or "", text)) if text.strip() else {}
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        what = "settings.json of config_from is no JSON object"
        raise CannotInvoke(what, refused(what), where=path, remedy="repair it, or name another folder")
    merged = _merged(settings, ours)
    if merged != settings:
        # Never through a link into the person's own files.
        replace_file(path, json.dumps(merged, indent=2).encode(), durable=False)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        below = out.get(key)
        out[key] = (
            _merged(below if isinstance(below, dict) else {}, value) if isinstance(value, Mapping) else value
        )
    return out
