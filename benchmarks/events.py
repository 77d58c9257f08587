"""Reads the event stream as it grows, woken by inotify, and remembers when each line was first seen.

The time of an event is the moment we see it: its writer's work is done by then, so every latency taken with it is an
upper bound (by a wake-up, some 0.1 ms), and finer than the milliseconds in the line itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_IN_MODIFY, _IN_CREATE = 0x2, 0x100


class Events:
    """The stream of one root. `seen` holds (time seen, event) in order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inotify = -1
        self._read: dict[Path, int] = {}
        self.seen: list[tuple[float, dict[str, Any]]] = []

    def watch(self) -> None:
        """From now on. What was written before is read first and has no meaningful time."""
        self._inotify = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if _LIBC.inotify_add_watch(self._inotify, os.fsencode(self._folder), _IN_MODIFY | _IN_CREATE) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        self.read()

    def read(self) -> list[tuple[float, dict[str, Any]]]:
        """What is new."""
        now = time.time()
        new = []
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open("rb") as stream:
                stream.seek(self._read.get(path, 0))
                for line in stream:
                    if not line.endswith(b"\n"):
                        break
                    self._read[path] = self._read.get(path, 0) + len(line)
                    try:
                        new.append((now, json.loads(line)))
                    except ValueError:
                        continue  # torn by a power loss
        self.seen += new
        return new

    def wait(
        self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float, start: int = 0
    ) -> tuple[float, dict[str, Any]]:
        """The first event after `seen[start]` that is wanted. Raises TimeoutError."""
        if self._inotify < 0:
            self.watch()
        deadline = time.monotonic() + timeout_s
        checked = start
        while True:
            for k in range(checked, len(self.seen)):
                if wanted(self.seen[k][1]):
                    return self.seen[k]
            checked = len(self.seen)
            if self.read():
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                last = [e["event"] for _, e in self.seen[-8:]]
                raise TimeoutError(f"no such event within {timeout_s:g} s; the last ones: {last}")
            if select.select([self._inotify], [], [], left)[0]:
                os.read(self._inotify, 65536)

    def close(self) -> None:
        if self._inotify >= 0:
            os.close(self._inotify)
            self._inotify = -1
