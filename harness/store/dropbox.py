"""Which files in the drop box are ready to be taken, which must wait, and which are no drops at all (with the reason).

The only module that looks at files that a stranger may be writing. Nothing here follows a link, blocks on a FIFO, reads
more than `max_bytes`, or changes anything.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable
from enum import StrEnum

from harness.clock import Clock
from harness.dataclass import dataclass
from harness.layout import DROP_SUFFIXES, STORE_FOLDERS, Layout
from harness.store.drops import Context, Drop, is_whole, parse, suffix_of, too_large
from harness.store.loading import Reason

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
STUCK_S = 60.0
"""A drop that could not be taken is tried again so late, unless it changes."""
_OURS = frozenset((*STORE_FOLDERS, "FORMAT", "README.md"))
_KINDS = (
    (stat.S_ISLNK, "a symbolic link; copy the file itself"),
    (stat.S_ISDIR, "a folder; drop the files in it one by one"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


_OUR_TROUBLE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EROFS, errno.EINTR})
"""Errors that say nothing about a person's file: it is no reason to reject it."""


class Writer(StrEnum):
    """Does anybody have the file open for writing? (F_SETLEASE, fcntl(2))"""

    NONE = "none"
    SOMEBODY = "somebody"
    UNKNOWN = "unknown"  # another user's file, or a file system without leases


@dataclass(slots=True)
class _Seen:
    """One state of one file and since when, by the monotonic clock, it has not changed."""

    signature: tuple[int, int, int]
    since: float
    whole: bool | None = None


