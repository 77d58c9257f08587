"""What the coordinator tells people: its report, the health of each slot, and what needs a person, most urgent first."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain, islice

from harness import procs, reports
from harness.clock import Clock, rfc3339
from harness.config import Config
from harness.coordinator.drops import DropWatch
from harness.coordinator.hinting import Hinting
from harness.coordinator.index import Index
from harness.coordinator.intake import Intake
from harness.coordinator.mergers import Mergers
from harness.coordinator.meter import Meter
from harness.coordinator.pool import Pool, Slot
from harness.coordinator.projects import Projects
from harness.dataclass import dataclass
from harness.layout import Layout
from harness.limits import limiter_of
from harness.model import Identity
from harness.reports import CoordinatorReport
from harness.sdnotify import Notifier
from harness.store.cells import Standing

CRASHES = 2
"""A process that died more often than this at its start needs a person."""
REPORT_S = 1.0
NAMED = 100
"""So many parked items and ignored files are named in the report."""


@dataclass(slots=True)
class Telling:
    layout: Layout
    clock: Clock
    me: Identity
    index: Index
    intake: Intake
    pool: Pool
    mergers: Mergers
    projects: Projects
    hinting: Hinting
    meter: Meter
    drops: DropWatch
    notifier: Notifier
    started_at: str = ""
    swept_at: str = ""
    _reported: float = float("-inf")

    def at_once(self) -> None:
        """What is said next is news."""
        self._reported = float("-inf")

    def say(self, state: str, config: Config) -> None:
        """Replace the report, no more often than every REPORT_S while all goes its way."""
        now = self.clock.monotonic()
        if now - self._reported < REPORT_S and state == "running":
            return
        self._reported = now
        self.meter.update()
        counts = self.index.counts()
        damaged = ({"uid": uid, "id": "", "reason": why} for uid, why in self.index.unreadable.items())
        parked = ({"uid": e.uid, "id": e.item.id, "reason": e.reason} for e in self.index.of(Standing.PARKED))
        report = CoordinatorReport(
            pid=self.me.pid,
            start_ticks=self.me.start_ticks,
            boot_id=self.me.boot_id,
            state=state,
            started_at=self.started_at,
            ticked_at=rfc3339(self.clock.wall()),
            swept_at=self.swept_at,
            workers=self.pool.target,
            counts=counts,
            parked=tuple(islice(chain(damaged, parked), NAMED)),
            ignored=dict(islice(self.intake.ignored.items(), NAMED)),
            pending_drops=self.intake.pending,
            metrics=self.meter.values(self.clock.wall()),
            agents={s.name: slot_report(s) for s in self.pool.slots.values()},
            limited=self._limited(config),
            budgets=self.hinting.budgets,
            problems=tuple(self._problems(config)),
        )
        reports.write(reports.coordinator_path(self.layout), report)
        self.notifier.status(f"{state}; " + ", ".join(f"{v} {k}" for k, v in counts.items() if v))

    def _limited(self, config: Config) -> dict[str, int]:
        """Credential -> ready items that wait for its limit."""
        stopped = self.hinting.limited.stopped
        waiting: Counter[str] = Counter()
        for entry in self.index.of(Standing.READY) if stopped else ():
            if entry.item.agents and stopped.issuperset(entry.item.agents):
                waiting[limiter_of(config, entry.item.agents[0])] += 1
        return dict(waiting)

    def _problems(self, config: Config) -> Iterator[str]:
        """What is wrong and what to do about it, one line each."""
        for slot in self.pool.slots.values():
            if slot.refused:
                yield f"{slot.name} cannot use config.yaml: harnessctl config check, then: kill -HUP {os.getpid()}"
            elif slot.quick_deaths > CRASHES:
                yield f"{slot.name} died {slot.quick_deaths} times at its start: harnessctl logs {slot.name}"
        for name, why in self.projects.unusable.items():
            yield f"project {name} cannot be used, its items wait: {why}"
        for name in self.projects.gone:
            yield f"project {name} is no longer in config.yaml, its items wait: add it again, or cancel them"
        for name in config.projects:
            if (deaths := self.mergers.quick_deaths(name)) > CRASHES:
                yield f"the merger of {name} died {deaths} times at its start: harnessctl logs merger.{name}"
            if (report := self.mergers.refused(name)) is not None:
                yield f"{name}: {report.unpublished} merges not published: {report.reason}. {report.remedy}".strip()
        if (self.layout.control / "pause").exists():
            yield "paused, nothing new is claimed: harnessctl resume"
        more = (self.drops.problem, *self.intake.unreadable.values())
        yield from (one for one in more if one)


def slot_report(slot: Slot) -> Mapping[str, object]:
    """One entry of CoordinatorReport.agents."""
    process = slot.handle.process if slot.handle else None
    return {
        "health": health(slot),
        "pid": process.pid if process else 0,
        "rss_mb": round(procs.rss_mb(process.pid), 1) if process else 0.0,
        "restarts": max(0, slot.restarts - 1),
    }


def health(slot: Slot) -> str:
    """ok, refused (it cannot use config.yaml), backing off, or stopped."""
    if slot.handle:
        return "ok"
    if slot.refused:
        return "refused"
    return "backing off" if slot.quick_deaths else "stopped"
