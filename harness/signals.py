"""What signals ask of a process of ours. Handlers only count; one descriptor becomes readable with every signal."""

from __future__ import annotations

import os
import signal


class Signals:
    """TERM and INT count as stops (the first: finish and go; the second: go now), HUP asks to read config.yaml again,
    USR1 to look around now. `wake_fd` wakes whoever polls it. One per process; made in the main thread.
    """

    def __init__(self) -> None:
        self.stops = 0
        self.reload = False
        self.dump = False
        self.wake_fd, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._reload)
        signal.signal(signal.SIGUSR1, self._look)

    def _stop(self, *_: object) -> None:
        self.stops += 1

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
