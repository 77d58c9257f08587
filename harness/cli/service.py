"""harnessctl service print, service install"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from harness.cli.output import say
from harness.cli.verb import Invocation, VerbGroup, invoked, verb

F = TypeVar("F", bound=Callable[..., Any])


def _unit_options(function: F) -> F:
    for option in (
        click.option("--group", default="", metavar="NAME", help="The group it runs as, with --user."),
        click.option(
            "--user",
            default="",
            metavar="NAME",
            help="Run as this user under the system's service manager. Default: a unit of your own (systemctl --user).",
        ),
    ):
        function = option(function)
    return function


@click.group(
    "service",
    cls=VerbGroup,
    example="$ harnessctl service print\n$ sudo harnessctl service install --user harness",
)
def service() -> None:
    """The systemd unit of this root."""


@verb("print", example="$ harnessctl service print --user harness | systemd-analyze verify /dev/stdin")
@_unit_options
@invoked
def print_(here: Invocation, user: str, group: str) -> None:
    """Show the unit file."""
    from harness.service import render

    click.echo(render(_unit(here, user, group)), nl=False)


@verb("install", example="$ harnessctl service install\n$ sudo harnessctl service install --user harness")
@_unit_options
@click.option("--name", default=None, metavar="NAME", help="Of the unit. Default: harness.")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    metavar="DIR",
    help="Another folder.",
)
@click.option("--force", is_flag=True, help="Replace a unit that differs.")
@invoked
def install(
    here: Invocation, user: str, group: str, name: str | None, into: Path | None, force: bool
) -> None:
    """Write the unit file; starts nothing."""
    from harness import service as services

    unit = _unit(here, user, group)
    done = services.install(unit, name=name or services.NAME, into=into, force=force)
    say(f"{done.path}: {'written' if done.changed else 'is up to date'}")
    if not here.quiet:
        say("next:")
        for step in done.next_steps:
            say(f"  {step}")


def _unit(here: Invocation, user: str, group: str) -> Any:
    from harness.service import Unit

    return Unit(root=here.layout().root, user=user, group=group, drain_s=here.config().drain_s)


service.add_command(print_)
service.add_command(install)
