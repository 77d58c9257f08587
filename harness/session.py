"""One agent's session with one item: each run of its tool, contained, with its output in files, judged by its adapter.

It alone starts agents. A session belongs to one attempt; heal rounds are further runs of the same session.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import redact
from harness.agents.base import (
    Adapter,
    AgentEvent,
    CannotInvoke,
    Final,
    Invocation,
    Started,
    Stream,
    Task,
    Usage,
)
from harness.agents.outcomes import AgentOutcome, described, name_of
from harness.agents.registry import adapter_for
from harness.clock import Clock, rfc3339
from harness.config import Agent, Credential
from harness.containment import Jail, Policy
from harness.dataclass import dataclass
from harness.model import VERSION
from harness.runner import Command, Ended, Runner
from harness.sessionfolder import SessionFolder, lines, tail, write_whole
from harness.terminal import printable, printable_line

TEXT_BYTES = 8 << 10
"""How much of the end of a run's text is kept in its result. Keys that show in it are blanked."""
_NAMESPACE = uuid.UUID("7a1f3c52-6d0b-5f5e-9a53-3c1f0b9f7e11")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What the session is about, as plain values. `policy`: what may be written besides the session's own folders."""

    item: str
    mark: str
    """``<uid>.<n>``"""
    slot: str
    agent: str
    """The agent's name in config.yaml."""
    worktree: Path
    policy: Policy | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentResult:
    """How one run of the tool ended. `text` is printable; the whole is in the session's folder."""

    round: int
    outcome: AgentOutcome
    text: str
    duration_s: float
    usage: Usage | None
    question: str | None
    """What the agent asks a person, unread: not printable yet."""
    survivors: int
    """Processes that the tool left behind and that were killed."""


class Session:
    """Runs an agent's tool, once per round. Not thread-safe."""

    def __init__(
        self,
        folder: SessionFolder,
        subject: Subject,
        agent: Agent,
        credential: Credential | None,
        *,
        runner: Runner,
        clock: Clock,
        stall_s: float,
        environ: Mapping[str, str],
    ) -> None:
        """`stall_s` is health.stall_s; `environ` is the daemon's environment. Nothing is made before `run`."""
        self.folder = folder
        self._subject = subject
        self._agent = agent
        self._credential = credential
        self._runner = runner
        self._clock = clock
        self._stall_s = stall_s
        self._environ = environ
        self._session = str(uuid.uuid5(_NAMESPACE, subject.mark))
        self._runs: list[dict[str, Any]] = []

    def run(self, prompt: str, *, timeout_s: float) -> AgentResult:
        """One run of the tool with `prompt`, for at most `timeout_s`. Raises OSError when the disk does not take it."""
        self.folder.make()
        # Lone surrogates are possible in JSON, and neither in a file nor in an argument.
        prompt = prompt.encode("utf-8", "replace").decode()
        task = self._task(len(self._runs) + 1, prompt)
        task.prompt_file.write_text(prompt, encoding="utf-8", newline="")
        adapter = adapter_for(self._agent, self._credential)
        started_at = self._clock.wall()
        try:
            invocation = adapter.command(task, self._environ)
        except CannotInvoke as e:
            return self._record(started_at, None, _not_run(task.round, e))
        if self._credential is not None:
            redact.hide([invocation.env[self._credential.variable]])
        ended = self._runner.run(self._command(invocation, task.round, timeout_s))
        events = self._feed(adapter, task.round)
        result = self._result(task.round, adapter.finish(ended, self._clock.wall()), ended, events)
        return self._record(started_at, ended, result)

    def close(self) -> None:
        """Removes the temporary files. May be called again, and without any run."""
        self.folder.clear(self._runner)

    def _task(self, k: int, prompt: str) -> Task:
        subject, folder = self._subject, self.folder
        return Task(
            item=subject.item,
            mark=subject.mark,
            slot=subject.slot,
            agent=subject.agent,
            session=self._session,
            round=k,
            resume=self._session if k > 1 else None,
            prompt=prompt,
            prompt_file=folder.prompt(k),
            worktree=subject.worktree,
            folder=folder.path,
            home=folder.home,
            tmp=folder.tmp,
            interrupt_file=folder.interrupt_file,
        )

    def _command(self, invocation: Invocation, k: int, timeout_s: float) -> Command:
        limits = [timeout_s] if invocation.timeout_s is None else [timeout_s, invocation.timeout_s]
        return Command(
            argv=invocation.argv,
            cwd=self._subject.worktree,
            env=invocation.env,
            stdin=invocation.stdin,
            stdout=self.folder.stdout(k),
            stderr=self.folder.stderr(k),
            timeout_s=min(limits),
            stall_s=self._stall_s if invocation.stall_s is None else invocation.stall_s,
            watch=self._subject.worktree,
            stop=invocation.stop,
            jail=Jail(
                mark=self._subject.mark, policy=self.folder.opened(self._subject.policy, self.folder.writable)
            ),
            max_output_bytes=invocation.max_output_bytes,
        )

    def _feed(self, adapter: Adapter, k: int) -> list[AgentEvent]:
        events: list[AgentEvent] = []
        for stream, path in ((Stream.STDOUT, self.folder.stdout(k)), (Stream.STDERR, self.folder.stderr(k))):
            for line in lines(path, adapter.tail_bytes):
                events += adapter.feed(stream, line)
        return events

    def _result(self, k: int, outcome: AgentOutcome, ended: Ended, events: list[AgentEvent]) -> AgentResult:
        text, usage = None, None
        for event in events:
            match event:
                case Final(text=said):
                    text = said
                case Usage():
                    usage = event
                case Started(session=session):
                    self._session = session
                case _:
                    pass  # signs of life; nobody watches live
        if text is None:
            text = tail(self.folder.stdout(k), TEXT_BYTES) or tail(self.folder.stderr(k), TEXT_BYTES)
        return AgentResult(
            round=k,
            outcome=outcome,
            text=redact.redact(printable(text))[-TEXT_BYTES:],
            duration_s=ended.duration_s,
            usage=usage,
            question=self.folder.question(),
            survivors=ended.survivors,
        )

    def _record(self, started_at: float, ended: Ended | None, result: AgentResult) -> AgentResult:
        """Keeps what is known so far in summary.json: for people, never read back by the harness."""
        run: dict[str, Any] = {
            "round": result.round,
            "started_at": rfc3339(started_at),
            "duration_s": round(result.duration_s, 3),
            "outcome": name_of(result.outcome).value,
            "detail": redact.redact(printable_line(described(result.outcome), 1000)),
            "exit_code": ended.exit_code if ended else None,
            "signal": ended.signal if ended else None,
            "survivors": result.survivors,
            "asks": result.question is not None,
        }
        if result.usage is not None:
            run["usage"] = {
                "tokens_in": result.usage.tokens_in,
                "tokens_out": result.usage.tokens_out,
                "cost_usd": result.usage.cost_usd,
                "turns": result.usage.turns,
            }
        self._runs.append(run)
        subject = self._subject
        write_whole(
            self.folder.summary,
            {
                "v": VERSION,
                "item": subject.item,
                "attempt": subject.mark,
                "slot": subject.slot,
                "agent": subject.agent,
                "session": self._session,
                "worktree": str(subject.worktree),
                "runs": self._runs,
            },
        )
        return result


def _not_run(k: int, e: CannotInvoke) -> AgentResult:
    return AgentResult(
        round=k,
        outcome=e.outcome,
        text=printable(str(e)),
        duration_s=0.0,
        usage=None,
        question=None,
        survivors=0,
    )
