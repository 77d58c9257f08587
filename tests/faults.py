"""System calls of the store that fail: the n-th one, in any way, in this process.

The store's modules get another `os` and `fcntl`, which count the calls that touch the disk; syncfs(2), which Python does not
have, is counted in the store's own call of it. What git does is in `tests/integration/test_hub_faults.py`.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from harness.store import disk, dropbox, hints

CALLS = frozenset(
    {
        "open", "write", "read", "fsync", "link", "unlink", "rename", "mkdir", "makedirs", "rmdir", "listdir",
        "scandir", "stat", "lstat", "fstat", "utime", "ftruncate", "posix_fallocate", "fcntl",
    }
)  # fmt: skip
ERRORS = tuple(getattr(errno, name) for name in ("ENOSPC", "EIO", "EROFS", "EMLINK", "EACCES", "EMFILE"))
KILL = 0
"""In the place of an errno: the process dies before the call."""


class Killed(BaseException):
    """kill -9. Nothing in the product may catch it."""


class _Module:
    """A module whose system calls go through `before`."""

    def __init__(self, real: ModuleType, before: Callable[[str], None]) -> None:
        self._real = real
        self._before = before

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name not in CALLS:
            return found

        def call(*args: Any, **more: Any) -> Any:
            self._before(name)
            return found(*args, **more)

        return call


class Faults:
    """Counts the calls; the one with number `at` (from 0) fails with `error`."""

    def __init__(self, at: int = -1, error: int = KILL) -> None:
        self.at = at
        self.error = error
        self.calls: list[str] = []

    def _before(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) - 1 == self.at:
            if self.error == KILL:
                raise Killed(name)
            raise OSError(self.error, os.strerror(self.error), name)

    @contextmanager
    def __call__(self) -> Iterator[Faults]:
        modules = (disk, dropbox, hints)
        real = [(m, name, getattr(m, name)) for m in modules for name in ("os", "fcntl") if hasattr(m, name)]
        for module, name, _ in real:
            setattr(module, name, _Module(os if name == "os" else fcntl, self._before))
        syncfs = disk.Disk.do_syncfs

        def do_syncfs(self_: disk.Disk) -> None:
            self._before("syncfs")
            syncfs(self_)

        disk.Disk.do_syncfs = do_syncfs  # type: ignore[method-assign, assignment]
        try:
            yield self
        finally:
            disk.Disk.do_syncfs = syncfs  # type: ignore[method-assign]
            for module, name, was in real:
                setattr(module, name, was)
