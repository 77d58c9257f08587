"""What was spent, by day, project, convoy, agent or item: the lines of the ledger, added up."""

from __future__ import annotations

from enum import StrEnum

from harness.dataclass import dataclass
from harness.layout import Layout
from harness.spend import entries
from harness.totals import Entry, Kind

SINCE = r"\d{4}-\d\d-\d\d"


class By(StrEnum):
    """What a row is of."""

    DAY = "day"
    PROJECT = "project"
    CONVOY = "convoy"
    AGENT = "agent"
    ITEM = "item"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What runs of tools have used. `key`: of which day, project … ("": of none); an item's is its uid."""

    key: str
    usd: float = 0.0
    tokens: int = 0
    runs: int = 0
    estimated_usd: float = 0.0
    """The part of `usd` of runs that were ended before their tool could say."""
    unpriced: int = 0
    """Runs that told tokens whose model has no price: in no budget in USD."""

    def plus(self, entry: Entry) -> Spending:
        """With one more run."""
        usd = entry.usd or 0.0
        return Spending(
            key=self.key,
            usd=self.usd + usd,
            tokens=self.tokens + (entry.tokens or 0),
            runs=self.runs + 1,
            estimated_usd=self.estimated_usd + (usd if entry.estimated else 0.0),
            unpriced=self.unpriced + (entry.usd is None),
        )


def spending(layout: Layout, by: By = By.DAY, since: str = "") -> tuple[tuple[Spending, ...], Spending]:
    """-> (a row for each key, days in order, the rest the most expensive first; all of them together).

    `since`: a day, UTC. A run counts once. Raises OSError.
    """
    rows: dict[str, Spending] = {}
    total = Spending(key="")
    seen: set[tuple[str, int, int]] = set()
    for entry in entries(layout, since):
        mark = (entry.uid, entry.n, entry.round)
        if entry.kind is not Kind.SPENT or mark in seen:
            continue
        seen.add(mark)
        key = _key(entry, by)
        rows[key] = rows.get(key, Spending(key=key)).plus(entry)
        total = total.plus(entry)
    if by is By.DAY:
        return tuple(rows[key] for key in sorted(rows)), total
    return tuple(sorted(rows.values(), key=lambda row: (-row.usd, -row.tokens, row.key))), total


def _key(entry: Entry, by: By) -> str:
    match by:
        case By.DAY:
            return entry.day
        case By.PROJECT:
            return entry.project
        case By.CONVOY:
            return entry.convoy
        case By.AGENT:
            return entry.agent
        case By.ITEM:
            return entry.uid
