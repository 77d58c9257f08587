"""New work: put a file into the drop box as any program may, and hear what became of it.

Nothing is admitted here. With a coordinator running, its decision is waited for; without one, the text is checked
against the configuration, so that what is wrong is said at once, and the file waits in the drop box.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from harness import atomicfs
from harness.control.desk import Desk
from harness.errors import HarnessError, NotFoundError, UsageError
from harness.layout import DROP_SUFFIXES
from harness.model import Item, slug
from harness.store.decisions import Decision

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_NONCE = 10
"""Characters behind the last dash of a uid."""
DAYS = 3
NAME_BYTES = 200
"""A drop's file name; the store puts `raw.` in front of it."""


class Fate(StrEnum):
    """What became of a drop, as far as it is known."""

    ADMITTED = "admitted"
    EXISTS = "exists"  # the same item is here already; nothing was added
    REJECTED = "rejected"
    DROPPED = "dropped"  # in the drop box, not looked at yet


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
    private = queue / f".{secrets.token_hex(8)}.new"
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


def follow(desk: Desk, tickets: list[Ticket], timeout_s: float) -> Iterator[Dropped]:
    """What became of each drop, in the order it becomes known; DROPPED for those still undecided at the end."""
    deadline = desk.clock.monotonic() + timeout_s
    pause_s = 0.004
    left = list(tickets)
    while left:
        for ticket in list(left):
            if (found := fate_of(desk, ticket)) is not None:
                left.remove(ticket)
                yield found
        rest_s = deadline - desk.clock.monotonic()
        if rest_s <= 0:
            break
        if left:
            time.sleep(min(pause_s, rest_s))
            pause_s = min(pause_s * 1.3, 0.2)
    for ticket in left:
        yield undecided(ticket)


def undecided(ticket: Ticket) -> Dropped:
    return Dropped(source=ticket.source, name=ticket.name, fate=Fate.DROPPED, items=ticket.expected)


def fate_of(desk: Desk, ticket: Ticket) -> Dropped | None:
    """The decision on one drop, found by its inode in the folders of the store; None while there is none."""
    for phase in _places(desk):
        for home in _homes(desk, phase, ticket):
            if _is(desk, f"{home}/{_raw(ticket.name)}", ticket.inode):
                return _read(desk, phase, home, ticket)
    return None


def _places(desk: Desk) -> Iterator[str]:
    """Where a decided drop can be; open/ before archive/, since that is the way an item goes."""
    yield from ("queue/open", "queue/waiting", "queue/rejected")
    for phase in ("batches", "archive"):
        for day in sorted(desk.view.uids(phase))[-DAYS:]:  # the newest: it was just decided
            yield f"queue/{phase}/{day}"


def _homes(desk: Desk, phase: str, ticket: Ticket) -> Iterator[str]:
    from harness.store.drops import stem_of

    prefix = f"{slug(stem_of(ticket.name))}-"
    for name in desk.view.uids(phase.removeprefix("queue/")):
        if name.startswith(prefix) and len(name) == len(prefix) + _NONCE:
            yield f"{phase}/{name}"


def _raw(name: str) -> str:
    from harness.store.admission import raw_name

    return raw_name(name)


def _is(desk: Desk, path: str, inode: tuple[int, int]) -> bool:
    try:
        info = os.stat(path, dir_fd=desk.disk.root, follow_symlinks=False)
    except OSError:
        return False
    return (info.st_dev, info.st_ino) == inode


def _read(desk: Desk, phase: str, home: str, ticket: Ticket) -> Dropped | None:
    def said(fate: Fate, items: tuple[New, ...] = (), reasons: tuple[str, ...] = ()) -> Dropped:
        return Dropped(source=ticket.source, name=ticket.name, fate=fate, items=items, reasons=reasons)

    if phase == "queue/rejected":
        why = desk.disk.do_read(f"{home}/why.json", Decision)
        if not isinstance(why, Decision):
            return None
        if why.exists:
            seen = desk.view.item(why.exists)
            return said(Fate.EXISTS, (New(id=seen.id if seen else why.exists, uid=why.exists),))
        return said(Fate.REJECTED, reasons=why.rejected)
    if phase.startswith("queue/batches"):
        batch = desk.disk.do_read(f"{home}/batch", Decision)
        if not isinstance(batch, Decision):
            return None
        everything = {**batch.items, **batch.present}
        fate = Fate.ADMITTED if batch.items else Fate.EXISTS
        return said(fate, tuple(New(id=name, uid=uid) for name, uid in everything.items()))
    item = desk.disk.do_read(f"{home}/item.json", Item)
    return said(Fate.ADMITTED, (New(id=item.id, uid=item.uid),)) if isinstance(item, Item) else None
