"""Signs of life of a running command: output, CPU time, changed files. It only looks; the runner decides.

A command has stalled when for `stall_s` seconds it has written nothing, *and* its processes have used next to no
CPU time, *and* nothing has changed in the folder it works in. Silence alone is no sign: a compiler is silent, and so is
a model that thinks for minutes. What waits for the network that long without a byte is taken for stalled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from harness import procs
from harness.clock import Clock

IDLE_CPU = 0.05
"""Share of one core below which a tree does not count as working: idle event loops use a little (Codex, which waits for a
model that says nothing, 3 %)."""
SAMPLES = 10
"""CPU time is looked at so many times in `stall_s`; a look reads the whole of /proc."""
AWAY_S = 120.0
"""Nobody asked for longer than that: we did not run ourselves (a machine that was suspended), nor did the command."""
MAX_ENTRIES = 200_000
"""A larger folder is not searched to its end."""


class Activity:
    """The last sign of life of one command."""

    def __init__(self, *, clock: Clock, stall_s: float, pid: int, watch: Path | None) -> None:
        self._clock = clock
        self._stall_s = stall_s
        self._pid = pid
        self._watch = watch
        self._cpu_s: Callable[[int], float] = procs.cpu_seconds
        self._last_s = self._sampled_s = self._asked_s = clock.monotonic()
        self._seen_wall = clock.wall()
        self._seen_bytes = 0
        self._seen_cpu_s = 0.0

    def stalled(self, written: int) -> bool:
        """To be asked now and then, with the number of bytes written so far."""
        now = self._clock.monotonic()
        if now - self._asked_s > AWAY_S:
            self._last_s += now - self._asked_s
            self._sampled_s += now - self._asked_s
        self._asked_s = now
        if written != self._seen_bytes:
            self._seen_bytes = written
            self._alive(now)
        if now - self._sampled_s >= self._stall_s / SAMPLES:
            self._sample_cpu(now)
        if now - self._last_s < self._stall_s:
            return False
        if self._watch is not None and self._changed(self._watch):
            self._alive(now)
            return False
        return True

    def _alive(self, now: float) -> None:
        self._last_s = now
        self._seen_wall = max(self._seen_wall, self._clock.wall())

    def _sample_cpu(self, now: float) -> None:
        cpu_s = self._cpu_s(self._pid)
        if cpu_s - self._seen_cpu_s > IDLE_CPU * (now - self._sampled_s):
            self._alive(now)
        # It can shrink: what an ended process used is lost when nobody has waited for it.
        self._seen_cpu_s = cpu_s
        self._sampled_s = now

    def _changed(self, folder: Path) -> bool:
        """Whether anything in the folder is newer than the last sign of life. Never true twice for one change."""
        for mtime in modification_times(folder):
            if mtime > self._seen_wall:
                self._seen_wall = mtime
                return True
        return False


def modification_times(folder: Path) -> Iterator[float]:
    """Of everything below, symbolic links not followed; what vanishes meanwhile is left out."""
    pending = [os.fspath(folder)]
    left = MAX_ENTRIES
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    left -= 1
                    if left < 0:
                        return
                    try:
                        yield entry.stat(follow_symlinks=False).st_mtime
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
                    except OSError:
                        continue
        except OSError:
            continue
