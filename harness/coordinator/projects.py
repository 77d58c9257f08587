"""Which projects can be worked on: their hubs are opened (and made) before anything is claimed for them.

A project that cannot be used gets no hints, so that its items lose no attempts, and is tried again now and then.
The first fetch from a URL may take long, or for ever: it runs in a thread, and the loop goes on. Its git ends with us.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.bell import Bell
from harness.clock import Clock
from harness.config import URL, Config, Durability, Publish
from harness.containment import Containment
from harness.errors import HarnessError
from harness.events import EventStream
from harness.hub import Hub
from harness.layout import Layout
from harness.logs import Event
from harness.runner import Runner

AGAIN_S = 60.0


@dataclass(slots=True)
class Projects:
    layout: Layout
    clock: Clock
    events: EventStream
    unusable: dict[str, str] = field(default_factory=dict)
    """name -> why, and what to do."""
    gone: tuple[str, ...] = ()
    """Projects of items that config.yaml does not name any more."""
    making: set[str] = field(default_factory=set)
    """Projects whose hub is fetched for the first time, by a thread."""
    checked: float = float("-inf")
    owing: set[str] = field(default_factory=set)
    """Projects whose hubs were found to hold merges that are not published: news for the mergers."""
    swept: set[str] = field(default_factory=set)
    """Projects whose hubs were swept (by a thread) since this coordinator was started."""
    _made: deque[tuple[str, str]] = field(default_factory=deque)
    """(name, why not) of what threads have done since the last look."""

    def check(self, config: Config) -> None:
        """Open every hub."""
        self.unusable = {name: why for name, why in self.unusable.items() if name in self.making}
        self._open_all(config, config.projects)

    def check_again(self, config: Config) -> None:
        """Hear of the hubs that were made; try the unusable ones again, no more often than every AGAIN_S."""
        while self._made:
            name, why = self._made.popleft()
            self.making.discard(name)
            self._note(name, why)
        if self.unusable and self.clock.monotonic() - self.checked > AGAIN_S:
            self._open_all(config, [name for name in self.unusable if name in config.projects])

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

    def _note(self, name: str, why: str) -> None:
        if why:
            self.unusable[name] = why
        else:
            self.unusable.pop(name, None)

    def _open(self, config: Config, name: str, events: EventStream) -> str:
        """-> why it cannot be used, or ""."""
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
            return str(e)
        if name not in self.swept:
            self.swept.add(name)
            with contextlib.suppress(RuntimeError):  # no thread is to be had: the next start sweeps
                threading.Thread(target=self._sweep, args=(hub, name), daemon=True).start()
        return ""

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
