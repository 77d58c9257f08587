"""What `add` and `submit` share: drop, hear the decision, say it, and perhaps follow the items to their end."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.cli.output import emit, say
from harness.cli.verb import Invocation
from harness.cli.wait import TIMED_OUT, follow
from harness.errors import TryAgainError
from harness.terminal import printable

if TYPE_CHECKING:
    from harness.control.desk import Desk
    from harness.control.dropping import Dropped, Ticket

F = TypeVar("F", bound=Callable[..., Any])
_PLACE = re.compile(r"^line \d+, column \d+: ")
ADMISSION_S = 10.0
"""A running coordinator admits within milliseconds; one that recovers, or is swamped, needs longer."""


def following_options(function: F) -> F:
    for option in (
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(min=0),
            default=None,
            metavar="S",
            help="With --wait: give up after so many seconds, with exit code 75.",
        ),
        click.option(
            "--wait", "wait", is_flag=True, help="Follow to the end: 0 merged or done, 1 needs a person."
        ),
    ):
        function = option(function)
    return function


def drop_all(
    here: Invocation,
    desk: Desk,
    sources: list[tuple[str, str, bytes]],
    *,
    wait: bool,
    timeout_s: float | None,
    as_json: bool,
) -> int:
    """Drop (source, name, bytes) each. -> exit code: 0 admitted (or to be admitted), 1 something was rejected."""
    from harness.control import dropping, hearing
    from harness.control.dropping import Dropped, Fate

    running = desk.coordinator() is not None
    fates: list[Dropped] = []
    tickets: list[Ticket] = []
    for source, name, raw in sources:
        expected, reasons = ((), ()) if running else dropping.check(desk, name, raw)
        if reasons:
            fates.append(Dropped(source=source, name="", fate=Fate.REJECTED, reasons=reasons))
        else:
            tickets.append(dropping.put(desk, source, name, raw, expected))
    if running or wait:
        if not running:
            here.note("no coordinator runs; waiting for one (harnessctl run)")
        limit = timeout_s if wait and timeout_s is not None else ADMISSION_S if running else None
        fates += _followed(desk, tickets, limit)
    else:
        fates += [hearing.undecided(ticket) for ticket in tickets]
    if not as_json:
        for fate in fates:
            _tell(here, fate, running)
    results: list[dict[str, Any]] = []
    code = 1 if any(f.fate in (Fate.REJECTED, Fate.GONE) for f in fates) else 0
    if wait:
        uids = [new.uid for fate in fates for new in fate.items if new.uid]
        ended = follow(here, desk, uids, timeout_s, results if as_json else None)
        late = any(f.fate is Fate.DROPPED for f in fates)
        code = code or (TIMED_OUT if late else ended)
    if as_json:
        emit({"drops": [_result(fate) for fate in fates], **({"items": results} if wait else {})})
    elif running and any(f.fate is Fate.DROPPED for f in fates) and code == 0:
        raise TryAgainError(
            f"the coordinator has not admitted it within {ADMISSION_S:.0f} s; it stays in the drop box",
            where=desk.layout.queue,
            remedy="see: harnessctl status",
        )
    return code


def _followed(desk: Desk, tickets: list[Ticket], limit_s: float | None) -> list[Dropped]:
    from harness.control import hearing

    order = {ticket.name: k for k, ticket in enumerate(tickets)}
    found = hearing.follow(desk, tickets, float("inf") if limit_s is None else limit_s)
    return sorted(found, key=lambda fate: order[fate.name])


def _tell(here: Invocation, fate: Dropped, running: bool) -> None:
    from harness.control.dropping import Fate

    label = fate.source or fate.name
    if fate.fate is Fate.REJECTED:
        # Words from a command line have no lines that a person could look at.
        reasons = [r if fate.source else _PLACE.sub("", r) for r in fate.reasons]
        listed = "".join(f"\n  - {reason}" for reason in reasons)
        click.echo(f"harnessctl: {printable(label or 'the item')}: rejected:{printable(listed)}", err=True)
        return
    if fate.fate is Fate.GONE:
        click.echo(f"harnessctl: queue/{printable(fate.name)}: somebody took it out again", err=True)
        return
    for new in fate.items:
        if here.quiet:
            say(new.uid or new.id)
        else:
            say(f"{new.id}  {new.uid}" if new.uid else new.id)
    if fate.fate is Fate.EXISTS:
        here.note(f"{label}: nothing new: the same work is here already")
    elif fate.fate is Fate.DROPPED and not running:
        here.note(f"queue/{fate.name}: will be admitted when a coordinator runs (harnessctl run)")


def _result(fate: Dropped) -> dict[str, Any]:
    return {
        "source": fate.source,
        "drop": fate.name,
        "state": fate.fate.value,
        "items": [{"id": new.id, "uid": new.uid or None} for new in fate.items],
        "reasons": list(fate.reasons),
    }
