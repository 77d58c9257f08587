"""The `command` adapter: any program, by an argv template; its end is judged by patterns in its output and exit codes.

Order of judgement: what we did to it (stopped, timed out), then `patterns`, then `exit_codes`, then 0 = ok. A stall is
judged by patterns too: a tool that went silent after "429" waits for its limit.
"""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.agents import jsonl
from harness.agents.base import AgentEvent, Final, Invocation, Started, Stream, Task, Usage
from harness.agents.ending import imposed
from harness.agents.outcomes import AgentOutcome, Crash, Stalled, named
from harness.agents.starting import environment, refuse_too_long
from harness.config import PLACEHOLDER, Agent, Credential, OutcomeName, Output, Pattern, PromptBy
from harness.runner import Ended

STOP = ((signal.SIGINT, 5.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 0.0))
TAIL_BYTES = 256 << 10
"""Of each stream, searched by patterns: what ended a run stands at its end."""
LINE_CHARS = 4096
"""Of each line, searched by patterns: bounds what a costly pattern can cost."""
_USED = frozenset({"cost_usd", "tokens_in", "tokens_out", "turns"})
_LITERAL = re.compile(r"\{\{([a-z][a-z_]*)\}\}")


class CommandAdapter:
    """One run of a configured command."""

    def __init__(self, agent: Agent, credential: Credential | None = None) -> None:
        self._agent = agent
        self._credential = credential
        self._lines: list[str] = []
        self._size = 0
        self._told: dict[str, Any] = {}

    @property
    def tail_bytes(self) -> int | None:
        return None if self._agent.output is Output.JSONL else TAIL_BYTES

    @property
    def resumes(self) -> bool:
        return bool(self._agent.resume_argv)

    def command(self, task: Task, environ: Mapping[str, str]) -> Invocation:
        agent = self._agent
        template = agent.resume_argv if task.resume and agent.resume_argv else agent.argv
        words = self._words(task)
        env = environment(agent, self._credential, task, environ, {}, lambda value: _fill(value, words))
        argv = tuple(_fill(word, words) for word in template)
        refuse_too_long(argv, env, task)
        return Invocation(
            argv=argv,
            env=env,
            stdin=task.prompt_file if agent.prompt is PromptBy.STDIN else None,
            stop=agent.stop or STOP,
            timeout_s=agent.timeout_s,
            stall_s=agent.stall_s,
            max_output_bytes=agent.max_output_mb << 20,
        )

    def journal(self) -> Path | None:
        return None

    def feed(self, stream: Stream, line: bytes) -> list[AgentEvent]:
        if self._agent.patterns:
            self._keep(line[: 4 * LINE_CHARS].decode("utf-8", "replace")[:LINE_CHARS])
        if self._agent.output is Output.TEXT or stream is Stream.STDERR:
            return []
        said = jsonl.parsed(line)
        return [] if said is None else self._named(said)

    def _keep(self, line: str) -> None:
        """Of an output that is seen whole, too, only the end is searched."""
        self._lines.append(line)
        self._size += len(line)
        if self._size > 2 * TAIL_BYTES:
            while self._size > TAIL_BYTES:
                self._size -= len(self._lines.pop(0))

    def _named(self, said: Mapping[str, Any]) -> list[AgentEvent]:
        """What `fields` finds in one object; the last word on each holds."""
        found = {name: value for name, path in self._agent.fields.items() if (value := _at(said, path))}
        self._told |= found
        events: list[AgentEvent] = []
        if isinstance(found.get("session"), str):
            events.append(Started(session=found["session"], model=self._agent.model))
        if isinstance(found.get("text"), str):
            events.append(Final(text=found["text"]))
        used = self.usage() if found.keys() & _USED else None
        return [*events, used] if used is not None else events

    def usage(self) -> Usage | None:
        told = self._told
        if not told.keys() & _USED:
            return None
        return Usage(
            tokens_in=jsonl.count(told, "tokens_in"),
            tokens_out=jsonl.count(told, "tokens_out"),
            cost_usd=jsonl.number(told, "cost_usd"),
            turns=jsonl.count(told, "turns"),
            model=self._agent.model,
        )

    def state(self) -> Mapping[str, Any]:
        return {}

    def finish(self, ended: Ended, now: float) -> AgentOutcome:
        forced = imposed(ended, self._agent.max_output_mb)
        if forced is None or isinstance(forced, Stalled):
            return self._by_pattern(now) or forced or self._by_code(ended)
        return forced

    def _by_pattern(self, now: float) -> AgentOutcome | None:
        for pattern in self._agent.patterns:
            search = re.compile(pattern.match).search
            # From the end: the last word on a limit is the one that holds.
            for line in reversed(self._lines):
                if search(line):
                    return named(
                        pattern.outcome, detail=line.strip()[:500], until=self._until(pattern, line, now)
                    )
        return None

    def _until(self, pattern: Pattern, line: str, now: float) -> float | None:
        """When the limit ends: from the matching line, else from the last line that says so."""
        if pattern.retry_after is None:
            return None
        search = re.compile(pattern.retry_after).search
        for candidate in (line, *reversed(self._lines)):
            found = search(candidate)
            if found:
                try:
                    seconds = float(found[1])
                except (TypeError, ValueError):
                    seconds = math.nan
                if math.isnan(seconds):
                    return None  # the group holds no number: as if the tool had not said
                return now + min(max(seconds, 0.0), 366 * 86_400.0)
        return None

    def _by_code(self, ended: Ended) -> AgentOutcome:
        code, number = ended.exit_code, ended.signal
        listed = self._agent.exit_codes
        key = str(128 + number if number else code)
        name = listed.get(key, OutcomeName.OK if key == "0" else listed.get("*", OutcomeName.CRASH))
        if name is OutcomeName.CRASH:
            return Crash(exit_code=code, signal=number)
        return named(name, detail=f"signal {number}" if number else f"exit {code}")

    def _words(self, task: Task) -> dict[str, str]:
        return {
            "prompt": task.prompt,
            "prompt_file": str(task.prompt_file),
            "worktree": str(task.worktree),
            "session": task.resume or task.session,
            "model": self._agent.model,
            "run_id": task.mark,
            "run_dir": str(task.folder),
        }


def _at(said: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, or None."""
    *folders, name = path.split(".")
    return jsonl.mapping(said, *folders).get(name)


def _fill(template: str, words: Mapping[str, str]) -> str:
    """Placeholders replaced in one pass: what a prompt says is never a template."""
    out: list[str] = []
    end = 0
    for found in PLACEHOLDER.finditer(template):
        out += (_LITERAL.sub(r"{\1}", template[end : found.start()]), words[found[1]])
        end = found.end()
    return "".join(out) + _LITERAL.sub(r"{\1}", template[end:])
