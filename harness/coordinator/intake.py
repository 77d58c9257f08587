"""The coordinator's admission: drops -> incoming/ -> items, and everything that says so.

Owns the order in which drops are taken and the sweep of incoming/; the protocol itself is store.admission.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from harness.clock import Clock, day
from harness.config import Config
from harness.dataclass import dataclass
from harness.errors import UnreadableRecordError
from harness.events import EventStream
from harness.logs import Event
from harness.store.admission import Admission, admit, take
from harness.store.cells import Actor
from harness.store.disk import Disk
from harness.store.drops import Context
from harness.store.sweeping import sweep_home


def context_of(config: Config) -> Context:
    """What drafts are checked against."""
    everybody = tuple(config.agents)
    fallback = everybody if len(everybody) == 1 else ()
    return Context(
        projects={name: tuple(p.agent) or fallback for name, p in config.projects.items()},
        agents=everybody,
        max_attempts=config.retry.max_attempts,
        max_bytes=config.intake.max_bytes,
    )


@dataclass(slots=True)
class Intake:
    """Runs take and admit. Not thread-safe."""

    actor: Actor
    disk: Disk
    clock: Clock
    events: EventStream
    context: Callable[[], Context]
    ignored: dict[str, str] = field(default_factory=dict)
    """Files that are no drops, as last reported."""
    pending: int = 0
    """Drops and incoming/ entries that must wait."""
    more: bool = False
    """The last pass took something: the next one may find more, and needs no reason to come."""

    unreadable: dict[str, str] = field(default_factory=dict)
    """Folder in incoming/ -> which of its records is damaged. Left alone; the others go on."""

    def run(self) -> list[tuple[str, str, str]]:
        """One pass over the drop box, or when that has nothing more, over incoming/.

        -> (uid, id, phase) of what was admitted. One handful at a time: the first of ten thousand drops is running
        before the last one is admitted.
        """
        admitted: list[tuple[str, str, str]] = []
        taken = self.disk.run(take())
        self.more = bool(taken)
        for home, name in taken:
            self.events.emit(Event.DROP_TAKEN, uid=home, name=_shown(name))
            admitted += self._admission(home).items
        if taken:
            return admitted
        pending = 0
        for home in self.disk.do_ls("queue/incoming") or ():
            admission = self._admission(home)
            admitted += admission.items
            pending += admission.pending
        self._report_ignored()
        self.pending = pending + (self.disk.dropbox.pending if self.disk.dropbox else 0)
        return admitted

    def _admission(self, home: str) -> Admission:
        try:
            admission = self.disk.run(admit(self.actor, home, self.context(), day(self.clock.wall())))
        except UnreadableRecordError as e:
            self.unreadable[home] = str(e)
            return Admission(drop=home)
        self.unreadable.pop(home, None)
        for uid, name, phase in admission.items:
            self.events.emit(Event.ITEM_ADMITTED, uid=uid, id=name, phase=phase, drop=admission.drop)
        if admission.rejected:
            self.events.emit(
                Event.ITEM_REJECTED,
                uid=home,
                name=_shown(admission.name),
                exists=admission.exists or None,
                reasons=list(admission.rejected[:20]),
            )
        if admission.empty:
            self.disk.run(sweep_home(home))
        return admission

    def _report_ignored(self) -> None:
        now = self.disk.dropbox.ignored if self.disk.dropbox else {}
        for name, why in now.items():
            if self.ignored.get(name) != why:
                self.events.emit(Event.DROP_IGNORED, name=_shown(name), reason=why)
        self.ignored = dict(now)


def _shown(name: str) -> str:
    """A file name of any bytes as text that any terminal and any JSON reader takes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
