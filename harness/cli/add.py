"""harnessctl add"""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from harness.cli.items import labels_of
from harness.cli.submitting import drop_all, following_options
from harness.cli.verb import Invocation, invoked, json_option, verb


@verb(
    "add",
    example='$ harnessctl add "Fix the login: it fails for names with spaces" --priority high --wait\n'
    "$ harnessctl add - --id notes --project app < task.md",
)
@click.argument("text", nargs=-1, required=True, metavar="TEXT|-")
@click.option("--id", "id_", metavar="ID", help="Default: made from the title.")
@click.option("--title", metavar="TEXT", help="Default: the first line.")
@click.option("--project", metavar="NAME", help="Which project; needed when there are several.")
@click.option("--agent", "agents", multiple=True, metavar="NAME", help="Which agent; more are fallbacks.")
@click.option("--priority", metavar="P", help="high, medium, low, or 0 (first) to 9.")
@click.option(
    "--depends-on", "--after", "depends_on", multiple=True, metavar="ID", help="Not before this is merged."
)
@click.option("--convoy", metavar="NAME", help="The batch it belongs to.")
@click.option(
    "--file", "files", multiple=True, metavar="GLOB", help="Only these may change; may be repeated."
)
@click.option("--not-before", metavar="TIME", help="Not before this time, such as 2027-01-01T00:00:00Z.")
@click.option(
    "--max-attempts", type=click.IntRange(1, 1000), metavar="N", help="Instead of retry.max_attempts."
)
@click.option(
    "--time-limit", "limit_s", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Of an attempt."
)
@click.option(
    "--max-budget-usd", type=click.FloatRange(min=0, min_open=True), metavar="USD", help="Of the item."
)
@click.option(
    "--commit", type=click.Choice(["required", "optional", "none"]), help="Whether it must end in a commit."
)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="May be repeated.")
@following_options
@json_option
@invoked
def add(
    here: Invocation,
    /,
    text: tuple[str, ...],
    id_: str | None,
    labels: tuple[str, ...],
    limit_s: float | None,
    agents: tuple[str, ...],
    depends_on: tuple[str, ...],
    files: tuple[str, ...],
    wait: bool,
    timeout_s: float | None,
    as_json: bool,
    **fields: Any,
) -> int:
    """One item from words."""
    from harness.control.dropping import name_for
    from harness.model import slug

    prompt = sys.stdin.read() if text == ("-",) else " ".join(text)
    if not prompt.strip():
        raise click.UsageError("the text is empty: say what is to be done")
    pairs = labels_of(labels)
    given = {
        "id": id_,
        **fields,
        "prompt": prompt,
        "agent": list(agents),
        "depends_on": list(depends_on),
        "files": list(files),
        "timeout_s": limit_s,
        "labels": pairs,
    }
    item = {key: value for key, value in given.items() if value not in (None, [], {})}
    words = id_ or fields.get("title") or next((line for line in prompt.splitlines() if line.strip()), "")
    name = name_for(slug(words), ".json")
    raw = json.dumps(item, indent=1).encode() + b"\n"
    with here.desk() as desk:
        return drop_all(here, desk, [("", name, raw)], wait=wait, timeout_s=timeout_s, as_json=as_json)
