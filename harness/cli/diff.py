"""harnessctl diff"""

from __future__ import annotations

import click

from harness.cli.completing import complete_items
from harness.cli.output import emit
from harness.cli.verb import Invocation, invoked, json_option, verb
from harness.terminal import printable

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@verb("diff", example="$ harnessctl diff fix-login\n$ harnessctl diff fix-login --attempt 1 --stat")
@click.argument("name", metavar="ID", shell_complete=complete_items)
@click.option(
    "--attempt", type=click.IntRange(min=1), default=None, metavar="N", help="Not the latest, but this one."
)
@click.option("--stat", is_flag=True, help="Only which files, and how much.")
@json_option
@invoked
def diff(here: Invocation, name: str, attempt: int | None, stat: bool, as_json: bool) -> None:
    """What an item changed: its merge, else its latest commit."""
    from harness.control import changes

    with here.desk() as desk:
        found = changes.diff(desk, name, attempt)
    summary, _, patch = found.text.partition("\n\n")
    if as_json:
        text = summary if stat else found.text
        emit(
            {
                "id": found.id,
                "uid": found.uid,
                "attempt": found.n,
                "base": found.base,
                "sha": found.sha,
                "merged": found.merged,
                "files": list(found.files),
                "diff": text,
            }
        )
        return
    what = "merged as" if found.merged else f"attempt {found.n}, commit"
    here.note(f"{found.id}: {what} {found.sha[:12]}, against {found.base[:12]}")
    click.echo(printable(summary))
    if not stat:
        click.echo()
        for line in patch.splitlines():
            header = line.startswith(("+++", "---"))
            click.secho(printable(line), fg=None if header else _COLOURS.get(line[:1]), bold=header or None)
