"""The words of the store as values: items, cells, outcomes, states.

Records are frozen and keyword-only. On disk each is one JSON object with ``"v": 1``; readers ignore unknown keys
and refuse an unknown version. What each record means, and who may write it, is docs/protocol.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any, ClassVar

from harness.dataclass import dataclass
from harness.errors import UnreadableRecordError
from harness.record import VERSION as VERSION  # noqa: PLC0414 - re-exported
from harness.record import Record as Record  # noqa: PLC0414 - re-exported
from harness.record import dump as dump  # noqa: PLC0414 - re-exported

SLUG = re.compile(r"[a-z0-9-]{1,40}\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?=T)")
UID = re.compile(r"[a-z0-9][a-z0-9-]{1,63}\Z")
MAX_RELEASES = 20
"""More released ends than this after the last grant park an item (PROTOCOL, section 4)."""


LONG_AGO = "1970-01-01T00:00:00Z"
"""The time of what was decided at an unknown one."""


def date_of(moment: str) -> str:
    """RFC 3339 -> its date, for a path; of what is no such time, that of LONG_AGO."""
    return (_DATE.match(str(moment)) or _DATE.match(LONG_AGO) or [""])[0]


def slug(text: str) -> str:
    """Any text -> ``[a-z0-9-]{1,40}``, legal as a component of a git ref; never empty, no leading dash."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
    return plain or "item"


class Act(StrEnum):
    """Why a claim was made. Whoever finds a claim without its end completes it by its act."""

    RUN = "run"  # a worker executes; without an end: expired
    HOLD = "hold"  # a person parks; without an end: held
    CANCEL = "cancel"  # a person cancels; without an end: cancelled


class Outcome(StrEnum):
    """How an attempt ended (`<n>.end`)."""

    DONE = "done"  # result submitted (merge needed) or final (no merge)
    FAILED = "failed"  # costs an attempt
    EXPIRED = "expired"  # its owner died or hung; costs an attempt
    RELEASED = "released"  # given back (drain, limit, recycle); costs nothing, capped
    HELD = "held"  # a person parked it
    CANCELLED = "cancelled"  # terminal


class VerdictKind(StrEnum):
    """How a submitted result was judged (`<n>.verdict`)."""

    MERGED = "merged"  # terminal: it is in the hub's target
    RETURNED = "returned"  # conflict or red gate; costs an attempt
    CANCELLED = "cancelled"  # terminal


class State(StrEnum):
    """The state of an item as people see it; each comment says who moves it out.

    Derived from cells and folders, never stored.
    """

    INCOMING = "incoming"  # the coordinator admits or rejects it
    WAITING = "waiting"  # the coordinator promotes it when its dependencies are merged or done
    READY = "ready"  # any worker claims it
    RUNNING = "running"  # its owner ends the attempt; the coordinator expires it when the owner is dead
    MERGING = "merging"  # the merger writes the verdict
    PARKED = "parked"  # a person: retry or cancel
    DONE = "done"  # terminal, without a merge
    MERGED = "merged"  # terminal
    CANCELLED = "cancelled"  # terminal
    REJECTED = "rejected"  # terminal: never became an item


TERMINAL = frozenset({State.DONE, State.MERGED, State.CANCELLED, State.REJECTED})


class CommitPolicy(StrEnum):
    REQUIRED = "required"
    OPTIONAL = "optional"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity(Record):
    """Who did it: one incarnation of one process on one host under one root. Never reused.

    Times and pids are for messages and wake-ups only; no decision follows from them without a kernel proof.
    """

    what: ClassVar[str] = "identity"
    incarnation: str
    name: str = ""
    """The slot, e.g. ``agent-1``, or ``coordinator``, ``merger.app``, ``cli``."""
    host: str = ""
    root: str = ""
    pid: int = 0
    start_ticks: int = 0
    boot_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item(Record):
    """`item.json`: the immutable snapshot of one piece of work, made at admission.

    Durations in seconds, times RFC 3339 UTC. Paths are never built from `id`, `title` or any other text of a person.
    """

    what: ClassVar[str] = "item.json"
    uid: str
    id: str
    prompt: str
    project: str
    title: str = ""
    agents: tuple[str, ...] = ()
    """The agent to use; the rest are fallbacks."""
    priority: int = 5
    deps: Mapping[str, str | None] = field(default_factory=dict)
    """id as written -> uid, resolved once at admission; None while the id is unknown."""
    optional_deps: tuple[str, ...] = ()
    convoy: str = ""
    files: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()
    """Protected paths that this item may change."""
    not_before: str | None = None
    max_attempts: int = 3
    timeout_s: float | None = None
    max_budget_usd: float | None = None
    max_budget_tokens: int | None = None
    commit: CommitPolicy = CommitPolicy.REQUIRED
    labels: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    drop: str = ""
    """The file name it came in, for messages."""
    digest: str = ""
    """sha256 of what the person wrote, canonical: the same content again is the same item."""
    admitted_at: str = ""

    @classmethod
    def _field(cls, name: str, value: Any) -> Any:
        if name == "commit":
            return CommitPolicy(value)
        return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Record):
    """`<n>.claim`: attempt n is owned. Its inode carries the owner's OFD lock and, as mtime, the heartbeat."""

    what: ClassVar[str] = "claim"
    n: int
    act: Act
    owner: Identity
    claimed_at: str = ""
    branch: str = ""

    @classmethod
    def _field(cls, name: str, value: Any) -> Any:
        if name == "act":
            return Act(value)
        return Identity.from_record({"v": VERSION, **value}) if name == "owner" else value


