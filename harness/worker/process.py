"""The worker process: claim, carry out, end, next; idle cheaply; beat while anything runs; go when told to.

The loop itself never blocks except in the runner (which beats) and in the idle wait (which is short enough to beat
after it). TERM or INT, once or often: finish the attempt, then go. USR2: release the attempt (published first), stop
what runs, go. HUP: read config.yaml again before the next attempt. USR1: look at the attempt's end now.
"""

from __future__ import annotations

import os
import random
import select
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from harness import logs, procs, reports, submitted
from harness.atomicfs import FileLock, held
from harness.bell import Bell
from harness.clock import Clock, SystemClock, rfc3339
from harness.config import Config, Durability, load
from harness.containment import Containment, Kind
from harness.dataclass import dataclass
from harness.errors import ConfigError, ConflictError, HarnessError, StoreError, UnreadableRecordError
from harness.events import EventStream
from harness.layout import Layout
from harness.logs import Event
from harness.model import Attempt, Claim, End, Item, Outcome
from harness.pace import idle_beat_s, retry_delay_s
from harness.presence import announce
from harness.reports import AgentReport
from harness.runner import Runner
from harness.signals import Signals
from harness.store import attempts
from harness.store.attempts import Claimed, Ended
from harness.store.cells import Actor, Standing, claim_of, spent
from harness.store.disk import Disk
from harness.store.hints import Hints
from harness.store.setup import open_store
from harness.worker.result import Broken, Result

if TYPE_CHECKING:  # what carries an attempt out is not needed to claim one
    from harness.hub import Hub
    from harness.limits import Limits
    from harness.spend import Ledger
    from harness.worker.attempt import AttemptRun

IDLE_S = 12.0
"""Mean time between two looks of an idle worker that nobody rang for; jittered by half."""
ALONE_S = 2.0
"""The same when no coordinator lives: then open/ itself is searched, a few names at a time."""
ALONE_NAMES = 64
PAUSED_S = 2.0
"""Longest time between two looks of a worker that may not claim: nobody rings when it may again."""
REST_MAX_S = 60.0
EARLIER = 1000
"""So many attempts back a session is looked for."""
REPORT_S = 1.0


