"""The hub's own files, put back when an agent has changed them.

Git obeys `config`, hooks and attributes of the hub in every call, also in ours, and a filter driver set there cannot
be switched off from outside. So what we wrote is kept a second time, outside anything an agent may write, and before
each of our calls the hub is compared with it: by inode, size and times, so that an untouched hub costs a fraction of
what the git process after it costs. What differs is restored, what is not ours removed, and both reported.

Guarantee not given: an agent without a sandbox may change a file between this look and git's own.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import TypeAlias

from harness.dataclass import dataclass
from harness.errors import GitError
from harness.hub.planted import make_writable
from harness.logs import Event

OURS = ("config", "HEAD", "info/exclude")
"""Files with exactly our contents."""
FORBIDDEN = (
    "config.worktree",
    "commondir",
    "shallow",
    "objects/info/alternates",
    "objects/info/http-alternates",
    "objects/info/commit-graph",
    "objects/info/commit-graphs",
    "refs/replace",
)
"""Names that must not exist: each changes where git looks for settings, objects or parents. Our git reads no graph of
commits, but agents' does, and waits for who writes into a pipe of that name."""
FOLDERS: Mapping[str, frozenset[str]] = {"hooks": frozenset(), "info": frozenset({"exclude", "refs"})}
"""Folders and the only names that may be in them (`info/refs` is written by `git gc` and read by nobody here)."""

TRASH = "trash."

Signature: TypeAlias = tuple[int, ...]
Emit: TypeAlias = Callable[..., None]
"""`EventStream.emit`: an Event and plain values by name."""


@dataclass(slots=True, kw_only=True)
class Guard:
    """Compares one hub with our copy of its files."""

    repository: Path
    copies: Path
    """Folder with our copies, named as in the hub."""
    emit: Emit
    project: str
    _seen: dict[str, tuple[Signature | None, Signature | None]] = field(default_factory=dict, init=False)

    def install(self, contents: Mapping[str, bytes]) -> None:
        """Makes these the contents of OURS, first in our copy. Files that are right already are not touched."""
        for name in OURS:
            for base in (self.copies, self.repository):
                if _read(base / name) != contents[name]:
                    self._replace(base / name, contents[name])

    def check(self) -> tuple[str, ...]:
        """Restores what differs. -> the names that did."""
        restored: list[str] = []
        self._whole()
        for name in OURS:
            restored += self._compare(name)
        for name in FORBIDDEN:
            restored += self._forbid(self.repository / name)
        for name, allowed in FOLDERS.items():
            restored += self._only(self.repository / name, allowed)
        for name in ("objects", "objects/info", "objects/pack"):
            restored += self._unlinked(self.repository / name)
        for admin in _entries(self.repository / "worktrees"):
            make_writable(self.repository / "worktrees" / admin)
            restored += self._forbid(self.repository / "worktrees" / admin / "config.worktree")
        if restored:
            self.emit(Event.HUB_TAMPERED, project=self.project, files=", ".join(restored))
        return tuple(restored)

    def _whole(self) -> None:
        for name in ("objects", "refs"):
            mode = _mode(self.repository / name)
            if mode is None or not stat.S_ISDIR(mode):
                raise GitError(
                    f"the hub's {name}/ is missing or no folder",
                    where=self.repository,
                    remedy="restore state/ from a backup, or put the folder back",
                )

    def _compare(self, name: str) -> list[str]:
        copy, file = self.copies / name, self.repository / name
        seen = (_signature(copy), _signature(file))
        if self._seen.get(name) == seen and None not in seen:
            return []
        wanted = _read(copy)
        if wanted is None:
            raise GitError(
                "our copy of the hub's files is missing", where=copy, remedy="run: harnessctl fsck --repair"
            )
        same = _read(file) == wanted
        if not same:
            self._replace(file, wanted)
        self._seen[name] = (_signature(copy), _signature(file))
        return [] if same else [name]

    def _forbid(self, path: Path) -> list[str]:
        mode = _mode(path)
        if mode is None:
            return []
        self._remove(path, mode)
        return [os.fsdecode(path.relative_to(self.repository))]

    def _unlinked(self, folder: Path) -> list[str]:
        """git would write new objects through a link, to wherever it leads, and wait for who writes into a pipe."""
        make_writable(folder)
        found = []
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            found = [
                Path(entry.path)
                for entry in entries
                if not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False))
            ]
        names = [name for path in found for name in self._forbid(path)]
        if left := next((path for path in found if os.path.islink(path)), None):
            raise GitError("a link among the objects cannot be removed", where=left, remedy="remove it")
        return names

    def _remove(self, path: Path, mode: int) -> None:
        """A folder may be as deep as its maker likes: it is moved to where no agent can write, and removed by a sweep."""
        with contextlib.suppress(OSError):
            if not stat.S_ISDIR(mode):
                path.unlink()
                return
            make_writable(path)  # one that may not be written cannot be moved
            path.rename(self.copies / f"{TRASH}{os.urandom(4).hex()}")

    def _replace(self, path: Path, contents: bytes) -> None:
        """Whole or not at all, whatever is there now. The draft lies with our copies: in the hub it would be foreign."""
        for folder in (path.parent, self.copies):
            folder.mkdir(parents=True, exist_ok=True)
        mode = _mode(path)
        if mode is not None and stat.S_ISDIR(mode):
            self._remove(path, mode)
        draft = self.copies / f".draft.{os.getpid()}"
        draft.write_bytes(contents)
        os.replace(draft, path)

    def _only(self, folder: Path, allowed: frozenset[str]) -> list[str]:
        mode = _mode(folder)
        found: list[str] = []
        if mode is None or not stat.S_ISDIR(mode):
            if mode is not None:
                found = self._forbid(folder)
            folder.mkdir(exist_ok=True)
            return found
        for name in _entries(folder):
            if name not in allowed and not name.endswith(".lock"):
                found += self._forbid(folder / name)
        return found


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _mode(path: Path) -> int | None:
    try:
        return path.lstat().st_mode
    except OSError:
        return None


def _signature(path: Path) -> Signature | None:
    try:
        s = path.lstat()
    except OSError:
        return None
    return (s.st_dev, s.st_ino, s.st_mode, s.st_size, s.st_mtime_ns, s.st_ctime_ns)


def _read(path: Path) -> bytes | None:
    """The contents of a regular file; a link to one does not count."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    with open(fd, "rb") as f:
        return f.read()
