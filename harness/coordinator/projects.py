"""Which projects can be worked on: their hubs are opened (and made) before anything is claimed for them.

A project that cannot be used gets no hints, so that its items lose no attempts, and is tried again now and then.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.clock import Clock
from harness.config import Config, Durability, Publish
from harness.containment import Containment
from harness.errors import HarnessError
from harness.events import EventStream
from harness.hub import Hub
from harness.layout import Layout
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
    checked: float = float("-inf")
    owing: set[str] = field(default_factory=set)
    """Projects whose hubs were found to hold merges that are not published: news for the mergers."""

    def check(self, config: Config) -> None:
        """Open every hub."""
        self.unusable = {}
        self._open(config, tuple(config.projects))

    def check_again(self, config: Config) -> None:
        """Try the unusable ones again, no more often than every AGAIN_S."""
        if self.unusable and self.clock.monotonic() - self.checked > AGAIN_S:
            self._open(config, tuple(n for n in self.unusable if n in config.projects))

    def _open(self, config: Config, names: tuple[str, ...]) -> None:
        self.checked = self.clock.monotonic()
        runner = Runner(clock=self.clock, containment=Containment())
        durable = config.durability is Durability.POWER
        for name in names:
            try:
                hub = Hub.open(
                    self.layout,
                    config.projects[name],
                    runner=runner,
                    clock=self.clock,
                    durable=durable,
                    emit=self.events.emit,
                )
                if config.projects[name].merge.publish is Publish.PUSH and hub.unpublished():
                    self.owing.add(name)
            except HarnessError as e:
                self.unusable[name] = str(e)
            else:
                self.unusable.pop(name, None)
