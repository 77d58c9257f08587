"""The merger of one project: judges submitted results in the lane, moves the target, finishes items, publishes.

A process of its own, started by the coordinator when something is submitted; it ends itself when there is nothing left
to do. It may die anywhere: the next one ends what it left running, reads the lane and the target, and goes on. Two of
them are safe, and useless. It beats in every turn and while anything runs; TERM, INT and USR2 end it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import field
from pathlib import Path

from harness import logs, reports, submitted
from harness.atomicfs import FileLock, held
from harness.bell import Bell
from harness.clock import Clock, SystemClock, day, rfc3339
from harness.config import Config, Durability, Project, Publish, load
from harness.containment import Containment, Policy
from harness.dataclass import dataclass
from harness.errors import ConfigError, GitError, HarnessError
from harness.events import EventStream
from harness.gates import GateResult, Place, run_configured
from harness.hub import Conflict, Hub, Published, Refused, UpToDate
from harness.hub.git import GitInterrupted
from harness.lanehub import lane_hub
from harness.layout import Layout
from harness.logs import Event
from harness.model import Verdict
from harness.pace import idle_beat_s
from harness.presence import announce
from harness.reports import ProjectReport
from harness.runner import Runner
from harness.sessionfolder import SessionFolder
from harness.signals import Signals
from harness.store import attempts, lane
from harness.store.cells import Actor, Standing, look
from harness.store.disk import Disk
from harness.store.setup import open_store

LINGER_S = 30.0
"""An idle merger stays so long, so that the next result need not wait for a new process."""
SWEEP_S = 60.0
FETCH_S = 2.0
"""The person's repository is looked at no more often."""
PUBLISH_FIRST_S = 1.0
PUBLISH_MAX_S = 300.0


class Stopping(Exception):
    """This process was told to go while it judged. Nothing is decided."""


