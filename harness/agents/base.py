"""The interface of agent tools: what a run is asked for, what it reports, how it ended, and what that means.

An `Adapter` is made for one run of a tool: it says how to start it, reads its output line by line while it runs, counts
what it uses, and judges its end. It starts nothing itself. "Ok" from a tool is a claim: gates and git confirm it.

A session is one conversation of a tool with an item. It outlives the run and the attempt: whoever claims the item's next
attempt goes on with it, with the same HOME, by the id that the tool gave it (`Started`) or that we chose (`Task.session`).
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from harness.agents.outcomes import AgentOutcome
from harness.dataclass import dataclass
from harness.errors import HarnessError
from harness.runner import Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one run may use at most; None: as much as it likes."""

    usd: float | None = None
    tokens: int | None = None
    """In and out, what came from a cache included."""
    shared: bool = False
    """The least is what a budget has left that others spend too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One run of a tool, as its adapter needs to know it. All paths exist and are absolute."""

    item: str
    """The person's id of the item."""
    mark: str
    """``<uid>.<n>``"""
    slot: str
    agent: str
    """The name of the agent in config.yaml."""
    session: str
    """Our id of the conversation: a UUID, the same in every run of the session."""
    round: int
    """1 for the first run of the session; counted on by later ones, also in other attempts."""
    resume: str | None = None
    """The tool's id of the conversation to go on with; None: it begins a new one, as `session`."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """What `Adapter.state` said after the last run of this conversation; empty for a new one."""
    budget_usd: float | None = None
    """What this run may cost at most, for tools that can be told; None: no limit."""
    prompt: str
    prompt_file: Path
    worktree: Path
    folder: Path
    """The session's folder. The tool may write only to `home`, `tmp` and the folder of `interrupt_file`."""
    home: Path
    tmp: Path
    interrupt_file: Path
    findings_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """How to start a tool. `env` is complete and may hold a secret: it is never logged."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    stdin: Path | None
    """A file to read, or None for nothing (/dev/null)."""
    stop: tuple[tuple[signal.Signals, float], ...]
    timeout_s: float | None
    """Of this run alone; None: only the attempt's limit."""
    stall_s: float | None
    """None: the general one."""
    max_output_bytes: int
    shared: Mapping[Path, Path] = field(default_factory=dict)
    """Link in the session's HOME -> the login that all sessions share, which the tool may read and write."""

    keeps_budget: bool = False
    """The tool was told what it may cost, and ends by itself when it has passed that."""

    def __repr__(self) -> str:
        return f"Invocation(argv={self.argv!r}, env=<{len(self.env)} variables>)"


class Stream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"
    JOURNAL = "journal"  # a file of the tool's own: `Adapter.journal`


class LimitKind(StrEnum):
    RATE = "rate"
    USAGE = "usage"
    OVERLOADED = "overloaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The tool says which conversation this is: later runs resume it by this id."""

    session: str
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """A sign of life that is nothing else."""

    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """The model uses a tool."""

    name: str
    detail: str = ""
    """Its main argument (the command, the file), shortened; the tool's own words, not printable yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that went wrong and did not end the run: a failed tool, a denied permission, a line that is broken."""

    kind: str
    """``tool``, ``denied``, ``line``, ``api``, ``warning``"""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying:
    """The tool waits by itself: it is not stalled until `delay_s` has passed."""

    kind: LimitKind
    delay_s: float
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """News about a limit of the credential, also when the run goes on."""

    kind: LimitKind
    resets_at: float | None = None
    """Wall clock, seconds since the epoch."""
    utilization: float | None = None
    """0 to 1, of what is allowed."""
    blocked: bool = True
    """False: a warning; requests still go through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What this run has used so far, earlier runs of the session not included. None: the tool does not say."""

    tokens_in: int | None = None
    """All input, what came from a cache included."""
    tokens_cached: int | None = None
    """Of `tokens_in`, what was read from a cache."""
    tokens_out: int | None = None
    cost_usd: float | None = None
    """As the tool reckons it. None: to be reckoned from tokens with the configured prices."""
    turns: int | None = None
    model: str = ""
    estimated: bool = False
    """The tool was ended before it could say: at most one reply is missing or guessed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The tool's last word."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """The run cannot succeed, though the tool goes on trying: it is to be stopped, and ends as `outcome`."""

    outcome: AgentOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class LostSession:
    """The tool does not know the conversation it was to go on with: a new one has to begin."""


AgentEvent = (
    Started | Activity | Text | Tool | Problem | Retrying | Limit | Usage | Final | GiveUp | LostSession
)


class CannotInvoke(HarnessError):
    """A tool cannot be started as configured; `outcome` is what the run then counts as."""

    def __init__(
        self,
        what: str,
        outcome: AgentOutcome,
        *,
        where: object = None,
        remedy: str | None = None,
        not_started: bool = False,
    ) -> None:
        """`not_started`: for a reason of this machine's, which costs nobody an attempt."""
        self.outcome = outcome
        self.not_started = not_started
        super().__init__(what, where=where, remedy=remedy)


class Adapter(Protocol):
    """What every tool's adapter offers. One instance serves one run."""

    @property
    def tail_bytes(self) -> int | None:
        """How much of the end of each stream `feed` is to see; None: every line, while the tool runs."""
        ...

    @property
    def resumes(self) -> bool:
        """Whether a run can go on with an earlier run's conversation. Otherwise each prompt must say everything."""
        ...

    def command(self, task: Task, environ: Mapping[str, str]) -> Invocation:
        """How to start the tool; `environ` is the daemon's environment. Raises CannotInvoke, OSError.

        May write below `task.home`: the tool's configuration of this session.
        """
        ...

    def journal(self) -> Path | None:
        """The file in the session's HOME to which the tool writes what it uses, when it is there by now; all of it is fed, what
        earlier runs of the conversation have written first. None: it has none. Asked again while a run goes on."""
        ...

    def feed(self, stream: Stream, line: bytes) -> list[AgentEvent]:
        """One line of output without its newline, in order within its stream. Never raises for what it says."""
        ...

    def finish(self, ended: Ended, now: float) -> AgentOutcome:
        """How the run ended, when every line was fed. `now` is wall time, for limits that say "in n seconds".

        Also for a run that somebody else has watched and that was killed: then `ended` says signal KILL.
        """
        ...

    def usage(self) -> Usage | None:
        """What the run has used in all; `estimated` when the tool could not say. None: nothing is known. After `finish`."""
        ...

    def state(self) -> Mapping[str, Any]:
        """What the next run of this conversation has to know (`Task.state`), as JSON. After `finish`."""
        ...
