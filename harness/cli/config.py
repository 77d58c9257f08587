"""harnessctl config check, config show"""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.output import emit, say, table
from harness.cli.verb import Invocation, VerbGroup, invoked, json_option, verb
from harness.errors import ConfigError
from harness.layout import Layout


@click.group("config", cls=VerbGroup, example="$ harnessctl config check\n$ harnessctl config show --origin")
def config() -> None:
    """Check or show the configuration."""


@verb(
    "check",
    example='$ harnessctl config check && kill -HUP "$(harnessctl status --json | jq .coordinator.pid)"',
)
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@json_option
@invoked
def check(here: Invocation, file: Path | None, as_json: bool) -> int:
    """Say everything that is wrong with config.yaml, with line and remedy."""
    from harness.config import load

    path = file or _path(here)
    try:
        loaded = load(path)
    except ConfigError as e:
        if not as_json:
            raise
        emit({"ok": False, "file": str(path), "problems": list(e.problems) or [str(e)]})
        return e.exit_code
    if as_json:
        emit({"ok": True, "file": str(path), "problems": []})
    else:
        projects = ", ".join(loaded.projects) or "none"
        say(
            f"{path}: ok ({loaded.workers} workers; projects: {projects}; agents: {', '.join(loaded.agents) or 'none'})"
        )
    return 0


@verb("show", example="$ harnessctl config show --origin")
@click.option("--origin", is_flag=True, help="Also where each value comes from.")
@json_option
@invoked
def show(here: Invocation, origin: bool, as_json: bool) -> None:
    """Every setting in force; secrets are hidden."""
    from harness.config import load
    from harness.config.showing import settings

    found = settings(load(_path(here)))
    if as_json:
        emit({"settings": [{"path": s.path, "value": s.value, "origin": s.origin} for s in found]})
    elif origin:
        table([(s.path, s.value, s.origin) for s in found])
    else:
        table([(s.path, s.value) for s in found])


def _path(here: Invocation) -> Path:
    """config.yaml of the root; of a folder that is named and has lost its `v:`, too: to say what is wrong with it."""
    if here.root and (named := Path(here.root) / "config.yaml").exists():
        return Layout(named.parent.resolve()).config
    return here.layout().config


config.add_command(check)
config.add_command(show)
