"""Drops that nobody has decided yet, and which of them a name means: `wait` may be asked for what was just dropped."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from harness.control import dropping
from harness.control.desk import Desk
from harness.control.dropping import Ticket
from harness.dataclass import dataclass
from harness.errors import ConfigError, HarnessError, NotFoundError
from harness.layout import DROP_SUFFIXES
from harness.model import TERMINAL, State
from harness.store.admission import raw_name
from harness.store.drops import stem_of

_RAW = raw_name("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """What a name means at this moment: an item, or a drop that may become it."""

    name: str
    uid: str = ""
    ticket: Ticket | None = None


def meant(desk: Desk, names: Sequence[str]) -> list[Meant]:
    """What each name means. An item that is not over comes first, then a drop, whose items will be the newest of that
    name, then what is over.

    Raises NotFoundError for a name that means nothing, ConflictError for a prefix that is not unique.
    """
    # The drop box, then incoming/, then (by `find`) the store: a drop goes that way, so that none is missed.
    box = _Box(desk)
    return [_meant(desk, box, name) for name in names]


def _meant(desk: Desk, box: _Box, name: str) -> Meant:
    ticket = box.find(name)
    try:
        seen = desk.view.find(name)
    except HarnessError:
        if ticket is None:
            raise
        return Meant(name=name, ticket=ticket)
    exact = name in (seen.uid, seen.id)
    if ticket is not None and not (exact and seen.state not in TERMINAL):
        return Meant(name=name, ticket=ticket)
    if seen.state is State.INCOMING:
        ticket = box.at(seen.place, name)
        if ticket is None:  # decided just now
            raise NotFoundError(
                f"there is no item {name!r}: that was a drop, and is decided",
                remedy="list its items: harnessctl items --all",
            )
        return Meant(name=name, ticket=ticket)
    return Meant(name=name, uid=seen.uid)


def is_undecided(desk: Desk, ticket: Ticket) -> bool:
    """Whether the drop lies in the drop box or in incoming/."""
    if _inode(desk, f"queue/{ticket.name}") == ticket.inode:
        return True
    raw = raw_name(ticket.name)
    return any(_inode(desk, f"queue/incoming/{u}/{raw}") == ticket.inode for u in desk.view.uids("incoming"))


def _inode(desk: Desk, path: str) -> tuple[int, int] | None:
    try:
        info = os.stat(path, dir_fd=desk.disk.root, follow_symlinks=False)
    except OSError:
        return None
    return (info.st_dev, info.st_ino) if stat.S_ISREG(info.st_mode) else None


class _Box:
    """All drops without a decision; what is in them is only read when none has the name as its own."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        files = [(f"queue/{name}", name) for name in desk.view.uids("") if _is_drop(name)]
        files += list(self._incoming())
        found = {}
        for path, name in files:
            if (inode := _inode(desk, path)) is not None:
                found[inode] = (path, name)
        self._drops = [(path, name, inode) for inode, (path, name) in found.items()]
        self._ids: dict[str, Ticket] | None = None

    def find(self, name: str) -> Ticket | None:
        for _, file, inode in self._drops:
            if stem_of(file) == name:
                return Ticket(source=name, name=file, inode=inode)
        if self._ids is None:
            self._ids = dict(self._written()) if self._drops else {}
        return self._ids.get(name)

    def at(self, home: str, name: str) -> Ticket | None:
        """The drop in a folder of incoming/."""
        for path, file, inode in self._drops:
            if os.path.dirname(path) == home:
                return Ticket(source=name, name=file, inode=inode)
        return None

    def _incoming(self) -> Iterator[tuple[str, str]]:
        for uid in self._desk.view.uids("incoming"):
            for name in self._desk.view.uids(f"incoming/{uid}"):
                if name.startswith(_RAW):
                    yield f"queue/incoming/{uid}/{name}", name.removeprefix(_RAW)

    def _written(self) -> Iterator[tuple[str, Ticket]]:
        """The ids that are written in drops."""
        try:
            limit = self._desk.config.intake.max_bytes
        except ConfigError:
            return  # then nothing can be admitted either
        for path, name, inode in self._drops:
            try:
                raw = dropping.read_source(str(self._desk.layout.root / path), None, limit)
            except HarnessError:
                continue
            for new in dropping.check(self._desk, name, raw)[0]:
                yield new.id, Ticket(source=new.id, name=name, inode=inode)


def _is_drop(name: str) -> bool:
    return name[0] not in "._" and os.path.splitext(name)[1].lower() in DROP_SUFFIXES
