"""One pass over a store, as a check sees it: where every item is, and how to read without falling over anything."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from dataclasses import field
from typing import Any, TypeAlias, TypeVar

from harness.dataclass import dataclass
from harness.errors import StoreError
from harness.model import End, Record, Stub, Verdict
from harness.store.cells import stub_path
from harness.store.disk import Disk, is_locked
from harness.store.violations import Hubs, Violation

T = TypeVar("T")
Finding: TypeAlias = Generator[Violation, None, T]
"""Yields what is wrong, returns what was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A result, and what was said of it."""

    place: str
    uid: str
    end: End
    verdict: Verdict | None
    is_over: bool


@dataclass(slots=True)
class Survey:
    """What one pass has seen so far."""

    disk: Disk
    hubs: Hubs | None
    alive: Callable[[str], bool]
    """Is this incarnation present?"""
    places: dict[str, list[str]] = field(default_factory=dict)
    """uid -> the folders that hold it."""
    ready: dict[str, int] = field(default_factory=dict)
    """uid -> priority of every item that may be claimed now."""
    lost: set[str] = field(default_factory=set)
    """uids that a decided batch names and that are nowhere."""
    named: dict[str, list[Named]] = field(default_factory=dict)
    """By project: the results that cells name, to be asked of its hub all at once."""

    def names(self, folder: str) -> tuple[str, ...]:
        return self.disk.do_ls(folder) or ()

    def saw(self, uid: str, place: str) -> None:
        self.places.setdefault(uid, []).append(place)

    def stub(self, uid: str) -> Stub | None:
        """None also when it cannot be read; that is said where all stubs are looked at."""
        try:
            stub = self.disk.do_read(stub_path(uid), Stub)
        except (StoreError, OSError):
            return None
        return stub if isinstance(stub, Stub) else None

    def has_stub(self, uid: str) -> bool:
        """Is there one, readable or not?"""
        return os.path.lexists(self.disk.layout.root / stub_path(uid))

    def read(self, path: str, kind: type[Record]) -> Finding[Any]:
        """One record; None when it is not there, or cannot be read, which is then a violation."""
        try:
            return self.disk.do_read(path, kind)
        except (StoreError, OSError) as e:  # OSError: a symbolic link, a folder, no permission
            what = e.what if isinstance(e, StoreError) else e.strerror or str(e)
            yield Violation(invariant="I4", path=path, what=what)
            return None

    def is_free(self, path: str) -> bool:
        """Nobody on this host holds a lock on it. A file that is gone is not free."""
        try:
            fd = os.open(
                path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.disk.root
            )
        except OSError:
            return False
        try:
            return not is_locked(fd)
        finally:
            os.close(fd)

    def age_s(self, path: str) -> float:
        try:
            return self.disk.clock.wall() - os.stat(path, dir_fd=self.disk.root).st_mtime
        except FileNotFoundError:
            return 0.0
