"""The `*.lock` files of git in a hub: what a killed git left is removed, on proof that it is nobody's.

Only inside the hub and its shelf, only while our lock is held, only when no living process can own it (PROTOCOL,
section 7). In a person's repository never: what is removed is removed in a folder that was opened first and then found
to be in the hub, whatever became a link meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from harness import procs
from harness.dataclass import dataclass
from harness.hub.guard import Emit
from harness.hub.locks import HubLock
from harness.logs import Event

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
TURN_S = 0.05
"""A pause between two: who waits for the hub asks every 10 ms."""
PATIENT_S = 2.0
"""So long a lock that nobody stumbled over is watched: as long as git itself waits for one (core.filesRefLockTimeout)."""
AT_ONCE = 200
"""Locks that one sweep looks at; the rest is for the next. Each costs a look at every open file of the host."""
DEEP = ("refs", "worktrees")
"""Folders of the hub that are swept with all that is below them; of the hub itself only its own files."""

Seen: TypeAlias = tuple[int, ...]
"""One lock file and no later one of its name: inode numbers are given again, but never with the old time of change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitLocks:
    """Those of one hub."""

    hub: Path
    shelf: Path
    territory: tuple[Path, ...]
    """Where every git is at work that may lock something in the hub: it and its worktrees."""
    ours: HubLock
    emit: Emit
    project: str

    def unlock(self, file: Path) -> bool:
        """For a git that was refused because of this file. -> whether it is gone, so that the same call may work now.

        False: a living process may own it, or it is not in the hub. Raises TryAgainError.
        """
        if file.suffix != ".lock" or not {self.hub, self._slots} & set(file.parents):
            return False
        try:
            return self._remove(file, self.emit) or not file.exists()
        except FileNotFoundError:  # with its folder
            return True
        except OSError:  # a folder of that name, a disk that is read-only
            return False

    def sweep(self, emit: Emit) -> None:
        """Removes what killed gits left in places that nobody may ever come to again, such as the pin of an attempt.

        One who comes to a lock has seen git wait for it in vain; here each is looked at twice, PATIENT_S apart. Returns
        at once when there is none. What cannot be read or removed stays for the next sweep. Raises TryAgainError.
        """
        found = left(self.hub)
        if not found:
            return
        seen_at_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        time.sleep(PATIENT_S)
        for k, (file, seen) in enumerate(sorted(found.items())):
            if k:
                time.sleep(TURN_S)
            with contextlib.suppress(OSError):
                self._remove(file, emit, seen, seen_at_s)

    @property
    def _slots(self) -> Path:
        """Git locks the slots' indexes, which are kept there."""
        return self.shelf / "slots"

    def _remove(
        self, file: Path, emit: Emit, seen: Seen | None = None, seen_at_s: float | None = None
    ) -> bool:
        """-> whether it was stale and is removed. Raises OSError, TryAgainError."""
        with self.ours.held(), _opened(file.parent) as folder:
            real, lock = folder.readlink(), folder / file.name
            if not any(real.is_relative_to(top.resolve()) for top in (self.hub, self._slots)):
                return False
            if seen is not None and seen != _seen(lock.lstat()):
                return False
            # the kernel names working directories without links: somebody may keep state/ on another disk
            if not stale(lock, tuple(place.resolve() for place in self.territory), seen_at_s):
                return False
            lock.unlink(missing_ok=True)
        emit(Event.STALE_LOCK_REMOVED, project=self.project, file=os.path.relpath(file, self.hub))
        return True


def left(hub: Path) -> dict[Path, Seen]:
    """At most AT_ONCE lock files, of the living too. Follows no link; passes over what it cannot read."""
    top, found = os.fspath(hub), dict[Path, Seen]()
    folders = [top]
    while folders:
        folder = folders.pop()
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if folder != top or entry.name in DEEP:
                        folders.append(entry.path)
                elif entry.name.endswith(".lock") and entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):  # a git has done with it
                        found[Path(entry.path)] = _seen(entry.stat(follow_symlinks=False))
                        if len(found) == AT_ONCE:
                            return found
    return found


def stale(lock: Path, territory: tuple[Path, ...], seen_at_s: float | None = None) -> bool:
    """Whether a lock file of git is certainly nobody's.

    Not only "no process has it open": git closes a ref's lock file before it commits it. So no git that was started
    before the lock was made may be at work anywhere in `territory` (the hub and its worktrees) either. The holder of
    such a lock runs for milliseconds; git has waited longer than that for it before we are asked.

    `seen_at_s` (CLOCK_BOOTTIME): when it was there already, known to who looks for the second time. Without it the wall
    clock has to say how old the lock is.
    """
    try:
        made = lock.lstat()
    except FileNotFoundError:
        return False
    if procs.holders(lock).found:
        return False
    if seen_at_s is None:
        age_s = max(0.0, time.time() - made.st_ctime)
        seen_at_s = time.clock_gettime(time.CLOCK_BOOTTIME) - age_s + 1.0
    for process in procs.working_below(territory):
        seen = procs.stat(process.pid)
        git = seen is not None and seen.comm.startswith(b"git")
        if git and process.start_ticks / _TICKS_PER_SECOND <= seen_at_s:
            return False
    with contextlib.suppress(FileNotFoundError):
        return lock.lstat().st_ino == made.st_ino
    return False


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[Path]:
    """A name of this folder that stays its own while we use it; what it links to is where the folder is."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _seen(info: os.stat_result) -> Seen:
    return (info.st_dev, info.st_ino, info.st_ctime_ns)
