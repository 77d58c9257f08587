"""harnessctl retry, park, cancel, boost: one item, several, or all that a filter matches"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.cli.completing import complete_items
from harness.cli.items import filter_of, filter_options
from harness.cli.output import emit, say
from harness.cli.verb import Invocation, invoked, json_option, verb
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.control.acts import Acted
    from harness.control.choosing import Filter
    from harness.control.desk import Desk
    from harness.store.view import Seen

F = TypeVar("F", bound=Callable[..., Any])


def chosen_options(function: F) -> F:
    """IDs, or a filter with --yes."""
    for option in (
        json_option,
        click.option("--dry-run", is_flag=True, help="Only say which items are meant."),
        click.option("-y", "--yes", is_flag=True, help="Do not ask before acting on what a filter matches."),
        filter_options,
        click.argument("ids", nargs=-1, metavar="[ID]...", shell_complete=complete_items),
    ):
        function = option(function)
    return function


why_option = click.option("--why", default="", metavar="TEXT", help="The reason, kept with the item.")


@verb(
    "retry",
    example="$ harnessctl retry fix-login --extra 2\n$ harnessctl retry --state parked --convoy login --yes",
)
@chosen_options
@click.option(
    "--extra", type=click.IntRange(1, 100), default=1, show_default=True, help="More attempts to allow."
)
@click.option("--resume", is_flag=True, help="Go on in the agent's last session, where the tool can.")
@click.option("--without-waiting", is_flag=True, help="Also run what waits for something, now.")
@why_option
@invoked
def retry(
    here: Invocation, /, extra: int, resume: bool, without_waiting: bool, why: str, **chosen: Any
) -> int:
    """Let a parked item run again."""
    from harness.control import acts

    mode = "resume" if resume else "fresh"
    return _each(
        here,
        "retry",
        lambda desk, uid: acts.retry(desk, uid, why, extra=extra, mode=mode, without_waiting=without_waiting),
        **chosen,
    )


@verb("park", example='$ harnessctl park fix-login --why "the API changes tomorrow"')
@chosen_options
@why_option
@invoked
def park(here: Invocation, /, why: str, **chosen: Any) -> int:
    """Hold an item until it is retried."""
    from harness.control import acts

    return _each(here, "park", lambda desk, uid: acts.park(desk, uid, why), **chosen)


@verb("cancel", example='$ harnessctl cancel fix-login --why "not needed any more"')
@chosen_options
@why_option
@invoked
def cancel(here: Invocation, /, why: str, **chosen: Any) -> int:
    """Forbid an item for ever, wherever it is."""
    from harness.control import acts

    return _each(here, "cancel", lambda desk, uid: acts.cancel(desk, uid, why), **chosen)


@verb("boost", example="$ harnessctl boost fix-login\n$ harnessctl boost --convoy login --priority 8 --yes")
@chosen_options
@click.option(
    "--priority",
    default="0",
    show_default=True,
    metavar="P",
    help="high, medium, low, or 0 (first) to 9. May also stand last: boost ID 3.",
)
@invoked
def boost(here: Invocation, /, priority: str, ids: tuple[str, ...], **chosen: Any) -> int:
    """Change the priority of an item."""
    from harness.control import acts

    if len(ids) > 1 and ids[-1].lower() in (*acts.PRIORITIES, *"0123456789"):
        *names, priority = ids
        ids = tuple(names)
    band = acts.priority_of(priority)
    return _each(here, "boost", lambda desk, uid: acts.boost(desk, uid, band), ids=ids, **chosen)


def _each(
    here: Invocation,
    act: str,
    do: Callable[[Desk, str], Acted],
    *,
    ids: tuple[str, ...],
    states: tuple[str, ...],
    project: str,
    convoy: str,
    labels: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Act on each item; one that cannot be acted on does not hide the others. -> the first exit code that is not 0."""
    wanted = filter_of(states, project, convoy, labels)
    if ids and not wanted.empty:
        raise click.UsageError("name items, or describe them by a filter, not both")
    if not ids and wanted.empty:
        raise click.UsageError(
            f"which items? Name them: harnessctl {act} ID..., or use a filter (--state ...)"
        )
    with here.desk() as desk:
        meant = _meant(desk, ids, wanted)
        if not meant:
            here.note("no item matches; those that are over are only meant with --state")
        if dry_run:
            for seen in meant:
                say(f"would {act} {seen.id} ({seen.uid}, {seen.state.value})")
            return 0
        if not ids:
            _confirm(act, meant, yes)
        code, results = 0, []
        for seen in meant:
            try:
                acted = do(desk, seen.uid)
            except HarnessError as e:
                if len(meant) == 1 and not as_json:
                    raise
                code = code or e.exit_code
                results.append({"id": seen.id, "uid": seen.uid, "ok": False, "error": str(e)})
                here.note(f"harnessctl: {e}")
                continue
            results.append(_result(acted))
            if not as_json and not here.quiet:
                say(f"{acted.id}: {acted.state.value}" + (f" ({acted.detail})" if acted.detail else ""))
    if as_json:
        emit({"act": act, "results": results})
    return code


def _meant(desk: Desk, ids: tuple[str, ...], wanted: Filter) -> list[Seen]:
    from harness.control import choosing

    return choosing.named(desk, ids) if ids else list(choosing.items(desk, wanted))


def _confirm(act: str, meant: list[Seen], yes: bool) -> None:
    if yes or not meant:
        return
    names = ", ".join(seen.id for seen in meant[:10]) + (" ..." if len(meant) > 10 else "")
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"this would {act} {len(meant)} items ({names}); say --yes, or look with --dry-run"
        )
    if not click.confirm(f"{act} {len(meant)} items ({names})?", err=True):
        raise click.exceptions.Exit(1)


def _result(acted: Acted) -> dict[str, Any]:
    return {
        "id": acted.id,
        "uid": acted.uid,
        "ok": True,
        "state": acted.state.value,
        "attempt": acted.n,
        "detail": acted.detail,
    }
