"""The interface of agent tools: what a run is asked for, what it reports, how it ended, and what that means.

An `Adapter` is made for one run of a tool: it says how to start it, reads its output line by line, and judges its end.
It starts nothing itself. "Ok" from a tool is a claim: gates and git confirm it.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from harness.agents.outcomes import AgentOutcome
from harness.dataclass import dataclass
from harness.errors import HarnessError
from harness.runner import Ended


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
    """Our id of the conversation: a UUID, the same in every run of an attempt."""
    round: int
    """1 for the first run of the session; later ones go on with it."""
    prompt: str
    prompt_file: Path
    worktree: Path
    folder: Path
    """The session's folder. The tool may write only to `home`, `tmp` and the folder of `interrupt_file`."""
    home: Path
    tmp: Path
    interrupt_file: Path


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

    def __repr__(self) -> str:
        return f"Invocation(argv={self.argv!r}, env=<{len(self.env)} variables>)"


class Stream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


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
    name: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the run has used so far. None: the tool does not say."""

    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None
    turns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The tool's last word."""

    text: str


AgentEvent = Started | Activity | Text | Tool | Retrying | Limit | Usage | Final


class CannotInvoke(HarnessError):
    """A tool cannot be started as configured; `outcome` is what the run then counts as."""

    def __init__(
        self, what: str, outcome: AgentOutcome, *, where: object = None, remedy: str | None = None
    ) -> None:
        self.outcome = outcome
        super().__init__(what, where=where, remedy=remedy)


class Adapter(Protocol):
    """What every tool's adapter offers. One instance serves one run."""

    @property
    def tail_bytes(self) -> int | None:
        """How much of the end of each stream `feed` is to see; None: every line."""
        ...

    def command(self, task: Task, environ: Mapping[str, str]) -> Invocation:
        """How to start the tool; `environ` is the daemon's environment. Raises CannotInvoke."""
        ...

    def feed(self, stream: Stream, line: bytes) -> list[AgentEvent]:
        """One line of output without its newline, in order within its stream. Never raises for what it says."""
        ...

    def finish(self, ended: Ended, now: float) -> AgentOutcome:
        """How the run ended. `now` is wall time, for limits that say "in n seconds"."""
        ...
