"""harnessctl submit"""

from __future__ import annotations

import os
import sys

import click

from harness.cli.submitting import drop_all, following_options
from harness.cli.verb import Invocation, invoked, json_option, verb

STDIN = "-"


@verb(
    "submit",
    example="$ harnessctl submit fix-login.json more.jsonl\n$ ./plan | harnessctl submit - --format jsonl --wait",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...|-", type=click.Path())
@click.option(
    "--format",
    "format_",
    type=click.Choice(["json", "jsonl", "yaml"]),
    default=None,
    help="What the text is, when the name does not say. Default for -: json.",
)
@following_options
@json_option
@invoked
def submit(
    here: Invocation,
    files: tuple[str, ...],
    format_: str | None,
    wait: bool,
    timeout_s: float | None,
    as_json: bool,
) -> int:
    """Items from files (one, a list, or one per line)."""
    from harness.control.dropping import name_for, read_source

    with here.desk() as desk:
        limit = desk.config.intake.max_bytes
        sources = []
        for file in files:
            path = os.fspath(file)
            stem, suffix = ("stdin", "") if path == STDIN else os.path.splitext(os.path.basename(path))
            if format_:
                suffix = f".{format_}"
            elif path == STDIN:
                suffix = ".json"
            stdin = sys.stdin.buffer.read(limit + 1) if path == STDIN else None
            raw = read_source(path, stdin, limit)  # first: what is no file has no wrong suffix
            sources.append((path, name_for(stem, suffix), raw))
        return drop_all(here, desk, sources, wait=wait, timeout_s=timeout_s, as_json=as_json)
