"""The ledger: what attempts have reserved and what their runs have spent, in `state/spend/<day>.jsonl` (UTC).

One line for each reservation, run and release, appended under a kernel lock: who reserves has seen everything that was
reserved and spent before. A reservation counts until it is released, or its attempt has an end, or its item has left
queue/open/: one of a killed worker does not outlive its attempt. A line that is torn (a killed writer, a full disk, a power
loss) is passed over, and the next one begins on a line of its own.

Each process keeps the sums and reads only what is new; `totals.json` is where others begin: sums up to a place in the
newest file. It may be lost or damaged at any time: then all lines are added up again.

It is about money, not safety: what a process spent and could not write down before it died is found in its session's record
by the item's next attempt.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.atomicfs import FileLock, replace_file, write_all
from harness.budgets import DAY, FLEET, NOTHING, Amount, OverBudget, Room
from harness.clock import Clock, day, rfc3339
from harness.dataclass import dataclass
from harness.layout import Layout
from harness.record import VERSION, dump
from harness.totals import AttemptSum, Entry, Kind, Totals

if TYPE_CHECKING:
    from harness.config import Budget

PATIENCE_S = 5.0
CHECKPOINT_BYTES = 16 << 10
"""So much is read again at most by who begins."""
_FILE = re.compile(r"\d{4}-\d\d-\d\d\.jsonl\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """Whose line it is."""

    uid: str
    n: int
    project: str
    convoy: str = ""
    agent: str = ""
    """Its name in config.yaml."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far the lines are added up: a file, which one it was, and a byte in it."""

    day: str = ""
    inode: int = 0
    offset: int = 0


