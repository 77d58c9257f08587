"""The state of a root at one moment, for people and programs: what runs, what is queued, what needs a person.

Reads reports in state/run/ and, only when no coordinator keeps the counts, the store. Writes nothing, decides nothing.
This is the path of `harnessctl status`, which must be instant: nothing heavy is imported here, the store only when it
is scanned.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from harness import reports
from harness.atomicfs import open_plain
from harness.clock import Clock, day, parse_rfc3339, rfc3339
from harness.dataclass import dataclass
from harness.layout import DROP_SUFFIXES, Layout
from harness.procs import ProcessId
from harness.reports import CoordinatorReport, ProjectReport, process_of
from harness.slots import AGENT_KEYS, AgentStatus, names_in, slots

SCHEMA_VERSION = 1
FRESH_S = 30.0
"""A coordinator reports every few seconds; one that was silent for so long is not believed."""
METRICS = (
    "throughput_per_hour",
    "success_rate",
    "average_seconds",
    "attempts",
    "expired",
    "limit_rate",
    "spend_usd_today",
    "interventions_today",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorStatus:
    state: str = "stopped"
    """What it says of itself (starting, running, draining, stopping), or ``silent``, or ``stopped``."""
    pid: int | None = None
    started_at: str | None = None
    uptime_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Numbers of items. `publishing`: merged, but not yet in the person's repository; `done`: over and there.

    `total` counts every item, also what is cancelled or about to be admitted.
    """

    waiting: int = 0
    ready: int = 0
    claimed: int = 0
    merging: int = 0
    publishing: int = 0
    done: int = 0
    parked: int = 0
    rejected: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Something that only a person can move on: what it is, and the command that helps."""

    what: str
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStatus:
    """A credential on which nothing starts. Times RFC 3339."""

    credential: str
    kind: str
    since: str
    until: str | None
    """None: until a person has helped, or an attempt has found out."""
    waiting: int
    """Ready items that wait for it, as far as the coordinator knows."""
    agent: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStatus:
    """A budget that is spent, or that ready items wait for, as the coordinator last saw it. None: no limit."""

    name: str
    usd: float | None
    usd_spent: float
    usd_reserved: float
    tokens: int | None
    tokens_spent: int
    tokens_reserved: int
    waiting: int
    items: tuple[str, ...] = ()
    """Some of those that wait."""
    blocks: bool = False
    """Nobody who runs can make room for what waits."""
    what: str = ""
    setting: str = ""
    """Where it stands in config.yaml."""


BUDGET_KEYS = (
    "name",
    "usd",
    "usd_spent",
    "usd_reserved",
    "tokens",
    "tokens_spent",
    "tokens_reserved",
    "waiting",
)
MAX_INTERRUPT_BYTES = 64 << 10
LIMIT_KEYS = ("credential", "kind", "since", "until", "waiting", "agent", "detail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    timestamp: str
    coordinator: CoordinatorStatus
    agents: tuple[AgentStatus, ...]
    queue: Queue
    metrics: Mapping[str, float]
    needs: tuple[Need, ...] = ()
    """Most urgent first."""
    projects: tuple[ProjectReport, ...] = ()
    limits: tuple[LimitStatus, ...] = ()
    interrupts: tuple[Mapping[str, Any], ...] = ()
    """What waits for a person, as state/interrupts/ has it, the oldest first."""
    budgets: tuple[BudgetStatus, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    """Files in the drop box that are no drops, and why."""
    drops: int = 0
    """Files in the drop box that are still to be taken."""

    def to_json(self) -> dict[str, Any]:
        """The keys that are kept for ever, no others; what does not exist is an empty list or 0."""
        return {
            "schema_version": SCHEMA_VERSION,
            "timestamp": self.timestamp,
            "coordinator": {
                "pid": self.coordinator.pid,
                "started_at": self.coordinator.started_at,
                "uptime_seconds": self.coordinator.uptime_seconds,
                "state": self.coordinator.state,
            },
            "agents": [{key: getattr(agent, key) for key in AGENT_KEYS} for agent in self.agents],
            "queue": {key: getattr(self.queue, key) for key in Queue.__slots__},
            "convoys": [],
            "interrupts": [dict(interrupt) for interrupt in self.interrupts],
            "limits": [{key: getattr(limit, key) for key in LIMIT_KEYS} for limit in self.limits],
            "budgets": [{key: getattr(budget, key) for key in BUDGET_KEYS} for budget in self.budgets],
            "metrics": {key: self.metrics.get(key, 0) for key in METRICS},
        }


def collect(layout: Layout, clock: Clock) -> Status:
    """Everything at this moment. Not a snapshot: what moves meanwhile may be seen on either side."""
    now = clock.wall()
    report = reports.read(reports.coordinator_path(layout), CoordinatorReport)
    coordinator = coordinator_status(report, now)
    agents = tuple(slots(layout, report if coordinator.pid else None))
    projects = tuple(_projects(layout))
    drops = _drops(layout)
    if report and coordinator.state not in ("stopped", "silent"):
        counts, parked, ignored = (
            _counts(layout, report),
            [dict(p) for p in report.parked],
            dict(report.ignored),
        )
        metrics, problems = dict(report.metrics), report.problems
        drops = max(drops - len(ignored), 0)
    else:
        from harness.tally import tally  # the store is read only when nobody else has counted it

        counted = tally(layout)
        counts, parked = counted.counts, counted.parked
        metrics, problems, ignored = {}, (), {}
    queue = _queue(counts, sum(p.unpublished for p in projects))
    limits = _limits(layout, now, report.limited if report else {})
    budgets = _budgets(report, now)
    return Status(
        timestamp=rfc3339(now),
        coordinator=coordinator,
        agents=agents,
        queue=queue,
        metrics=metrics | _spent_today(layout, clock),
        needs=(
            *(_helpless(limit) for limit in limits if limit.kind in ("auth", "billing")),
            *(_unpaid(budget, coordinator.pid) for budget in budgets if budget.blocks),
            *_needs(coordinator, problems, agents, projects, parked, queue, drops, ignored),
            *_paused(layout, counted=coordinator.state not in ("stopped", "silent")),
        ),
        projects=projects,
        limits=limits,
        interrupts=tuple(_interrupts(layout)),
        budgets=budgets,
        ignored=ignored,
        drops=drops,
    )


def coordinator_status(report: CoordinatorReport | None, now: float) -> CoordinatorStatus:
    """Whether the coordinator that wrote this report lives (the kernel says) and works (its last tick says)."""
    if report is None or report.state == "stopped" or not process_of(report).alive():
        return CoordinatorStatus()
    silent = abs(now - _seconds(report.ticked_at, now)) > FRESH_S
    return CoordinatorStatus(
        state="silent" if silent else report.state,
        pid=report.pid,
        started_at=report.started_at or None,
        uptime_seconds=round(max(0.0, now - _seconds(report.started_at, now)), 3),
    )


def coordinator_process(layout: Layout) -> ProcessId | None:
    """The coordinator of this root, when one lives."""
    report = reports.read(reports.coordinator_path(layout), CoordinatorReport)
    if report is None or report.state == "stopped":
        return None
    process = process_of(report)
    return process if process.alive() else None


def _seconds(moment: str, default: float) -> float:
    try:
        return parse_rfc3339(moment)
    except ValueError:
        return default


def _projects(layout: Layout) -> list[ProjectReport]:
    folder = layout.run / "projects"
    names = sorted(name for name in names_in(folder) if name.endswith(".json"))
    found = (reports.read(folder / name, ProjectReport) for name in names)
    return [report for report in found if report is not None]


def _limits(layout: Layout, now: float, waiting: Mapping[str, int]) -> tuple[LimitStatus, ...]:
    """What holds now. Usually there is nothing, and nothing is imported for it."""
    if not any(name.endswith(".json") for name in names_in(layout.limits)):
        return ()
    from harness.clock import SystemClock
    from harness.limits import PERSONAL, Limits

    found = []
    for record in Limits(layout, SystemClock()).all():
        until = record.until if record.kind not in PERSONAL else ""
        ends = _seconds(until, -1.0)
        if until and (ends < 0 or (record.told and ends <= now)):
            continue
        found.append(
            LimitStatus(
                credential=record.credential,
                kind=record.kind.value,
                since=record.since,
                until=until or None,
                waiting=waiting.get(record.credential, 0),
                agent=record.agent,
                detail=record.detail,
            )
        )
    return tuple(found)


INTERRUPT_KEYS = ("kind", "what", "remedy", "raised_at")


def _interrupts(layout: Layout) -> list[dict[str, Any]]:
    """Every question that can be read; what it is about is its name."""
    found = []
    for name in sorted(name for name in names_in(layout.interrupts) if name.endswith(".json")):
        try:
            with open(open_plain(layout.interrupts / name), "rb") as file:
                data = json.loads(file.read(MAX_INTERRUPT_BYTES))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(data, dict):
            told = {key: str(data.get(key, "")) for key in INTERRUPT_KEYS}
            found.append({"id": name.removesuffix(".json"), **told})
    return sorted(found, key=lambda one: one["raised_at"])


def _helpless(limit: LimitStatus) -> Need:
    what = f"credential {limit.credential} is refused ({limit.kind}): {limit.detail}. Nothing starts on it"
    if limit.waiting:
        what += f", {limit.waiting} items wait"
    return Need(
        what=what, command=f"harnessctl resume --credential {limit.credential}   # when it is repaired"
    )


def _budgets(report: CoordinatorReport | None, now: float) -> tuple[BudgetStatus, ...]:
    """Also what a coordinator has said that is gone: it is why its items wait. A day that is over stops nothing."""
    found = []
    for row in report.budgets if report else ():
        if row.get("day") not in (None, "", day(now)):
            continue
        known = {key: row.get(key) for key in BudgetStatus.__slots__}
        found.append(BudgetStatus(**known | {"items": tuple(row.get("items") or ())}))
    return tuple(found)


def _spent_today(layout: Layout, clock: Clock) -> dict[str, float]:
    """From the ledger's sums, whoever keeps them. Usually there is none, and nothing is imported for it."""
    if not names_in(layout.spend):
        return {}
    from harness.spend import Ledger

    try:
        return {"spend_usd_today": round(Ledger(layout, clock).today().usd, 6)}
    except OSError:
        return {}


