"""The coordinator process: one loop of verbs, woken by drops, bells, deaths and signals; a slow sweep is the truth.

First TERM or INT (or state/control/drain): drain. Second (or USR2, state/control/stop): stop now (`ending`). HUP: read
config.yaml. USR1: write the state and all stacks to the log. The watchdog ping is sent only after a completed tick.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
import time

from harness.bell import Bell
from harness.clock import Clock, rfc3339
from harness.config import Config, load
from harness.coordinator.budgeting import Budgeting
from harness.coordinator.drops import DropWatch
from harness.coordinator.ending import DRAIN, NO, STOP, Ending
from harness.coordinator.following import Following
from harness.coordinator.hinting import Hinting
from harness.coordinator.idle import Idle
from harness.coordinator.index import Index
from harness.coordinator.intake import Intake
from harness.coordinator.mergers import Mergers
from harness.coordinator.news import News
from harness.coordinator.pool import Pool, Slot
from harness.coordinator.projects import Projects
from harness.coordinator.telling import Telling
from harness.coordinator.tidying import Tidying
from harness.dataclass import dataclass
from harness.errors import ConfigError
from harness.events import EventStream
from harness.hands import LocalHands
from harness.layout import Layout
from harness.logs import Event
from harness.sdnotify import Notifier
from harness.signals import Signals
from harness.store.cells import Actor, Standing
from harness.store.disk import Disk

SWEEP_S = 2.0
SWEEP_SHARE = 50
"""A sweep that takes t seconds is made no more often than every SWEEP_SHARE * t."""


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
    notifier: Notifier
    drops: DropWatch
    bell: Bell
    following: Following
    telling: Telling
    ending: Ending
    idle: Idle
    news: News
    tidying: Tidying
    budgeting: Budgeting
    current: list[Config]
    """The one configuration that admission reads; replaced when config.yaml is read again."""
    until_idle: bool = False
    timeout_s: float | None = None
    workers: int | None = None
    """An option on the command line wins over config.yaml, also after a reload."""
    started: float = 0.0
    state: str = "starting"
    swept: float = float("-inf")
    sweep_s: float = SWEEP_S
    was_idle: bool = False
    """The end of --until-idle: nothing moved any more."""
    timed_out: bool = False

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Until told to go, until idle, or until the time is over. -> exit code (`outcome`)."""
        self.started = self.clock.monotonic()
        self.telling.started_at = rfc3339(self.clock.wall())
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
            self.news.save()
            self.say()
            self.notifier.watchdog()
            if (code := self._finished()) is not None:
                return code
            self._wait()

    def _wait(self) -> None:
        """Until something happens, or the next thing is due."""
        if self.ending.asked != NO and self.state == "running":
            return  # asked in this tick: what is to be done about it is done in the next
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
        self.ending.look()
        if self.ending.asked != NO:
            self.state = self.ending.state
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
            self.config = load(self.layout.config, cache=self.layout.validated)
        except ConfigError as e:
            self.events.emit(Event.CONFIG_REFUSED, reason=str(e))
            return
        self.current[0] = self.config
        self.hands.lookout.hang_s = self.config.health.hang_s
        self.ending.drain_s = self.config.drain_s
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
            self.tidying.sweep()
        self.mergers.reap()
        for mark, number in self.hands.killed:
            self.events.emit(Event.SURVIVORS_KILLED, mark=mark, number=number)
        self.hands.killed.clear()

    def _end_of(self, slot: Slot) -> None:
        report = slot.report
        if report is not None and report.item:
            self.following.expire(report.item, report.attempt)
            self.hands.containment.release(
                f"{report.item}.{report.attempt}"
            )  # it may have ended it, and no more
        # It may have claimed something that its last report does not tell yet.
        for uid in list(self.disk.hints.find(limit=8)):
            self.following.touch(uid)
        self.following.expire_dead()

    def _admit(self) -> None:
        self.drops.pass_on()
        admitted = self.intake.run()
        for uid, _, phase in admitted:
            if phase == "open":
                self.following.touch(uid)
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
                self.following.touch(slot.report.item)
        self.following.changed()
        heard = self.projects.hear()
        if not sweep:
            if heard:
                self._withhold()
                self.telling.at_once()
            return
        before = time.perf_counter()
        self.following.everything()
        self.hands.remember_only((e.uid, e.n) for e in self.index.of(Standing.RUNNING))
        self.projects.check_again(self.config)
        self.budgeting.settle()
        self._withhold()
        self._remind()
        self.sweep_s = max(SWEEP_S, SWEEP_SHARE * (time.perf_counter() - before))
        self.swept, self.telling.swept_at = now, rfc3339(self.clock.wall())
        self.events.sync()

    def _withhold(self) -> None:
        """No hints for what cannot be worked on, all hints for the rest."""
        gone = {e.item.project for e in self.index.open.values()} - self.config.projects.keys()
        self.projects.gone = tuple(sorted(gone))
        self.hinting.read_control(frozenset(self.projects.unusable) | gone)
        self.hinting.rebuild()

    def _remind(self) -> None:
        """A ring may be lost (whoever took it died, or may not claim): ring for hints that idle workers leave."""
        idle = sum(slot.report is not None and slot.report.state == "idle" for slot in self.pool.alive())
        for _ in range(min(idle, len(self.hinting.has))):
            Bell(self.layout.bell("workers")).ring()

    def _promote(self) -> None:
        self.following.promote_new()

    def _hint(self) -> None:
        self.hinting.read_limits(self.config)
        self.hinting.read_budgets(self.config)
        self.hinting.update()

    def _merge(self) -> None:
        if not self.ending.merging:
            return
        submitted: dict[str, frozenset[str]] = {}
        for entry in self.index.of(Standing.SUBMITTED):
            project = entry.item.project
            submitted[project] = submitted.get(project, frozenset()) | {f"{entry.uid}.{entry.n}"}
        while self.projects.owing:
            self.mergers.owe(*self.projects.owing.popitem())
        self.mergers.tend(submitted, tuple(self.config.projects))

    def _fill(self) -> None:
        self.pool.tend(wanted=self.ending.asked == NO)
        self.ending.press()

    def _recover(self) -> None:
        """What a crash left: half-done admissions, claims of the dead, finished items in open/, files in tmp/."""
        dead = self.tidying.sweep()
        self.news.start()
        for uid in self.disk.do_ls("queue/waiting") or ():
            self.index.add_waiting(uid)
        self._look()
        self.events.emit(Event.STORE_RECOVERED, dead=len(dead), counts=self.index.counts())

    # ---- ends ----------------------------------------------------------------------------------------------------------

    def _finished(self) -> int | None:
        """The exit code when it is time to go, else None."""
        if self.ending.asked != NO:
            return self.outcome() if self.ending.over() else None
        if self.timeout_s is not None and self.clock.monotonic() - self.started > self.timeout_s:
            self.timed_out = True
            self.events.emit(Event.DRAIN_STARTED, reason="the time is over")
            self.ending.ask(STOP)
        elif self.until_idle and self.idle.reached(self.config):
            self.was_idle = True
            self.ending.ask(DRAIN)
        return None

    def outcome(self) -> int:
        """75: the time was over. For --until-idle: 0 everything is done, 1 the rest (which is said) needs a person, 75 it
        was told to go before. Else 0."""
        if self.timed_out:
            return 75
        left = self.idle.left(self.config) if self.until_idle else []
        for why in left:
            self.events.emit(Event.WORK_LEFT, reason=why)
        if not left:
            return 0
        return 1 if self.was_idle else 75

    def say(self) -> None:
        self.telling.say(self.state, self.config)

    def target(self) -> int:
        return self.config.workers if self.workers is None else self.workers
