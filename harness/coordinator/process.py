"""The coordinator process: one loop of verbs, woken by drops, bells, deaths and signals; a slow sweep is the truth.

First TERM or INT (or state/control/drain): drain. Second (or state/control/stop): stop now. HUP: read config.yaml.
USR1: write the state and all stacks to the log. The watchdog ping is sent only after a completed tick.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from dataclasses import dataclass

from harness import presence, reports
from harness.bell import Bell
from harness.clock import Clock, day, rfc3339
from harness.config import Config, load
from harness.coordinator.drops import DropWatch
from harness.coordinator.hinting import Hinting
from harness.coordinator.index import Entry, Index
from harness.coordinator.intake import Intake
from harness.coordinator.mergers import Mergers
from harness.coordinator.meter import Meter
from harness.coordinator.pool import Pool, Slot
from harness.coordinator.projects import Projects
from harness.coordinator.telling import problems, slot_report
from harness.errors import ConfigError, UnreadableRecordError
from harness.events import EventStream
from harness.hands import LocalHands
from harness.layout import Layout
from harness.logs import Event
from harness.model import Outcome
from harness.monitor import Limits
from harness.reports import CoordinatorReport
from harness.sdnotify import Notifier
from harness.signals import Signals
from harness.store import attempts, promotion
from harness.store.cells import Actor, Standing
from harness.store.disk import Disk

SWEEP_S = 2.0
SWEEP_SHARE = 50
"""A sweep that takes t seconds is made no more often than every SWEEP_SHARE * t."""
REPORT_S = 1.0
STOP_GRACE_S = 30.0
"""After a stop: how long workers may take to release their attempts before they are killed."""
STARTING_S = 3600.0
"""Files in queue/tmp/ of a process that starts are given so long."""
LIVE = (Standing.READY, Standing.RUNNING, Standing.SUBMITTED)


@dataclass(slots=True)
class Coordinator:
    layout: Layout
    config: Config
    clock: Clock
    actor: Actor
    disk: Disk
    events: EventStream
    signals: Signals
    hands: LocalHands
    index: Index
    intake: Intake
    hinting: Hinting
    pool: Pool
    mergers: Mergers
    projects: Projects
    meter: Meter
    notifier: Notifier
    drops: DropWatch
    bell: Bell
    current: list[Config]
    """The one configuration that admission reads; replaced when config.yaml is read again."""
    until_idle: bool = False
    timeout_s: float | None = None
    workers: int | None = None
    """An option on the command line wins over config.yaml, also after a reload."""
    started: float = 0.0
    started_at: str = ""
    state: str = "starting"
    swept: float = float("-inf")
    swept_at: str = ""
    sweep_s: float = SWEEP_S
    reported: float = 0.0
    drain_until: float | None = None
    stopping_since: float | None = None
    asked: int = 0
    """Stops that were acted on: 0, 1 drain, 2 stop."""
    merger_stop: float | None = None
    was_idle: bool = False
    """The end of --until-idle: nothing moved any more."""
    timed_out: bool = False

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Until told to go, until idle, or until the time is over. -> exit code."""
        self.started, self.started_at = self.clock.monotonic(), rfc3339(self.clock.wall())
        self.pool.resize(self.target())
        self.pool.adopt()
        self.mergers.adopt()
        self._recover()
        self.state = "running"
        self.notifier.ready()
        while True:
            self._drain_signals()
            self._reap()
            self._admit()
            self._look()
            self._promote()
            self._hint()
            self._merge()
            self._fill()
            self.say()
            self.notifier.watchdog()
            if (code := self._finished()) is not None:
                return code
            self._wait()

    def _wait(self) -> None:
        """Until something happens, or the next thing is due."""
        now = self.clock.monotonic()
        due = [self.swept + self.sweep_s]
        due += [t for t in (self.hinting.next_change, self.pool.next_start()) if t is not None and t > now]
        if self.intake.more:
            due.append(now)
        if self.intake.pending or self.state != "running":
            due.append(now + 0.25)
        timeout = max(0.0, min(due) - now)
        self.bell.wait(timeout, (self.signals.wake_fd, *self.pool.fds(), *self.mergers.fds()))
        self.bell.drain()
        self.signals.drain()

    # ---- verbs -------------------------------------------------------------------------------------------------------

    def _drain_signals(self) -> None:
        control = self.layout.control
        stops = max(self.signals.stops, 1 if (control / "drain").exists() else 0)
        if (control / "stop").exists():
            stops = 2
        if self.drain_until is not None and self.clock.monotonic() > self.drain_until:
            stops = 2
        if stops > 0 and self.asked < 1:
            self.asked = 1
            self.state = "draining"
            self.drain_until = self.clock.monotonic() + self.config.drain_s
            self.events.emit(Event.DRAIN_STARTED, drain_s=self.config.drain_s)
            self.notifier.stopping()  # `_fill` retires every worker that was not told to go already
        if stops > 1 and self.asked < 2:
            self.asked = 2
            self.state = "stopping"
            self.stopping_since = self.clock.monotonic()
            self.mergers.signal_all(signal.SIGTERM)
        if self.signals.reload:
            self.signals.reload = False
            self._reload()
        if self.signals.dump:
            self.signals.dump = False
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
            self.events.emit(
                Event.STATE_DUMPED,
                counts=self.index.counts(),
                pool={s.name: str(s) for s in self.pool.alive()},
            )

    def _reload(self) -> None:
        try:
            self.config = load(self.layout.config)
        except ConfigError as e:
            self.events.emit(Event.CONFIG_REFUSED, reason=str(e))
            return
        self.current[0] = self.config
        self.pool.limits = Limits(hang_s=self.config.health.hang_s)
        self.hands.hang_s = self.config.health.hang_s
        self.index.max_delay_s = self.config.retry.max_delay_s
        self.projects.check(self.config)
        self.pool.resize(self.target())
        self.pool.forgive()
        self.pool.signal_all(signal.SIGHUP)
        self.mergers.signal_all(signal.SIGHUP)  # they end, and are started again with what it says now
        self.events.emit(Event.CONFIG_RELOADED, workers=self.pool.target)

    def _reap(self) -> None:
        """Deaths first: what a dead worker held is ended at once, by the lock that the kernel freed."""
        dead = self.pool.reap()
        for slot in dead:
            self._end_of(slot)
        if dead:
            presence.sweep(self.layout)
            self._sweep_tmp()
        self.mergers.reap()
        for mark, number in self.hands.killed:
            self.events.emit(Event.SURVIVORS_KILLED, mark=mark, number=number)
        self.hands.killed.clear()

    def _end_of(self, slot: Slot) -> None:
        report = slot.report
        if report is not None and report.item:
            self._expire(report.item, report.attempt)
        # It may have claimed something that its last report does not tell yet.
        for uid in list(self.disk.hints.find(limit=8)):
            self._touch(uid)
        for entry in list(self.index.of(Standing.RUNNING)):
            self._expire(entry.uid, entry.n)

    def _expire(self, uid: str, n: int) -> None:
        outcome = self.disk.run(attempts.expire(self.actor, uid, n))
        if outcome is None:
            return
        event = Event.ATTEMPT_EXPIRED if outcome is Outcome.EXPIRED else Event.ATTEMPT_ENDED
        self.events.emit(event, uid=uid, n=n, outcome=outcome.value)
        self._touch(uid)

    def _admit(self) -> None:
        self.drops.pass_on()
        admitted = self.intake.run()
        for uid, _, phase in admitted:
            if phase == "open":
                self._touch(uid)
            else:
                self.index.add_waiting(uid)
        if admitted:
            self._hint()  # somebody waits for it: before everything else that this tick looks at

    def _look(self) -> None:
        """What changed: what the workers touched, now and then everything."""
        now = self.clock.monotonic()
        sweep = now >= self.swept + self.sweep_s
        for slot in self.pool.read_reports(everything=sweep):
            if slot.report and slot.report.item:
                self._touch(slot.report.item)
        for entry in list(self.index.of(Standing.RUNNING, Standing.SUBMITTED)):
            if self.index.may_differ(entry.uid):
                self._touch(entry.uid)
        if not sweep:
            return
        before = time.perf_counter()
        for entry in self.index.sweep():
            self._noticed(entry)
        for entry in list(self.index.of(Standing.OVER)):
            self._noticed(entry)  # whoever should have finished it did not come to it
        for entry in list(self.index.of(Standing.RUNNING)):
            self._expire(entry.uid, entry.n)
        self.hands.remember_only((e.uid, e.n) for e in self.index.of(Standing.RUNNING))
        for uid in list(self.index.waiting):
            self._promote_one(uid)
        self.projects.check_again(self.config)
        gone = {e.item.project for e in self.index.open.values()} - self.config.projects.keys()
        self.projects.gone = tuple(sorted(gone))
        self.hinting.read_control(frozenset(self.projects.unusable) | gone)
        self.hinting.rebuild()
        self._remind()
        self.sweep_s = max(SWEEP_S, SWEEP_SHARE * (time.perf_counter() - before))
        self.swept, self.swept_at = now, rfc3339(self.clock.wall())
        self.events.sync()

    def _remind(self) -> None:
        """A ring may be lost (whoever took it died, or may not claim): ring for hints that idle workers leave."""
        idle = sum(slot.report is not None and slot.report.state == "idle" for slot in self.pool.alive())
        for _ in range(min(idle, len(self.hinting.has))):
            Bell(self.layout.bell("workers")).ring()

    def _touch(self, uid: str) -> None:
        known = self.index.open.get(uid)
        entry = self.index.look_at(uid)
        if entry is not None:
            self._noticed(entry)
        elif known is not None and uid not in self.index.open:
            self._left(known)

    def _noticed(self, entry: Entry) -> None:
        if entry.standing is Standing.OVER:
            stub = self.disk.run(attempts.finish(self.actor, entry.uid, day(self.clock.wall())))
            self.index.look_at(entry.uid)
            if stub:
                self.events.emit(
                    Event.ITEM_FINISHED, uid=entry.uid, id=entry.item.id, outcome=stub.outcome, sha=stub.sha
                )
                self._left(entry)
        elif entry.standing is Standing.PARKED:
            self.events.emit(
                Event.ITEM_PARKED, uid=entry.uid, id=entry.item.id, n=entry.n, reason=entry.reason
            )

    def _left(self, entry: Entry) -> None:
        """An item was finished (by whomever): its dependants may be eligible now."""
        for uid in list(self.index.dependants(entry.uid, entry.item.id)):
            self._promote_one(uid)

    def _promote(self) -> None:
        """What began to wait since the last tick; the rest is asked again in every sweep, or when a dependency is over."""
        for uid in [u for u in self.index.waiting if u not in self.index.why]:
            self._promote_one(uid)

    def _promote_one(self, uid: str) -> None:
        item = self.index.waiting.get(uid)
        if item is None:
            return
        try:
            why = self.disk.run(promotion.promote(item))
        except UnreadableRecordError as e:
            self.index.note(uid, str(e))
            self.index.why[uid] = promotion.Waiting(for_=(e.what,), blocked=True)
            return
        if why is not None:
            self.index.why[uid] = why
            return
        self.index.left_waiting(uid)
        self.events.emit(Event.ITEM_PROMOTED, uid=uid, id=item.id)
        entry = self.index.open.get(uid)
        if entry is not None:
            self._noticed(entry)

    def _hint(self) -> None:
        self.hinting.update()

    def _merge(self) -> None:
        if self.asked >= 2 or self.merger_stop is not None:
            return
        submitted: dict[str, frozenset[str]] = {}
        for entry in self.index.of(Standing.SUBMITTED):
            project = entry.item.project
            submitted[project] = submitted.get(project, frozenset()) | {f"{entry.uid}.{entry.n}"}
        while self.projects.owing:
            self.mergers.owe(self.projects.owing.pop())
        self.mergers.tend(submitted, tuple(self.config.projects))

    def _fill(self) -> None:
        self.pool.tend(wanted=self.asked == 0)
        if self.stopping_since is not None:
            late = self.clock.monotonic() - self.stopping_since > STOP_GRACE_S
            # In every tick: a worker counts its TERMs, and two that come close together are one to it.
            self.pool.signal_all(signal.SIGKILL if late else signal.SIGTERM)

    def _recover(self) -> None:
        """What a crash left: half-done admissions, claims of the dead, finished items in open/, files in tmp/."""
        dead = presence.sweep(self.layout)
        self._sweep_tmp()
        for uid in self.disk.do_ls("queue/waiting") or ():
            self.index.add_waiting(uid)
        self._look()
        self.events.emit(Event.STORE_RECOVERED, dead=len(dead), counts=self.index.counts())

    def _sweep_tmp(self) -> None:
        """Private files of incarnations whose presence lock is free are garbage."""
        for name in self.disk.do_ls("queue/tmp") or ():
            owner = name.rsplit(".", 1)[0] if name.endswith(".ballast") else name.rsplit(".", 2)[0]
            if "." not in owner:  # of a process that starts, before it has a presence (store.setup)
                garbage = self._age_s(f"queue/tmp/{name}") > STARTING_S
            else:
                mine = owner == self.actor.identity.incarnation
                garbage = not mine and not presence.present(self.layout, owner)
            if garbage:
                self.disk.do_unlink(f"queue/tmp/{name}")

    def _age_s(self, path: str) -> float:
        try:
            return self.clock.wall() - os.lstat(self.layout.root / path).st_mtime
        except OSError:
            return 0.0

    # ---- ends ----------------------------------------------------------------------------------------------------------

    def _finished(self) -> int | None:
        """The exit code when it is time to go, else None."""
        if self.asked:
            return 0 if self._all_gone() else None
        if self.timeout_s is not None and self.clock.monotonic() - self.started > self.timeout_s:
            self.timed_out = True
            self.events.emit(Event.DRAIN_STARTED, reason="the time is over")
            self.signals.stops = 2
            self.until_idle = False
            return None
        if self.until_idle and self._idle():
            self.was_idle = True
            self.signals.stops = max(self.signals.stops, 1)
            self._drain_signals()
            return None
        return None

    def _all_gone(self) -> bool:
        """While we are stopping: workers first, then mergers; both have their time, and are killed after it."""
        self.notifier.extend(30.0)
        if self.pool.alive():
            return False
        if not self.mergers.fds():
            return True
        if self.merger_stop is None:
            self.merger_stop = self.clock.monotonic()
            self.mergers.signal_all(signal.SIGTERM)
        elif self.clock.monotonic() - self.merger_stop > STOP_GRACE_S:
            self.mergers.signal_all(signal.SIGKILL)
        return False

    def _idle(self) -> bool:
        """Nothing can move any more without a person."""
        if self.intake.more or self.intake.pending:  # what else is in incoming/ is empty: its taker died
            return False
        if any(self._moves(entry) for entry in self.index.of(*LIVE)):
            return False
        for uid, item in self.index.waiting.items():
            why = self.index.why.get(uid)
            if why is None or (
                not why.blocked and item.not_before and any("not before" in w for w in why.for_)
            ):
                return False
        return not self.projects.owing and all(map(self.mergers.settled, self.config.projects))

    def _moves(self, entry: Entry) -> bool:
        """Does it go on by itself? What waits for its project to be put back into config.yaml does not."""
        return entry.standing is Standing.RUNNING or entry.item.project not in self.projects.gone

    def outcome(self) -> int:
        """For --until-idle: 0 everything is done, 1 something needs a person, 75 it was told to go before."""
        left = any(entry.standing is not Standing.OVER for entry in self.index.open.values())
        if not left and not self.index.waiting:
            return 0
        return 1 if self.was_idle else 75

    # ---- saying so -----------------------------------------------------------------------------------------------------

    def say(self) -> None:
        now = self.clock.monotonic()
        if now - self.reported < REPORT_S and self.state == "running":
            return
        self.reported = now
        self.meter.update()
        me = self.actor.identity
        parked = list(self.index.of(Standing.PARKED))[:100]
        report = CoordinatorReport(
            pid=me.pid,
            start_ticks=me.start_ticks,
            boot_id=me.boot_id,
            state=self.state,
            started_at=self.started_at,
            ticked_at=rfc3339(self.clock.wall()),
            swept_at=self.swept_at,
            workers=self.pool.target,
            counts=self.index.counts(),
            parked=tuple({"uid": e.uid, "id": e.item.id, "reason": e.reason} for e in parked),
            ignored=dict(list(self.intake.ignored.items())[:100]),
            pending_drops=self.intake.pending,
            metrics=self.meter.values(self.clock.wall()),
            agents={s.name: slot_report(s) for s in self.pool.slots.values()},
            problems=tuple(
                problems(
                    self.layout,
                    self.pool.slots.values(),
                    self.projects,
                    self.mergers,
                    self.config.projects,
                    (self.drops.problem, *self.index.unreadable.values(), *self.intake.unreadable.values()),
                )
            ),
        )
        reports.write(reports.coordinator_path(self.layout), report)
        self.notifier.status(
            f"{self.state}; " + ", ".join(f"{v} {k}" for k, v in self.index.counts().items() if v)
        )

    def target(self) -> int:
        return self.config.workers if self.workers is None else self.workers
