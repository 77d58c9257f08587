"""harnessctl items, and the filters that verbs share"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.cli.output import age, emit, say, table
from harness.cli.verb import Invocation, invoked, json_option, verb
from harness.model import State

if TYPE_CHECKING:
    from harness.control.choosing import Filter
    from harness.store.view import Seen

F = TypeVar("F", bound=Callable[..., Any])
SHOWN = 200


def filter_options(function: F) -> F:
    """--state, --project, --convoy, --label: all that is given must hold."""
    for option in (
        click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Items with this label."),
        click.option("--convoy", default="", metavar="NAME", help="Items of this convoy."),
        click.option("--project", default="", metavar="NAME", help="Items of this project."),
        click.option(
            "--state",
            "states",
            multiple=True,
            metavar="STATE",
            type=click.Choice([state.value for state in State]),
            help=f"Items in this state; may be repeated. One of {', '.join(State)}.",
        ),
    ):
        function = option(function)
    return function


def labels_of(labels: tuple[str, ...]) -> dict[str, str]:
    """KEY=VALUE of each --label. Raises UsageError."""
    pairs = {}
    for label in labels:
        key, equals, value = label.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--label {label!r} is not KEY=VALUE")
        pairs[key] = value
    return pairs


def filter_of(
    states: tuple[str, ...], project: str, convoy: str, labels: tuple[str, ...], everything: bool = False
) -> Filter:
    """The filter that the options describe."""
    from harness.control.choosing import Filter

    return Filter(
        states=frozenset(State(s) for s in states),
        project=project,
        convoy=convoy,
        labels=labels_of(labels),
        everything=everything,
    )


@verb("items", example="$ harnessctl items --state parked\n$ harnessctl items --all --project app --json")
@filter_options
@click.option(
    "--all", "everything", is_flag=True, help="Also what is over: merged, done, cancelled, rejected."
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=None,
    metavar="N",
    help=f"At most so many; 0 for all. Default: {SHOWN}, with --json all.",
)
@json_option
@invoked
def items(
    here: Invocation,
    states: tuple[str, ...],
    project: str,
    convoy: str,
    labels: tuple[str, ...],
    everything: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """List items, those that are not over."""
    from harness.control import choosing
    from harness.control.holdups import Holdups

    wanted = filter_of(states, project, convoy, labels, everything)
    count = (0 if as_json else SHOWN) if limit is None else limit
    with here.desk() as desk:
        told = map(Holdups(desk).told, choosing.items(desk, wanted))
        found = list(islice(told, count + 1 if count else None))
        now = desk.clock.wall()
    cut = bool(count) and len(found) > count
    shown = found[:count] if cut else found
    if as_json:
        emit({"items": [summary(seen) for seen in shown], "truncated": cut})
        return
    rows = [
        (
            seen.id,
            seen.state.value,
            str(seen.last.n) if seen.last else "",
            str(seen.item.priority) if seen.item else "",
            seen.item.project if seen.item else "",
            age(seen.item.admitted_at, now) if seen.item else "",
            _what(seen),
        )
        for seen in shown
    ]
    if rows:
        table(rows, ("id", "state", "try", "prio", "project", "age", "what"))
    else:
        say("no items" + ("" if everything or states else " in work; with --all also those that are over"))
    if cut:
        here.note(f"only the first {count}; all of them: --limit 0")


def _what(seen: Seen) -> str:
    """Its title, or why it goes no further; both of what is ready: a pause holds up everything."""
    title = seen.item.title if seen.item else ""
    if seen.state is State.READY and title and seen.reason:
        return f"{title} ({seen.reason})"
    return seen.reason or title


def summary(seen: Seen) -> dict[str, Any]:
    """One item in a list, as JSON."""
    item = seen.item
    return {
        "id": seen.id,
        "uid": seen.uid,
        "state": seen.state.value,
        "reason": seen.reason,
        "title": item.title if item else "",
        "project": item.project if item else "",
        "priority": item.priority if item else None,
        "convoy": item.convoy if item else "",
        "labels": dict(item.labels) if item else {},
        "attempts": len(seen.attempts),
        "waits_for": list(seen.waits_for),
        "admitted_at": item.admitted_at if item else None,
    }
