"""What signals ask of a process of ours. Handlers only count; one descriptor becomes readable with every signal."""

from __future__ import annotations

import os
import signal

STOP_NOW = signal.SIGUSR2
"""Give back what you do, and go: between processes of ours. TERM says finish and go, however often: two coordinators, of
which one died while it drained, may both say so. USR2 ends a process that has no handler yet, and leaves no core."""


class Signals:
    """TERM and INT count as stops, USR2 is a stop `now`, HUP asks to read config.yaml again, USR1 to look around now.
    What a count means is the reader's affair. `wake_fd` wakes whoever polls it. One per process; made in the main thread.
    """

    def __init__(self) -> None:
        self.stops = 0
        self.now = False
        self.reload = False
        self.dump = False
        self.wake_fd, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(STOP_NOW, self._stop_now)
        signal.signal(signal.SIGHUP, self._reload)
        signal.signal(signal.SIGUSR1, self._look)

    def _stop(self, *_: object) -> None:
        self.stops += 1

    def _stop_now(self, *_: object) -> None:
        self.stops += 1
        self.now = True

    def _reload(self, *_: object) -> None:
        self.reload = True

    def _look(self, *_: object) -> None:
        self.dump = True

    def drain(self) -> None:
        """Empty the wake-up pipe."""
        try:
            while os.read(self.wake_fd, 4096):
                pass
        except BlockingIOError:
            pass
