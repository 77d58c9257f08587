"""What the coordinator tells people: the health of each slot, and what needs a person, most urgent first."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from harness import procs
from harness.coordinator.mergers import Mergers
from harness.coordinator.pool import Slot
from harness.coordinator.projects import Projects
from harness.layout import Layout

CRASHES = 2
"""A process that died more often than this at its start needs a person."""


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


def problems(
    layout: Layout,
    slots: Iterable[Slot],
    projects: Projects,
    mergers: Mergers,
    names: Iterable[str],
    more: Iterable[str],
) -> Iterator[str]:
    """What is wrong and what to do about it, one line each. `names`: the projects of config.yaml."""
    for slot in slots:
        if slot.refused:
            yield f"{slot.name} cannot use config.yaml: harnessctl config check, then: kill -HUP {os.getpid()}"
        elif slot.quick_deaths > CRASHES:
            yield f"{slot.name} died {slot.quick_deaths} times at its start: harnessctl logs {slot.name}"
    for name, why in projects.unusable.items():
        yield f"project {name} cannot be used, its items wait: {why}"
    for name in projects.gone:
        yield f"project {name} is no longer in config.yaml, its items wait: add it again, or cancel them"
    for name in names:
        if (deaths := mergers.quick_deaths(name)) > CRASHES:
            yield f"the merger of {name} died {deaths} times at its start: harnessctl logs merger.{name}"
        report = mergers.report(name)
        if report and report.publish not in ("ok", "off"):
            yield f"{name}: {report.unpublished} merges not published: {report.reason}. {report.remedy}".strip()
    if (layout.control / "pause").exists():
        yield "paused, nothing new is claimed: harnessctl resume"
    yield from (one for one in more if one)
