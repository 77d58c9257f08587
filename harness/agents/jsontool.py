"""What the adapters of tools share that print one JSON event in each line.

Order of judgement: what was given up, a stop of ours, the tool's last event, its last error, its exit code. A tool that stalled or
ran out of time while it only waited for a limit ends as that limit; one that hung after its result has its result.
"""

from __future__ import annotations

import fnmatch
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from harness.agents import jsonl
from harness.agents.base import (
    AgentEvent,
    GiveUp,
    Invocation,
    LimitKind,
    LostSession,
    Problem,
    Stream,
    Task,
    Usage,
)
from harness.agents.ending import imposed
from harness.agents.outcomes import (
    AgentOutcome,
    BadRequest,
    Crash,
    Empty,
    NoResult,
    Ok,
    Overloaded,
    RateLimit,
    Stalled,
    TimedOut,
    UsageLimit,
)
from harness.agents.statuses import TEXT_CHARS, Failure, shown
from harness.config import Agent, Credential
from harness.runner import Ended

DETAIL_CHARS = 200
"""Of a tool's main argument."""
FINAL_CHARS = 64 << 10
"""Of a tool's last word, when it comes in pieces."""
LOOKED_AT = 5000
"""Entries, when a file is looked for."""
UNKNOWN_DELAY_S = 60.0
"""When a tool waits and does not say how long."""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]{0,32}[A-Za-z]")


class JsonTool(ABC):
    """One run of such a tool: its last words and counters, never its whole output."""

    last_event = ""
    """What its format promises at the end."""

    def __init__(self, agent: Agent, credential: Credential | None = None) -> None:
        self._agent = agent
        self._credential = credential
        self._task: Task | None = None
        self._started = False
        self._done = False
        self._text = ""
        self._tools = False
        self._turns = 0
        self._failure: Failure | None = None
        self._complaint = ""
        self._given_up: AgentOutcome | None = None
        self._lost = False

    @property
    def tail_bytes(self) -> int | None:
        return None

    @property
    def resumes(self) -> bool:
        return True

    def journal(self) -> Path | None:
        return None

    def feed(self, stream: Stream, line: bytes) -> list[AgentEvent]:
        if stream is Stream.JOURNAL:
            return self._on_journal(line)
        if stream is Stream.STDERR:
            text = line[: 4 * TEXT_CHARS].decode("utf-8", "replace")[:TEXT_CHARS]
            return self._on_stderr(_ESCAPES.sub("", text).strip())
        if not line.strip():
            return []
        said = jsonl.parsed(line)
        if said is None:
            return self._on_other(line[: 4 * TEXT_CHARS].decode("utf-8", "replace")[:TEXT_CHARS].strip())
        return self._on_event(jsonl.text(said, "type"), said)

    def finish(self, ended: Ended, now: float) -> AgentOutcome:
        if self._given_up is not None:
            return self._given_up
        last = self._failure.judged(now) if self._failure is not None else None
        waits = last if isinstance(last, RateLimit | UsageLimit | Overloaded) else None
        forced = imposed(ended, self._agent.max_output_mb)
        if forced is None:
            return self._result() or last or self._by_code(ended, now)
        if isinstance(forced, TimedOut | Stalled):
            return self._result() or waits or forced
        return forced

    def _result(self) -> AgentOutcome | None:
        """What the tool's last event says. An exit code beside it adds nothing: gates and git confirm the claim."""
        if not self._done:
            return None
        said = self._tools or self._text.strip()
        return Ok() if said else Empty(detail="ended without a word and without using a tool")

    def _by_code(self, ended: Ended, now: float) -> AgentOutcome:
        text = self._failure.text if self._failure is not None else self._complaint
        if ended.exit_code == 0:
            return NoResult(
                detail=shown(text) if self._failure is not None else f"exit 0 without {self.last_event}"
            )
        said = None if self._lost else Failure(text=self._complaint).judged(now)
        return said or Crash(exit_code=ended.exit_code, signal=ended.signal, detail=shown(text))

    @abstractmethod
    def command(self, task: Task, environ: Mapping[str, str]) -> Invocation: ...

    @abstractmethod
    def usage(self) -> Usage | None: ...

    def state(self) -> Mapping[str, Any]:
        return {}

    # --- for the tools

    @abstractmethod
    def _on_event(self, kind: str, said: Mapping[str, Any]) -> list[AgentEvent]: ...

    @abstractmethod
    def _on_stderr(self, text: str) -> list[AgentEvent]: ...

    def _on_journal(self, _line: bytes) -> list[AgentEvent]:
        return []

    def _on_other(self, text: str) -> list[AgentEvent]:
        """A line of stdout that holds no event."""
        return [Problem(kind="line", text=shown(text))]

    def _give_up(self, outcome: AgentOutcome) -> list[AgentEvent]:
        """Once, and not when it has its result: lines of stderr may come late."""
        if self._given_up is not None or self._done:
            return []
        self._given_up = outcome
        return [GiveUp(outcome=outcome)]

    def _lose(self) -> list[AgentEvent]:
        if self._lost or self._task is None or self._task.resume is None:
            return []
        self._lost = True
        return [LostSession()]


def kind_of(outcome: AgentOutcome | None) -> LimitKind:
    """Which limit a tool waits for, when it waits."""
    match outcome:
        case RateLimit():
            return LimitKind.RATE
        case UsageLimit():
            return LimitKind.USAGE
        case _:
            return LimitKind.OVERLOADED


def refused(detail: str) -> AgentOutcome:
    """The tool refuses its arguments or its configuration."""
    return BadRequest(detail=shown(detail))


def detail_of(data: Mapping[str, Any], *keys: str) -> str:
    """The first of a tool's arguments that is there, shortened."""
    return next((found[:DETAIL_CHARS] for key in keys if (found := jsonl.text(data, key))), "")


def found_below(home: Path, patterns: Sequence[str]) -> Path | None:
    """The last regular file, by name, that one pattern for each level leads to. An agent may write here: only so many
    entries are looked at in all, and no link is followed."""
    return _found(home, patterns, [LOOKED_AT])


def _found(folder: Path, patterns: Sequence[str], left: list[int]) -> Path | None:
    first, *rest = patterns
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in islice(entries, max(0, left[0])):
                left[0] -= 1
                right = entry.is_dir if rest else entry.is_file
                if fnmatch.fnmatchcase(entry.name, first) and right(follow_symlinks=False):
                    names.append(entry.name)
    except OSError:
        return None
    for name in sorted(names, reverse=True):
        if not rest:
            return folder / name
        if (found := _found(folder / name, rest, left)) is not None:
            return found
    return None


def label(kind: str) -> str:
    """Of an event that is nothing else."""
    return kind[:64] or "unknown"
