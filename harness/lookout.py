"""The one hang detector: looks at heartbeats and at CPU time, by our own clock; `monitor.Quiet` says what that means.

The coordinator has one, for its workers, its mergers, and everybody else who owns a claim. It only looks; who asks kills.
"""

from __future__ import annotations

import os
from dataclasses import field
from pathlib import Path

from harness import procs
from harness.clock import Clock
from harness.dataclass import dataclass
from harness.monitor import HangWatch, Quiet
from harness.pace import limit_s
from harness.procs import ProcessId


@dataclass(slots=True)
class Lookout:
    """`hang_s`: how long a process that works may be silent *and* inactive. Not thread-safe."""

    clock: Clock
    hang_s: float
    watch: HangWatch = field(default_factory=HangWatch)

    def quiet(self, key: str, token: object, process: ProcessId | None, *, busy: bool) -> Quiet:
        """To be asked again and again, under the same key. `token` changes with each beat; `process` is None when it
        runs on another host: then silence alone must do."""
        limit = limit_s(self.hang_s, busy)
        used = None if process is None else lambda: _cpu_s(process)
        return self.watch.quiet(key, token, self.clock.monotonic(), limit, used)

    def forget(self, key: str) -> None:
        """Another process will use this key, or this one was dealt with."""
        self.watch.forget(key)

    def keep_only(self, prefix: str, keys: set[str]) -> None:
        """Forget what starts with prefix and is not in keys."""
        self.watch.keep_only(prefix, keys)


def beat_of(path: Path) -> int:
    """A heartbeat as a token: the mtime of a file, 0 while there is none."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _cpu_s(process: ProcessId) -> float:
    return procs.cpu_seconds(process.pid) if process.alive() else 0.0
