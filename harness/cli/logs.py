"""harnessctl logs"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.completing import complete_agents
from harness.cli.output import say
from harness.cli.verb import Invocation, invoked, verb
from harness.errors import NotFoundError
from harness.layout import Layout

if TYPE_CHECKING:
    from harness.control.sessions import Found

POLL_S = 0.2
KINDS = (".log", ".out")
"""What a process logged, and what it (or Python) wrote besides, such as the reason why it could not start."""


@verb(
    "logs",
    example="$ harnessctl logs agent-1 -f\n$ harnessctl logs agent-1 --session -f\n$ harnessctl logs merger.app -n 200",
)
@click.argument("agent", metavar="AGENT", shell_complete=complete_agents)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written now, until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    metavar="N",
    help="Last lines.",
)
@click.option(
    "--session",
    "said",
    is_flag=True,
    help="What the agent says and does in the session that AGENT has in hand.",
)
@invoked
def logs(here: Invocation, agent: str, follow: bool, lines: int, said: bool) -> None:
    """What a worker or merger logged (agent-1, merger.app), or what its agent says."""
    layout = here.layout()
    if said:
        for line in _saying(here, layout, agent, lines) if follow else _said(layout, agent, lines):
            say(line)
            sys.stdout.flush()
        return
    files = files_of(layout, agent)
    for path in files:
        if len(files) > 1:
            here.note(f"==> {path.relative_to(layout.root)} <==")
        for line in tail(path, lines):
            say(line)
    if follow:
        sys.stdout.flush()
        for line in following(files[-1] if files[-1].suffix == ".log" else files[0]):
            say(line)
            sys.stdout.flush()


def files_of(layout: Layout, agent: str) -> list[Path]:
    """The log files of a slot that hold something. Raises NotFoundError with the names there are."""
    known = sorted({path.name.removesuffix(kind) for kind in KINDS for path in layout.logs.glob(f"*{kind}")})
    if agent in known:
        files = [layout.logs / f"{agent}{kind}" for kind in reversed(KINDS)]
        found = [path for path in files if path.exists() and path.stat().st_size]
        return found or [path for path in files if path.exists()]
    if agent == "coordinator":
        raise NotFoundError(
            "the coordinator logs to its standard output",
            where=layout.logs,
            remedy="where it was started; as a service: journalctl -u harness",
        )
    raise NotFoundError(
        f"there is no log of {agent!r}",
        where=layout.logs,
        remedy=f"there is: {', '.join(known)}"
        if known
        else "nothing was logged yet: was harnessctl run started?",
    )


def _said(layout: Layout, slot: str, lines: int) -> list[str]:
    """The end of the session that a slot has in hand. Raises NotFoundError."""
    from harness.cli.session import line_of
    from harness.control.recounting import entries

    found = _in_hand(layout, slot)
    if found is None:
        raise NotFoundError(
            f"{slot} has no session in hand",
            remedy="wait for one with -f; what there was: harnessctl sessions",
        )
    return [line_of(entry) for entry in deque(entries(found), maxlen=lines)]


def _saying(here: Invocation, layout: Layout, slot: str, lines: int) -> Iterator[str]:
    """One session of a slot after the other, for ever. Raises NotFoundError."""
    from harness.cli.session import line_of
    from harness.control.following import follow

    while True:
        found = _in_hand(layout, slot)
        if found is None:
            time.sleep(POLL_S)
            continue
        here.note(f"==> session {found.name} <==")
        yield from map(line_of, follow(layout, found, last=lines))


def _in_hand(layout: Layout, slot: str) -> Found | None:
    from harness.control.sessions import of_slot
    from harness.slots import names_in

    known = sorted(names_in(layout.run / "agents"))
    if slot not in known:
        raise NotFoundError(
            f"there is no agent {slot!r}", remedy=f"there is: {', '.join(known) or 'none yet'}"
        )
    return of_slot(layout, slot)


def tail(path: Path, count: int) -> list[str]:
    """The last lines; when the file is young, those of the one that was rotated away before it too."""
    lines: deque[str] = deque(maxlen=count)
    for one in (path.with_name(f"{path.name}.1"), path):
        try:
            with one.open(encoding="utf-8", errors="backslashreplace") as stream:
                lines.extend(line.rstrip("\n") for line in stream)
        except FileNotFoundError:
            continue
    return list(lines)


def following(path: Path) -> Iterator[str]:
    """Lines that are written from now on, also after the file was rotated."""
    stream = path.open(encoding="utf-8", errors="backslashreplace")
    stream.seek(0, 2)
    rest = ""
    while True:
        if text := stream.read():
            *whole, rest = (rest + text).split("\n")
            yield from whole
            continue
        try:
            fresh = path.stat()
        except FileNotFoundError:
            fresh = None
        if fresh and fresh.st_ino != Path(f"/proc/self/fd/{stream.fileno()}").stat().st_ino:
            stream.close()
            stream = path.open(encoding="utf-8", errors="backslashreplace")
            continue
        time.sleep(POLL_S)
