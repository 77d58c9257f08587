"""Puts the coordinator together, takes the one lock, and runs it."""

from __future__ import annotations

import os
from contextlib import closing

from harness import logs, presence, procs
from harness.atomicfs import FileLock
from harness.bell import Bell
from harness.clock import Clock, SystemClock, rfc3339
from harness.config import Config, Durability
from harness.containment import Containment
from harness.coordinator.budgeting import Budgeting
from harness.coordinator.drops import DropWatch
from harness.coordinator.ending import Ending
from harness.coordinator.following import Following
from harness.coordinator.hinting import Hinting
from harness.coordinator.idle import Idle
from harness.coordinator.index import Index
from harness.coordinator.intake import Intake, context_of
from harness.coordinator.mergers import Mergers
from harness.coordinator.meter import Meter
from harness.coordinator.news import News
from harness.coordinator.pool import Pool
from harness.coordinator.process import Coordinator
from harness.coordinator.projects import Projects
from harness.coordinator.telling import Telling
from harness.coordinator.tidying import Tidying
from harness.errors import ConfigError, ConflictError
from harness.events import EventStream
from harness.hands import LocalHands
from harness.launcher import LocalLauncher
from harness.layout import Layout
from harness.logs import Event
from harness.model import Identity
from harness.sdnotify import Notifier
from harness.signals import Signals
from harness.spend import Ledger
from harness.store.cells import Actor
from harness.store.disk import Disk
from harness.store.dropbox import DropBox
from harness.store.hints import Hints, Withheld
from harness.store.setup import open_store


def main(
    layout: Layout,
    config: Config,
    workers: int | None = None,
    until_idle: bool = False,
    timeout_s: float | None = None,
) -> int:
    """The coordinator in the foreground. -> exit code: 0 told to go or all done, 1 something needs a person (until_idle),
    75 the time was over, or it was told to go before all was done (until_idle).

    Raises ConflictError when one runs already, ConfigError when the root cannot be used.
    """
    clock = SystemClock()
    open_store(layout)
    with FileLock(layout.coordinator_lock) as lock:
        if not lock.try_lock():
            holder = layout.coordinator_lock.read_text(errors="replace").strip() or "another process"
            raise ConflictError(
                "a coordinator runs already for this root", where=holder, remedy="see: harnessctl status"
            )
        lock.write(f"pid {os.getpid()} boot {procs.boot_id()}\n")
        logs.configure("coordinator")
        with (
            closing(presence.announce(layout, "coordinator")) as here,
            Bell(layout.bell("coordinator")) as bell,
        ):
            bell.open()
            it = assemble(layout, config, here.identity, clock, bell)
            it.telling.meter.start()
            it.until_idle, it.timeout_s, it.workers = until_idle, timeout_s, workers
            it.events.emit(
                Event.COORDINATOR_STARTED, pid=os.getpid(), workers=it.target(), root=str(layout.root)
            )
            it.projects.check(config)
            if (
                config.projects
                and len(it.projects.unusable) == len(config.projects)
                and not it.projects.soon()
            ):
                raise ConfigError(
                    "no project can be used", where=layout.config, problems=it.projects.unusable.values()
                )
            with it.drops:
                try:
                    code = it.run()
                finally:
                    it.pool.close()
                    it.mergers.close()
            for name in ("drain", "stop"):  # obeyed; the next start is not stopped by it
                (layout.control / name).unlink(missing_ok=True)
            it.state = "stopped"
            it.say()
            it.events.emit(Event.COORDINATOR_STOPPED, pid=os.getpid())
            it.events.sync()
            return code


def assemble(layout: Layout, config: Config, me: Identity, clock: Clock, bell: Bell) -> Coordinator:
    """Put the parts together; nothing runs yet."""
    events = EventStream(layout, clock, "coordinator")
    actor = Actor(identity=me, stamp=lambda: rfc3339(clock.wall()))
    hands = LocalHands(
        layout, clock, Containment.probe(config.sandbox, cache=layout.mechanisms), config.health.hang_s
    )
    hints = Hints(layout)
    current = [config]
    box = DropBox(
        layout,
        clock,
        lambda: context_of(current[0]),
        grace_s=config.intake.grace_s,
        quiet_s=config.intake.quiet_s,
    )
    durable = config.durability is Durability.POWER
    disk = Disk(layout, clock, durable=durable, dropbox=box, hints=Withheld(layout), hands=hands)
    index = Index(layout, disk, clock, config.retry.max_delay_s)
    launcher = LocalLauncher(layout)
    signals, notifier = Signals(), Notifier.from_environment()
    intake = Intake(actor, disk, clock, events, lambda: context_of(current[0]))
    budgeting = Budgeting(layout, clock, index, events, Ledger(layout, clock))
    hinting = Hinting(layout, clock, index, hints, budgeting)
    pool = Pool(layout, clock, launcher, events, hands.lookout, config.workers)
    hands.watched = pool.holds
    mergers = Mergers(layout, clock, launcher, events, hands.lookout)
    projects = Projects(layout, clock, events)
    news, drops = News(layout, events), DropWatch(layout, bell, box)
    telling = Telling(
        layout, clock, me, index, intake, pool, mergers, projects, hinting, Meter(layout), drops, notifier
    )
    return Coordinator(
        layout=layout,
        config=config,
        clock=clock,
        actor=actor,
        disk=disk,
        events=events,
        signals=signals,
        hands=hands,
        index=index,
        intake=intake,
        hinting=hinting,
        pool=pool,
        mergers=mergers,
        projects=projects,
        notifier=notifier,
        drops=drops,
        bell=bell,
        following=Following(actor, disk, events, index, news),
        telling=telling,
        ending=Ending(layout, clock, events, signals, notifier, pool, mergers, config.drain_s),
        idle=Idle(layout, index, intake, hinting, pool, mergers, projects),
        news=news,
        tidying=Tidying(layout, disk, me.incarnation),
        budgeting=budgeting,
        current=current,
    )
