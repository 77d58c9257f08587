"""harnessctl sessions, and how a session's numbers look"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from harness.cli.completing import complete_items
from harness.cli.output import emit, say, table
from harness.cli.verb import Invocation, invoked, json_option, verb

if TYPE_CHECKING:
    from harness.control.sessions import Found
    from harness.sessionrecord import Spent

SHOWN = 50


@verb("sessions", example="$ harnessctl sessions --running\n$ harnessctl sessions --item fix-login --json")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=SHOWN,
    show_default=True,
    metavar="N",
    help="At most so many; 0 for all.",
)
@click.option(
    "--item", default="", metavar="ID", shell_complete=complete_items, help="Sessions about this item."
)
@click.option("--agent", default="", metavar="NAME", help="Of this agent, as config.yaml names it.")
@click.option("--running", is_flag=True, help="Those that a worker has in hand now.")
@json_option
@invoked
def sessions(here: Invocation, limit: int, item: str, agent: str, running: bool, as_json: bool) -> None:
    """List what agents did, newest first: rounds, outcome, tokens, cost."""
    from harness.control.sessions import listed

    with here.desk() as desk:
        every = listed(desk, item=item, agent=agent, running=running)
        found = list(islice(every, limit + 1 if limit else None))
    cut = bool(limit) and len(found) > limit
    shown = found[:limit] if cut else found
    if as_json:
        emit({"sessions": [summary(one) for one in shown], "truncated": cut})
        return
    if not shown:
        say("no sessions" + (" that match" if item or agent or running else ": no agent has run yet"))
        return
    head = ("item", "session", "agent", "rounds", "attempts", "last", "turns", "tokens", "cost", "started")
    table([_row(one) for one in shown], head)
    if cut:
        here.note(f"only the first {limit}; all of them: --limit 0")


def _row(found: Found) -> tuple[str, ...]:
    record = found.record
    if record is None:
        return ("?", found.name, "", str(found.rounds), "", "summary.json cannot be read", "", "", "", "")
    used = record.used
    return (
        record.item,
        found.name,
        record.agent,
        str(len(record.runs)),
        str(len(attempts_of(found))),
        state_of(found),
        "" if used.turns is None else str(used.turns),
        tokens(used),
        cost(used),
        record.runs[0].started_at if record.runs else "",
    )


def summary(found: Found) -> dict[str, Any]:
    """One session in a list, as JSON."""
    record = found.record
    runs = record.runs if record else ()
    return {
        "session": found.name,
        "id": record.item if record else None,
        "uid": found.uid,
        "project": record.project if record else "",
        "agent": record.agent if record else None,
        "adapter": record.adapter if record else None,
        "conversation": (record.conversation if record else "") or None,
        "readable": record is not None,
        "running": bool(found.slot),
        "slot": found.slot or None,
        "rounds": found.rounds,
        "attempts": attempts_of(found),
        "last_outcome": (runs[-1].outcome if runs else "") or None,
        "usage": usage(record.used) if record else None,
        "started_at": runs[0].started_at if runs else None,
        "folder": found.place,
    }


def attempts_of(found: Found) -> list[str]:
    """``<uid>.<n>`` of the attempts that worked in it."""
    return list(dict.fromkeys(run.attempt for run in found.record.runs)) if found.record else []


def state_of(found: Found) -> str:
    """The last outcome in words, or that it runs."""
    if found.slot:
        return f"running on {found.slot}"
    runs = found.record.runs if found.record else ()
    return (runs[-1].outcome or "broken off") if runs else "not begun"


def usage(used: Spent) -> dict[str, Any]:
    """As JSON; null: not known."""
    return {
        "tokens_in": used.tokens_in,
        "tokens_cached": used.tokens_cached,
        "tokens_out": used.tokens_out,
        "cost_usd": used.cost_usd,
        "turns": used.turns,
        "estimated": used.estimated,
    }


def tokens(used: Spent) -> str:
    """``12.3k in, 840 out``, or ""."""
    if used.tokens_in is None and used.tokens_out is None:
        return ""
    mark = "~" if used.estimated else ""
    return f"{mark}{short(used.tokens_in or 0)} in, {mark}{short(used.tokens_out or 0)} out"


def cost(used: Spent) -> str:
    """``$0.25``; with ``~`` when a part of it is estimated."""
    return "" if used.cost_usd is None else f"{'~' if used.estimated else ''}${used.cost_usd:.2f}"


def short(number: float) -> str:
    """``950``, ``12.3k``, ``4.1M``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(int(number))
