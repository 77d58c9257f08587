"""The slots of the pool as the reports of their workers and of the coordinator show them.

Reads reports, heartbeats and the kernel's word on who lives; writes nothing, decides nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from harness import procs, reports
from harness.clock import rfc3339
from harness.dataclass import dataclass
from harness.layout import Layout
from harness.reports import AgentReport, CoordinatorReport, process_of

AGENT_KEYS = (
    "id",
    "state",
    "pid",
    "item",
    "attempt",
    "project",
    "started_at",
    "last_beat",
    "last_event",
    "health",
    "rss_mb",
)
"""What `status --json` says of a slot, for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatus:
    """One slot of the pool. Times RFC 3339."""

    id: str
    state: str
    """What its worker says it does, or ``dead``."""
    pid: int | None = None
    item: str | None = None
    attempt: int = 0
    project: str = ""
    started_at: str = ""
    last_beat: str | None = None
    last_event: str = ""
    health: str = "ok"
    """ok, paused, backing off, hung, dead, stopped."""
    rss_mb: float = 0.0
    since: str = ""
    item_id: str = ""
    title: str = ""


def slots(layout: Layout, coordinator: CoordinatorReport | None) -> list[AgentStatus]:
    """Every slot that lives, that the (living) coordinator keeps, or whose worker left an item behind."""
    known: dict[str, Mapping[str, Any]] = dict(coordinator.agents) if coordinator else {}
    names = sorted({*known, *names_in(layout.run / "agents")}, key=_natural)
    return [agent for name in names if (agent := _agent(layout, name, known.get(name))) is not None]


def _agent(layout: Layout, name: str, said: Mapping[str, Any] | None) -> AgentStatus | None:
    """`said`: what the coordinator knows of the slot. None for a slot that is gone and owns nothing."""
    report = reports.read(reports.agent_path(layout, name), AgentReport)
    beat = _beat(layout, name)
    if report is None:
        if said is None:
            return None
        return AgentStatus(
            id=name, state="stopped", health=str(said.get("health", "stopped")), last_beat=beat
        )
    alive = report.state != "stopped" and process_of(report).alive()
    if not alive and said is None and not report.item:
        return None
    health = str(said.get("health", "ok")) if said else "ok"
    if not alive:
        health = "dead" if health == "ok" and report.state != "stopped" else health
    rss_mb = float(said.get("rss_mb") or 0.0) if said else 0.0
    return AgentStatus(
        id=name,
        state=report.state if alive else "stopped" if report.state == "stopped" else "dead",
        pid=report.pid if alive else None,
        item=report.item or None,
        attempt=report.attempt,
        project=report.project,
        started_at=report.started_at,
        last_beat=beat,
        last_event=report.last_event,
        health=health,
        rss_mb=round(rss_mb or (procs.rss_mb(report.pid) if alive else 0.0), 1),
        since=report.since,
        item_id=report.id,
        title=report.title,
    )


def _beat(layout: Layout, name: str) -> str | None:
    try:
        return rfc3339((layout.agent(name) / "heartbeat").stat().st_mtime)
    except OSError:
        return None


def names_in(folder: os.PathLike[str]) -> list[str]:
    """Names in a folder without hidden ones; none when there is no such folder."""
    try:
        return [name for name in os.listdir(folder) if name[0] != "."]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _natural(name: str) -> tuple[str, int]:
    """agent-2 before agent-10."""
    head, _, tail = name.rpartition("-")
    return (head, int(tail)) if tail.isdecimal() else (name, 0)
