"""What processes say of themselves in state/run/: whole files, replaced atomically, no truth, safe to delete.

A report is written by exactly one process (its owner) and read by `status`, `doctor` and the coordinator. It may be
stale: who wants to know whether its owner lives asks the kernel (locks, pidfds), not the report.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from harness.dataclass import dataclass
from harness.errors import StoreError
from harness.layout import Layout
from harness.procs import ProcessId
from harness.record import Record

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReport(Record):
    """run/agents/<agent>/status.json, by the worker. Times RFC 3339."""

    what: ClassVar[str] = "agent report"
    agent: str
    pid: int
    start_ticks: int = 0
    boot_id: str = ""
    incarnation: str = ""
    state: str = "idle"
    """idle, paused, claiming, preparing, setup, running, gates, submitting, draining."""
    item: str | None = None
    id: str = ""
    title: str = ""
    attempt: int = 0
    project: str = ""
    kind: str = ""
    started_at: str = ""
    since: str = ""
    """When the present state began."""
    last_event: str = ""
    session: str = ""
    """Folder of the running session, relative to the root."""
    attempts: int = 0
    """Attempts that this process has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorReport(Record):
    """run/coordinator.json, by the coordinator: at every change, and at least every few seconds."""

    what: ClassVar[str] = "coordinator report"
    pid: int
    start_ticks: int = 0
    boot_id: str = ""
    state: str = "running"
    """starting, running, draining, stopping, stopped."""
    started_at: str = ""
    ticked_at: str = ""
    swept_at: str = ""
    workers: int = 0
    """The pool's target."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """State -> number of items, as of `swept_at` and kept up to date since."""
    parked: tuple[Mapping[str, Any], ...] = ()
    """The first hundred parked items: uid, id, reason. Those of which a record is damaged come first, without an id."""
    ignored: Mapping[str, str] = field(default_factory=dict)
    """Files in the drop box that are no drops, and why."""
    pending_drops: int = 0
    agents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Slot -> health (ok, backing off, hung, paused), rss_mb, restarts, next_start."""
    limited: Mapping[str, int] = field(default_factory=dict)
    """Credential -> ready items that wait for its limit."""
    budgets: tuple[Mapping[str, Any], ...] = ()
    """Those that are spent, or that ready items wait for."""
    problems: tuple[str, ...] = ()
    """What needs a person, in words, most urgent first."""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectReport(Record):
    """run/projects/<project>.json, by its merger."""

    what: ClassVar[str] = "project report"
    project: str
    pid: int = 0
    state: str = "idle"
    """idle, merging, gates, publishing, stopped."""
    item: str | None = None
    attempt: int = 0
    judged: int = 0
    """Results that this process has merged or returned."""
    target: str = ""
    unpublished: int = 0
    publish: str = "ok"
    """ok, off, or why not: refused, stale, unreachable, ..."""
    passing: bool = False
    """What refuses may go by itself, without a person."""
    reason: str = ""
    remedy: str = ""
    since: str = ""
    next_try: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldReport(Record):
    """run/told.json, by the coordinator, for the next one."""

    what: ClassVar[str] = "report of what was told"
    parked: tuple[str, ...] = ()
    """``<uid>.<n>`` of parked items whose parking is in the event stream."""


def process_of(report: AgentReport | CoordinatorReport) -> ProcessId:
    """The process that wrote it; ask *it* whether it lives."""
    return ProcessId(pid=report.pid, start_ticks=report.start_ticks, boot_id=report.boot_id)


def coordinator_path(layout: Layout) -> Path:
    return layout.run / "coordinator.json"


def told_path(layout: Layout) -> Path:
    return layout.run / "told.json"


def agent_path(layout: Layout, agent: str) -> Path:
    return layout.agent(agent) / "status.json"


def write(path: Path, report: Record) -> None:
    """Replace a report; a full disk is no reason to stop working, so OSError is swallowed."""
    tmp = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tmp.write_bytes(report.to_bytes())
        os.replace(tmp, path)
    except OSError:
        with contextlib.suppress(OSError):
            tmp.unlink()


def read(path: Path, kind: type[R]) -> R | None:
    """None when there is none, or it cannot be read."""
    try:
        return kind.from_record(json.loads(path.read_bytes()), path)
    except (OSError, ValueError, RecursionError, StoreError):
        return None