@dataclass(slots=True)
class Merger:
    layout: Layout
    config: Config
    project: Project
    clock: Clock
    actor: Actor
    disk: Disk
    events: EventStream
    signals: Signals
    runner: Runner
    hub: Hub
    report: ProjectReport = field(init=False)
    fetched: float = float("-inf")
    swept: float = float("-inf")
    publish_at: float = 0.0
    publish_delay: float = 0.0
    failure: GitError | None = None
    """Of a result that could not be judged."""
    contradiction: Conflict | None = None
    """What the person's target and ours changed in different ways."""

    def __post_init__(self) -> None:
        self.report = ProjectReport(project=self.project.name, pid=os.getpid())
        bound = lane_hub(self.hub, self.actor, self.disk, self._red_gate)
        self.disk.hubs = lambda _: bound

    # ---- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> int:
        self._bury()
        idle_since = self.clock.monotonic()
        with Bell(self.layout.bell(f"merger.{self.project.name}")) as bell:
            bell.open()
            while not self._told:
                self.signals.drain()
                self.runner.beat()
                bell.drain()
                busy = self._judge_all()
                busy |= self._publish()
                if self.failure is not None:
                    raise self.failure
                now = self.clock.monotonic()
                if busy:
                    idle_since = now
                    continue
                if now - idle_since > LINGER_S and not self.report.unpublished:
                    break
                self._say(state="idle", item=None, attempt=0)
                wait = LINGER_S if not self.report.unpublished else max(0.1, self.publish_at - now)
                wait = min(wait, LINGER_S, idle_beat_s(self.config.health.hang_s))
                if not self._told:  # a signal before `drain` wakes nobody any more
                    bell.wait(wait + 0.1, (self.signals.wake_fd,))
        self._say(state="stopped", item=None, attempt=0, next_try="")
        return 0

    def _bury(self) -> None:
        """End the gates of a predecessor that was killed: they would go on in the scratch worktree, or leave a cgroup."""
        last = reports.read(self.layout.project_status(self.project.name), ProjectReport)
        if last is not None and last.item and last.attempt:
            mark = _mark(last.item, last.attempt)
            killed = self.runner.containment.kill(mark)
            self.runner.containment.release(mark)
            if killed:
                self.events.emit(Event.SURVIVORS_KILLED, mark=mark, number=killed)

    @property
    def _told(self) -> bool:
        """To go: at once, or (HUP) so that another one starts with what config.yaml says now."""
        return self.signals.stops > 0 or self.signals.reload

    # ---- judging -----------------------------------------------------------------------------------------------------

    def _judge_all(self) -> bool:
        """Everything submitted, by priority, then in the order of submission. -> was there anything?"""
        todo = self._submitted()
        if not todo:
            return False
        self._fetch()
        for _, _, uid, n in sorted(todo):
            if self._told:
                break
            self._say(state="merging", item=uid, attempt=n)
            try:
                while not self.disk.run(lane.judge(self.actor, self.project.name, uid, n)):
                    if self.signals.stops:
                        raise Stopping
            except Stopping:
                break
            except GitInterrupted:
                raise
            except GitError as e:
                # Said, and this process ends by it; but one result that git cannot merge does not stop all others.
                self.events.emit(Event.PROCESS_FAILED, what="merge", uid=uid, n=n, reason=str(e))
                self.failure = e
                continue
            self._judged(uid, n)
        return True

    def _submitted(self) -> list[tuple[int, str, str, int]]:
        """(priority, time of submission, uid, n); by hints, now and then by looking at everything."""
        names = submitted.all_of(self.layout, self.project.name)
        now = self.clock.monotonic()
        if now - self.swept > SWEEP_S:
            self.swept = now
            names = list(dict.fromkeys((*names, *(self.disk.do_ls("queue/open") or ()))))
        todo = []
        for uid in names:
            seen = self.disk.run(look(uid))
            if seen.item and seen.item.project != self.project.name:
                continue
            if seen.standing is Standing.SUBMITTED and seen.item:
                end = seen.attempts[-1].end
                todo.append((seen.item.priority, end.ended_at if end else "", uid, seen.n))
                continue
            if seen.standing is Standing.OVER:
                self._finish(uid)
            submitted.remove(self.layout, self.project.name, uid)
        return todo

    def _judged(self, uid: str, n: int) -> None:
        submitted.remove(self.layout, self.project.name, uid)
        self._say(judged=self.report.judged + 1)
        seen = self.disk.run(look(uid))
        verdict = seen.last if isinstance(seen.last, Verdict) else None
        name = seen.item.id if seen.item else ""
        if verdict and verdict.merged:
            self.events.emit(Event.ITEM_MERGED, uid=uid, id=name, n=n, sha=verdict.merged)
        elif verdict and verdict.returned:
            self.events.emit(
                Event.ITEM_RETURNED,
                uid=uid,
                id=name,
                n=n,
                returned=verdict.returned,
                reason=verdict.why or None,
            )
            # A coordinator decides when it may run again: its project may be paused, its files in use.
            if seen.standing is Standing.READY and seen.item and not held(self.layout.coordinator_lock):
                self.disk.do_hint(uid, seen.item.priority)
                Bell(self.layout.bell("workers")).ring()
        if seen.standing is Standing.OVER:
            self._finish(uid)
        Bell(self.layout.bell("coordinator")).ring()

    def _finish(self, uid: str) -> None:
        done = self.disk.run(attempts.archive(uid))
        if done and done.here:
            self.events.emit(Event.ITEM_FINISHED, uid=uid, outcome=done.stub.outcome, sha=done.stub.sha)

    def _red_gate(self, uid: str, n: int, sha: str) -> GateResult | None:
        """Run merge.gates on the merged tree, in the scratch worktree, contained like an agent."""
        wanted = [self.project.gate(name) for name in self.project.merge.gates]
        if not wanted:
            return None
        self._say(state="gates", item=uid, attempt=n)
        tree = self.hub.checkout_merged(sha)
        session = self.layout.session(day(self.clock.wall()), uid, n) / "merge"
        folder = SessionFolder(session, self.layout.scratch(f"merger.{self.project.name}"))
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.clear(self.runner)  # of a merger that was killed
        place = Place(
            worktree=tree,
            folder=folder,
            mark=_mark(uid, n),
            slot="merger",
            round=1,
            policy=Policy(
                write=(tree,), hide=(*self.config.secrets, *self.layout.closed)
            ),  # what agents wrote runs here, too
            environ=os.environ,
            stall_s=self.config.health.stall_s,
        )
        report = run_configured(wanted, place, self.runner)
        folder.clear(self.runner)
        if report.stopped:
            raise Stopping(report.stopped)
        return report.red[0] if report.red else None

    # ---- the person's repository ------------------------------------------------------------------------------------

    def _fetch(self, *, now: bool = False) -> None:
        """Follow the person's target: forward when we are behind, by a merge in the lane when both moved."""
        if not now and self.clock.monotonic() - self.fetched < FETCH_S:
            return
        self.fetched = self.clock.monotonic()
        refreshed = self.hub.refresh()
        self.contradiction = None
        if refreshed.diverged:
            held = self.disk.run(lane.take_lane(self.actor, self.project.name))
            if held is not None:
                merged = self.hub.merge_upstream(held)
                self.contradiction = merged if isinstance(merged, Conflict) else None

    def _publish(self) -> bool:
        """Push the target to the person. -> did anything move? A refusal is reported, and tried again later."""
        if self.project.merge.publish is Publish.NONE:
            self._say(publish="off", unpublished=0)
            return False
        now = self.clock.monotonic()
        if now < self.publish_at:
            return False
        if not self.hub.unpublished():
            self._say(publish="ok", unpublished=0, reason="", remedy="")
            return False
        self._say(state="publishing", item=None, attempt=0)
        self._fetch(now=True)
        match self.hub.publish():
            case Published(sha=sha):
                self.publish_at = self.publish_delay = 0.0
                self.events.emit(Event.TARGET_PUBLISHED, project=self.project.name, sha=sha)
                self._say(publish="ok", unpublished=0, reason="", remedy="", since="", next_try="")
                Bell(self.layout.bell("coordinator")).ring()
                return True
            case UpToDate():
                self._say(publish="ok", unpublished=0, reason="", remedy="")
                return False
            case Refused(kind=kind, reason=reason, remedy=remedy, passing=passing):
                if self.contradiction is not None:
                    passing = False  # trying again changes nothing: a person must say what is right
                    path, target = self.project.path, self.project.target
                    reason = f"{target} there and the merges made here contradict each other in: " + (
                        ", ".join(self.contradiction.files[:10]) or self.contradiction.messages
                    )
                    remedy = f"on {target} of {path}: git pull --no-rebase {self.hub.path} {target}, resolve, commit"
                self._refused(str(kind), reason, remedy, passing)
                return False

    def _refused(self, kind: str, reason: str, remedy: str, passing: bool) -> None:
        self.publish_delay = min(max(PUBLISH_FIRST_S, self.publish_delay * 2), PUBLISH_MAX_S)
        self.publish_at = self.clock.monotonic() + self.publish_delay
        if (self.report.publish, self.report.reason) != (kind, reason):
            self.events.emit(Event.PUBLISH_REFUSED, project=self.project.name, reason=reason, kind=kind)
        self._say(
            publish=kind,
            passing=passing,
            reason=reason,
            remedy=remedy,
            unpublished=len(self.hub.unpublished()),
            since=self.report.since or rfc3339(self.clock.wall()),
            next_try=rfc3339(self.clock.wall() + self.publish_delay),
        )
        Bell(self.layout.bell("coordinator")).ring()

    def _say(self, **changes: object) -> None:
        target = {} if self.report.target else {"target": self.project.target}
        after = ProjectReport.from_record(self.report.to_record() | target | changes | {"v": 1})
        if after != self.report:
            self.report = after
            reports.write(self.layout.project_status(self.project.name), after)


