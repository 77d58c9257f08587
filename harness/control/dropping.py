"""New work: put a file into the drop box as any program may, and hear what became of it.

Nothing is admitted here. With a coordinator running, its decision is waited for; without one, the text is checked
against the configuration, so that what is wrong is said at once, and the file waits in the drop box.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import field
from enum import StrEnum
from pathlib import Path

from harness import atomicfs
from harness.control.desk import Desk
from harness.dataclass import dataclass
from harness.errors import HarnessError, NotFoundError, UsageError
from harness.layout import DROP_SUFFIXES

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
NAME_BYTES = 200
"""A drop's file name; the store puts `raw.` in front of it."""


class Fate(StrEnum):
    """What became of a drop, as far as it is known."""

    ADMITTED = "admitted"
    EXISTS = "exists"  # the same item is here already; nothing was added
    REJECTED = "rejected"
    DROPPED = "dropped"  # in the drop box, not looked at yet
    GONE = "gone"  # somebody took it out of the drop box again


@dataclass(frozen=True, slots=True, kw_only=True)
class New:
    """One item of a drop. `uid` is empty while it is not admitted."""

    id: str
    uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A file that was put into the drop box, and what became of it."""

    source: str
    """The file it came from, `-`, or "" for words."""
    name: str
    """Its name in queue/; "" when it was found wrong before it was put there."""
    fate: Fate
    items: tuple[New, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A file in the drop box that is followed by its inode, which every rename of the store keeps."""

    source: str
    name: str
    inode: tuple[int, int] = field(repr=False)
    expected: tuple[New, ...] = ()


def read_source(source: str, stdin: bytes | None, limit: int) -> bytes:
    """The bytes of a file to submit, or of standard input. Raises NotFoundError and UsageError."""
    if stdin is not None:
        return stdin
    if os.path.isdir(source):
        raise UsageError("is a folder", where=source, remedy="name the files in it")
    try:
        with open(source, "rb") as file:
            raw = file.read(limit + 1)
    except FileNotFoundError:
        raise NotFoundError("there is no such file", where=source, remedy="see its spelling") from None
    except OSError as e:
        raise UsageError(f"cannot be read: {e.strerror}", where=source, remedy="name a readable file") from e
    if len(raw) > limit:
        raise UsageError(
            f"is larger than {limit >> 20} MiB (intake.max_bytes)",
            where=source,
            remedy="split it into several",
        )
    return raw


def name_for(stem: str, suffix: str) -> str:
    """A legal drop name for a stem: visible, of moderate length, with a suffix that means something."""
    if suffix.lower() not in DROP_SUFFIXES:
        raise UsageError(
            f"{suffix or 'a name without a suffix'!s} is not a kind of drop",
            where=stem + suffix,
            remedy=f"use one of {', '.join(DROP_SUFFIXES)}, or say which with --format",
        )
    plain = stem.lstrip("._") or "item"
    raw = plain.encode("utf-8", "surrogateescape")[:NAME_BYTES]
    return raw.decode("utf-8", "ignore" if len(raw) == NAME_BYTES else "surrogateescape") + suffix.lower()


def check(desk: Desk, name: str, raw: bytes) -> tuple[tuple[New, ...], tuple[str, ...]]:
    """-> (the items it would make, or all the reasons against it), by the same code that admits."""
    from harness.store.drops import Context, default_id, parse, stem_of

    config = desk.config
    context = Context(
        projects={project.name: tuple(project.agent) for project in config.projects.values()},
        agents=tuple(config.agents),
        max_attempts=config.retry.max_attempts,
        max_bytes=config.intake.max_bytes,
    )
    drop = parse(name, raw, context)
    stem = stem_of(name)
    ids = (d.id or (default_id(stem, k) if drop.many else stem) for k, d in enumerate(drop.drafts))
    return tuple(New(id=x) for x in ids), tuple(str(reason) for reason in drop.reasons)


def put(desk: Desk, source: str, name: str, raw: bytes, expected: tuple[New, ...] = ()) -> Ticket:
    """Write the bytes under a private name and rename it into the drop box; never over another drop.

    Durable on return. When the name is taken, a number is added to it.
    """
    queue = desk.layout.queue
    private = queue / f".{os.urandom(8).hex()}.new"
    try:
        # Readable for a daemon of another user; nobody else gets into queue/ (1770).
        fd = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except PermissionError as e:
        raise HarnessError(
            "this user may not put files into the drop box",
            where=queue,
            remedy="join the group that owns it, or run this as the daemon's user",
        ) from e
    try:
        try:
            atomicfs.write_all(fd, raw)
            os.fsync(fd)
            info = os.fstat(fd)
        finally:
            os.close(fd)
        name = _rename_in(private, queue, name)
    except BaseException:
        private.unlink(missing_ok=True)
        raise
    atomicfs.fsync_dir(queue)
    desk.ring()
    return Ticket(
        source=source,
        name=name,
        inode=(info.st_dev, info.st_ino),
        expected=expected,
    )


def _rename_in(private: Path, queue: Path, name: str) -> str:
    stem, suffix = os.path.splitext(name)
    for k in range(1, 1000):
        tried = name if k == 1 else f"{stem}-{k}{suffix}"
        if _rename_new(private, queue / tried):
            return tried
    raise HarnessError(
        "a thousand drops of that name wait already",
        where=queue / name,
        remedy="start the coordinator: harnessctl run",
    )


def _rename_new(source: Path, target: Path) -> bool:
    """renameat2(2) with RENAME_NOREPLACE. False: the target exists."""
    code = _LIBC.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE)
    if code == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.EEXIST:
        return False
    if number not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(number, os.strerror(number), str(target))
    if os.path.lexists(
        target
    ):  # a file system without it (NFS): a window that only two of one name can meet in
        return False
    source.rename(target)
    return True
