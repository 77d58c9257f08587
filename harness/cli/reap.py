"""harnessctl reap"""

from __future__ import annotations

import click

from harness.cli.output import say
from harness.cli.verb import Invocation, invoked, verb


@verb("reap", example="$ harnessctl reap\n# in the systemd unit:\nExecStopPost=harnessctl reap --if-stopped")
@click.option(
    "--if-stopped", is_flag=True, help="Do nothing when the coordinator crashed and is started again."
)
@invoked
def reap(here: Invocation, if_stopped: bool) -> None:
    """End every worker and attempt of a root without coordinator."""
    from harness.reap import reap as end_all

    ended = end_all(here.layout(), only_if_stopped=if_stopped)
    if not here.quiet:
        say(f"ended {ended} processes" if ended else "nothing was running")
