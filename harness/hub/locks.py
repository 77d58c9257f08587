"""Our lock around a hub: what changes it in more than one step happens while it is held."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from harness.atomicfs import FileLock
from harness.dataclass import dataclass
from harness.errors import TryAgainError

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
        if not lock.lock(patience_s):
            raise TryAgainError(
                f"another process has held the lock of this hub for {patience_s:.0f} s",
                where=self.path,
                remedy=f"see who: fuser -v {self.path}",
            )
