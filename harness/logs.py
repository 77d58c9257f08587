"""Logging: a closed vocabulary of past-tense events, JSON lines off a terminal, secrets redacted.

The vocabulary is shared with the durable event stream (`events.py`); a test keeps every use inside it. structlog is
imported with the first line that is logged, so that a command that logs nothing does not pay for it.

Logging never ends a process: a full disk or a closed pipe loses lines, nothing else.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from harness.clock import rfc3339
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
    process: str = ""
    level: Level = Level.INFO
    stream: IO[str] | None = None
    file: CappedFile | None = None
    root: Any = None
    """The structlog logger, made with the first line."""


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
        if _setup.root is None:
            _setup.root = _logger(_setup)
        # `event` is structlog's own name for its first argument; a value of that name must not end a process.
        ids = {k + "_" if k in _TAKEN else k: v for k, v in (self._ids | values).items()}
        getattr(_setup.root, level)(event.value, **ids)


_ORDER = {level: k for k, level in enumerate(Level)}
_TAKEN = frozenset({"event", "self", "ts", "level"})
_FIRST = ("ts", "level", "event", "process")


def _logger(setup: _Setup) -> Any:
    with _without("rich", "better_exceptions"):
        import structlog

    def prepare(_: object, method: str, values: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        cleaned = {k: v if k == "exc_info" else plain(v) for k, v in values.items()}
        first = {"ts": rfc3339(time.time()), "level": method, "event": cleaned.pop("event")}
        if setup.process:
            first["process"] = setup.process
        return first | cleaned

    def redact_traceback(_: object, __: str, values: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if isinstance(trace := values.get("exception"), str):
            values["exception"] = plain(trace)
        return values

    stream = setup.stream or (None if setup.file else sys.stderr)
    as_json = structlog.processors.JSONRenderer(ensure_ascii=True)
    render: Any = as_json
    if stream is not None and not stream.closed and stream.isatty():
        colors = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        pretty = structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="ts", sort_keys=False)

        def render(log: Any, method: str, values: MutableMapping[str, Any]) -> str:
            shown = {k: printable(v) if isinstance(v, str) else v for k, v in values.items()}
            return str(pretty(log, method, shown))

    def write(log: Any, method: str, values: MutableMapping[str, Any]) -> str:
        if setup.file:
            setup.file.write(str(as_json(log, method, dict(values))))
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):  # closed pipe, full disk, closed stream
                stream.write(str(render(log, method, dict(values))) + "\n")
                stream.flush()
        raise structlog.DropEvent

    return structlog.wrap_logger(
        structlog.PrintLogger(),
        processors=[prepare, structlog.processors.format_exc_info, redact_traceback, write],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        context_class=dict,
        cache_logger_on_first_use=True,
    )


@contextlib.contextmanager
def _without(*modules: str) -> Iterator[None]:
    """Inside, these modules look as if they were not installed, unless they are imported already.

    structlog imports rich for tracebacks that we do not print: 5 MB and 75 ms in every worker.
    """
    absent = [m for m in modules if m not in sys.modules]
    for module in absent:
        sys.modules[module] = None  # type: ignore[assignment] # how import is told that there is none
    try:
        yield
    finally:
        for module in absent:
            sys.modules.pop(module, None)
