"""A model file system for the explorer: names are visible at once, durable only after an fsync.

Folders are inodes, so a rename of a folder moves what is in it. Every change of a folder is one operation that stays
volatile until an fsync of a folder that it touches. On a power loss any subset of the volatile operations survives
(`weak`: what POSIX allows, found by ALICE, Pillai et al., OSDI 2014), or any prefix (`weak=False`: one journal, as on
ext4). The data of a file is torn unless an fsync of the file came first. `queue/tmp/` and hints are not tracked: after a
crash they are garbage.

A hub is a few values: the commits that exist, the target, the lane, what was seen of the person's branch; that branch is
one more. Each is lost or kept by itself.

States are hashed incrementally (the exclusive or of the hashes of all entries), so that the key of a state costs
nothing. With 64 bits and 10^7 states the chance of one collision is 3e-6.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeAlias

from tests.model.git import Commits, Git

Entry: TypeAlias = tuple[str, Any]
"""("d", inode) or ("f", inode). The inode of a file is (private name, content): contents never change."""
Key: TypeAlias = tuple[str, str]
"""(inode of the folder, name)"""

UNTRACKED = frozenset({"tmp", "ready"})
ROOT_FOLDERS = (
    "incoming",
    "waiting",
    "open",
    "archive",
    "rejected",
    "batches",
    "done",
    "ids",
    "ready",
    "tmp",
    "aside",
)


@lru_cache(1 << 16)
def split(path: str) -> tuple[tuple[str, ...], str]:
    """path -> (folders below the root, name)"""
    *folders, name = path.split("/")
    return tuple(folders), name


class Files:
    """Mutable; `copy` before a change. `h` is the hash of the visible names."""

    __slots__ = (
        "base",
        "base_h",
        "dirty",
        "git",
        "git_kept",
        "h",
        "locks",
        "names",
        "pending",
        "time_passed",
        "tracked",
        "writers",
    )

    def __init__(self, tracked: bool) -> None:
        self.names: dict[Key, Entry] = {("/", "queue"): ("d", "queue")}
        for folder in ROOT_FOLDERS:
            self.names[("queue", folder)] = ("d", folder)
        self.h = 0
        self.tracked = tracked
        self.base: dict[Key, Entry] = {}
        """What is durable."""
        self.base_h = 0
        self.pending: tuple[tuple[Any, ...], ...] = ()
        """Volatile operations, oldest first."""
        self.dirty: frozenset[Any] = frozenset()
        """Inodes whose data is not durable."""
        self.locks: dict[Any, str] = {}
        """inode -> incarnation that holds its OFD lock"""
        self.writers: dict[Any, str] = {}
        self.git = self.git_kept = Git()
        self.time_passed = False

    def settle(self) -> None:
        """Everything so far is durable: the end of a setup."""
        self.h = _hash(self.names)
        self.base = dict(self.names)
        self.base_h = hash(frozenset(self.base.items())) if self.tracked else 0
        self.pending = ()
        self.dirty = frozenset()
        self.git_kept = self.git

    def copy(self) -> Files:
        new = Files.__new__(Files)
        new.names, new.h = self.names.copy(), self.h
        new.tracked = self.tracked
        new.base, new.base_h, new.pending = self.base, self.base_h, self.pending
        new.dirty = self.dirty
        new.locks = self.locks.copy() if self.locks else {}
        new.writers = self.writers.copy() if self.writers else {}
        new.git, new.git_kept = self.git, self.git_kept
        new.time_passed = self.time_passed
        return new

    def key(self) -> int:
        return hash(
            (
                self.h,
                self.base_h,
                self.pending,
                self.dirty,
                frozenset(self.locks.items()) if self.locks else 0,
                frozenset(self.writers.items()) if self.writers else 0,
                self.git,
                self.git_kept if self.tracked else 0,
                self.time_passed,
            )
        )

    # ---- looking -------------------------------------------------------------------------------------------------------

    def folder(self, parts: tuple[str, ...]) -> str | None:
        at = "/"
        for part in parts:
            entry = self.names.get((at, part))
            if entry is None or entry[0] != "d":
                return None
            at = entry[1]
        return at

    def look(self, path: str) -> Entry | None:
        parts, name = split(path)
        at = self.folder(parts)
        return None if at is None else self.names.get((at, name))

    def inside(self, inode: str) -> list[str]:
        return [name for at, name in self.names if at == inode]

    # ---- changing ------------------------------------------------------------------------------------------------------

    def add(self, at: str, name: str, entry: Entry) -> None:
        self.names[(at, name)] = entry
        self.h ^= hash((at, name, entry))
        if self.tracked and at not in UNTRACKED:
            self.pending += (("add", at, name, entry),)

    def remove(self, at: str, name: str) -> None:
        entry = self.names.pop((at, name))
        self.h ^= hash((at, name, entry))
        if self.tracked and at not in UNTRACKED:
            self.pending += (("del", at, name, entry),)

    def move(self, at: str, name: str, to: str, new: str) -> None:
        entry = self.names.pop((at, name))
        self.names[(to, new)] = entry
        self.h ^= hash((at, name, entry)) ^ hash((to, new, entry))
        if self.tracked:
            self.pending += (("mv", at, name, entry, to, new),)

    def fsync_folder(self, inode: str, weak: bool) -> None:
        if not self.tracked or not self.pending:
            return
        touched = [inode in (op[1], op[4] if op[0] == "mv" else None) for op in self.pending]
        if True not in touched:
            return
        if not weak:  # one journal: everything before goes with it
            last = max(k for k, t in enumerate(touched) if t)
            touched = [k <= last for k in range(len(touched))]
        base = self.base.copy()
        for op, now in zip(self.pending, touched, strict=True):
            if now:
                replay(base, op)
        self.base = base
        self.base_h = hash(frozenset(base.items()))
        self.pending = tuple(op for op, now in zip(self.pending, touched, strict=True) if not now)

    def syncfs(self) -> None:
        self.dirty = frozenset()
        if self.tracked and self.pending:
            base = self.base.copy()
            for op in self.pending:
                replay(base, op)
            self.base, self.base_h, self.pending = base, hash(frozenset(base.items())), ()

    # ---- losing power ----------------------------------------------------------------------------------------------------

    def power_losses(self, weak: bool, commits: Commits) -> Iterator[Files]:
        """Every tree that may be found after the machine starts again."""
        for files in self._trees(weak):
            for git in self._gits(commits):
                new = files.copy()
                new.git = new.git_kept = git
                yield new

    def _trees(self, weak: bool) -> Iterator[Files]:
        n = len(self.pending)
        masks = range(1 << n) if weak else [(1 << k) - 1 for k in range(n + 1)]
        seen: set[frozenset[Any]] = set()
        for mask in masks:
            base = self.base.copy()
            for k, op in enumerate(self.pending):
                if mask >> k & 1:
                    replay(base, op)
            base = reachable(base)
            if self.dirty:
                base = {k: (kind, torn(i) if i in self.dirty else i) for k, (kind, i) in base.items()}
            key = frozenset(base.items())
            if key in seen:
                continue
            seen.add(key)
            new = self.copy()
            new.names, new.base, new.base_h = base.copy(), base, hash(key)
            new.h = _hash(base)
            new.pending, new.dirty, new.locks, new.writers = (), frozenset(), {}, {}
            yield new

    def _gits(self, commits: Commits) -> list[Git]:
        """Refs and objects are separate files: any combination of old and new."""
        old, new = self.git_kept, self.git
        if old == new:
            return [new]
        values: list[list[Any]] = [[a] if a == b else [a, b] for a, b in zip(old, new, strict=True)]
        values[1] += commits.between(old.target, new.target)
        return [Git(*x) for x in itertools.product(*values)]


def reachable(names: dict[Key, Entry]) -> dict[Key, Entry]:
    """Without what was in folders that are lost: a folder that is made again is empty."""
    inside: dict[str, list[Key]] = {}
    for key in names:
        inside.setdefault(key[0], []).append(key)
    found: dict[Key, Entry] = {}
    todo = ["/"]
    while todo:
        for key in inside.get(todo.pop(), ()):
            found[key] = entry = names[key]
            if entry[0] == "d":
                todo.append(entry[1])
    return found


def torn(inode: Any) -> Any:
    """The same file, its data lost."""
    return (inode[0], None)


def replay(names: dict[Key, Entry], op: tuple[Any, ...]) -> None:
    """One operation that a journal, or luck, brought to the disk."""
    kind, at, name, entry = op[:4]
    if kind == "add":
        names.setdefault((at, name), entry)
    elif kind == "del":
        names.pop((at, name), None)
    elif names.get((at, name)) == entry:
        del names[(at, name)]
        names[(op[4], op[5])] = entry


def _hash(names: dict[Key, Entry]) -> int:
    h = 0
    for (at, name), entry in names.items():
        h ^= hash((at, name, entry))
    return h
