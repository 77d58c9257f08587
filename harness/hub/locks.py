"""Locks: ours around a hub, and the `*.lock` files that a killed git leaves in it.

Alone here lock files of git are removed: only inside the hub and its shelf, only while our lock is held, only after proof that no
living process can own them (PROTOCOL, section 7, rule 8). In a person's repository never.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness import procs
from harness.atomicfs import FileLock
from harness.errors import TryAgainError

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
POLL_S = 0.01
PATIENCE_S = 60.0


@dataclass(slots=True, kw_only=True)
class HubLock:
    """One holder at a time among all processes of this root; the kernel releases it when the holder dies.

    May be taken again by its holder. Not for threads: a hub belongs to one.
    """

    path: Path
    _depth: int = field(default=0, init=False)

    @contextlib.contextmanager
    def held(self, patience_s: float = PATIENCE_S) -> Iterator[None]:
        """Raises TryAgainError when another process keeps it longer than `patience_s`."""
        with contextlib.ExitStack() as stack:
            if not self._depth:
                self._wait(stack.enter_context(FileLock(self.path)), patience_s)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1

    def _wait(self, lock: FileLock, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while not lock.try_lock():
            if time.monotonic() > deadline:
                raise TryAgainError(
                    f"another process has held the lock of this hub for {patience_s:.0f} s",
                    where=self.path,
                    remedy=f"see who: fuser -v {self.path}",
                )
            time.sleep(POLL_S)


def stale(lock: Path, territory: tuple[Path, ...]) -> bool:
    """Whether a lock file of git is certainly nobody's.

    Not only "no process has it open": git closes a ref's lock file before it commits it. So no git that was started
    before the lock was made may be at work anywhere in `territory` (the hub and its worktrees) either. The holder of
    such a lock runs for milliseconds; git has waited longer than that for it before we are asked.
    """
    try:
        made = lock.lstat()
    except FileNotFoundError:
        return False
    if procs.holders(lock).found:
        return False
    age_s = max(0.0, time.time() - made.st_ctime)
    made_at_s = time.clock_gettime(time.CLOCK_BOOTTIME) - age_s
    for process in procs.working_below(territory):
        seen = procs.stat(process.pid)
        git = seen is not None and seen.comm.startswith(b"git")
        if git and process.start_ticks / _TICKS_PER_SECOND <= made_at_s + 1.0:
            return False
    with contextlib.suppress(FileNotFoundError):
        return lock.lstat().st_ino == made.st_ino
    return False
