"""Which projects can be worked on: their hubs are opened (and made) before anything is claimed for them.

A project that cannot be used gets no hints, so that its items lose no attempts, and is tried again now and then.
The first fetch from a URL may take long, or for ever: it runs in a thread, and the loop goes on. Its git ends with us.
What a hub owes the person is asked in a thread, too: until it has answered, the coordinator is not idle.
"""

from __future__ import annotations

import errno
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import field

from harness.bell import Bell
from harness.clock import Clock
from harness.config import URL, Config, Durability, Publish
from harness.containment import Containment
from harness.dataclass import dataclass
from harness.errors import HarnessError, TryAgainError
from harness.events import EventStream
from harness.hub import GitInterrupted, Hub
from harness.layout import Layout
from harness.logs import Event
from harness.runner import EndReason, Runner

AGAIN_S = 60.0
SOON_S = 5.0
PATIENCE_S = 60.0
"""So long it is tried every SOON_S, when nothing says that a person has to do something."""
_PASSING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """What a thread found out about a project."""

    project: str
    why: Exception | None
    """Why it cannot be used."""
    owed_at: float | None = None
    """When it held merges that are not published (monotonic)."""


@dataclass(slots=True)
class Projects:
    layout: Layout
    clock: Clock
    events: EventStream
    unusable: dict[str, str] = field(default_factory=dict)
    """name -> why, and what to do."""
    passing: dict[str, float] = field(default_factory=dict)
    """Those of them that may be usable soon, by themselves (git was killed, there was no room for it), and since when."""
    gone: tuple[str, ...] = ()
    """Projects of items that config.yaml does not name any more."""
    making: set[str] = field(default_factory=set)
    """Projects whose hub is fetched for the first time, by a thread."""
    looking: set[str] = field(default_factory=set)
    """Projects whose hub was opened, and a thread asks what it owes."""
    again: set[str] = field(default_factory=set)
    """Of those two, whose configuration was read again meanwhile."""
    tried: dict[str, float] = field(default_factory=dict)
    """When each was opened last (monotonic)."""
    owing: dict[str, float] = field(default_factory=dict)
    """Projects whose hubs were found to hold merges that are not published, and when (monotonic): news for the mergers."""
    swept: set[str] = field(default_factory=set)
    """Projects whose hubs were swept (by a thread) since this coordinator was started."""
    _heard: deque[_Heard] = field(default_factory=deque)
    """What threads have said since the last look: they touch nothing else of this."""

    def check(self, config: Config) -> None:
        """Open every hub, or as soon as a thread has done with it."""
        self.again = (self.making | self.looking) & config.projects.keys()
        self.unusable = {name: why for name, why in self.unusable.items() if name in self.making}
        self.passing = {name: since for name, since in self.passing.items() if name in config.projects}
        self._open_all(config, config.projects)

    def check_again(self, config: Config) -> None:
        """Try the unusable ones again, no more often than every AGAIN_S (SOON_S, those that are hoped for)."""
        now, hoped = self.clock.monotonic(), self._hoped()
        self.unusable = {name: why for name, why in self.unusable.items() if name in config.projects}
        self._open_all(
            config,
            [
                name
                for name in dict.fromkeys((*self.unusable, *sorted(self.again)))
                if name in self.again
                or now - self.tried.get(name, float("-inf")) > (SOON_S if name in hoped else AGAIN_S)
            ],
        )

    def hear(self) -> bool:
        """Take in what threads have found out. -> can other projects be used now? Raises what none of them foresaw."""
        before = self.unusable.keys() | set()
        while self._heard:
            heard = self._heard.popleft()
            self.making.discard(heard.project)
            self.looking.discard(heard.project)
            if heard.why is not None and not isinstance(heard.why, HarnessError | OSError):
                raise heard.why
            self._note(heard.project, heard.why)
            self.tried[heard.project] = self.clock.monotonic()
            if heard.owed_at is not None:
                self.owing[heard.project] = heard.owed_at
        return self.unusable.keys() != before

    def soon(self) -> set[str]:
        """Projects that nobody has to do anything for."""
        return self.making | self.again | self._hoped()

    def _hoped(self) -> set[str]:
        now = self.clock.monotonic()
        return {name for name, since in self.passing.items() if now - since <= PATIENCE_S}

    def _open_all(self, config: Config, names: Iterable[str]) -> None:
        for name in names:
            if name in self.making | self.looking:
                continue
            self.tried[name] = self.clock.monotonic()
            self.again.discard(name)
            if self._is_far(config, name):
                self.unusable[name] = f"its first fetch from {config.projects[name].path} has not ended"
                self.making.add(name)
                self._in_thread(name, functools.partial(self._make, config, name, self._sweeps(name)))
                continue
            events = EventStream(self.layout, self.clock, "coordinator")
            try:
                hub = self._open(config, name, events)
            except (HarnessError, OSError) as e:
                events.close()
                self._note(name, e)
                continue
            # What could not be used stays so until the thread has said that it can.
            self.looking.add(name)
            look = functools.partial(self._look, config, name, hub, events, self._sweeps(name))
            if not self._in_thread(name, look):
                events.close()

    def _is_far(self, config: Config, name: str) -> bool:
        """Must it be fetched over a network first?"""
        return URL.match(config.projects[name].path) is not None and not self.layout.hub(name).exists()

    def _sweeps(self, name: str) -> bool:
        """Is it still to be swept? From now on it is not."""
        first = name not in self.swept
        self.swept.add(name)
        return first

    def _in_thread(self, name: str, run: Callable[[], None]) -> bool:
        """False: no thread is to be had now; what was opened is used, and looked at by the next coordinator."""
        try:
            threading.Thread(target=run, daemon=True).start()
        except RuntimeError as e:
            why = TryAgainError(str(e), where=self.layout.hub(name)) if name in self.making else None
            self.swept.discard(name)
            self._heard.append(_Heard(project=name, why=why))
            return False
        return True

    def _note(self, name: str, why: HarnessError | OSError | None) -> None:
        if why is None or not _passes(why):
            self.passing.pop(name, None)
        else:
            self.passing.setdefault(name, self.clock.monotonic())
        if why is None:
            self.unusable.pop(name, None)
        else:
            self.unusable[name] = str(why)

    def _open(self, config: Config, name: str, events: EventStream) -> Hub:
        hub = Hub.open(
            self.layout,
            config.projects[name],
            runner=Runner(
                clock=self.clock,
                containment=Containment(),
                leashed=not self.layout.hub(name).exists(),
            ),
            clock=self.clock,
            durable=config.durability is Durability.POWER,
            emit=events.emit,
        )
        hub.mend()  # before this coordinator starts a worker
        return hub

    # ---- in a thread, with a hub and a stream of its own ---------------------------------------------------------

    def _say(self, heard: _Heard) -> None:
        self._heard.append(heard)
        Bell(self.layout.bell("coordinator")).ring()

    def _make(self, config: Config, name: str, sweep: bool) -> None:
        """The first fetch."""
        events = EventStream(self.layout, self.clock, "coordinator")
        try:
            hub = self._open(config, name, events)
        except Exception as e:  # noqa: BLE001 - the loop decides what to do about it
            events.close()
            self._say(_Heard(project=name, why=e))
            return
        self._look(config, name, hub, events, sweep)

    def _look(self, config: Config, name: str, hub: Hub, events: EventStream, sweep: bool) -> None:
        """What an opened hub owes the person; then its locks.

        A fetch waits for a disk or a network of the person's; ten thousand refs are as many folders; and locks that are
        found are watched for a while.
        """
        owed_at, why = None, None
        try:
            if config.projects[name].merge.publish is Publish.PUSH:
                if hub.repo.local:
                    hub.refresh()  # a power loss may have taken what was pushed there, and is noted as seen here
                at = self.clock.monotonic()
                if hub.unpublished():
                    owed_at = at
        except Exception as e:  # noqa: BLE001 - the loop decides what to do about it
            why = e
        self._say(_Heard(project=name, why=why, owed_at=owed_at))
        try:
            if sweep:
                hub.sweep(events.emit)
        except (HarnessError, OSError) as e:  # the locks stay for the next start
            events.emit(Event.PROCESS_FAILED, what="sweep of the hub", project=name, reason=str(e))
        finally:
            events.close()


def _passes(why: HarnessError | OSError) -> bool:
    if isinstance(why, GitInterrupted) and why.reason is not EndReason.STOPPED:
        return False  # it took ten minutes, and would take them again
    if isinstance(why, OSError):
        return why.errno in _PASSING
    return why.exit_code == TryAgainError.exit_code
