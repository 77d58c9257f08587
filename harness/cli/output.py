"""How verbs print: tables, JSON, ages. Everything passes `printable`: much of it was written by strangers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from harness.clock import parse_rfc3339
from harness.terminal import printable, printable_line

SCHEMA_VERSION = 1
GAP = "  "


def emit(data: Mapping[str, Any], *, indent: int | None = 2) -> None:
    """One JSON document on stdout, `schema_version` first."""
    click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **data}, indent=indent))


def say(text: str = "") -> None:
    """Text for people on stdout."""
    click.echo(printable(text))


def heading(text: str) -> None:
    click.secho(text, bold=True)


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = (), indent: str = "") -> None:
    """Columns side by side; on a terminal the last one is cut to what fits."""
    lines = [[printable_line(cell, 500) for cell in row] for row in ([head] if head else []) + list(rows)]
    if not lines:
        return
    widths = [max(len(row[k]) for row in lines) for k in range(len(lines[0]) - 1)]
    room = _room(len(indent) + sum(w + len(GAP) for w in widths))
    for number, row in enumerate(lines):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        text = indent + GAP.join([*cells, _cut(row[-1], room)])
        click.secho(text.rstrip(), dim=bool(head) and number == 0)


def _room(used: int) -> int | None:
    """Characters left on a line; None when nobody counts them."""
    if not sys.stdout.isatty():
        return None
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns  # not shutil's: that import costs 8 ms
    except OSError:
        return None
    return max(20, columns - used)


def _cut(text: str, room: int | None) -> str:
    return text if room is None or len(text) <= room else text[: room - 1] + "…"


def duration(seconds: float) -> str:
    """``3d 4h``, ``4h 5m``, ``5m 6s`` or ``7s``."""
    whole = int(max(0.0, seconds))
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"


def age(moment: str | None, now: float) -> str:
    """How long ago an RFC 3339 time was; "" when there is none."""
    try:
        return duration(now - parse_rfc3339(moment)) if moment else ""
    except ValueError:
        return ""
