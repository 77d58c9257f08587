"""One agent's session with one item: each run of its tool, contained, followed while it runs, judged by its adapter.

It alone starts agents. A session belongs to an item; heal rounds and later attempts are further runs of it. What was said
is in its folder, raw and as events; what it used, and how to go on with it, is in its record (`sessionrecord`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from harness import redact, sessionrecord
from harness.agents.base import Adapter, AgentEvent, Bounds, CannotInvoke, Invocation, Started, Task, Usage
from harness.agents.outcomes import AgentOutcome, Crash, described, name_of
from harness.agents.registry import adapter_for
from harness.agents.starting import share
from harness.clock import Clock, rfc3339
from harness.config import Agent, Credential
from harness.containment import Jail, Policy
from harness.dataclass import dataclass
from harness.live import Live
from harness.runner import Command, Ended, EndReason, Runner
from harness.sessionfolder import SessionFolder, tail
from harness.sessionrecord import RunRecord, SessionRecord, Spent
from harness.terminal import printable, printable_line

TEXT_BYTES = 8 << 10
"""How much of the end of a run's text is kept in its result. Keys that show in it are blanked."""
UNBOUND = Bounds()
PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN})
"""What this machine lacks now is no fault of the item: its attempt is given back."""
_NAMESPACE = uuid.UUID("7a1f3c52-6d0b-5f5e-9a53-3c1f0b9f7e11")
_CONVERSATION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}\Z")
"""What stands on a command line later. A tool's id that looks different is no id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What the session is about, as plain values. `policy`: what may be written besides the session's own folders."""

    item: str
    uid: str
    mark: str
    """``<uid>.<n>`` of the attempt"""
    slot: str
    agent: str
    """The agent's name in config.yaml."""
    worktree: Path
    policy: Policy | None
    project: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentResult:
    """How one run of the tool ended. `text` is printable; the whole is in the session's folder."""

    round: int
    outcome: AgentOutcome
    text: str
    duration_s: float
    started_at: float
    """Wall clock."""
    usage: Spent | None
    question: str | None
    """What the agent asks a person, unread: not printable yet."""
    survivors: int
    """Processes that the tool left behind and that were killed."""
    not_started: bool = False
    """This machine could not start the tool: it says nothing about the item."""
    lost: bool = False
    """The tool did not know the conversation: the next run begins a new one, and must be told everything."""


Price = Callable[[Usage], float | None]
"""What tokens cost in USD; None: the model has no price."""


