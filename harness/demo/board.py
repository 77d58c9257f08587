"""What is known of the run, from events and reports alone: pure, so that a test can feed it lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from harness.clock import parse_rfc3339
from harness.dataclass import dataclass
from harness.logs import Event
from harness.reports import AgentReport

Record = Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Row:
    """One item as it is shown."""

    id: str
    title: str
    state: str = "to come"
    """to come, waiting, ready, then what its worker says (preparing, running, gates, ...), merging, merged."""
    agent: str = ""
    attempt: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Something worth telling. `tone`: good, bad, or plain."""

    at: float
    """Seconds since the epoch."""
    text: str
    tone: str = "plain"


@dataclass(slots=True, kw_only=True)
class Kill:
    """The worker that was killed on purpose, and what followed. Times in seconds since the epoch."""

    agent: str
    pid: int
    uid: str
    item: str
    at: float
    expired_at: float | None = None
    replaced_at: float | None = None
    replacement: int = 0


@dataclass(slots=True)
class Board:
    """Fed with `hear` (events, in order) and `see` (reports of workers)."""

    titles: Mapping[str, str]
    rows: dict[str, Row] = field(init=False)
    """By the item's id."""
    uids: dict[str, str] = field(default_factory=dict)
    """id -> uid."""
    agents: dict[str, AgentReport] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    started: dict[str, float] = field(default_factory=dict)
    """id -> when its agent was started first."""
    kill: Kill | None = None
    _ids: dict[str, str] = field(default_factory=dict)
    _lost: set[tuple[str, int]] = field(default_factory=set)
    """Attempts that ended without a result, whose work was not said to be saved yet."""

    def __post_init__(self) -> None:
        self.rows = {name: Row(id=name, title=title) for name, title in self.titles.items()}

    @property
    def merged(self) -> int:
        return sum(row.state == "merged" for row in self.rows.values())

    def hear(self, record: Record) -> None:
        """One event."""
        uid = str(record.get("uid") or "")
        if uid and record.get("id"):
            self._ids.setdefault(uid, str(record["id"]))
            self.uids.setdefault(str(record["id"]), uid)
        row = self.rows.get(self._ids.get(uid, ""))
        at = parse_rfc3339(str(record["ts"]))
        self._of_processes(record, at)
        if row is not None:
            self._of_item(row, record, at)

    def see(self, reports: Iterable[AgentReport]) -> None:
        """What the workers say they do."""
        for report in reports:
            self.agents[report.agent] = report
            row = self.rows.get(report.id)
            busy = row is not None and row.agent == report.agent and row.attempt == report.attempt
            if row is not None and busy and row.state not in ("merging", "merged", "ready"):
                row.state = report.state

    def note_kill(self, worker: AgentReport, at: float) -> None:
        self.kill = Kill(agent=worker.agent, pid=worker.pid, uid=str(worker.item), item=worker.id, at=at)
        what = f"kill -9 {worker.pid}: on purpose, {worker.agent} dies half-way through {worker.id}"
        self.lines.append(Line(at=at, text=what, tone="bad"))

    # ---- events ------------------------------------------------------------------------------------------------------

    def _of_processes(self, record: Record, at: float) -> None:
        match record.get("event"):
            case Event.WORKER_STARTED:
                again = self.kill is not None and self.kill.agent == record["agent"]
                if self.kill is not None and again and self.kill.replaced_at is None:
                    self.kill.replaced_at, self.kill.replacement = at, int(record["pid"])
                    text = f"{record['agent']} is replaced: process {record['pid']}"
                    self._tell(at, f"{text}, {at - self.kill.at:.2f} s after the kill", "good")
                else:
                    self._tell(at, f"{record['agent']} started: process {record['pid']}")
            case Event.WORKER_DIED if self.kill is None or record.get("agent") != self.kill.agent:
                self._tell(at, f"{record.get('agent')} died, and not on purpose", "bad")
            case Event.WORK_SALVAGED:
                self._salvaged(record, at)
            case Event.ITEM_REJECTED:
                self._tell(at, f"{record.get('name')} was rejected: {record.get('reasons')}", "bad")
            case _:
                pass

    def _of_item(self, row: Row, record: Record, at: float) -> None:
        n = int(record.get("n") or 0)
        match record["event"]:
            case Event.ITEM_ADMITTED:
                row.state = "ready" if record.get("phase") == "open" else "waiting"
            case Event.ITEM_PROMOTED:
                row.state = "ready"
            case Event.ITEM_CLAIMED:
                row.state, row.agent, row.attempt = "claimed", str(record["agent"]), n
                again = f", attempt {n}" if n > 1 else ""
                self._tell(at, f"{row.agent} takes {row.id}{again}")
            case Event.AGENT_STARTED:
                self.started.setdefault(row.id, at)
            case Event.GATE_FAILED:
                row.note = f"{record['gate']} red"
                self._tell(at, f"{row.id}: gate {record['gate']} is red ({record.get('reason', '')})", "bad")
            case Event.HEAL_STARTED:
                row.note = "healed in the same session"
                self._tell(at, f"{row.id}: the failure goes back to the agent, in the same session")
            case Event.ATTEMPT_EXPIRED:
                self._expired(row, n, at)
            case Event.ATTEMPT_ENDED if record.get("outcome") == "failed":
                row.state, row.agent, row.note = "ready", "", f"attempt {n} failed"
                self._tell(at, f"{row.id}: attempt {n} failed; the next one is told why", "bad")
            case Event.ITEM_SUBMITTED:
                row.state, row.agent = "merging", ""
            case Event.ITEM_RETURNED:
                row.state, row.note = "ready", f"attempt {n} returned: {record['returned']}"
                why = f"{record['returned']} {record.get('reason') or ''}".strip()
                self._tell(at, f"{row.id}: returned by the merge lane ({why})", "bad")
            case Event.ITEM_MERGED:
                row.state = "merged"
                self._tell(at, f"{row.id} is merged as {str(record['sha'])[:8]}", "good")
            case Event.ITEM_PARKED:
                row.state, row.note = "parked", str(record.get("reason") or "")
                self._tell(at, f"{row.id} is parked: {row.note}", "bad")
            case _:
                pass

    def _expired(self, row: Row, n: int, at: float) -> None:
        row.state, row.agent, row.note = "ready", "", f"attempt {n} expired"
        self._lost.add((self.uids[row.id], n))
        if self.kill is not None and self.kill.item == row.id and self.kill.expired_at is None:
            self.kill.expired_at = at
            after = f"{max(0.0, at - self.kill.at) * 1000:.0f} ms after the kill"
            self._tell(at, f"{row.id}: attempt {n} is expired, {after}; the item is ready again", "good")
        else:
            self._tell(at, f"{row.id}: attempt {n} expired", "bad")

    def _salvaged(self, record: Record, at: float) -> None:
        """Told once, and not of attempts whose commits are on their way to a merge."""
        uid, n = str(record.get("uid") or ""), int(record.get("n") or 0)
        if (uid, n) in self._lost:
            self._lost.discard((uid, n))
            self._tell(
                at, f"{self._ids.get(uid, uid)}: what attempt {n} left unfinished is saved in git", "good"
            )

    def _tell(self, at: float, text: str, tone: str = "plain") -> None:
        self.lines.append(Line(at=at, text=text, tone=tone))
