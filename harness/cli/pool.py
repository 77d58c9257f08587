"""harnessctl pause, resume, drain, stop"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.cli.completing import complete_agents
from harness.cli.output import say
from harness.cli.verb import Invocation, invoked, verb

if TYPE_CHECKING:
    from harness.control.desk import Desk
    from harness.procs import ProcessId

F = TypeVar("F", bound=Callable[..., Any])


def _scope(function: F) -> F:
    for option in (
        click.option("--project", default="", metavar="NAME", help="Only items of this project."),
        click.argument(
            "agent", default="", required=False, metavar="[AGENT]", shell_complete=complete_agents
        ),
    ):
        function = option(function)
    return function


def _ending(function: F) -> F:
    for option in (
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(min=0),
            default=None,
            metavar="S",
            help="With --wait: give up after so many seconds, with exit code 75.",
        ),
        click.option("--wait", is_flag=True, help="Until the coordinator has ended."),
    ):
        function = option(function)
    return function


@verb("pause", example="$ harnessctl pause\n$ harnessctl pause agent-2\n$ harnessctl pause --project app")
@_scope
@invoked
def pause(here: Invocation, agent: str, project: str) -> None:
    """Claim nothing new; running attempts go on."""
    from harness.control import pool

    _one_of(agent, project)
    with here.desk() as desk:
        say("paused: " + ", ".join(pool.pause(desk, agent=agent, project=project)))


@verb(
    "resume",
    example="$ harnessctl resume\n$ harnessctl resume agent-2\n$ harnessctl resume --credential team",
)
@click.option(
    "--credential",
    default="",
    metavar="NAME",
    help="Forget its limit: a login that was repaired, a bill that was paid.",
)
@_scope
@invoked
def resume(here: Invocation, agent: str, project: str, credential: str) -> None:
    """Take a pause back; every pause when none is named."""
    from harness.control import pool

    _one_of(agent, project)
    with here.desk() as desk:
        if credential:
            if agent or project:
                raise click.UsageError("name a credential alone")
            lifted = pool.lift(desk, credential)
            say(f"{credential}: the limit is forgotten" if lifted else f"{credential} has no limit")
            return
        left = pool.resume(desk, agent=agent, project=project)
    say("still paused: " + ", ".join(left) if left else "nothing is paused any more")


@verb("drain", example="$ harnessctl drain --wait")
@_ending
@invoked
def drain(here: Invocation, wait: bool, timeout_s: float | None) -> None:
    """Let running attempts finish, then end the coordinator."""
    from harness.control import pool

    _end(here, pool.drain, "draining: running attempts may finish", wait, timeout_s)


@verb("stop", example="$ harnessctl stop --wait --timeout 60")
@_ending
@invoked
def stop(here: Invocation, wait: bool, timeout_s: float | None) -> None:
    """End the coordinator and all workers now; attempts are released."""
    from harness.control import pool

    _end(here, pool.stop, "stopping: running attempts are given back", wait, timeout_s)


def _end(
    here: Invocation, ask: Callable[[Desk], ProcessId], said: str, wait: bool, timeout_s: float | None
) -> None:
    from harness.control.pool import await_end

    with here.desk() as desk:
        process = ask(desk)
        here.note(said)
        if wait:
            await_end(process, timeout_s)


def _one_of(agent: str, project: str) -> None:
    if agent and project:
        raise click.UsageError("name an agent or a project, not both")
