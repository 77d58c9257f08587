"""harnessctl events"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from harness.cli.output import say
from harness.cli.verb import Invocation, invoked, json_option, verb
from harness.clock import parse_rfc3339
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.layout import Layout

LAST = 50
_AGO = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SHOWN_FIRST = ("v", "ts", "event", "source", "level")


@verb("events", example="$ harnessctl events -f\n$ harnessctl events --since 2h --json")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens now, until Ctrl-C.")
@click.option(
    "--since", default=None, metavar="TIME", help="From this time on: 10m, 2h, 3d, or an RFC 3339 time."
)
@click.option(
    "--cursor", default=None, metavar="DAY:OFFSET", help="What came behind this cursor (see --json)."
)
@click.option("--item", default=None, metavar="ID", help="Only of this item.")
@click.option(
    "-n",
    "--last",
    type=click.IntRange(min=0),
    default=None,
    metavar="N",
    help=f"The last N. Default: {LAST}.",
)
@json_option
@invoked
def events(
    here: Invocation,
    follow: bool,
    since: str | None,
    cursor: str | None,
    item: str | None,
    last: int | None,
    as_json: bool,
) -> None:
    """What happened, from the durable stream."""
    layout = here.layout()
    start = _start(since)
    uid = None
    if item is not None:
        with here.desk() as desk:
            uid = desk.view.find(item).uid
    for position, event in _chosen(layout, follow, start, cursor, uid, last):
        if as_json:
            click.echo(json.dumps({"schema_version": 1, "cursor": position, **event}))
        else:
            say(line(event))


def _chosen(
    layout: Layout, follow: bool, start: float | None, cursor: str | None, uid: str | None, last: int | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """From a cursor or a time on everything; otherwise the last few; then, with `follow`, what is new."""
    from harness.events import read

    def wanted(event: dict[str, Any]) -> bool:
        if uid is not None and event.get("uid") != uid:
            return False
        return start is None or _time(event) >= start

    if last is None and (cursor is not None or start is not None):
        first = cursor
        if first is None and start is not None:
            from harness.clock import day

            first = f"{day(start)}:0"
        yield from (pair for pair in read(layout, first, follow=follow) if wanted(pair[1]))
        return
    count = LAST if last is None else last
    tail: deque[tuple[str, dict[str, Any]]] = deque(maxlen=count)
    end = cursor
    for position, event in read(layout, cursor):
        end = position
        if wanted(event):
            tail.append((position, event))
    yield from tail
    if follow:
        yield from (pair for pair in read(layout, end, follow=True) if wanted(pair[1]))


def _start(since: str | None) -> float | None:
    if since is None:
        return None
    from harness.clock import SystemClock

    if match := _AGO.fullmatch(since.strip()):
        return SystemClock().wall() - int(match[1]) * _UNITS[match[2]]
    try:
        return parse_rfc3339(since)
    except ValueError:
        raise UsageError(
            f"{since!r} is no time", where="--since", remedy="write 10m, 2h, 3d or 2027-01-31T12:00:00Z"
        ) from None


def _time(event: dict[str, Any]) -> float:
    try:
        return parse_rfc3339(str(event.get("ts", "")))
    except ValueError:
        return 0.0


def line(event: dict[str, Any]) -> str:
    """One event on one line for people."""
    from harness.terminal import printable_line

    rest = " ".join(
        f"{key}={_word(value)}"
        for key, value in event.items()
        if key not in _SHOWN_FIRST and value is not None
    )
    head = f"{event.get('ts', '')}  {event.get('event', '')!s:<20}  {event.get('source', '')!s:<12}"
    return printable_line(f"{head} {rest}", 2000) if rest else head.rstrip()


def _word(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return json.dumps(text) if " " in text or not text else text
