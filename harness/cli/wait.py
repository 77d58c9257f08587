"""harnessctl wait, and following new items to their end"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from harness.cli.completing import complete_items
from harness.cli.output import emit, say
from harness.cli.verb import Invocation, invoked, json_option, verb

if TYPE_CHECKING:
    from harness.control.desk import Desk
    from harness.control.waiting import Settled

TIMED_OUT = 75


@verb("wait", example="$ harnessctl wait fix-login && git pull\n$ harnessctl wait a b --timeout 600")
@click.argument("ids", nargs=-1, required=True, metavar="ID...", shell_complete=complete_items)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=None,
    metavar="S",
    help="Give up after so many seconds, with exit code 75.",
)
@json_option
@invoked
def wait(here: Invocation, ids: tuple[str, ...], timeout_s: float | None, as_json: bool) -> int:
    """Wait until items are merged or done (0), or need a person (1)."""
    from harness.control import choosing

    with here.desk() as desk:
        uids = [seen.uid for seen in choosing.named(desk, ids)]
        results: list[dict[str, Any]] = []
        code = follow(here, desk, uids, timeout_s, results if as_json else None)
    if as_json:
        emit({"items": results})
    return code


def follow(
    here: Invocation,
    desk: Desk,
    uids: Sequence[str],
    timeout_s: float | None,
    results: list[dict[str, Any]] | None = None,
) -> int:
    """Say each item as it settles, or append it to `results`. -> 0 all good, 1 one is not, 75 the time was over."""
    from harness.control.waiting import settle

    code = 0
    for one in settle(desk, uids, timeout_s):
        if one.timed_out:
            code = TIMED_OUT
        elif not one.good and code == 0:
            code = 1
        if results is not None:
            results.append(_result(one))
        elif not here.quiet:
            what = "still " if one.timed_out else ""
            say(f"{one.id}: {what}{one.state.value}" + (f": {one.reason}" if one.reason else ""))
    return code


def _result(one: Settled) -> dict[str, Any]:
    return {
        "id": one.id,
        "uid": one.uid,
        "state": one.state.value,
        "reason": one.reason,
        "timed_out": one.timed_out,
    }
