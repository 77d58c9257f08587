"""The durable event stream: what happened, one JSON line each, in `state/events/<day>.jsonl`.

Status, history and alerts read it, by a cursor that they may keep. Any number of processes append: one event is one
write(2) with O_APPEND, so lines never mix. The stream is a record for people and never a source of truth: emitting
never raises, and a full disk loses events, not work.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.clock import Clock, day, rfc3339
from harness.errors import UsageError
from harness.layout import Layout
from harness.logs import Event, Level, Log
from harness.redact import plain

VERSION = 1
_VALUE_MAX = 4096
"""Characters of one text value; the middle of a longer one is left out."""
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_CURSOR = re.compile(r"(\d{4}-\d\d-\d\d):(\d+)")
_HEAD = b'{"v": 1, "ts": "'
"""How every line begins: what is glued to a torn line is found by it."""


class EventStream:
    """The writing side of one process. `source` is its slot: ``coordinator``, ``agent-1``, ``merger.app``."""

    def __init__(self, layout: Layout, clock: Clock, source: str) -> None:
        self._folder = layout.events
        self._clock = clock
        self._source = source
        self._log = Log(source=source)
        self._day = ""
        self._fd = -1
        self._unsynced = False
        self._torn = False
        self.lost = 0
        """Events that could not be written since the start."""

    def emit(self, event: Event, /, level: Level = Level.INFO, **values: object) -> None:
        """Append one event and log it. Values of None are left out. Never raises OSError."""
        given = {k: v for k, v in values.items() if v is not None}
        self._log.log(level, event, **given)
        now = self._clock.wall()
        head = {"v": VERSION, "ts": rfc3339(now), "event": event.value, "source": self._source}
        line = (
            json.dumps(head | {k: v for k, v in plain(given, _VALUE_MAX).items() if k not in head}).encode()
            + b"\n"
        )
        try:
            self._open(day(now))
            written = os.write(self._fd, b"\n" + line if self._torn else line)
            self._unsynced = True
            # A nearly full disk may take the first half only; the next one begins on a line of its own.
            self._torn = written < len(line)
            if self._torn:
                self._lose(event, f"only {written} of {len(line)} bytes were written")
        except OSError as e:
            self._lose(event, e.strerror or str(e))

    def _lose(self, event: Event, why: str) -> None:
        self.lost += 1
        self._log.error(Event.EVENTS_LOST, lost=self.lost, what=event, where=self._folder, why=why)

    def _open(self, today: str) -> None:
        """Have the file of `today` open; a new one when the day changed or somebody removed it."""
        if self._fd >= 0 and self._day == today and os.fstat(self._fd).st_nlink:
            return
        self.sync()
        self.close()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        path = self._folder / f"{today}.jsonl"
        try:
            self._fd = os.open(path, flags, 0o600)
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, flags, 0o600)
        self._day = today
        size = os.fstat(self._fd).st_size
        # The last writer may have been cut off by a power loss.
        self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"

    def sync(self) -> None:
        """Make what this process emitted durable; does nothing when there is nothing new. Never raises OSError."""
        if self._fd >= 0 and self._unsynced:
            with contextlib.suppress(OSError):  # EIO here says nothing about work; the disk says so elsewhere
                os.fdatasync(self._fd)
            self._unsynced = False

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read(
    layout: Layout,
    cursor: str | None = None,
    *,
    follow: bool = False,
    poll_s: float = 0.2,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (cursor after it, event) in the order written, from `cursor` or from the beginning.

    A cursor is ``<day>:<byte offset>``; reading again with one continues exactly behind its event, also after the
    days in front of it were removed. Lines that are no event (torn by a power loss) are passed over. `follow`: at the
    end, wait for more until `stop()` is true. Raises UsageError for a malformed cursor.
    """
    today, offset = _parse(cursor)
    while True:
        files = days(layout)
        for path in files:
            if path.stem < today:
                continue
            if path.stem > today:
                today, offset = path.stem, 0
            for behind, record in _lines(path, offset, last=path == files[-1]):
                offset = behind
                yield f"{today}:{offset}", record
        if not follow or stop():
            return
        time.sleep(poll_s)


def end(layout: Layout) -> str | None:
    """The cursor behind the newest event: ``read(layout, end(layout), follow=True)`` yields only what is new."""
    files = days(layout)
    if not files:
        return None
    with files[-1].open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        # Behind the last whole line: the one after it may be in the making.
        stream.seek(max(0, size - 65_536))
        start = stream.tell()
        tail = stream.read(size - start)
    cut = tail.rfind(b"\n") + 1
    return f"{files[-1].stem}:{start + cut if cut else (0 if start == 0 else size)}"


def days(layout: Layout) -> list[Path]:
    """The files of the stream, oldest first."""
    try:
        found = [p for p in layout.events.iterdir() if p.suffix == ".jsonl" and _DAY.fullmatch(p.stem)]
    except FileNotFoundError:
        return []
    return sorted(found)


def _parse(cursor: str | None) -> tuple[str, int]:
    if cursor is None or cursor == "":
        return "", 0
    match = _CURSOR.fullmatch(cursor)
    if not match:
        raise UsageError(
            f"{cursor!r} is no cursor of the event stream",
            remedy="a cursor looks like 2026-01-31:1024; leave it out to read from the beginning",
        )
    return match[1], int(match[2])


def _lines(path: Path, offset: int, *, last: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """(offset behind it, event) of each line from `offset` on."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    with stream:
        if offset > stream.seek(0, os.SEEK_END):
            offset = 0  # restored from an older backup: rather twice than not at all
        stream.seek(offset)
        for line in stream:
            if not line.endswith(b"\n") and last:
                return  # being written; it is read when it is whole
            offset += len(line)
            if (record := _event(line)) is not None:
                yield offset, record


def _event(line: bytes) -> dict[str, Any] | None:
    # A writer may have appended to a line that another one left torn: its own part is whole.
    for start in dict.fromkeys((0, max(line.rfind(_HEAD), 0))):
        with contextlib.suppress(ValueError):
            record = json.loads(line[start:])
            if isinstance(record, dict) and record.get("v") == VERSION:
                return record
    return None
