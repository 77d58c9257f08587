"""What became of drops: their decisions, looked for in the folders of the store."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from harness.control.desk import Desk
from harness.control.dropping import Dropped, Fate, New, Ticket
from harness.control.undecided import is_undecided
from harness.model import Item, slug
from harness.store.admission import raw_name
from harness.store.decisions import Decision
from harness.store.drops import stem_of

NONCE = 10
"""Characters behind the last dash of a uid."""
MISSES = 5
"""A drop that is nowhere so often in a row was removed; once may be an item that moves while we look."""
DAYS = 3
"""Newest days of the archive that are looked through: it was just decided."""


def follow(desk: Desk, tickets: list[Ticket], timeout_s: float) -> Iterator[Dropped]:
    """What became of each drop, in the order it becomes known; DROPPED for those still undecided at the end."""
    deadline = desk.clock.monotonic() + timeout_s
    pause_s = 0.004
    left = list(tickets)
    missed = dict.fromkeys(left, 0)
    while left:
        for ticket in left:  # before the places to which it goes from there
            missed[ticket] = 0 if is_undecided(desk, ticket) else missed[ticket] + 1
        homes = _homes(desk)
        for ticket in list(left):
            if (found := _fate(desk, ticket, homes)) is not None:
                left.remove(ticket)
                yield found
            elif missed[ticket] >= MISSES:
                left.remove(ticket)
                yield Dropped(source=ticket.source, name=ticket.name, fate=Fate.GONE, items=ticket.expected)
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
    """The decision on one drop; None while there is none."""
    return _fate(desk, ticket, _homes(desk))


def _fate(desk: Desk, ticket: Ticket, homes: dict[str, list[tuple[str, str]]]) -> Dropped | None:
    """Found by its inode, which every rename of the store keeps; its name says where to look."""
    raw = raw_name(ticket.name)
    for phase, home in homes.get(slug(stem_of(ticket.name)), ()):
        if _is(desk, f"{home}/{raw}", ticket.inode):
            return _read(desk, phase, home, ticket)
    return None


def _homes(desk: Desk) -> dict[str, list[tuple[str, str]]]:
    """Slug -> (phase, folder) of every drop that was decided lately.

    open/ is listed before archive/, since that is the way an item goes: one that moves meanwhile is seen in one of
    them, or in its new place the next time.
    """
    phases = ["open", "waiting", "rejected"]
    found: dict[str, list[tuple[str, str]]] = {}
    for phase in phases:
        _note(desk, phase, found)
    for phase in ("batches", "archive"):
        for day in sorted(desk.view.uids(phase))[-DAYS:]:
            _note(desk, f"{phase}/{day}", found)
    return found


def _note(desk: Desk, phase: str, found: dict[str, list[tuple[str, str]]]) -> None:
    for name in desk.view.uids(phase):
        found.setdefault(name[: -NONCE - 1], []).append((phase, f"queue/{phase}/{name}"))


def _is(desk: Desk, path: str, inode: tuple[int, int]) -> bool:
    try:
        info = os.stat(path, dir_fd=desk.disk.root, follow_symlinks=False)
    except OSError:
        return False
    return (info.st_dev, info.st_ino) == inode


def _read(desk: Desk, phase: str, home: str, ticket: Ticket) -> Dropped | None:
    def said(fate: Fate, items: tuple[New, ...] = (), reasons: tuple[str, ...] = ()) -> Dropped:
        return Dropped(source=ticket.source, name=ticket.name, fate=fate, items=items, reasons=reasons)

    if phase == "rejected":
        why = desk.disk.do_read(f"{home}/why.json", Decision)
        if not isinstance(why, Decision):
            return None
        if why.exists:
            seen = desk.view.item(why.exists)
            return said(Fate.EXISTS, (New(id=seen.id if seen else why.exists, uid=why.exists),))
        return said(Fate.REJECTED, reasons=why.rejected)
    if phase.startswith("batches"):
        batch = desk.disk.do_read(f"{home}/batch", Decision)
        if not isinstance(batch, Decision):
            return None
        everything = {**batch.items, **batch.present}
        fate = Fate.ADMITTED if batch.items else Fate.EXISTS
        return said(fate, tuple(New(id=name, uid=uid) for name, uid in everything.items()))
    item = desk.disk.do_read(f"{home}/item.json", Item)
    return said(Fate.ADMITTED, (New(id=item.id, uid=item.uid),)) if isinstance(item, Item) else None