@dataclass(frozen=True, slots=True, kw_only=True)
class End(Record):
    """`<n>.end`: attempt n is decided. `sha` only with DONE; `nonce` proves a squash merge later."""

    what: ClassVar[str] = "end"
    n: int
    outcome: Outcome
    by: str
    reason: str = ""
    sha: str | None = None
    nonce: str | None = None
    not_before: str | None = None
    """Backoff of the next attempt: delays its hint, clamped to retry.max_delay_s from first sight."""
    ended_at: str = ""
    agent: str = ""
    """The kind of agent that ran."""
    waits: str = ""
    """Of a released attempt: what it was given back for, when that is no fault of anybody's: limit, budget, stop."""

    @classmethod
    def _field(cls, name: str, value: Any) -> Any:
        return Outcome(value) if name == "outcome" else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Record):
    """`<n>.verdict`: the submitted result of attempt n is judged. Exactly one of the three is set."""

    what: ClassVar[str] = "verdict"
    n: int
    merged: str | None = None
    """The merge commit in the hub's target."""
    returned: str | None = None
    """``conflict`` or ``gate``."""
    cancelled: str | None = None
    """Who cancelled."""
    why: str = ""
    gate: str = ""
    files: tuple[str, ...] = ()
    onto: str = ""
    evidence: str = ""
    """What the next attempt is told: titles of both sides, output of the gate. At most 16 KiB."""
    judged_at: str = ""

    @property
    def kind(self) -> VerdictKind:
        if self.merged:
            return VerdictKind.MERGED
        return VerdictKind.RETURNED if self.returned else VerdictKind.CANCELLED


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant(Record):
    """`<n>.grant`: a person allows attempt n+1 of a parked item (`0.grant`: run without waiting)."""

    what: ClassVar[str] = "grant"
    n: int
    extra: int
    by: str
    why: str = ""
    mode: str = "fresh"
    granted_at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stub(Record):
    """`done/<hh>/<uid>`: what became of a finished item; outlives the archive's roll-up.

    Never written: it is a further name of the cell that is terminal (an end, a verdict, a rejection), read this way.
    """

    what: ClassVar[str] = "stub"
    outcome: str
    """``done``, ``merged``, ``cancelled`` or ``rejected``."""
    n: int = 0
    sha: str | None = None
    day: str = ""
    """The folder of the archive it belongs to: the date, UTC, when it was decided. "" of a rejection."""

    @classmethod
    def from_record(cls, data: object, where: object = None) -> Stub:
        """Raises UnreadableRecordError, as the cell that it is would."""
        said = data if isinstance(data, Mapping) else {}
        if "rejected" in said and said.get("v") == VERSION:
            return cls(outcome=State.REJECTED.value)
        if "outcome" in said:
            return cls.of(End.from_record(data, where))
        if "merged" in said or "cancelled" in said:
            return cls.of(Verdict.from_record(data, where))
        raise UnreadableRecordError("stub says no outcome", where=where, remedy="run: harnessctl fsck")

    @classmethod
    def of(cls, cell: End | Verdict) -> Stub:
        """What a terminal cell says."""
        if isinstance(cell, End):
            return cls(outcome=cell.outcome.value, n=cell.n, sha=cell.sha, day=date_of(cell.ended_at))
        return cls(outcome=cell.kind.value, n=cell.n, sha=cell.merged, day=date_of(cell.judged_at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """All cells of attempt n, as read. `end` is None while it runs."""

    n: int
    claim: Claim | None
    end: End | None = None
    verdict: Verdict | None = None
    grant: Grant | None = None
