"""Limits of credentials: who hit one writes it down, and nobody starts anything on that credential until it is over.

``state/limits/<credential>.json``, one record, replaced atomically under a lock; readable by a person, and removable by one
(`harnessctl resume --credential NAME`): then work goes on. An agent without a credential of its own has the limits of its
name. Five kinds, kept apart: `rate`, `usage`, `overloaded` end by time; `auth` and `billing` by a person, or when the
credential's file changes.

When the service says until when, nothing starts before that moment (and up to a second later, so that not all come at once).
When it does not, the wait is 1, 2, 4 … 60 s, and after ten of them 900 s, each with jitter; afterwards one attempt alone
tries, holding a kernel lock, and the others wait for what it meets: a service that is down for a night costs one attempt's
start every quarter of an hour, not one for each item.

It is about money and politeness, not safety: a record that cannot be read limits nothing.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from harness.agents.outcomes import AgentOutcome, Auth, Billing, Overloaded, RateLimit, UsageLimit, described
from harness.atomicfs import FileLock, held, replace_file
from harness.clock import Clock, moment_of, rfc3339
from harness.config import Config, Credential, expanded
from harness.dataclass import dataclass
from harness.errors import StoreError
from harness.layout import Layout
from harness.record import VERSION, Record, dump

QUICK_TRIES = 10
LONGEST_QUICK_S = 60.0
SLOW_S = 900.0
TOLD_JITTER_S = 1.0
FARTHEST_S = 31 * 86_400.0
"""A reset that is farther away is no reset: somebody's clock or unit is wrong."""
PATIENCE_S = 2.0


class Kind(StrEnum):
    RATE = "rate"
    USAGE = "usage"
    OVERLOADED = "overloaded"
    AUTH = "auth"
    BILLING = "billing"


PERSONAL = frozenset({Kind.AUTH, Kind.BILLING})


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRecord(Record):
    """One credential's limit. Times RFC 3339."""

    what: ClassVar[str] = "limit"
    credential: str
    kind: Kind
    since: str
    until: str = ""
    """Empty: until a person has helped."""
    told: bool = False
    """The service has named the moment. Otherwise one attempt has to try whether it is over."""
    tries: int = 0
    detail: str = ""
    by: str = ""
    """``<uid>.<n>`` of who met it."""
    agent: str = ""
    secret: str = ""
    """What the credential's file looked like (inode, size, time of change): another one is another credential."""

    @classmethod
    def _field(cls, name: str, value: Any) -> Any:
        return Kind(value) if name == "kind" else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """Why nothing starts on a credential now."""

    credential: str
    kind: Kind
    until: float | None
    """Wall clock; None: not known. It ends when a person has helped, or when the attempt that tries it has an answer."""
    detail: str = ""

    def __str__(self) -> str:
        until = f" until {rfc3339(self.until)}" if self.until is not None else ""
        return f"credential {self.credential}: {self.kind.value}{until}"


class Permit:
    """May start. Who tries whether a limit is over holds its lock until `over`, and gives it back in any case."""

    def __init__(self, lock: FileLock | None) -> None:
        self._lock = lock
        self.tries = lock is not None
        """It tries whether a limit is over."""

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def limiter_of(config: Config, agent: str) -> str:
    """Whose limits an agent of config.yaml has."""
    known = config.agents.get(agent)
    return known.credential or f"agent.{agent}" if known else f"agent.{agent}"