def _mark(uid: str, n: int) -> str:
    """Of the gates on the merged tree."""
    return f"{uid}.{n}.merge"


def _beating(path: Path, signals: Signals) -> Callable[[], str | None]:
    """The beat of this process. -> why what runs must be stopped, or None."""

    def beat() -> str | None:
        with suppress(OSError):  # a full disk: the coordinator looks at what we do, too
            path.touch()
        return "the harness is stopping" if signals.stops else None

    return beat


def main(layout: Layout, slot: str) -> int:
    """One merger, from start to exit; `slot` is ``merger.<project>``.

    -> exit code: 0 nothing left to do, told to go, or another one runs already.
    """
    name = slot.removeprefix("merger.")
    logs.configure(slot, file=layout.logs / f"{slot}.log")
    clock = SystemClock()
    config = load(layout.config, cache=layout.validated)
    if name not in config.projects:
        raise ConfigError(f"there is no project {name!r} in config.yaml", where=layout.config)
    open_store(layout)
    layout.merger_lock(name).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(layout.merger_lock(name)) as lock:
        if not lock.try_lock():
            return 0
        with closing(announce(layout, slot)) as presence:
            signals = Signals()
            events = EventStream(layout, clock, slot)
            durable = config.durability is Durability.POWER
            runner = Runner(
                clock=clock,
                containment=Containment.probe(config.sandbox, cache=layout.mechanisms),
                beat=_beating(layout.merger_beat(name), signals),
                beat_s=config.health.beat_s,
                wake_fd=signals.wake_fd,
            )
            hub = Hub.open(
                layout, config.projects[name], runner=runner, durable=durable, clock=clock, emit=events.emit
            )
            merger = Merger(
                layout=layout,
                config=config,
                project=config.projects[name],
                clock=clock,
                actor=Actor(identity=presence.identity, stamp=lambda: rfc3339(clock.wall())),
                disk=Disk(layout, clock, durable=durable),
                events=events,
                signals=signals,
                runner=runner,
                hub=hub,
            )
            try:
                return merger.run()
            except GitInterrupted:
                return 0  # told to go while git ran: nothing is decided, the next one goes on
            except HarnessError as e:
                events.emit(Event.PROCESS_FAILED, what=slot, reason=str(e))
                raise
