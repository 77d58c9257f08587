"""harnessctl init"""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.output import say
from harness.cli.verb import Invocation, invoked, verb


@verb(
    "init",
    example="$ harnessctl init /srv/harness --project app=~/src/app\n$ harnessctl init . --project app=../app --agent claude",
)
@click.argument("folder", metavar="[DIR]", default="", required=False)
@click.option(
    "--project",
    "projects",
    multiple=True,
    metavar="NAME=PATH",
    help="A repository to work on; may be repeated.",
)
@click.option(
    "--agent",
    metavar="KIND",
    help="Set up for this tool: command (the default) or claude.",
)
@invoked
def init(here: Invocation, folder: str, projects: tuple[str, ...], agent: str | None) -> int:
    """Make a root: a commented config.yaml, the folders, the hubs."""
    from harness.control.founding import found, parse_project

    where = Path(folder or here.root or ".")
    founded = found(where, dict(parse_project(text) for text in projects), agent)
    root = founded.root
    known = ", ".join(founded.config.projects) or "none yet"
    if founded.new:
        say(f"{root} is a root now: config.yaml, queue/ (the drop box), state/")
    else:
        say(f"{root} is a root already; nothing was changed, missing folders were made")
    say(f"projects: {known}")
    for name, error in founded.failed.items():
        click.echo(f"project {name} cannot be used yet: {error}", err=True)
    if not here.quiet:
        _next_steps(root, bool(founded.config.projects), bool(founded.failed))
    return 78 if founded.failed else 0


def _next_steps(root: Path, has_projects: bool, failed: bool) -> None:
    steps = []
    if not has_projects:
        steps.append((f"edit {root}/config.yaml", "name a repository under projects:"))
    else:
        steps.append((f"edit {root}/config.yaml", "your agent, your gates"))
    if failed:
        steps.append(("harnessctl config check", "and again: harnessctl init"))
    steps += [
        ("harnessctl doctor", "does everything work here?"),
        ("harnessctl run", "the daemon; as a service: harnessctl service install"),
        ('harnessctl add "..."', "the first item, from another terminal"),
    ]
    say("next:")
    if Path.cwd() != root:
        say(f"  cd {root}")
    width = max(len(command) for command, _ in steps)
    for command, why in steps:
        say(f"  {command.ljust(width)}   # {why}")
