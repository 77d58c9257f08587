"""harnessctl wait, and following new items to their end"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    """Wait until items are merged or done (0), or need a person (1).

    An ID may also be that of a drop that still waits in queue/; the name of its file, without the suffix, means all of
    its items.
    """
    from harness.control import undecided, waiting

    with here.desk() as desk:
        began = desk.clock.monotonic()
        wanted = undecided.meant(desk, list(dict.fromkeys(ids)))
        if any(one.ticket for one in wanted) and desk.coordinator() is None:
            here.note("not admitted yet, and no coordinator runs; waiting for one (harnessctl run)")
        uids, none = waiting.admitted(desk, wanted, timeout_s)
        results: list[dict[str, Any]] = []
        kept = results if as_json else None
        code = _tell(here, none, kept)
        if timeout_s is not None:
            timeout_s = max(0.0, timeout_s - (desk.clock.monotonic() - began))
        code = max(code, follow(here, desk, uids, timeout_s, kept))
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

    return _tell(here, settle(desk, uids, timeout_s), results)


def _tell(here: Invocation, settled: Iterable[Settled], results: list[dict[str, Any]] | None) -> int:
    code = 0
    for one in settled:
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
