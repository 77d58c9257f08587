"""Watches the drop box and state/control/ with one inotify instance, to wake the loop at once. A hint: the sweep is the truth.

inotify loses events when its queue overflows, and sees nothing that another host does.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers.inotify import InotifyObserver

from harness.bell import Bell
from harness.layout import Layout
from harness.logs import silence
from harness.store.dropbox import DropBox

# An event on the way while the observer stops is an error to watchdog, printed for want of a handler. It is none to us.
silence("watchdog")

_WAKING = frozenset({"created", "closed", "moved"})


class _Handler(FileSystemEventHandler):
    """Runs in watchdog's thread: may only append to the deque and ring."""

    def __init__(self, arrived: deque[str], bell: Bell, queue: str) -> None:
        self._arrived = arrived
        self._bell = bell
        self._queue = queue

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type not in _WAKING:
            return
        if event.event_type == "moved":
            folder, name = os.path.split(os.fsdecode(event.dest_path or ""))
            if folder == self._queue:
                self._arrived.append(name)
            elif not name:
                return  # moved out: our own take
        self._bell.ring()


@dataclass(slots=True)
class DropWatch:
    """A context manager. `problem` says why there is no watch; then only the sweep finds drops."""

    layout: Layout
    bell: Bell
    box: DropBox
    problem: str = ""
    _arrived: deque[str] = field(default_factory=lambda: deque(maxlen=100_000))
    _observer: InotifyObserver | None = None

    def __enter__(self) -> Self:
        observer = InotifyObserver(generate_full_events=True)
        queue = str(self.layout.queue)
        handler = _Handler(self._arrived, Bell(self.bell.path), queue)
        try:
            observer.schedule(handler, queue, recursive=False)
            observer.schedule(handler, str(self.layout.control), recursive=False)
            observer.start()
        except OSError as e:
            self.problem = (
                f"cannot watch the drop box ({e.strerror}): drops are found by the sweep, every few seconds"
            )
            return self
        self._observer = observer
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(5.0)

    def pass_on(self) -> None:
        """Tell the drop box which files were renamed in: those are whole and need no quiet window."""
        while self._arrived:
            self.box.arrived_whole(self._arrived.popleft())
