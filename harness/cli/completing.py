"""What the shell offers when Tab is pressed. Never fails, never writes: without a root there is nothing to offer."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from harness.cli.verb import Invocation
from harness.errors import HarnessError

OFFERED = 200


def complete_items(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Uids of items that are not over."""
    try:
        queue = ctx.ensure_object(Invocation).layout().queue
        names = (x.name for phase in ("open", "waiting") for x in (queue / phase).iterdir())
        found = sorted(name for name in names if name[0] != "." and name.startswith(incomplete))
    except (HarnessError, OSError):
        return []
    return [CompletionItem(name) for name in found[:OFFERED]]


def complete_agents(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of logs."""
    try:
        logs = ctx.ensure_object(Invocation).layout().logs
        found = sorted({x.name.partition(".")[0] for x in logs.iterdir()})
    except (HarnessError, OSError):
        return []
    return [CompletionItem(name) for name in found if name.startswith(incomplete)][:OFFERED]
