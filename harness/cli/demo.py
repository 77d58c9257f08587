"""harnessctl demo"""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.verb import verb


@verb("demo", example="$ harnessctl demo\n$ harnessctl demo --workers 5 --keep /tmp/harness-demo")
@click.option(
    "--workers", type=click.IntRange(1, 100), default=3, show_default=True, metavar="N", help="Agent slots."
)
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    metavar="DIR",
    help="Build it there and leave it, to look around.",
)
def demo(workers: int, keep: Path | None) -> int:
    """A real repository, a plan, a scripted agent, the real daemon."""
    from harness.demo import main

    return main(workers, keep)
