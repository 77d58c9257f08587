"""Watches the drop box and state/control/ with one inotify instance, to wake the loop at once. A hint: the sweep is the truth.

inotify loses events when its queue overflows, and sees nothing that another host does.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import field
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.inotify import InotifyFullEmitter, InotifyObserver
from watchdog.observers.inotify_c import InotifyConstants

from harness.bell import Bell
from harness.dataclass import dataclass
from harness.layout import Layout
from harness.store.dropbox import DropBox

if TYPE_CHECKING:
    from watchdog.observers.inotify_c import Mask

_WAKING: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    DirCreatedEvent,
    FileClosedEvent,
    FileMovedEvent,
    DirMovedEvent,
]


class _Emitter(InotifyFullEmitter):
    """Asks the kernel for what wakes us and for nothing else, above all not for IN_MOVED_FROM: watchdog holds such an
    event, and everything behind it, back for half a second in case its other half follows. Each of our own takes is one.
    """

    def get_event_mask_from_filter(self) -> Mask:
        kernel = InotifyConstants
        mask = kernel.IN_CREATE | kernel.IN_CLOSE_WRITE | kernel.IN_MOVED_TO | kernel.IN_DELETE_SELF
        return cast("Mask", mask)


class _Observer(InotifyObserver):
    def __init__(self) -> None:
        super().__init__()
        self._emitter_class = _Emitter


class _Handler(FileSystemEventHandler):
    """Runs in watchdog's thread: may only append to the deque and ring."""

    def __init__(self, arrived: deque[str], bell: Bell, queue: str) -> None:
        self._arrived = arrived
        self._bell = bell
        self._queue = queue

    def on_any_event(self, event: FileSystemEvent) -> None:
        folder, name = os.path.split(os.fsdecode(event.dest_path or event.src_path))
        if folder == self._queue:
            if name[:1] == ".":
                return  # a program writes there what it is about to rename
            if event.event_type == "moved":
                self._arrived.append(name)
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
        observer = _Observer()
        queue = str(self.layout.queue)
        handler = _Handler(self._arrived, Bell(self.bell.path), queue)
        try:
            for folder in (queue, str(self.layout.control)):
                observer.schedule(handler, folder, recursive=False, event_filter=_WAKING)
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
