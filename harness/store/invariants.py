"""The invariants of one item: what the cells in its folder may say together (PROTOCOL, section 8).

Pure but for `read_cells`, which reads the folder. A folder that moves while it is read looks broken: who checks a
store that runs believes only what it sees twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import TypeVar

from harness.dataclass import dataclass
from harness.errors import StoreError
from harness.model import (
    Act,
    Attempt,
    Claim,
    End,
    Grant,
    Item,
    Outcome,
    Record,
    Verdict,
    VerdictKind,
)
from harness.store.cells import needs_merge, parking_reason
from harness.store.disk import Disk

R = TypeVar("R", bound=Record)
CELL = re.compile(r"(0|[1-9][0-9]{0,8})\.(claim|end|verdict|grant)\Z")
Problem = tuple[str, str, str]
"""(invariant, file name in the item's folder or "", what is wrong)"""


@dataclass(slots=True)
class Cells:
    """One item's folder, as read."""

    uid: str
    item: Item | None = None
    claims: dict[int, Claim] = field(default_factory=dict)
    ends: dict[int, End] = field(default_factory=dict)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    grants: dict[int, Grant] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """1 .. the highest number."""
        last = max((*self.claims, *self.ends), default=0)
        return tuple(
            Attempt(
                n=n,
                claim=self.claims.get(n),
                end=self.ends.get(n),
                verdict=self.verdicts.get(n),
                grant=self.grants.get(n),
            )
            for n in range(1, last + 1)
        )

    @property
    def whole(self) -> bool:
        """Could everything be read?"""
        return not any(invariant in ("I3", "I4") for invariant, _, _ in self.problems)

    def is_closed(self, n: int) -> bool:
        """Is attempt n decided, and its result judged if it needs that? (0: always)"""
        end = self.ends.get(n)
        if n == 0:
            return True
        if end is None or self.item is None:
            return False
        return not needs_merge(self.item, end) or n in self.verdicts

    def outcome(self, n: int) -> tuple[str, str | None] | None:
        """(outcome, sha) as a stub says it, when attempt n is terminal."""
        end, verdict = self.ends.get(n), self.verdicts.get(n)
        if end is None or self.item is None:
            return None
        if needs_merge(self.item, end):
            if verdict and verdict.kind is not VerdictKind.RETURNED:
                return verdict.kind.value, verdict.merged
            return None
        return (end.outcome.value, end.sha) if end.outcome in (Outcome.DONE, Outcome.CANCELLED) else None

    def terminal(self) -> list[int]:
        return [n for n in sorted(self.ends) if self.outcome(n)]


def read_cells(disk: Disk, home: str, uid: str) -> Cells:
    """Read everything by name; what cannot be read, or does not belong there, becomes a problem."""
    cells = Cells(uid=uid)
    names = disk.do_ls(home) or ()
    cells.item = _read(disk, home, "item.json", Item, cells, "I3")
    if cells.item is None and not cells.problems:
        cells.problems.append(("I3", "item.json", "there is no item.json"))
    elif cells.item and cells.item.uid != uid:
        cells.problems.append(("I3", "item.json", f"says that it is {cells.item.uid}"))
    for name in names:
        match = CELL.match(name)
        if not match:
            if name not in ("item.json", "why.json", "batch") and not name.startswith("raw."):
                cells.problems.append(("foreign", name, "does not belong into the folder of an item"))
            continue
        n = int(match[1])
        match match[2]:
            case "claim":
                _keep(cells.claims, n, _read(disk, home, name, Claim, cells))
            case "end":
                _keep(cells.ends, n, _read(disk, home, name, End, cells))
            case "verdict":
                _keep(cells.verdicts, n, _read(disk, home, name, Verdict, cells))
            case _:
                _keep(cells.grants, n, _read(disk, home, name, Grant, cells))
    for kind in (cells.claims, cells.ends, cells.verdicts, cells.grants):
        for n, record in kind.items():
            if record.n != n:
                cells.problems.append(("I4", f"{n}.{record.what}", f"says that it is of attempt {record.n}"))
    return cells


def _keep(into: dict[int, R], n: int, record: R | None) -> None:
    if record is not None:
        into[n] = record


def _read(disk: Disk, home: str, name: str, kind: type[R], cells: Cells, invariant: str = "I4") -> R | None:
    try:
        record = disk.do_read(f"{home}/{name}", kind)
    except (StoreError, OSError) as e:  # OSError: a symbolic link, a folder, no permission
        what = e.what if isinstance(e, StoreError) else e.strerror or str(e)
        cells.problems.append((invariant, name, what))
        return None
    return record if isinstance(record, kind) else None


def broken(cells: Cells) -> list[Problem]:
    """Everything that is wrong with the cells of one item, wherever the item is. Unreadable cells are not said twice."""
    if not cells.whole:
        return list(cells.problems)  # what follows from a hole would only hide it
    found = list(cells.problems)
    for rule in _RULES:
        found += rule(cells)
    return found


def _chain(cells: Cells) -> Iterator[Problem]:
    """I2: claims are 1..k, ends 1..k or 1..k-1."""
    claims, ends = sorted(cells.claims), sorted(n for n in cells.ends if n)
    if claims != list(range(1, len(claims) + 1)):
        yield "I2", "", f"the claims are {claims}, not 1 to {len(claims)}"
    if ends != list(range(1, len(ends) + 1)) or not len(claims) - 1 <= len(ends) <= len(claims):
        yield "I2", "", f"the ends are {ends} of the claims {claims}"


def _one_life(cells: Cells) -> Iterator[Problem]:
    """I5: at most one terminal cell, nothing after it."""
    terminal = cells.terminal()
    if len(terminal) > 1:
        yield "I5", f"{terminal[1]}.end", f"a second terminal cell, {terminal[0]} is one already"
    elif terminal and max(cells.claims, default=0) > terminal[0]:
        later = max(cells.claims)
        yield "I5", f"{later}.claim", f"claimed although attempt {terminal[0]} was terminal"


def _order(cells: Cells) -> Iterator[Problem]:
    """I11: verdicts only of submitted results, grants and further claims only of closed attempts that are not terminal."""
    for n, _ in sorted(cells.verdicts.items()):
        end = cells.ends.get(n)
        if end is None or cells.item is None or not needs_merge(cells.item, end):
            yield "I11", f"{n}.verdict", "a verdict of an attempt that submitted nothing"
    for n in sorted(cells.grants):
        if n and (not cells.is_closed(n) or cells.outcome(n)):
            yield "I11", f"{n}.grant", "a grant of an attempt that is not closed, or terminal"
    for n in sorted(cells.claims):
        if n > 1 and not cells.is_closed(n - 1):
            yield "I11", f"{n}.claim", f"claimed although attempt {n - 1} is not closed"


def _allowed(cells: Cells) -> Iterator[Problem]:
    """I13: what runs was not parked, or a person allowed it."""
    if cells.item is None:
        return
    attempts = cells.attempts
    for n in sorted(cells.claims):
        if cells.claims[n].act is not Act.RUN or n < 2 or n - 1 in cells.grants:
            continue
        if len(attempts) >= n - 1 and all(a.end for a in attempts[: n - 1]):
            why = parking_reason(cells.item, attempts[: n - 1])
            if why:
                yield "I13", f"{n}.claim", f"runs although it was parked: {why}"


def _act_done(cells: Cells) -> Iterator[Problem]:
    """PROTOCOL, section 4: an operator's claim ends by its act."""
    expected = {Act.HOLD: Outcome.HELD, Act.CANCEL: Outcome.CANCELLED}
    for n, claim in sorted(cells.claims.items()):
        end = cells.ends.get(n)
        if claim.act in expected and end and end.outcome is not expected[claim.act]:
            yield "I13", f"{n}.end", f"{end.outcome.value}, but the claim was made to {claim.act.value}"


_RULES: tuple[Callable[[Cells], Iterator[Problem]], ...] = (_chain, _one_life, _order, _allowed, _act_done)