def _unpaid(budget: BudgetStatus, pid: int | None) -> Need:
    named = ", ".join(budget.items)
    more = ", ..." if budget.waiting > len(budget.items) else ""
    day_ends = "; it begins anew at midnight UTC" if budget.name == "day" else ""
    then = f", then: kill -HUP {pid}" if pid else ""
    return Need(
        what=f"{budget.what}; {budget.waiting} items wait ({named}{more}){day_ends}",
        command=f"harnessctl spend   # or raise {budget.setting} in config.yaml{then}",
    )


def _drops(layout: Layout) -> int:
    return sum(
        name[0] not in "._" and os.path.splitext(name)[1].lower() in DROP_SUFFIXES
        for name in names_in(layout.queue)
    )


def _counts(layout: Layout, report: CoordinatorReport) -> dict[str, int]:
    """The coordinator's numbers; what it does not count (what is over) is counted by names."""
    counts = dict(report.counts)
    if "claimed" in counts:
        counts["running"] = counts.pop("claimed")
    queue = layout.queue
    if not {"done", "merged"} & counts.keys():
        archive = queue / "archive"
        counts["done"] = sum(len(names_in(archive / day)) for day in names_in(archive))
    for phase in ("incoming", "rejected"):
        if phase not in counts:
            counts[phase] = len(names_in(queue / phase))
    return counts