class Limits:
    """All credentials' limits of one root. Any number of processes may each have one."""

    def __init__(self, layout: Layout, clock: Clock, *, jitter: Callable[[], float] = random.random) -> None:
        """`jitter` gives numbers from 0 to 1."""
        self._folder = layout.limits
        self._interrupts = layout.interrupts
        self._clock = clock
        self._jitter = jitter

    # ---- asking --------------------------------------------------------------------------------------------------------

    def all(self) -> list[LimitRecord]:
        """Every limit that is written down, also those that are over, by credential."""
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return []
        found = (self.read(name.removesuffix(".json")) for name in names if name.endswith(".json"))
        return [record for record in found if record is not None]

    def read(self, name: str) -> LimitRecord | None:
        try:
            record = LimitRecord.from_record(json.loads(self._path(name).read_bytes()))
            return record if record.credential == name else None
        except (OSError, ValueError, TypeError, RecursionError, StoreError):
            return None

    def blocked(self, name: str, credential: Credential | None = None) -> Blocked | None:
        """Why nothing may start on it now, or None. One open of a file that is usually not there."""
        record = self.read(name)
        return None if record is None else self._blocked(record, credential)

    def _blocked(self, record: LimitRecord, credential: Credential | None) -> Blocked | None:
        if record.kind in PERSONAL:
            if record.secret and record.secret != _look_of(credential):
                return None
            until = None
        else:
            until = moment_of(record.until)
            if until is None or until - self._clock.wall() > FARTHEST_S:
                return None
            if until <= self._clock.wall():
                if record.told or not held(self._probe(record.credential)):
                    return None
                until = None
        return Blocked(credential=record.credential, kind=record.kind, until=until, detail=record.detail)

    def choose(self, config: Config, agents: Iterable[str]) -> tuple[str | None, Blocked | None]:
        """The first of `agents` that may start; otherwise the limit that is over first."""
        soonest: Blocked | None = None
        for agent in agents:
            limit = self.blocked(limiter_of(config, agent), config.credential_of(agent))
            if limit is None:
                return agent, None
            if soonest is None or _sooner(limit, soonest):
                soonest = limit
        return None, soonest

    def start(self, name: str, credential: Credential | None = None) -> Permit | Blocked:
        """To be asked right before a tool starts; of many that ask after a limit of unknown end, one may."""
        record = self.read(name)
        if record is None:
            return Permit(None)
        limit = self._blocked(record, credential)
        if limit is not None:
            return limit
        if record.told or record.kind in PERSONAL:
            self._forget(record)
            return Permit(None)
        lock = FileLock(self._probe(name))
        if lock.try_lock():
            again = self.read(name)  # it may have been met, or found to be over, while we took the lock
            if again is None or again == record:
                return Permit(lock)
            lock.close()
        return Blocked(credential=name, kind=record.kind, until=None, detail=record.detail)

    # ---- telling -------------------------------------------------------------------------------------------------------

    def met(
        self,
        name: str,
        outcome: AgentOutcome,
        *,
        started_at: float,
        by: str = "",
        agent: str = "",
        credential: Credential | None = None,
    ) -> LimitRecord | None:
        """A run that began at `started_at` ended by a limit: it is written down, once for all that ran beside each other.

        -> what holds now, or None: `outcome` is no limit. Raises OSError.
        """
        kind, told = _kind_of(outcome)
        if kind is None:
            return None
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with self._locked(name):
            old = self.read(name)
            record = self._next(
                old if old and self._holds(old) else None,
                LimitRecord(
                    credential=name,
                    kind=kind,
                    since=rfc3339(self._clock.wall()),
                    detail=described(outcome)[:500],
                    by=by,
                    agent=agent,
                    secret=_look_of(credential) if kind in PERSONAL else "",
                ),
                told,
                started_at,
            )
            if record != old:
                replace_file(self._path(name), record.to_bytes(), durable=False, mode=0o600)
                if kind in PERSONAL:
                    self._ask(record)
        return record

    def _ask(self, record: LimitRecord) -> None:
        """A file for whoever looks there for what waits for a person."""
        question = {
            "v": VERSION,
            "kind": "credential",
            "credential": record.credential,
            "what": f"credential {record.credential} is refused ({record.kind.value}): {record.detail}",
            "remedy": f"repair it; a changed file is noticed, otherwise: harnessctl resume --credential {record.credential}",
            "agent": record.agent,
            "by": record.by,
            "raised_at": record.since,
        }
        self._interrupts.mkdir(mode=0o700, exist_ok=True)
        replace_file(self._question(record.credential), dump(question), durable=False, mode=0o600)

    def answered(self, name: str, started_at: float) -> bool:
        """The service has answered a run that began at `started_at`: a limit that was met before is gone, one that was
        met since (by another) holds. -> whether there was one to forget."""
        record = self.read(name)
        if record is None or (moment_of(record.since) or 0.0) > started_at:
            return False
        return self._forget(record)

    def over(self, name: str) -> bool:
        """A person says so. -> whether there was one."""
        record = self.read(name)
        return record is not None and self._forget(record)

    def _forget(self, record: LimitRecord) -> bool:
        """Not when there is another one by now."""
        with self._locked(record.credential):
            if self.read(record.credential) != record:
                return False
            self._path(record.credential).unlink(missing_ok=True)
            self._question(record.credential).unlink(missing_ok=True)
        return True

    def _holds(self, old: LimitRecord) -> bool:
        """An old record still says something: of one that ended long ago no tries are counted on."""
        until = moment_of(old.until)
        return old.kind in PERSONAL or (until is not None and self._clock.wall() - until < 2 * SLOW_S)

    def _next(
        self, old: LimitRecord | None, new: LimitRecord, told: float | None, started_at: float
    ) -> LimitRecord:
        now = self._clock.wall()
        if new.kind in PERSONAL:
            return old if old is not None and old.kind is new.kind and old.secret == new.secret else new
        if old is not None and old.kind in PERSONAL:
            return old
        running = old is not None and (moment_of(old.until) or 0.0) > now
        if told is not None and now < told <= now + FARTHEST_S:
            if old is not None and running and old.told and (moment_of(old.until) or 0.0) >= told:
                return old
            return _with(new, until=told + TOLD_JITTER_S * self._jitter(), told=True, tries=0)
        if old is not None and (running or (moment_of(old.since) or 0.0) > started_at):
            return old  # the same incident, met by another
        tries = (old.tries if old is not None else 0) + 1
        step = min(LONGEST_QUICK_S, 2.0 ** (tries - 1)) if tries <= QUICK_TRIES else SLOW_S
        return _with(new, until=now + step * (0.75 + 0.5 * self._jitter()), told=False, tries=tries)

    # ---- small ---------------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _question(self, name: str) -> Path:
        return self._interrupts / f"credential.{name}.json"

    def _probe(self, name: str) -> Path:
        return self._folder / f"{name}.probe"

    def _locked(self, name: str) -> FileLock:
        """Held for two file operations by each. Whoever cannot have it goes on without: it is about money."""
        lock = FileLock(self._folder / f"{name}.lock")
        lock.lock(PATIENCE_S)
        return lock


def _with(record: LimitRecord, *, until: float, told: bool, tries: int) -> LimitRecord:
    data = record.to_record() | {"until": rfc3339(until), "told": told, "tries": tries}
    return LimitRecord.from_record(data)


def _kind_of(outcome: AgentOutcome) -> tuple[Kind | None, float | None]:
    """-> (the kind of limit, when it ends if that was told)"""
    match outcome:
        case RateLimit(resume_at=until):
            return Kind.RATE, until
        case UsageLimit(resets_at=until):
            return Kind.USAGE, until
        case Overloaded():
            return Kind.OVERLOADED, None
        case Auth():
            return Kind.AUTH, None
        case Billing():
            return Kind.BILLING, None
        case _:
            return None, None


def _sooner(a: Blocked, b: Blocked) -> bool:
    return a.until is not None and (b.until is None or a.until < b.until)


def _look_of(credential: Credential | None) -> str:
    """Whether a file is still the same, without its contents; "" when there is none to look at."""
    if credential is None or credential.file is None:
        return ""
    try:
        seen = os.stat(expanded(credential.file))
    except OSError:
        return "missing"
    return f"{seen.st_dev}:{seen.st_ino}:{seen.st_size}:{seen.st_mtime_ns}"
