"""harnessctl spend"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from harness.cli.output import emit, say, table
from harness.cli.verb import Invocation, invoked, json_option, verb
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.control.spending import Spending

KINDS = ("day", "project", "convoy", "agent", "item")
NONE = "(none)"


@verb("spend", example="$ harnessctl spend\n$ harnessctl spend --by project --since 2027-01-01 --json")
@click.option(
    "--by", type=click.Choice(KINDS), default="day", show_default=True, help="What each line is of."
)
@click.option("--since", default="", metavar="DAY", help="From this day on (UTC): 2027-01-31.")
@json_option
@invoked
def spend(here: Invocation, by: str, since: str, as_json: bool) -> None:
    """What the agents have cost, by day, project, convoy, agent or item."""
    from harness.control.spending import By, spending

    rows, total = spending(here.layout(), By(by), _day(since))
    if as_json:
        emit({"by": by, "since": since or None, "rows": [_told(r) for r in rows], "total": _told(total)})
        return
    if not rows:
        say("nothing was spent, as far as tools have told" + (f", since {since}" if since else ""))
        return
    lines = [_cells(row, row.key or NONE) for row in rows]
    if len(rows) > 1:
        lines.append(_cells(total, "all"))
    table(lines, (by, "USD", "tokens", "runs", "", ""))


def _day(since: str) -> str:
    from datetime import date

    try:
        return date.fromisoformat(since).isoformat() if since else ""
    except ValueError:
        raise UsageError(f"{since!r} is no day", where="--since", remedy="write 2027-01-31") from None


def _told(row: Spending) -> dict[str, object]:
    rounded = {"usd": round(row.usd, 6), "estimated_usd": round(row.estimated_usd, 6)}
    return asdict(row) | rounded


def _cells(row: Spending, name: str) -> tuple[str, ...]:
    estimated = f"{row.estimated_usd:.2f} USD estimated" if row.estimated_usd else ""
    unpriced = f"{row.unpriced} runs without a price" if row.unpriced else ""
    return (name, f"{row.usd:.2f}", str(row.tokens), str(row.runs), estimated, unpriced)
