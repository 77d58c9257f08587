"""What the lines of the ledger add up to. Pure: the same lines in the same order, whoever adds them, are the same sums.

Of a line that says nothing (torn, of a newer version) nothing is taken. A run is counted once, by its attempt and round. What
is known of single attempts is kept until their item is over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any

from harness.budgets import NOTHING, Amount
from harness.dataclass import dataclass

DAYS = 32
"""Sums of single days that are kept. More are told by the lines themselves."""


class Kind(StrEnum):
    RESERVE = "reserve"  # an attempt may spend so much (more)
    SPENT = "spent"  # one run of a tool has used so much
    RELEASE = "release"  # the attempt, or (`over`) its item, has ended: nothing is reserved for it any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line. `usd` and `tokens` of None: not known."""

    t: str
    """RFC 3339."""
    kind: Kind
    uid: str
    n: int
    round: int = 0
    project: str = ""
    convoy: str = ""
    agent: str = ""
    usd: float | None = None
    tokens: int | None = None
    estimated: bool = False
    over: bool = False

    @property
    def amount(self) -> Amount:
        return Amount(usd=self.usd or 0.0, tokens=self.tokens or 0)

    @property
    def day(self) -> str:
        return self.t[:10]

    def to_line(self) -> bytes:
        """Without what is not known, and what is no news."""
        said: dict[str, Any] = {"t": self.t, "kind": self.kind.value, "uid": self.uid, "n": self.n}
        for name in ("round", "project", "convoy", "agent"):
            said |= {name: value} if (value := getattr(self, name)) else {}
        for name in ("usd", "tokens"):
            said |= {name: value} if (value := getattr(self, name)) is not None else {}
        for name in ("estimated", "over"):
            said |= {name: True} if getattr(self, name) else {}
        return json.dumps(said).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Entry | None:
        """None when the line is none of ours, or damaged."""
        try:
            said = json.loads(line)
            usd, tokens = said.get("usd"), said.get("tokens")
            entry = cls(
                t=str(said["t"]),
                kind=Kind(said["kind"]),
                uid=str(said["uid"]),
                n=int(said["n"]),
                round=int(said.get("round", 0)),
                project=str(said.get("project", "")),
                convoy=str(said.get("convoy", "")),
                agent=str(said.get("agent", "")),
                usd=None if usd is None else float(usd),
                tokens=None if tokens is None else int(tokens),
                estimated=said.get("estimated") is True,
                over=said.get("over") is True,
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return None
        return (
            entry
            if math.isfinite(entry.amount.usd) and entry.amount.usd >= 0 <= entry.amount.tokens
            else None
        )


@dataclass(slots=True)
class AttemptSum:
    reserved: Amount = NOTHING
    spent: Amount = NOTHING
    rounds: set[int] = field(default_factory=set)
    """Of the session, those that were counted."""

    @property
    def held(self) -> Amount:
        """Reserved, and not spent yet."""
        return self.reserved.less(self.spent)


@dataclass(slots=True)
class ItemSum:
    """Of an item that is not over."""

    project: str = ""
    convoy: str = ""
    spent: Amount = NOTHING
    attempts: dict[int, AttemptSum] = field(default_factory=dict)


@dataclass(slots=True)
class Totals:
    all: Amount = NOTHING
    days: dict[str, Amount] = field(default_factory=dict)
    projects: dict[str, Amount] = field(default_factory=dict)
    convoys: dict[str, Amount] = field(default_factory=dict)
    items: dict[str, ItemSum] = field(default_factory=dict)
    reserving: set[tuple[str, int]] = field(default_factory=set)
    """Attempts that have reserved something and were not released."""

    def take(self, entry: Entry) -> None:
        """Add one line."""
        if entry.kind is Kind.RELEASE:
            self._release(entry)
            return
        item = self.items.setdefault(entry.uid, ItemSum(project=entry.project, convoy=entry.convoy))
        attempt = item.attempts.setdefault(entry.n, AttemptSum())
        if entry.kind is Kind.RESERVE:
            attempt.reserved = attempt.reserved.plus(entry.amount)
            self.reserving.add((entry.uid, entry.n))
        elif entry.round not in attempt.rounds:
            attempt.rounds.add(entry.round)
            attempt.spent = attempt.spent.plus(entry.amount)
            item.spent = item.spent.plus(entry.amount)
            self._count(entry)

    def _count(self, entry: Entry) -> None:
        self.all = self.all.plus(entry.amount)
        for sums, key in (
            (self.days, entry.day),
            (self.projects, entry.project),
            (self.convoys, entry.convoy),
        ):
            if key:
                sums[key] = sums.get(key, NOTHING).plus(entry.amount)
        while len(self.days) > DAYS:
            del self.days[min(self.days)]

    def _release(self, entry: Entry) -> None:
        item = self.items.get(entry.uid)
        if entry.over:
            self.items.pop(entry.uid, None)
            self.reserving = {(uid, n) for uid, n in self.reserving if uid != entry.uid}
        elif item is not None and entry.n in item.attempts:
            item.attempts[entry.n].reserved = NOTHING
            self.reserving.discard((entry.uid, entry.n))

    def attempt(self, uid: str, n: int) -> AttemptSum | None:
        item = self.items.get(uid)
        return item.attempts.get(n) if item else None

    def holding(self) -> Iterator[tuple[str, int, ItemSum, Amount]]:
        """(uid, n, item, what is reserved and not spent) of each attempt that was not released."""
        for uid, n in self.reserving:
            item = self.items[uid]
            yield uid, n, item, item.attempts[n].held

    # ---- kept --------------------------------------------------------------------------------------------------------

    def to_record(self) -> dict[str, Any]:
        return {
            "all": _pair(self.all),
            "days": {k: _pair(v) for k, v in self.days.items()},
            "projects": {k: _pair(v) for k, v in self.projects.items()},
            "convoys": {k: _pair(v) for k, v in self.convoys.items()},
            "items": {
                uid: [
                    item.project,
                    item.convoy,
                    _pair(item.spent),
                    {
                        n: [_pair(a.reserved), _pair(a.spent), sorted(a.rounds)]
                        for n, a in item.attempts.items()
                    },
                ]
                for uid, item in self.items.items()
            },
            "reserving": sorted(self.reserving),
        }

    @classmethod
    def from_record(cls, data: Mapping[str, Any]) -> Totals:
        """Raises KeyError, TypeError, ValueError or AttributeError for what `to_record` has not made."""
        items = {}
        for uid, (project, convoy, spent, attempts) in data["items"].items():
            items[uid] = ItemSum(project=project, convoy=convoy, spent=_amount(spent))
            for n, (reserved, own, rounds) in attempts.items():
                items[uid].attempts[int(n)] = AttemptSum(
                    reserved=_amount(reserved), spent=_amount(own), rounds=set(rounds)
                )
        made = cls(
            all=_amount(data["all"]),
            days={k: _amount(v) for k, v in data["days"].items()},
            projects={k: _amount(v) for k, v in data["projects"].items()},
            convoys={k: _amount(v) for k, v in data["convoys"].items()},
            items=items,
            reserving={(uid, int(n)) for uid, n in data["reserving"]},
        )
        if any(made.attempt(uid, n) is None for uid, n in made.reserving):
            raise ValueError("an attempt that nothing is known of")
        return made


def _pair(amount: Amount) -> list[float]:
    return [amount.usd, amount.tokens]


def _amount(pair: list[Any]) -> Amount:
    usd, tokens = pair
    return Amount(usd=float(usd), tokens=int(tokens))
