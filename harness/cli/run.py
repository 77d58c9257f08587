"""harnessctl run"""

from __future__ import annotations

import click

from harness.cli.verb import Invocation, invoked, verb


@verb("run", example="$ harnessctl run\n$ harnessctl run --workers 5 --until-idle --timeout 3600")
@click.option(
    "--workers", type=click.IntRange(0, 1000), default=None, metavar="N", help="Instead of config.yaml."
)
@click.option(
    "--until-idle",
    is_flag=True,
    help="End when nothing is left to do: 0 all done, 1 the rest needs a person, 75 it was ended before.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    metavar="S",
    help="End after so many seconds, with exit code 75.",
)
@invoked
def run(here: Invocation, workers: int | None, until_idle: bool, timeout_s: float | None) -> int:
    """The coordinator in the foreground: admits, starts workers, merges.

    The first Ctrl-C (or TERM) lets running attempts finish, the second stops now. HUP reads config.yaml again.
    """
    layout, config = here.layout(), here.config()
    from harness.coordinator import main

    return main(layout, config, workers=workers, until_idle=until_idle, timeout_s=timeout_s)