def no_price(_usage: Usage) -> float | None:
    return None


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
        price: Price = no_price,
        heard: Callable[[AgentEvent], None] = lambda _: None,
    ) -> None:
        """`stall_s` is health.stall_s; `environ` is the daemon's environment. Nothing is made before `run`.

        A folder that holds a session of the same agent: it goes on. `heard` hears what is said while the tool runs.
        """
        self.folder = folder
        self._subject = subject
        self._agent = agent
        self._credential = credential
        self._runner = runner
        self._clock = clock
        self._stall_s = stall_s
        self._environ = environ
        self._price = price
        self._heard = heard
        self.record = self._known() or self._new()

    @property
    def goes_on(self) -> bool:
        """The next run continues a conversation that knows its task; otherwise its prompt must say everything."""
        return bool(self.record.conversation) and adapter_for(self._agent, self._credential).resumes

    @property
    def round(self) -> int:
        """The number of the last run, counted over all attempts that went on with the session."""
        return len(self.record.runs)

    def run(self, prompt: str, *, timeout_s: float, bounds: Bounds = UNBOUND) -> AgentResult:
        """One run of the tool with `prompt`, for at most `timeout_s`, and stopped when it has passed `bounds`.

        Raises OSError when the disk does not take it.
        """
        self.folder.make()
        self.settle()
        # Lone surrogates are possible in JSON, and neither in a file nor in an argument.
        prompt = prompt.encode("utf-8", "replace").decode()
        adapter = adapter_for(self._agent, self._credential)
        task = self._task(adapter, prompt, bounds.usd)
        task.prompt_file.write_text(prompt, encoding="utf-8", newline="")
        started_at = self._clock.wall()
        self._begin(task, started_at)
        try:
            invocation = adapter.command(task, self._environ)
            _require(invocation, task)
        except CannotInvoke as e:
            return self._cannot(task.round, started_at, e)
        except OSError as e:
            if e.errno in PASSING:
                raise
            what = f"its HOME cannot be prepared: {e.strerror}"
            return self._cannot(
                task.round, started_at, CannotInvoke(what, Crash(detail=what), where=e.filename)
            )
        if self._credential is not None:
            redact.hide([invocation.env[self._credential.variable]])
        watched = replace(bounds, usd=None) if invocation.keeps_budget else bounds
        with self._live(adapter, task.round, watched) as live:
            ended = self._runner.run(self._command(invocation, task.round, timeout_s, live))
            live.drain(self._runner.beat)
        with contextlib.suppress(OSError):
            share(invocation.shared, self.folder.home)  # a login that was renewed is everybody's
        outcome = live.verdict(ended) or adapter.finish(ended, self._clock.wall())
        return self._end(task.round, started_at, adapter, outcome, live, ended, _own_tool(invocation))

    def settle(self) -> None:
        """Ends in the record what nobody has ended: the runs of a worker that was killed. What they said is read again."""
        for run in self.record.runs:
            if run.outcome:
                continue
            adapter = adapter_for(self._agent, self._credential)
            with contextlib.suppress(CannotInvoke, OSError):
                # What it has to know of the run to count it: where the conversation stood.
                adapter.command(self._task(adapter, "", None, run), self._environ)
            with self._live(adapter, run.round, UNBOUND, quiet=True) as live, contextlib.suppress(OSError):
                live.drain(self._runner.beat)
            ended = Ended(reason=EndReason.EXITED, signal=signal.SIGKILL)
            outcome = adapter.finish(ended, self._clock.wall())
            self._take(adapter, live)
            self._replace(
                replace(
                    run,
                    outcome=name_of(outcome).value,
                    detail="the worker that ran it was ended; " + _told(outcome),
                    signal=int(signal.SIGKILL),
                    usage=self._spent(adapter.usage()),
                )
            )

    def close(self) -> None:
        """Removes the temporary files. May be called again, and without any run."""
        self.folder.clear(self._runner)

    # ---- the record --------------------------------------------------------------------------------------------------

    def _known(self) -> SessionRecord | None:
        found = sessionrecord.read(self.folder.summary)
        if found is None or (found.agent, found.adapter) != (self._subject.agent, self._agent.adapter):
            return None
        if found.conversation and not _CONVERSATION.match(found.conversation):
            found = replace(found, conversation="", state={})
        return replace(found, worktree=str(self._subject.worktree))

    def _new(self) -> SessionRecord:
        subject = self._subject
        return SessionRecord(
            item=subject.item,
            uid=subject.uid,
            project=subject.project,
            agent=subject.agent,
            adapter=self._agent.adapter,
            session=str(uuid.uuid5(_NAMESPACE, f"{subject.mark} {self.folder.path.name}")),
            worktree=str(subject.worktree),
        )

    def judged(self, gates: Iterable[Mapping[str, Any]]) -> None:
        """What the gates said of the last run: name, ok, required, seconds, reason."""
        self._replace(replace(self.record.runs[-1], gates=tuple(gates)))

    def forget(self) -> None:
        """The next run begins a new conversation, in the same folder."""
        again = str(uuid.uuid5(_NAMESPACE, self.record.session))
        self.record = replace(self.record, session=again, conversation="", state={})

    def _begin(self, task: Task, started_at: float) -> None:
        run = RunRecord(
            round=task.round,
            attempt=self._subject.mark,
            slot=self._subject.slot,
            started_at=rfc3339(started_at),
            resumed=task.resume is not None,
        )
        self._save(replace(self.record, runs=(*self.record.runs, run)))

    def _replace(self, run: RunRecord) -> None:
        runs = tuple(run if known.round == run.round else known for known in self.record.runs)
        self._save(replace(self.record, runs=runs))

    def _save(self, record: SessionRecord) -> None:
        self.record = record
        sessionrecord.write(self.folder.summary, record)

    def _started(self, conversation: str) -> None:
        """The tool has said which conversation this is: kept at once, for whoever goes on when we are killed."""
        if _CONVERSATION.match(conversation) and conversation != self.record.conversation:
            self._save(replace(self.record, conversation=conversation))

    def _live(self, adapter: Adapter, k: int, bounds: Bounds, *, quiet: bool = False) -> Live:
        """`quiet`: of a run that ended long ago; nobody hears of it any more."""

        def hear(event: AgentEvent) -> None:
            if isinstance(event, Started):
                self._started(event.session)
            if not quiet:
                self._heard(event)

        return Live(
            adapter,
            self.folder,
            k,
            clock=self._clock,
            cost=self._cost,
            bounds=bounds,
            hear=hear,
            fresh=quiet,
        )

    def _cost(self, usage: Usage) -> float | None:
        told = usage.cost_usd
        if told is not None and not usage.estimated:
            return told
        priced = self._price(usage)
        return told if priced is None else priced if told is None else max(told, priced)

    def _take(self, adapter: Adapter, live: Live) -> None:
        if live.lost:
            self.forget()
            return
        told = adapter.tail_bytes is None
        own = self.record.session if adapter.resumes and not told else ""  # then it goes by our id of it
        self.record = replace(
            self.record, state=adapter.state(), conversation=self.record.conversation or own
        )

    def _spent(self, usage: Usage | None) -> Spent | None:
        if usage is None:
            return None
        return Spent(
            tokens_in=usage.tokens_in,
            tokens_cached=usage.tokens_cached,
            tokens_out=usage.tokens_out,
            cost_usd=self._cost(usage),
            turns=usage.turns,
            estimated=usage.estimated,
        )

    # ---- one run -----------------------------------------------------------------------------------------------------

    def _task(
        self, adapter: Adapter, prompt: str, budget_usd: float | None, earlier: RunRecord | None = None
    ) -> Task:
        """Of the next run, or of an `earlier` one, as it was started."""
        subject, folder = self._subject, self.folder
        k = earlier.round if earlier else len(self.record.runs) + 1
        resume = self.record.conversation if adapter.resumes and (earlier is None or earlier.resumed) else ""
        return Task(
            item=subject.item,
            mark=subject.mark,
            slot=subject.slot,
            agent=subject.agent,
            session=self.record.session,
            round=k,
            resume=resume or None,
            state=self.record.state if resume else {},
            budget_usd=budget_usd,
            prompt=prompt,
            prompt_file=folder.prompt(k),
            worktree=subject.worktree,
            folder=folder.path,
            home=folder.home,
            tmp=folder.tmp,
            interrupt_file=folder.interrupt_file,
            findings_file=folder.findings_file,
        )

    def _command(self, invocation: Invocation, k: int, timeout_s: float, live: Live) -> Command:
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
            jail=Jail(mark=self._subject.mark, policy=self._policy(invocation)),
            watcher=live,
            max_output_bytes=invocation.max_output_bytes,
        )

    def _policy(self, invocation: Invocation) -> Policy | None:
        policy = self.folder.opened(self._subject.policy, self.folder.writable)
        if policy is None or not invocation.shared:
            return policy
        logins = tuple(invocation.shared.values())
        hide = tuple(path for path in policy.hide if path not in logins)
        return replace(policy, write=(*policy.write, *logins), hide=hide)

    def _end(
        self,
        k: int,
        started_at: float,
        adapter: Adapter,
        outcome: AgentOutcome,
        live: Live,
        ended: Ended,
        own_tool: bool,
    ) -> AgentResult:
        """`own_tool`: it is a file of the item's worktree."""
        self._take(adapter, live)
        text = live.text
        if text is None:
            text = tail(self.folder.stdout(k), TEXT_BYTES) or tail(self.folder.stderr(k), TEXT_BYTES)
        result = AgentResult(
            round=k,
            outcome=_hidden(outcome),
            text=redact.redact(printable(text))[-TEXT_BYTES:],
            duration_s=ended.duration_s,
            started_at=started_at,
            usage=self._spent(adapter.usage()),
            question=self.folder.question(),
            survivors=ended.survivors,
            not_started=ended.reason is EndReason.NOT_STARTED and not own_tool,
            lost=live.lost,
        )
        self._write_down(result, ended)
        return result

    def _cannot(self, k: int, started_at: float, e: CannotInvoke) -> AgentResult:
        result = AgentResult(
            round=k,
            outcome=_hidden(e.outcome),
            text=printable(str(e)),
            duration_s=0.0,
            started_at=started_at,
            usage=None,
            question=None,
            survivors=0,
            not_started=e.not_started,
        )
        self._write_down(result, None)
        return result

    def _write_down(self, result: AgentResult, ended: Ended | None) -> None:
        self._replace(
            replace(
                self.record.runs[-1],
                duration_s=round(result.duration_s, 3),
                outcome=name_of(result.outcome).value,
                detail=_told(result.outcome),
                exit_code=ended.exit_code if ended else None,
                signal=ended.signal if ended else None,
                survivors=result.survivors,
                asks=result.question is not None,
                usage=result.usage,
            )
        )


def _require(invocation: Invocation, task: Task) -> None:
    """Raises CannotInvoke for a tool that is not there. A path into the worktree is the item's own matter."""
    name = invocation.argv[0]
    if not _own_tool(invocation) and not shutil.which(name, path=invocation.env.get("PATH", os.defpath)):
        what = f"{name} is not installed, or not on the PATH of harness"
        where, remedy = f"agents.{task.agent}", "install it, or name it there by its whole path"
        raise CannotInvoke(what, Crash(detail=what), where=where, remedy=remedy, not_started=True)


def _own_tool(invocation: Invocation) -> bool:
    name = invocation.argv[0]
    return "/" in name and not name.startswith("/")


def _hidden(outcome: AgentOutcome) -> AgentOutcome:
    """Without keys: a tool's words go into end cells, limits and questions, and others read those."""
    names = {one.name for one in fields(outcome)} & {"detail", "why"}
    return replace(outcome, **{name: redact.redact(getattr(outcome, name)) for name in names})  # type: ignore[arg-type]


def _told(outcome: AgentOutcome) -> str:
    return redact.redact(printable_line(described(outcome), 1000))
