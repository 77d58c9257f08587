"""How a coordinator ends: it drains (attempts finish), or it stops (they are given back); workers first, then mergers.

Asked for by signals (TERM or INT once: drain; twice: stop), by state/control/drain and stop, by the time that a drain
may take, and by the coordinator itself. Everything here is level-triggered: what is to be told is told in every tick,
or once to each process, and means the same however often it is heard.
"""

from __future__ import annotations

import signal

from harness.clock import Clock
from harness.coordinator.mergers import Mergers
from harness.coordinator.pool import Pool
from harness.dataclass import dataclass
from harness.events import EventStream
from harness.layout import Layout
from harness.logs import Event
from harness.sdnotify import Notifier
from harness.signals import STOP_NOW, Signals

GRACE_S = 30.0
"""After a stop: how long workers may take to release their attempts, and mergers to end, before they are killed."""
NO, DRAIN, STOP = range(3)


@dataclass(slots=True)
class Ending:
    layout: Layout
    clock: Clock
    events: EventStream
    signals: Signals
    notifier: Notifier
    pool: Pool
    mergers: Mergers
    drain_s: float
    asked: int = NO
    """What was acted on. Only ever grows."""
    _drain_until: float = 0.0
    _stopping_since: float = 0.0
    _leaving: bool = False
    """The workers have gone, mergers are told to."""
    _starting_since: float | None = None

    @property
    def state(self) -> str:
        return ("running", "draining", "stopping")[self.asked]

    @property
    def merging(self) -> bool:
        """May mergers still be started? Not when they are told to go."""
        return self.asked < STOP and not self._leaving

    def look(self) -> None:
        """Obey what somebody asks for."""
        control = self.layout.control
        if self.signals.now or self.signals.stops > 1 or (control / "stop").exists():
            self.ask(STOP)
        elif self.signals.stops > 0 or (control / "drain").exists():
            self.ask(DRAIN)
        if self.asked == DRAIN and self.clock.monotonic() > self._drain_until:
            self.ask(STOP)

    def ask(self, wanted: int) -> None:
        """To be said once or often; a stop is a drain as well."""
        now = self.clock.monotonic()
        if wanted >= DRAIN > self.asked:
            self.asked = DRAIN
            self._drain_until = now + self.drain_s
            self.events.emit(Event.DRAIN_STARTED, drain_s=self.drain_s)
            self.notifier.stopping()
        if wanted >= STOP > self.asked:
            self.asked = STOP
            self._stopping_since = now
            self.mergers.signal_all(signal.SIGTERM)

    def press(self) -> None:
        """Tell the workers. Those of a drain are retired by the pool, each once."""
        if self.asked == STOP:
            late = self.clock.monotonic() - self._stopping_since > GRACE_S
            self.pool.signal_all(signal.SIGKILL if late else STOP_NOW)

    def over(self) -> bool:
        """Has everything gone that was told to? Workers first, then mergers; both have their time."""
        self.notifier.extend(30.0)
        self.pool.adopt()  # also those that the last coordinator started, and that came too late for our start
        if self.pool.alive():
            return False
        self._leaving = True
        self.mergers.adopt()
        if self.mergers.alive():
            self.mergers.dismiss(GRACE_S)
            return False
        if not self.pool.starting() and not self.mergers.starting():
            return True
        if self._starting_since is None:
            self._starting_since = self.clock.monotonic()
        return self.clock.monotonic() - self._starting_since > GRACE_S  # nobody knows whom to kill
