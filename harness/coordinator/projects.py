"""Which projects can be worked on: their hubs are opened (and made) before anything is claimed for them.

A project that cannot be used gets no hints, so that its items lose no attempts, and is tried again now and then.
The first fetch from a URL may take long, or for ever: it runs in a thread, and the loop goes on. Its git ends with us.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.bell import Bell
from harness.clock import Clock
from harness.config import URL, Config, Durability, Publish
from harness.containment import Containment
from harness.errors import HarnessError, TryAgainError
from harness.events import EventStream
from harness.hub import Hub
from harness.layout import Layout
from harness.logs import Event
from harness.runner import Runner

AGAIN_S = 60.0
SOON_S = 5.0
PATIENCE_S = 60.0
"""So long it is tried every SOON_S, when nothing says that a person has to do something."""
_PASSING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN}
)


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
    checked: float = float("-inf")
    owing: set[str] = field(default_factory=set)
    """Projects whose hubs were found to hold merges that are not published: news for the mergers."""
    swept: set[str] = field(default_factory=set)
    """Projects whose hubs were swept (by a thread) since this coordinator was started."""
    _made: deque[tuple[str, HarnessError | OSError | None]] = field(default_factory=deque)
    """(name, why not) of what threads have done since the last look."""

    def check(self, config: Config) -> None:
        """Open every hub."""
        self.unusable = {name: why for name, why in self.unusable.items() if name in self.making}
        self.passing = {name: since for name, since in self.passing.items() if name in config.projects}
        self._open_all(config, config.projects)

    def check_again(self, config: Config) -> None:
        """Hear of the hubs that were made; try the unusable ones again, no more often than every AGAIN_S (SOON_S)."""
        while self._made:
            name, why = self._made.popleft()
            self.making.discard(name)
            self._note(name, why)
        wait_s = SOON_S if self._hoped() else AGAIN_S
        if self.unusable and self.clock.monotonic() - self.checked > wait_s:
            self._open_all(config, [name for name in self.unusable if name in config.projects])

    def soon(self) -> set[str]:
        """Projects that nobody has to do anything for."""
        return self.making | self._hoped()

    def _hoped(self) -> set[str]:
        now = self.clock.monotonic()
        return {name for name, since in self.passing.items() if now - since <= PATIENCE_S}

    def _open_all(self, config: Config, names: Iterable[str]) -> None:
        self.checked = self.clock.monotonic()
        for name in names:
            if name in self.making:
                continue
            if URL.match(config.projects[name].path) and not self.layout.hub(name).exists():
                self.making.add(name)
                self.unusable[name] = f"its first fetch from {config.projects[name].path} has not ended"
                threading.Thread(target=self._make, args=(config, name), daemon=True).start()
            else:
                self._note(name, self._open(config, name, self.events))

    def _make(self, config: Config, name: str) -> None:
        """In a thread of its own: touches nothing of ours but the deque and the bell."""
        why = self._open(config, name, EventStream(self.layout, self.clock, "coordinator"))
        self._made.append((name, why))
        Bell(self.layout.bell("coordinator")).ring()

    def _note(self, name: str, why: HarnessError | OSError | None) -> None:
        if why is None or not _passes(why):
            self.passing.pop(name, None)
        else:
            self.passing.setdefault(name, self.clock.monotonic())
        if why is None:
            self.unusable.pop(name, None)
        else:
            self.unusable[name] = str(why)

    def _open(self, config: Config, name: str, events: EventStream) -> HarnessError | OSError | None:
        """-> why it cannot be used."""
        project = config.projects[name]
        try:
            hub = Hub.open(
                self.layout,
                project,
                runner=Runner(
                    clock=self.clock,
                    containment=Containment(),
                    leashed=not self.layout.hub(name).exists(),
                ),
                clock=self.clock,
                durable=config.durability is Durability.POWER,
                emit=events.emit,
            )
            if project.merge.publish is Publish.PUSH:
                if hub.repo.local:
                    hub.refresh()  # a power loss may have taken what was pushed there, and is noted as seen here
                if hub.unpublished():
                    self.owing.add(name)
        except (HarnessError, OSError) as e:
            return e
        if name not in self.swept:
            self.swept.add(name)
            with contextlib.suppress(RuntimeError):  # no thread is to be had: the next start sweeps
                threading.Thread(target=self._sweep, args=(hub, name), daemon=True).start()
        return None

    def _sweep(self, hub: Hub, name: str) -> None:
        """In a thread of its own, which alone uses this hub from now on: ten thousand refs are as many folders, and
        locks that are found are watched for a while."""
        events = EventStream(self.layout, self.clock, "coordinator")
        try:
            hub.sweep(events.emit)
        except (HarnessError, OSError) as e:  # the locks stay for the next start
            events.emit(Event.PROCESS_FAILED, what="sweep of the hub", project=name, reason=str(e))
        finally:
            events.close()


def _passes(why: HarnessError | OSError) -> bool:
    if isinstance(why, OSError):
        return why.errno in _PASSING
    return why.exit_code == TryAgainError.exit_code