class Ledger:
    """One process's view of the ledger of a root. Any number of processes may each have one. Not thread-safe."""

    def __init__(self, layout: Layout, clock: Clock, *, durable: bool = False) -> None:
        """`durable`: what was spent survives power loss. Nothing is opened before it is asked for."""
        self._folder = layout.spend
        self._open = layout.queue / "open"
        self._clock = clock
        self._durable = durable
        self._totals = Totals()
        self._place: Place | None = None
        """None: nothing was read yet."""
        self._kept = 0
        """How many bytes were added up since `totals.json` was read or written."""

    # ---- asking --------------------------------------------------------------------------------------------------------

    def read(self) -> Totals:
        """The sums by now. One stat when nothing is new. Raises OSError."""
        place = self._place
        if place is None or place.day < day(self._clock.wall()) or not place.day:
            self._catch_up()
            return self._totals
        try:
            seen = os.stat(self._file(place.day))
        except FileNotFoundError:
            self._catch_up()
            return self._totals
        if (seen.st_ino, seen.st_size) != (place.inode, place.offset):
            self._catch_up()
        return self._totals

    def today(self) -> Amount:
        """Spent since midnight, UTC."""
        return self.read().days.get(day(self._clock.wall()), NOTHING)

    def item(self, uid: str) -> Amount:
        """Spent on an item that is not over."""
        found = self.read().items.get(uid)
        return found.spent if found else NOTHING

    def attempt(self, uid: str, n: int) -> AttemptSum | None:
        """Of an attempt that has reserved or spent something, and whose item is not over."""
        return self.read().attempt(uid, n)

    def rooms(self, budgets: Mapping[str, Budget]) -> dict[str, Room]:
        """Each of these budgets as it is now."""
        totals = self.read()
        held = dict.fromkeys(budgets, NOTHING)
        for uid, n, item, amount in totals.holding():
            if amount.some and not self.ended(uid, n):
                for name in counts_for(item.project, item.convoy):
                    if name in held:
                        held[name] = held[name].plus(amount)
        return {
            name: Room(name=name, usd=b.usd, tokens=b.tokens, spent=self._spent(name), held=held[name])
            for name, b in budgets.items()
        }

    def _spent(self, name: str) -> Amount:
        totals = self._totals
        kind, _, of = name.partition(".")
        match kind:
            case "project":
                return totals.projects.get(of, NOTHING)
            case "convoy":
                return totals.convoys.get(of, NOTHING)
            case _:
                return totals.all if name == FLEET else totals.days.get(day(self._clock.wall()), NOTHING)

    def short(self, budgets: Mapping[str, Budget], ask: Amount) -> OverBudget | None:
        """The first of these budgets that has no room for `ask` now; None: all have. Reserves nothing."""
        for room in self.rooms(budgets).values():
            if not room.fits(ask):
                return OverBudget(room=room, ask=ask)
        return None

    def ended(self, uid: str, n: int) -> bool:
        """Has this attempt an end, or is its item over?"""
        home = self._open / uid
        return (home / f"{n}.end").exists() or not home.exists()

    # ---- writing -------------------------------------------------------------------------------------------------------

    def reserve(self, payer: Payer, ask: Amount, budgets: Mapping[str, Budget]) -> OverBudget | None:
        """To be asked before each run. None: what it may cost is reserved, or still was; otherwise nothing has changed.

        Raises BlockingIOError when others hold the ledger for too long, OSError.
        """
        with self._lock() as lock:
            if not lock.lock(PATIENCE_S):
                raise BlockingIOError(errno.EAGAIN, "the ledger is held by another process", str(lock.path))
            self._catch_up()
            known = self._totals.attempt(payer.uid, payer.n)
            if known is not None and known.held.some:
                return None
            short = self.short(budgets, ask)
            if short is None:
                self._append([self._entry(Kind.RESERVE, payer, usd=ask.usd, tokens=ask.tokens)])
        return short

    def charge(
        self, payer: Payer, k: int, *, usd: float | None, tokens: int | None, estimated: bool = False
    ) -> bool:
        """Round `k` of the session, run by this attempt, has used so much. -> whether that is news.

        Written also when the lock cannot be had: what was spent is not to be lost. Raises OSError.
        """
        if (known := self.attempt(payer.uid, payer.n)) is not None and k in known.rounds:
            return False
        with self._lock() as lock:
            locked = lock.lock(PATIENCE_S)
            self._catch_up()
            known = self._totals.attempt(payer.uid, payer.n)
            if known is not None and k in known.rounds:
                return False
            entry = self._entry(Kind.SPENT, payer, round=k, usd=usd, tokens=tokens, estimated=estimated)
            self._append([entry], keep=locked)
        return True

    def release(self, payer: Payer) -> None:
        """The attempt has ended. Raises OSError; then it is `settle` that does it."""
        with self._lock() as lock:
            if lock.lock(PATIENCE_S):
                self._catch_up()
                self._append([self._entry(Kind.RELEASE, payer)])

    def settle(self) -> int:
        """Release what belongs to attempts that have ended and to items that are over. -> how many lines that took.

        Does nothing while another process holds the ledger. Raises OSError.
        """
        self.read()
        if not self._left():
            return 0
        with self._lock() as lock:
            if not lock.try_lock():
                return 0
            self._catch_up()
            lines = self._left()
            if lines:
                self._append(lines)
        return len(lines)

    def _left(self) -> list[Entry]:
        """The releases that nobody has written."""
        over = [uid for uid in self._totals.items if not (self._open / uid).exists()]
        ended = [
            Payer(uid=uid, n=n, project=item.project, convoy=item.convoy)
            for uid, n, item, _ in self._totals.holding()
            if uid not in over and self.ended(uid, n)
        ]
        items = [Payer(uid=uid, n=0, project=self._totals.items[uid].project) for uid in over]
        return [self._entry(Kind.RELEASE, p) for p in ended] + [
            self._entry(Kind.RELEASE, p, over=True) for p in items
        ]

    def _entry(self, kind: Kind, payer: Payer, **more: object) -> Entry:
        return Entry(
            t=rfc3339(self._clock.wall()),
            kind=kind,
            uid=payer.uid,
            n=payer.n,
            project=payer.project,
            convoy=payer.convoy,
            agent=payer.agent,
            **more,  # type: ignore[arg-type]
        )

    def _append(self, entries: Sequence[Entry], *, keep: bool = True) -> None:
        """To the newest file, or a new one: lines stay in order though the clock may be set back. Raises OSError."""
        assert self._place is not None
        path = self._file(max(day(self._clock.wall()), self._place.day))
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            size = os.fstat(fd).st_size
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            write_all(fd, (b"\n" if torn else b"") + b"".join(entry.to_line() for entry in entries))
            if self._durable and (
                self._kept > CHECKPOINT_BYTES or any(e.kind is Kind.SPENT for e in entries)
            ):
                os.fdatasync(fd)  # nothing is kept of lines that may vanish
        finally:
            os.close(fd)
        keep = keep and self._kept > CHECKPOINT_BYTES
        self._catch_up()
        if keep:
            self._keep()

    # ---- adding up -----------------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Add up what was written since the last time."""
        if self._place is None:
            self._totals, self._place = self._begin()
        days = self._days()
        if self._place.day and not self._in_place(self._place):
            self._totals, self._place = Totals(), Place()  # removed, replaced or cut: what is there counts
            self._kept = CHECKPOINT_BYTES + 1
        for name in days:
            if name >= self._place.day:
                self._add(name)

    def _add(self, name: str) -> None:
        assert self._place is not None
        with open(self._file(name), "rb") as file:
            seen = os.fstat(file.fileno())
            offset = self._place.offset if name == self._place.day else 0
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # torn, or being written: read when it is whole
                offset += len(line)
                self._kept += len(line)
                if (entry := Entry.of_line(line)) is not None:
                    self._totals.take(entry)
        self._place = Place(day=name, inode=seen.st_ino, offset=offset)

    def _in_place(self, place: Place) -> bool:
        try:
            seen = os.stat(self._file(place.day))
        except FileNotFoundError:
            return False
        return seen.st_ino == place.inode and seen.st_size >= place.offset

    def _days(self) -> list[str]:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return sorted(name.removesuffix(".jsonl") for name in names if _FILE.match(name))

    def _begin(self) -> tuple[Totals, Place]:
        """What `totals.json` says; nothing when it says nothing that can be believed."""
        try:
            data = json.loads(self._checkpoint.read_bytes())
            if data["v"] == VERSION:
                day_, inode, offset = data["place"]
                place = Place(day=str(day_), inode=int(inode), offset=int(offset))
                return Totals.from_record(data), place
        except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            pass  # a cache
        self._kept = CHECKPOINT_BYTES + 1
        return Totals(), Place()

    def _keep(self) -> None:
        assert self._place is not None
        place = [self._place.day, self._place.inode, self._place.offset]
        data = {"v": VERSION, "place": place, **self._totals.to_record()}
        replace_file(self._checkpoint, dump(data), durable=False, mode=0o600)
        self._kept = 0

    # ---- small ---------------------------------------------------------------------------------------------------------

    @property
    def _checkpoint(self) -> Path:
        return self._folder / "totals.json"

    def _file(self, name: str) -> str:
        return f"{self._folder}/{name}.jsonl"

    def _lock(self) -> FileLock:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        return FileLock(self._folder / "lock")


def counts_for(project: str, convoy: str) -> Iterator[str]:
    """The names of the budgets that an item may count for."""
    yield FLEET
    yield DAY
    yield f"project.{project}"
    if convoy:
        yield f"convoy.{convoy}"


def entries(layout: Layout, since: str = "") -> Iterator[Entry]:
    """Every line from a day on, in order; those that say nothing are passed over. Raises OSError."""
    try:
        names = sorted(name for name in os.listdir(layout.spend) if _FILE.match(name))
    except FileNotFoundError:
        return
    for name in names:
        with (layout.spend / name).open("rb") as file:
            for line in file:
                entry = Entry.of_line(line) if line.endswith(b"\n") else None
                if entry is not None and entry.day >= since:
                    yield entry
