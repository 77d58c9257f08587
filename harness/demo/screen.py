"""Shows the board: a live table on a terminal, plain lines anywhere else. Decides nothing."""

from __future__ import annotations

import os
import sys
import time
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.demo.board import Board, Line
from harness.terminal import printable_line

STYLES = {"good": "green", "bad": "yellow", "plain": ""}
STATES = {"merged": "green", "merging": "cyan", "running": "bold", "gates": "magenta", "parked": "red"}
FRAME_S = 0.25
TOLD = 6
"""The last lines below the table."""
MARGIN = 8
"""Headings and empty lines. On a small screen the workers are left out: the items name them too."""


class Screen(Protocol):
    """To be used as a context; `show` whenever something may have changed."""

    def __enter__(self) -> Screen: ...
    def __exit__(self, *exc: object) -> None: ...
    def show(self, board: Board) -> None: ...


def screen(console: Console, since: float) -> Screen:
    """`since`: the beginning, in seconds since the epoch."""
    live = console.is_terminal and not console.is_dumb_terminal and "NO_COLOR" not in os.environ
    return _Live(console, since) if live else _Plain(console, since)


def console() -> Console:
    """Standard output. Where nobody counts columns, lines are as long as they are."""
    width = None if sys.stdout.isatty() else 200
    return Console(file=sys.stdout, highlight=False, emoji=False, width=width)


def told(line: Line, since: float) -> Text:
    text = printable_line(line.text, 160)
    return Text.assemble((f"{line.at - since:6.1f} s  ", "dim"), (text, STYLES[line.tone]))


class _Plain:
    """Every line once, as it comes."""

    def __init__(self, console: Console, since: float) -> None:
        self._console = console
        self._since = since
        self._shown = 0

    def __enter__(self) -> _Plain:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def show(self, board: Board) -> None:
        for line in board.lines[self._shown :]:
            self._console.print(told(line, self._since))
        self._shown = len(board.lines)


class _Live:
    """Tables of items and workers, and the last lines, redrawn in place."""

    def __init__(self, console: Console, since: float) -> None:
        self._since = since
        # Drawn by us when something may have changed: no thread that a signal could meet.
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._board: Board | None = None
        self._due = 0.0

    def __enter__(self) -> _Live:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._board is not None:
            self._draw(self._board)  # the last word
        self._live.stop()

    def show(self, board: Board) -> None:
        self._board = board
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + FRAME_S
            self._draw(board)

    def _draw(self, board: Board) -> None:
        self._live.update(self._picture(board), refresh=True)

    def _picture(self, board: Board) -> RenderableType:
        seconds = time.time() - self._since
        head = Text(f"{board.merged} of {len(board.rows)} items merged, {seconds:.1f} s", style="bold")
        parts: list[RenderableType] = [head, Text(), _items(board), Text()]
        if self._live.console.height > len(board.rows) + len(board.agents) + TOLD + MARGIN:
            parts += [_workers(board), Text()]
        return Group(*parts, *(told(line, self._since) for line in board.lines[-TOLD:]))


def _items(board: Board) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("item", "state", "attempt", "agent", ""):
        table.add_column(name, header_style="dim", no_wrap=True)
    for row in board.rows.values():
        attempt = str(row.attempt) if row.attempt else ""
        state = Text(row.state, style=STATES.get(row.state, "dim"))
        table.add_row(row.id, state, attempt, row.agent, Text(row.note, style="dim"))
    return table


def _workers(board: Board) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("worker", "process", "does", "item"):
        table.add_column(name, header_style="dim", no_wrap=True)
    for name, report in sorted(board.agents.items()):
        table.add_row(name, str(report.pid), report.state, report.id)
    return table