@dataclass(slots=True)
class Worker:
    """One incarnation of one agent slot."""

    layout: Layout
    slot: str
    config: Config
    clock: Clock
    actor: Actor
    disk: Disk
    events: EventStream
    signals: Signals
    containment: Containment
    runner: Runner = field(init=False)
    owned: Claimed | None = None
    decided: End | None = None
    """The end of the attempt that another process published, or that we published because we must stop."""
    rescuing: bool = False
    """What runs saves work: that is not stopped because the attempt is decided."""
    report: AgentReport = field(init=False)
    hubs: dict[str, Hub] = field(default_factory=dict)
    ledger: Ledger | None = None
    """For looking, once there is a budget."""
    started: float = 0.0
    troubles: int = 0
    """Attempts in a row that our own side could not carry out."""

    def __post_init__(self) -> None:
        me = self.actor.identity
        self.report = AgentReport(
            agent=self.slot,
            pid=me.pid,
            start_ticks=me.start_ticks,
            boot_id=me.boot_id,
            incarnation=me.incarnation,
            started_at=rfc3339(self.clock.wall()),
        )
        self.runner = Runner(
            clock=self.clock,
            containment=self.containment,
            beat=self.beat,
            beat_s=self.config.health.beat_s,
            wake_fd=self.signals.wake_fd,
        )
        self.heartbeat = self.layout.agent(self.slot) / "heartbeat"

    heartbeat: Path = field(init=False)

    # ---- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Until told to go. -> exit code."""
        self.disk.keep_ballast(self.actor.identity.incarnation)
        with Bell(self.layout.bell("workers")) as bell:
            bell.open()
            while not self.signals.stops:
                self.beat()  # drains the signals first: one after it wakes us, one before it is seen below
                self._reload()
                owned = self._claim()
                if owned is None:
                    self._idle(bell)
                else:
                    self._carry_out(owned)
                    self._rest()
        return 0

    def _rest(self) -> None:
        """After attempts that our own side failed, one after the other: otherwise a worker with a broken worktree
        takes every item first, because it is always free, and gives each back until all are parked."""
        if self.troubles < 2:
            return
        seconds = min(2.0**self.troubles, REST_MAX_S)
        self.say(
            state="paused", last_event=f"rests {seconds:.0f} s: {self.troubles} attempts given back in a row"
        )
        until = self.clock.monotonic() + seconds
        while not (self.signals.stops or self.signals.reload):
            left = until - self.clock.monotonic()
            if left <= 0:
                return
            select.select([self.signals.wake_fd], [], [], min(left, self._idle_beat_s))
            self.beat()
        self.troubles = 0  # a new configuration may be the remedy

    def _idle(self, bell: Bell) -> None:
        if self.signals.stops or self.signals.reload:
            return
        told = self._paused()
        paused = told or self._disk_low()
        self.say(state="paused" if told else "idle")
        import_module("harness.worker.attempt")  # while there is time: the first claim need not wait for it
        alone = not held(self.layout.coordinator_lock)
        mean = ALONE_S if alone else IDLE_S
        timeout_s = min(mean * random.uniform(0.5, 1.5), self._idle_beat_s)
        if paused:  # who cannot claim must not take the ring that was meant for one who can
            select.select([self.signals.wake_fd], [], [], min(timeout_s, PAUSED_S))
            return
        ready = bell.wait(timeout_s, (self.signals.wake_fd,))
        if bell.fileno() in ready:
            bell.take()

    @property
    def _idle_beat_s(self) -> float:
        return idle_beat_s(self.config.health.hang_s)

    def _claim(self) -> Claimed | None:
        """The first item of the hints that is ours; without a coordinator also of open/ itself."""
        if self._paused() or self._disk_low():
            return None
        for uid, patient in self._candidates():
            if self.signals.stops:
                return None
            got = self.disk.run(attempts.claim(self.actor, uid, patient=patient, fit=self._may_start))
            if isinstance(got, Claimed):
                self.events.emit(Event.ITEM_CLAIMED, uid=uid, id=got.item.id, n=got.n, agent=self.slot)
                return got
            if got.standing is Standing.OVER:
                self._finish(uid)
        return None

    def _may_start(self, item: Item, earlier: Sequence[Attempt]) -> bool:
        """Is there an agent for it that no limit stops, and money? Otherwise its hint comes again when there is."""
        if not self.config.budgeted:
            with suppress(OSError):
                if not any(name.endswith(".json") for name in os.listdir(self.layout.limits)):
                    return True
        from harness.resuming import preferred

        agents = preferred(item, earlier)
        agent, limit = self._limits().choose(self.config, agents)
        return (agent is not None or limit is None) and self._affordable(item, agent)

    def _affordable(self, item: Item, agent: str | None) -> bool:
        """Reserves nothing: the attempt does, right before it costs something."""
        if not self.config.budgeted:
            return True
        from harness.budgets import ask_of, budgets_of

        budgets = budgets_of(self.config, item.project, item.convoy)
        if not budgets:
            return True
        ask = ask_of(self.config, item, [agent] if agent else [], self._ledger.item(item.uid))
        return self._ledger.short(budgets, ask) is None

    @property
    def _ledger(self) -> Ledger:
        if self.ledger is None:
            from harness.spend import Ledger

            self.ledger = Ledger(self.layout, self.clock)
        return self.ledger

    def _limits(self) -> Limits:
        from harness.limits import Limits

        return Limits(self.layout, self.clock)

    def _candidates(self) -> Iterator[tuple[str, bool]]:
        """(uid, does its backoff have to be looked at): a hint says that it has passed."""
        for uid in self.disk.hints.find():
            if self.signals.stops:
                return
            if self.disk.hints.take(uid):  # else another worker is trying it
                yield uid, False
        if held(self.layout.coordinator_lock):
            return
        names = list(self.disk.do_ls("queue/open") or ())
        start = random.randrange(len(names)) if names else 0
        for uid in (names[start:] + names[:start])[:ALONE_NAMES]:
            yield uid, True

    def _paused(self) -> bool:
        control = self.layout.control
        return (control / "pause").exists() or (control / f"pause.{self.slot}").exists()

    def _disk_low(self) -> bool:
        room = os.statvfs(self.layout.queue)
        floor = self.config.disk
        low = room.f_bavail * room.f_frsize < floor.floor_mb << 20
        low = low or (room.f_files > 0 and room.f_favail < floor.floor_inodes)
        if low and self.report.last_event != "disk low":
            self.events.emit(
                Event.DISK_LOW, free_mb=room.f_bavail * room.f_frsize >> 20, free_inodes=room.f_favail
            )
            self.say(last_event="disk low")
        return low

    # ---- one attempt -----------------------------------------------------------------------------------------------

    def _carry_out(self, owned: Claimed) -> None:
        self.owned, self.decided = owned, None
        self.beat()
        self.say(
            state="preparing",
            item=owned.uid,
            id=owned.item.id,
            title=owned.item.title,
            attempt=owned.n,
            project=owned.item.project,
            last_event="claimed",
        )
        self._ring("coordinator")
        run: AttemptRun | None = None
        try:
            try:
                run = self._attempt(owned)
                self.say(session=str(run.folder.path.relative_to(self.layout.root)), kind=run.kind)
                result = run.run()
            except Broken as e:
                result = Result(outcome=Outcome.RELEASED, reason=str(e), waits="stop")
            except HarnessError as e:
                result = Result(
                    outcome=Outcome.RELEASED, reason=e.what, not_before=self.clock.wall() + 30.0, ours=True
                )
            self.troubles = self.troubles + 1 if result.ours else 0
            if self.containment.kind is Kind.MARKS and run and run.worktree:
                # Without a cgroup or namespace something may have escaped its marks: look where it worked.
                self.containment.kill(f"{owned.uid}.{owned.n}", [run.worktree.path])
            self._end(owned, result, run)
            if run:
                with suppress(OSError):  # then the coordinator does it
                    run.wallet.release()
        finally:
            self.owned = None
            self.containment.release(f"{owned.uid}.{owned.n}")
        ended = self.report.attempts + 1
        self.say(state="idle", item=None, id="", title="", attempt=0, project="", session="", attempts=ended)
        self._ring("coordinator")

    def _attempt(self, owned: Claimed) -> AttemptRun:
        from harness.worker.attempt import AttemptRun

        project = self.config.projects.get(owned.item.project)
        if project is None:
            raise ConfigError(f"project {owned.item.project!r} is no longer in config.yaml")
        return AttemptRun(
            layout=self.layout,
            config=self.config,
            clock=self.clock,
            runner=self.runner,
            events=self.events,
            slot=self.slot,
            owned=owned,
            project=project,
            hub=self._hub(owned.item.project),
            environ=os.environ,
            limits=self._limits(),
            claims=self._claims(owned),
            stage=lambda state, event: self.say(state=state, last_event=event),
            broken=self._why_broken,
        )

    def _claims(self, owned: Claimed) -> dict[int, Claim]:
        """Of this attempt and the last ones before it: when and where they ran. Without those that are damaged: what
        is decided stays decided without them, and fsck names them."""
        found: dict[int, Claim] = {}
        for n in range(max(1, owned.n - EARLIER), owned.n + 1):
            with suppress(UnreadableRecordError):
                claim = self.disk.run(claim_of(owned.uid, n))
                if claim is not None:
                    found[n] = claim
        return found

    def _hub(self, name: str) -> Hub:
        if name not in self.hubs:
            from harness.hub import Hub

            self.hubs[name] = Hub.open(
                self.layout,
                self.config.projects[name],
                runner=self.runner,
                durable=self.config.durability is Durability.POWER,
                clock=self.clock,
                emit=self.events.emit,
            )
        return self.hubs[name]

    def _end(self, owned: Claimed, result: Result, run: AttemptRun | None) -> None:
        """Salvage first, then decide. Superseded: publish nothing."""
        self.decided = self.decided or self.disk.run(attempts.decided(owned))
        if run and (result.salvage or self.decided):
            self._rescue(run)
        if self.decided is None:
            record = self._record(owned, result)
            if self.disk.run(attempts.end(self.actor, owned, record)) is Ended.WON:
                self._ended(owned, record)
                return
        else:
            self.disk.run(attempts.abandon(owned))
        by = self.decided.by if self.decided else "another process"
        outcome = self.decided.outcome.value if self.decided else None
        if by != self.actor.name:
            self.events.emit(Event.ATTEMPT_SUPERSEDED, uid=owned.uid, n=owned.n, by=by, outcome=outcome)

    def _rescue(self, run: AttemptRun) -> None:
        """Nothing that fails here may keep the attempt from being ended; the worktree stays as it is then."""
        self.rescuing = True
        try:
            run.rescue()
        except (HarnessError, OSError) as e:
            self.events.emit(
                Event.PROCESS_FAILED, what="salvage", reason=str(e), uid=run.owned.uid, n=run.owned.n
            )
        finally:
            self.rescuing = False

    def _record(self, owned: Claimed, result: Result) -> End:
        moment = result.not_before
        if result.outcome is Outcome.FAILED:
            retry = self.config.retry
            delay = retry_delay_s(spent(owned.attempts) + 1, retry.first_delay_s, retry.max_delay_s)
            moment = self.clock.wall() + delay if delay else None
        return End(
            n=owned.n,
            outcome=result.outcome,
            by=self.actor.name,
            reason=result.reason[:8192],
            sha=result.sha,
            nonce=self.disk.do_fresh() if result.sha else None,
            not_before=rfc3339(moment) if moment is not None else None,
            ended_at=rfc3339(self.clock.wall()),
            waits=result.waits,
        )

    def _ended(self, owned: Claimed, record: End) -> None:
        self.events.emit(
            Event.ITEM_SUBMITTED if record.sha else Event.ATTEMPT_ENDED,
            uid=owned.uid,
            id=owned.item.id,
            n=owned.n,
            outcome=record.outcome.value,
            reason=record.reason or None,
            sha=record.sha,
            agent=self.slot,
        )
        if record.outcome is Outcome.DONE and record.sha is None:
            self._finish(owned.uid, owned.item.id, record)
        elif record.sha:
            submitted.add(self.layout, owned.item.project, owned.uid)
            self._ring(f"merger.{owned.item.project}")

    def _finish(self, uid: str, name: str | None = None, mine: End | None = None) -> None:
        done = self.disk.run(attempts.archive(uid, mine))
        if done and done.here:
            self.events.emit(
                Event.ITEM_FINISHED, uid=uid, id=name, outcome=done.stub.outcome, sha=done.stub.sha
            )

    # ---- while something runs ----------------------------------------------------------------------------------------

    def beat(self) -> str | None:
        """Called by the runner every beat_s and at every signal, and by the loop in every turn. -> why what runs must be
        stopped, or None."""
        self.signals.drain()
        try:
            os.utime(self.heartbeat)
        except OSError:
            with suppress(OSError):  # a full disk: the claim's own beat is the one that counts
                self.heartbeat.touch()
        owned = self.owned
        if owned is None:
            return None
        if self.decided is None:
            self.disk.beat(owned.ticket)
            self.decided = self.disk.run(attempts.decided(owned))
        if self.decided is None and self.signals.now:
            self._release_now(owned)
        return None if self.rescuing else self._why_broken()

    def _release_now(self, owned: Claimed) -> None:
        """A stop that we choose: n.end = released first, then the kill, so that it costs no attempt."""
        record = self._record(
            owned, Result(outcome=Outcome.RELEASED, reason="the harness was stopped", waits="stop")
        )
        if self.disk.run(attempts.end(self.actor, owned, record)) is Ended.WON:
            self._ended(owned, record)
            self.decided = record
        else:
            self.decided = self.disk.run(attempts.decided(owned)) or record

    def _why_broken(self) -> str | None:
        if self.decided is None:
            return None
        return f"{self.decided.outcome.value} by {self.decided.by}"

    # ---- small -----------------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        if not self.signals.reload:
            return
        self.signals.reload = False
        try:
            self.config = load(self.layout.config, cache=self.layout.validated)
        except ConfigError as e:
            self.events.emit(Event.CONFIG_REFUSED, reason=str(e))
            return
        self.hubs.clear()
        self.runner.beat_s = self.config.health.beat_s

    def say(self, **changes: object) -> None:
        """Replace the report, unless it already says so."""
        before = self.report.to_record()
        after = AgentReport.from_record(before | changes | {"v": 1})
        if after == self.report:
            return
        if after.state != self.report.state:
            after = AgentReport.from_record(after.to_record() | {"since": rfc3339(self.clock.wall())})
        self.report = after
        reports.write(reports.agent_path(self.layout, self.slot), after)

    def _ring(self, name: str) -> None:
        Bell(self.layout.bell(name)).ring()


