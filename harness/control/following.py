"""Following a session while a worker has it in hand: what its runs say, as it is said.

Looks at the files again and again; nobody is asked, and nothing is lost when they are looked at late.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from harness.agents.base import Stream
from harness.agents.jsonl import parsed
from harness.control import recounting, sessions
from harness.control.recounting import Entry
from harness.control.sessions import Found
from harness.dataclass import dataclass
from harness.layout import Layout
from harness.sessionfolder import SessionFolder
from harness.sessionrecord import RunRecord
from harness.stream import Growing

POLL_S = 0.2
T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawLine:
    """One line of a tool's output, as it wrote it, without its newline."""

    round: int
    stream: Stream
    line: bytes


def follow(layout: Layout, found: Found, *, last: int | None = None) -> Iterator[Entry]:
    """The last run from its beginning (or only its `last` entries until now), then what comes, run after run.

    Ends when no worker has the session in hand any more; then everything that was said has been told.
    """
    return _following(layout, found, _Entries, last)


def follow_raw(layout: Layout, found: Found, *, last: int | None = None) -> Iterator[RawLine]:
    """As `follow`: the lines of stdout and stderr."""
    return _following(layout, found, _Lines, last)


class _Teller(Protocol[T_co]):
    """Of one run: what is new since it was looked at last."""

    def look(self, at: Found, run: RunRecord | None) -> Iterator[T_co]: ...

    def close(self) -> None: ...


def _following(
    layout: Layout, found: Found, teller: Callable[[SessionFolder, int], _Teller[T]], last: int | None
) -> Iterator[T]:
    first = found.rounds
    tellers: dict[int, _Teller[T]] = {}

    def news(at: Found) -> Iterator[T]:
        for k, run in recounting.runs(at):
            if k >= first:
                if k not in tellers:
                    tellers[k] = teller(at.folder, k)
                yield from tellers[k].look(at, run)

    try:
        if last is not None:
            yield from deque(news(sessions.again(layout, found)), maxlen=last)
        while True:
            # Who works on it is asked before the files are read: what was written until it ended is read once more.
            at = sessions.again(layout, found)
            yield from news(at)
            if not at.slot:
                return
            time.sleep(POLL_S)
    finally:
        for one in tellers.values():
            one.close()


class _Entries:
    """Of one run: its beginning, its events, its end, its gates."""

    def __init__(self, folder: SessionFolder, k: int) -> None:
        self._file = _File(folder.events(k))
        self._k = k
        self._told: set[str] = set()

    def look(self, at: Found, run: RunRecord | None) -> Iterator[Entry]:
        if run is not None and self._first(recounting.RUN):
            yield recounting.began(run)
        for line in self._file.lines(over=not at.slot or run is None or bool(run.outcome)):
            if (event := parsed(line)) is not None:
                yield recounting.entry_of(event, self._k)
        if run is None:
            return
        for entry in recounting.ended(at, run):  # the gates come later, all together
            if entry.kind == recounting.END and self._first(recounting.END):
                yield entry
        if run.gates and self._first(recounting.GATE):
            yield from recounting.judged(run)

    def _first(self, kind: str) -> bool:
        new = kind not in self._told
        self._told.add(kind)
        return new

    def close(self) -> None:
        self._file.close()


class _Lines:
    """Of one run: what its tool wrote."""

    def __init__(self, folder: SessionFolder, k: int) -> None:
        paths = {Stream.STDOUT: folder.stdout(k), Stream.STDERR: folder.stderr(k)}
        self._files = {stream: _File(path) for stream, path in paths.items()}
        self._k = k

    def look(self, at: Found, run: RunRecord | None) -> Iterator[RawLine]:
        over = not at.slot or run is None or bool(run.outcome)
        for stream, file in self._files.items():
            for line in file.lines(over=over):
                yield RawLine(round=self._k, stream=stream, line=line)

    def close(self) -> None:
        for file in self._files.values():
            file.close()


class _File:
    """A `Growing` that ends, and that may be anything."""

    def __init__(self, path: Path) -> None:
        self._growing = Growing(path)
        self._over = False

    def lines(self, *, over: bool) -> Iterator[bytes]:
        """`over`: nobody writes any more."""
        if self._over:
            return
        try:
            yield from self._growing.lines(whole=over)
        except OSError:
            over = True  # a link, a FIFO: not what our writer has made
        self._over = over

    def close(self) -> None:
        self._growing.close()