def _queue(counts: Mapping[str, int], unpublished: int) -> Queue:
    over = counts.get("done", 0) + counts.get("merged", 0)
    publishing = min(unpublished, over)
    return Queue(
        waiting=counts.get("waiting", 0),
        ready=counts.get("ready", 0),
        claimed=counts.get("running", 0),
        merging=counts.get("merging", 0),
        publishing=publishing,
        done=over - publishing,
        parked=counts.get("parked", 0),
        rejected=counts.get("rejected", 0),
        total=sum(counts.values()),
    )


def _paused(layout: Layout, *, counted: bool) -> list[Need]:
    """Pauses that would be forgotten otherwise: a slot shows its own, a coordinator (`counted`) that of everything."""
    names = sorted(names_in(layout.control))
    needs = []
    if "pause" in names and not counted:
        needs.append(Need(what="paused, nothing new is claimed", command="harnessctl resume"))
    for name in names:
        head, _, project = name.partition("pause.project.")
        if project and not head:
            what = f"project {project} is paused, nothing of it is claimed"
            needs.append(Need(what=what, command=f"harnessctl resume --project {project}"))
    return needs


def _needs(
    coordinator: CoordinatorStatus,
    problems: tuple[str, ...],
    agents: tuple[AgentStatus, ...],
    projects: tuple[ProjectReport, ...],
    parked: list[dict[str, Any]],
    queue: Queue,
    drops: int,
    ignored: Mapping[str, str],
) -> list[Need]:
    needs: list[Need] = []
    if coordinator.state == "stopped":
        waits = drops or queue.waiting + queue.ready + queue.claimed + queue.merging
        what = "no coordinator runs" + ("; nothing is admitted, promoted or merged" if waits else "")
        needs.append(Need(what=what, command="harnessctl run"))
    elif coordinator.state == "silent":
        what = f"the coordinator (pid {coordinator.pid}) has said nothing for {FRESH_S:.0f} s"
        needs.append(Need(what=what, command="harnessctl doctor"))
    needs += [Need(what=problem) for problem in problems]
    counted = coordinator.state not in ("stopped", "silent")  # it names what follows among its problems
    for project in projects:
        if project.publish not in ("ok", "off") and not counted:
            what = f"project {project.project}: {project.unpublished} merged but not published ({project.publish})"
            why = project.reason.strip().partition("\n")[0]
            needs.append(Need(what=f"{what}: {why}".rstrip(": "), command=project.remedy))
    for agent in agents:
        if agent.health in ("hung", "dead") and coordinator.state == "stopped" and agent.item:
            what = f"{agent.id} died on {agent.item}; its attempt is given up by the next coordinator"
            needs.append(Need(what=what, command="harnessctl run"))
    for item in parked:
        name = str(item.get("id") or item.get("uid", ""))
        what = f"{name} is parked: {item.get('reason', '')}".rstrip(": ")
        damaged = not item.get("id")  # no record of it is believed then
        command = "harnessctl fsck" if damaged else f"harnessctl retry {item.get('uid', name)}"
        needs.append(Need(what=what, command=command))
    if queue.parked > len(parked):
        more = queue.parked - len(parked)
        needs.append(Need(what=f"{more} more are parked", command="harnessctl items --state parked"))
    for name, why in ignored.items():
        needs.append(Need(what=f"queue/{name} is ignored: it {why}"))
    return needs
