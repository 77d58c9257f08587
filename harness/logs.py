"""Logging: a closed vocabulary of past-tense events, JSON lines off a terminal, secrets redacted.

The vocabulary is shared with the durable event stream (`events.py`); a test keeps every use inside it. structlog
draws the lines on a terminal and is imported for that only: it brings asyncio, ssl and logging, 70 ms and 8 MB.

Logging never ends a process: a full disk or a closed pipe loses lines, nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from harness.clock import rfc3339
from harness.dataclass import dataclass
from harness.redact import hide, plain, printable


class Event(StrEnum):
    """Everything that can be said to have happened. Values are what a person reads; they never change."""

    # store
    DROP_TAKEN = "drop_taken"
    DROP_IGNORED = "drop_ignored"
    ITEM_ADMITTED = "item_admitted"
    ITEM_REJECTED = "item_rejected"
    ITEM_PROMOTED = "item_promoted"
    ITEM_CLAIMED = "item_claimed"
    ATTEMPT_ENDED = "attempt_ended"
    ATTEMPT_EXPIRED = "attempt_expired"
    ATTEMPT_SUPERSEDED = "attempt_superseded"
    ITEM_PARKED = "item_parked"
    ITEM_HELD = "item_held"
    ITEM_RETRIED = "item_retried"
    ITEM_CANCELLED = "item_cancelled"
    ITEM_BOOSTED = "item_boosted"
    ITEM_SUBMITTED = "item_submitted"
    ITEM_RETURNED = "item_returned"
    ITEM_MERGED = "item_merged"
    ITEM_FINISHED = "item_finished"
    STORE_RECOVERED = "store_recovered"
    # attempt
    WORKTREE_PREPARED = "worktree_prepared"
    WORKTREE_KEPT = "worktree_kept"
    WORK_SALVAGED = "work_salvaged"
    SETUP_FINISHED = "setup_finished"
    AGENT_STARTED = "agent_started"
    AGENT_FINISHED = "agent_finished"
    SESSION_LOST = "session_lost"
    LIMIT_MET = "limit_met"
    LIMIT_OVER = "limit_over"
    BUDGET_MET = "budget_met"
    GATE_PASSED = "gate_passed"
    GATE_FAILED = "gate_failed"
    HEAL_STARTED = "heal_started"
    SURVIVORS_KILLED = "survivors_killed"
    HUB_TAMPERED = "hub_tampered"
    # merging
    HUB_CREATED = "hub_created"
    LANE_TAKEN = "lane_taken"
    TARGET_FETCHED = "target_fetched"
    TARGET_PUBLISHED = "target_published"
    PUBLISH_REFUSED = "publish_refused"
    STALE_LOCK_REMOVED = "stale_lock_removed"
    TORN_OBJECTS_REMOVED = "torn_objects_removed"
    # processes
    COORDINATOR_STARTED = "coordinator_started"
    COORDINATOR_STOPPED = "coordinator_stopped"
    CONFIG_RELOADED = "config_reloaded"
    CONFIG_REFUSED = "config_refused"
    DRAIN_STARTED = "drain_started"
    WORK_LEFT = "work_left"
    WORKER_SPAWNED = "worker_spawned"
    WORKER_ADOPTED = "worker_adopted"
    WORKER_STARTED = "worker_started"
    WORKER_STOPPED = "worker_stopped"
    WORKER_DIED = "worker_died"
    WORKER_HUNG = "worker_hung"
    WORKER_BACKED_OFF = "worker_backed_off"
    MERGER_SPAWNED = "merger_spawned"
    MERGER_DIED = "merger_died"
    MERGER_HUNG = "merger_hung"
    PROCESS_FAILED = "process_failed"
    DISK_LOW = "disk_low"
    PAUSED = "paused"
    RESUMED = "resumed"
    STATE_DUMPED = "state_dumped"
    EVENTS_LOST = "events_lost"


class Level(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


# --- where lines go ----------------------------------------------------------------------------------------------


class CappedFile:
    """An append-only file that is renamed to ``.1``, ``.2`` ... when it is full; the oldest is dropped.

    Two processes may write to one path: each line is one write(2) with O_APPEND, so lines do not mix. When both
    rotate at once, one rotation too many is made; nothing else is harmed. Never raises after it was made.
    """

    def __init__(self, path: Path, *, max_bytes: int = 10_000_000, keep: int = 3) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = self._open()
        self._left = self._room()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _room(self) -> int:
        return self._max_bytes - os.fstat(self._fd).st_size

    def write(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with contextlib.suppress(OSError):
            if len(data) > self._left:
                self._rotate()
            self._left -= os.write(self._fd, data)

    def _rotate(self) -> None:
        self._left = self._room()
        if self._left > self._max_bytes // 2:
            return  # another process has rotated it, or it was emptied
        rotate(self._path, self._keep)
        fd, self._fd = self._fd, self._open()
        os.close(fd)
        self._left = self._room()

    def close(self) -> None:
        os.close(self._fd)


def rotate(path: Path, keep: int) -> None:
    """``x`` -> ``x.1`` -> ``x.2`` ...; `keep` files in all."""
    for k in range(keep - 1, 0, -1):
        older = path.with_name(f"{path.name}.{k - 1}") if k > 1 else path
        with contextlib.suppress(FileNotFoundError):
            older.rename(path.with_name(f"{path.name}.{k}"))


# --- the log -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Setup:
    """Where the lines of this process go."""

    process: str = ""
    level: Level = Level.INFO
    stream: IO[str] | None = None
    file: CappedFile | None = None
    render: Callable[[dict[str, Any]], str] | None = None
    """Made with the first line."""


_setup = _Setup()


def configure(
    process: str,
    *,
    stream: IO[str] | None = None,
    file: Path | None = None,
    level: Level = Level.INFO,
    secrets: Iterable[str] = (),
) -> None:
    """Where the lines of this process go: to `stream` (pretty when it is a terminal), to `file` (capped), or both.

    Neither: to stdout, where journald and people look for them. Without this call: warnings and errors to stderr.
    Raises OSError when `file` cannot be opened.
    """
    global _setup
    hide(secrets)
    if _setup.file:
        _setup.file.close()
    if stream is None and file is None:
        stream = sys.stdout
    _setup = _Setup(process=process, level=level, stream=stream, file=CappedFile(file) if file else None)


def silence(library: str) -> None:
    """A library that logs by the standard library, and whose errors we see otherwise, prints nothing."""
    import logging  # 1 MB that a process without such a library need not have

    logging.getLogger(library).addHandler(logging.NullHandler())


class Log:
    """A logger with ids bound once: ``Log(agent="agent-1").bind(uid=uid).info(Event.ITEM_CLAIMED, n=1)``.

    Takes words of the vocabulary only; prose belongs into errors.
    """

    __slots__ = ("_ids",)

    def __init__(self, **ids: object) -> None:
        self._ids = ids

    def bind(self, **ids: object) -> Log:
        return Log(**{**self._ids, **ids})

    def debug(self, event: Event, /, **values: object) -> None:
        self.log(Level.DEBUG, event, **values)

    def info(self, event: Event, /, **values: object) -> None:
        self.log(Level.INFO, event, **values)

    def warning(self, event: Event, /, **values: object) -> None:
        self.log(Level.WARNING, event, **values)

    def error(self, event: Event, /, **values: object) -> None:
        """``exc_info=True`` adds the traceback of the exception that is being handled."""
        self.log(Level.ERROR, event, **values)

    def log(self, level: Level, event: Event, /, **values: object) -> None:
        if _ORDER[level] < _ORDER[_setup.level]:
            return
        # A value may have the name of a field of ours.
        ids = {k + "_" if k in _TAKEN else k: v for k, v in (self._ids | values).items()}
        line = _line(_setup, level, event, ids)
        if _setup.file:
            _setup.file.write(json.dumps(line))
        stream = _setup.stream or (None if _setup.file else sys.stderr)
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):  # closed pipe, full disk, closed stream
                if _setup.render is None:
                    _setup.render = _render(stream)
                stream.write(_setup.render(line) + "\n")
                stream.flush()


_ORDER = {level: k for k, level in enumerate(Level)}
_TAKEN = frozenset({"event", "self", "ts", "level"})


def _line(setup: _Setup, level: Level, event: Event, values: Mapping[str, object]) -> dict[str, Any]:
    """What is said in one line: in order, JSON-ready, without secrets."""
    first: dict[str, Any] = {"ts": rfc3339(time.time()), "level": level.value, "event": event.value}
    if setup.process:
        first["process"] = setup.process
    failed = values.get("exc_info")
    line = first | {k: plain(v) for k, v in values.items() if k != "exc_info"}
    if failed:
        import traceback

        line["exception"] = plain(traceback.format_exc().removesuffix("\n"))
    return line


def _render(stream: IO[str]) -> Callable[[dict[str, Any]], str]:
    """How a line looks on `stream`: coloured by structlog on a terminal, one JSON object everywhere else."""
    if stream.closed or not stream.isatty():
        return json.dumps
    with _without("rich", "better_exceptions"):
        from structlog.dev import ConsoleRenderer

    colors = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    pretty = ConsoleRenderer(colors=colors, timestamp_key="ts", sort_keys=False)

    def render(line: dict[str, Any]) -> str:
        shown = {k: printable(v) if isinstance(v, str) else v for k, v in line.items()}
        return str(pretty(None, str(line["level"]), shown))

    return render


@contextlib.contextmanager
def _without(*modules: str) -> Iterator[None]:
    """Inside, these modules look as if they were not installed, unless they are imported already.

    structlog imports rich for tracebacks that we do not print: 5 MB and 75 ms.
    """
    absent = [m for m in modules if m not in sys.modules]
    for module in absent:
        sys.modules[module] = None  # type: ignore[assignment] # how import is told that there is none
    try:
        yield
    finally:
        for module in absent:
            sys.modules.pop(module, None)