class DropBox:
    """Judges files directly in queue/. Not thread-safe. Remembers what it saw, so that quiet windows can pass.

    `grace_s`: how long a file that is no valid JSON may stay unchanged before it is taken and rejected.
    `quiet_s`: how long a `.jsonl` or YAML file must stay unchanged (a prefix of it can be valid) unless renamed in.
    """

    def __init__(
        self,
        layout: Layout,
        clock: Clock,
        context: Callable[[], Context],
        *,
        grace_s: float = 2.0,
        quiet_s: float = 2.0,
    ) -> None:
        self._queue = str(layout.queue)
        self._root = str(layout.root)
        self._clock = clock
        self._context = context
        self._grace_s = grace_s
        self._quiet_s = quiet_s
        self._seen: dict[str, _Seen] = {}
        self._renamed_in: set[str] = set()
        self._stuck: dict[str, tuple[tuple[int, int], float, str]] = {}
        """name -> (inode and ctime, when to try again, why) of drops that could not be taken."""
        self.ignored: dict[str, str] = {}
        """name -> why it is no drop, as of the last look."""
        self.pending = 0
        """Drops that must wait for a writer or a quiet window, as of the last look."""

    def arrived_whole(self, name: str) -> None:
        """The file was renamed into the drop box (IN_MOVED_TO): it needs no quiet window."""
        self._renamed_in.add(name)

    def stuck(self, name: str, why: str) -> None:
        """Taking it failed: it is ignored, with that reason, until it changes or some time has passed."""
        with contextlib.suppress(FileNotFoundError):
            info = os.lstat(f"{self._queue}/{name}")
            retry = self._clock.monotonic() + STUCK_S
            self._stuck[name] = ((info.st_ino, info.st_ctime_ns), retry, why)

    def ready(self) -> tuple[str, ...]:
        """Names that may be taken now, sorted."""
        found: list[str] = []
        ignored: dict[str, str] = {}
        present: set[str] = set()
        pending = 0
        with os.scandir(self._queue) as entries:
            names = [e.name for e in entries if e.name[0] not in "._" and e.name not in _OURS]
        for name in names:
            if (why := self._no_drop(name)) is not None:
                if why:
                    ignored[name] = why
                continue
            present.add(name)
            if self._is_ready(name):
                found.append(name)
            else:
                pending += 1
        for name in self._seen.keys() - present:
            del self._seen[name]
        for name in self._stuck.keys() - ignored.keys():
            del self._stuck[name]
        self._renamed_in &= present
        self.ignored = ignored
        self.pending = pending
        return tuple(sorted(found))

    def _no_drop(self, name: str) -> str | None:
        """Why the name is no drop; "" when it is gone; None when it is one."""
        try:
            info = os.lstat(f"{self._queue}/{name}")
        except FileNotFoundError:
            return ""
        for is_kind, why in _KINDS:
            if is_kind(info.st_mode):
                return f"is {why}"
        if suffix_of(name) not in DROP_SUFFIXES:
            return f"is not {', '.join(DROP_SUFFIXES)}"
        signature, retry, why = self._stuck.get(name, ((0, 0), 0.0, ""))
        if (info.st_ino, info.st_ctime_ns) == signature and self._clock.monotonic() < retry:
            return f"cannot be moved out of the drop box ({why}); change its permissions, or remove it"
        self._stuck.pop(name, None)
        return None

    def _is_ready(self, name: str) -> bool:
        path = f"{self._queue}/{name}"
        try:
            fd = os.open(path, _OPEN)
        except FileNotFoundError:
            return False
        except OSError as e:  # unreadable: to be rejected with that reason
            if e.errno in _OUR_TROUBLE:
                raise
            try:
                return self._quiet(self._note(name, os.lstat(path)), self._grace_s)
            except FileNotFoundError:
                return False
        try:
            info = os.fstat(fd)
            seen = self._note(name, info)
            writer = writer_of(fd)
            if writer is Writer.SOMEBODY:
                seen.since = self._clock.monotonic()
                seen.whole = None
                return False
            if info.st_size > self._context().max_bytes:
                return self._quiet(seen, self._grace_s)
            if suffix_of(name) != ".json":
                if writer is Writer.NONE and name in self._renamed_in:
                    return True
                return self._quiet(seen, self._quiet_s)
            if seen.whole is None:
                seen.whole = is_whole(name, _read(fd, info.st_size))
            return seen.whole or self._quiet(seen, self._grace_s)
        finally:
            os.close(fd)

    def _note(self, name: str, info: os.stat_result) -> _Seen:
        signature = (info.st_ino, info.st_mtime_ns, info.st_size)
        seen = self._seen.get(name)
        if seen is None or seen.signature != signature:
            seen = self._seen[name] = _Seen(signature, self._clock.monotonic())
        return seen

    def _quiet(self, seen: _Seen, window_s: float) -> bool:
        return self._clock.monotonic() - seen.since >= window_s

    def parse(self, folder: str, raw: str) -> Drop | None:
        """A taken drop; None while a writer that opened it before it was taken still has it (its fd follows the rename)."""
        name = raw.removeprefix("raw.")
        context = self._context()
        many = suffix_of(name) == ".jsonl"
        try:
            fd = os.open(f"{self._root}/{folder}/{raw}", _OPEN)
        except OSError as e:
            if e.errno == errno.ENOENT:
                return None
            if e.errno in _OUR_TROUBLE:
                raise
            what = f"cannot be read by the harness ({e.strerror}); make it readable and drop it again"
            return Drop(name=name, many=many, reasons=(Reason(what=what),))
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                return Drop(name=name, many=many, reasons=(Reason(what="is not a regular file"),))
            if writer_of(fd) is Writer.SOMEBODY:
                return None
            if info.st_size > context.max_bytes:
                return Drop(name=name, many=many, reasons=(too_large(context.max_bytes),))
            return parse(name, _read(fd, info.st_size), context)
        finally:
            os.close(fd)


def writer_of(fd: int) -> Writer:
    """Is the file open for writing anywhere? The lease is given back at once; SIGIO must be ignored by the process."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as e:
        return Writer.SOMEBODY if e.errno in (errno.EAGAIN, errno.EWOULDBLOCK) else Writer.UNKNOWN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return Writer.NONE


def _read(fd: int, size: int) -> bytes:
    parts: list[bytes] = []
    left = size + 1  # one more: a file that grows is not whole
    while left > 0 and (part := os.read(fd, min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