def main(layout: Layout, slot: str) -> int:
    """One worker, from start to exit. -> exit code: 0 told to go, 4 the slot is taken, 78 the configuration is unusable.

    Any other end is a crash: the kernel frees the claim's lock, and the coordinator ends the attempt.
    """
    logs.configure(slot, file=layout.logs / f"{slot}.log")
    clock = SystemClock()
    config = load(layout.config, cache=layout.validated)
    open_store(layout)
    layout.agent(slot).mkdir(parents=True, exist_ok=True)
    with FileLock(layout.agent(slot) / "lock") as lock:
        if not lock.try_lock():
            raise ConflictError(f"a worker {slot} runs already", where=lock.path)
        with closing(announce(layout, slot)) as presence:
            events = EventStream(layout, clock, slot)
            durable = config.durability is Durability.POWER
            hints = Hints(layout, start=procs.self_id().pid % 8)
            disk = Disk(layout, clock, durable=durable, hints=hints)
            worker = Worker(
                layout=layout,
                slot=slot,
                config=config,
                clock=clock,
                actor=Actor(identity=presence.identity, stamp=lambda: rfc3339(clock.wall())),
                disk=disk,
                events=events,
                signals=Signals(),
                containment=Containment.probe(config.sandbox, cache=layout.mechanisms),
            )
            events.emit(Event.WORKER_STARTED, agent=slot, pid=os.getpid())
            worker.say(state="idle", last_event="started")
            try:
                code = worker.run()
            except StoreError as e:
                events.emit(Event.PROCESS_FAILED, what=slot, reason=str(e))
                raise
            worker.say(state="stopped", last_event="stopped")
            disk.close()
            events.emit(Event.WORKER_STOPPED, agent=slot, pid=os.getpid(), attempts=worker.report.attempts)
            return code
