"""harnessctl completion"""

from __future__ import annotations

import os

import click
from click.shell_completion import get_completion_class

from harness.cli.verb import verb
from harness.errors import UsageError

SHELLS = ("bash", "zsh", "fish")


@verb(
    "completion",
    example='$ eval "$(harnessctl completion bash)"\n$ harnessctl completion fish > ~/.config/fish/completions/harnessctl.fish',
)
@click.argument("shell", required=False, type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str | None) -> None:
    """Print the script that completes verbs, options and ids."""
    shell = shell or os.path.basename(os.environ.get("SHELL", ""))
    kind = get_completion_class(shell) if shell in SHELLS else None
    if kind is None:
        raise UsageError("which shell?", remedy=f"say one of {', '.join(SHELLS)}")
    click.echo(kind(ctx.find_root().command, {}, "harnessctl", "_HARNESSCTL_COMPLETE").source())
