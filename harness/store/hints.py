"""`queue/ready/<band>/<generation>/<shard>/<name>`: where claimable items are probably found. No truth.

A hint's name is ``<order>~<uid>``, order = 17 digits: inside a window names are tried in this order; without another
wish it is the time of the hint in milliseconds, so that the oldest comes first. A small backlog lives in one shard,
so that its order is exact; a large one is spread, so that workers that start in different shards rarely meet. A new
generation is opened by count, because folders on ext4 never shrink; an old one is removed when it is empty.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator

from harness.layout import Layout

WINDOW = 64
SHARDS = 8
GENERATION = 512
"""Hints in one generation of one band, by the adder's own count."""
SETTLED_NS = 2 * 10**9
"""A folder that changed later than that may change again within one tick of the file system's clock."""
BANDS = tuple(str(b) for b in range(10))


class Hints:
    """Adds, finds and removes hints. Every error that means "somebody else was here" is swallowed: hints are politeness.

    `start` is the shard this process looks into first.
    """

    def __init__(self, layout: Layout, start: int = 0) -> None:
        self._base = f"{layout.queue}/ready"
        self._items = f"{layout.queue}/open"
        self._start = start
        self._where: dict[str, str] = {}
        """uid -> path of a hint that this process made or saw last; a cache."""
        self._count: dict[int, int] = {}
        self._generation: dict[int, int] = {}
        self._last = 0
        self._listed: dict[str, tuple[int, list[str]]] = {}
        """band -> (when its folder changed last, the generations that were in it); a cache."""

    def add(self, uid: str, band: int, ahead: int = 0) -> None:
        """Create a hint; replaces one that this process made in another place.

        `ahead` (0..9999) comes before the time: the length of the chain of items that waits for this one.
        """
        band = min(max(band, 0), 9)
        generation = self._open_generation(band)
        shard = 0 if self._count[band] <= WINDOW else hash(uid) % SHARDS
        folder = f"{self._base}/{band}/{generation:08d}/{shard}"
        self._last = max(self._last + 1, time.time_ns() // 1_000_000)
        path = f"{folder}/{9999 - min(max(ahead, 0), 9999):04d}{self._last:013d}~{uid}"
        old = self._where.get(uid)
        _make(path, folder, f"{self._items}/{uid}/item.json")
        self._where[uid] = path
        if (
            old and old != path
        ):  # the same: one that another process made in this very millisecond, and that was removed
            _unlink(old)

    def take(self, uid: str) -> bool:
        """Take the hint that `find` has just given, before the item is claimed. False: another process took it.

        So that of many workers on one backlog each tries another item. Who takes a hint and dies has lost it: the sweep
        makes it again.
        """
        path = self._where.pop(uid, None)
        if path is None:
            return False
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        return True

    def remove(self, uid: str) -> None:
        """Remove the hint that this process knows of; one that it does not know is found stale by its finder."""
        path = self._where.pop(uid, None)
        if path:
            _unlink(path)

    def find(self, limit: int = WINDOW) -> Iterator[str]:
        """Uids that are probably claimable, best first: bands in order, old generations first, the own shard first."""
        for band in BANDS:
            for generation in self._generations(band):
                base = f"{self._base}/{band}/{generation}"
                shards = sorted(_names(base))
                for k in range(len(shards)):
                    folder = f"{base}/{shards[(k + self._start) % len(shards)]}"
                    for name in sorted(_window(folder, limit)):
                        uid = name.partition("~")[2]
                        if uid:
                            self._where[uid] = f"{folder}/{name}"
                            yield uid

    def _generations(self, band: str) -> list[str]:
        """Oldest first. A million hints are in two thousand folders, which change once for 512 hints."""
        folder = f"{self._base}/{band}"
        try:
            changed = os.stat(folder).st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return []
        known = self._listed.get(band)
        if known and known[0] == changed:
            return known[1]
        names = sorted(_names(folder))
        if time.time_ns() - changed > SETTLED_NS:
            self._listed[band] = (changed, names)
        return names

    def all(self) -> dict[str, list[tuple[int, str]]]:
        """uid -> [(band, path)] of every hint there is; for the sweep."""
        out: dict[str, list[tuple[int, str]]] = {}
        for band in BANDS:
            for generation in _names(f"{self._base}/{band}"):
                for shard in _names(f"{self._base}/{band}/{generation}"):
                    folder = f"{self._base}/{band}/{generation}/{shard}"
                    for name in _names(folder):
                        out.setdefault(name.partition("~")[2], []).append((int(band), f"{folder}/{name}"))
        return out

    def remember(self, uid: str, path: str) -> None:
        self._where[uid] = path

    def drop(self, path: str) -> None:
        """Remove one hint by its path."""
        _unlink(path)
        for uid in [u for u, p in self._where.items() if p == path]:
            del self._where[uid]

    def tidy(self) -> None:
        """Remove empty folders of generations that are not the newest of their band."""
        for band in BANDS:
            for generation in sorted(_names(f"{self._base}/{band}"))[:-1]:
                base = f"{self._base}/{band}/{generation}"
                for shard in _names(base):
                    with contextlib.suppress(OSError):
                        os.rmdir(f"{base}/{shard}")
                with contextlib.suppress(OSError):
                    os.rmdir(base)

    def _open_generation(self, band: int) -> int:
        if band not in self._generation:
            names = sorted(_names(f"{self._base}/{band}"))
            self._generation[band] = int(names[-1]) if names and names[-1].isdecimal() else 0
            self._count[band] = 0
        self._count[band] += 1
        if self._count[band] > GENERATION:
            self._generation[band] += 1
            self._count[band] = 1
        return self._generation[band]


class Withheld(Hints):
    """For a process that decides itself which hints exist: what the protocol asks for on the way makes none."""

    def add(self, uid: str, band: int, ahead: int = 0) -> None:
        """Does nothing."""


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _window(folder: str, limit: int) -> list[str]:
    names: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                names.append(entry.name)
                if len(names) >= limit:
                    break
    except (FileNotFoundError, NotADirectoryError):
        pass
    return names


def _make(path: str, folder: str, item: str) -> None:
    for _ in range(3):  # a folder may be tidied away between mkdir and the hint, or between two mkdirs
        try:
            try:
                _name(path, item)
                return
            except FileNotFoundError:
                os.makedirs(folder, 0o700, exist_ok=True)
        except (FileExistsError, FileNotFoundError):
            continue
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                return  # the sweep repairs
            raise


def _name(path: str, item: str) -> None:
    """A hint is a further name of its item.json, so that no inode is made and deleted for it: ext4 passes over inodes that
    were deleted in the last minutes, one by one, whenever it makes a new one. An empty file, when there is no such item."""
    try:
        os.link(item, path, follow_symlinks=False)
    except OSError as e:
        if e.errno not in (errno.ENOENT, errno.EMLINK) or (e.errno == errno.ENOENT and os.path.lexists(item)):
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
