"""Checks where items come from: incoming/, batches/, rejected/ and ids/."""

from __future__ import annotations

from collections.abc import Iterator

from harness.model import UID
from harness.store.decisions import Decided, Decision
from harness.store.names import Name
from harness.store.survey import Survey
from harness.store.sweeping import EMPTY_S
from harness.store.violations import Repair, Violation, foreign


def incoming(survey: Survey) -> Iterator[Violation]:
    """Drops that are being admitted. A drop that waits for an admitter is no violation."""
    for home in survey.names("queue/incoming"):
        place = f"queue/incoming/{home}"
        names = survey.disk.do_ls(place)
        if names is None or not UID.match(home):
            yield foreign(place)
            continue
        if not names:
            if survey.age_s(place) > EMPTY_S:
                yield Violation(invariant="tmp", path=place, what="is empty", repair=Repair.SWEEP)
            continue
        if not any(x.startswith("raw.") for x in names):
            yield Violation(invariant="I1", path=place, what="holds no drop, but is not empty")
        survey.saw(home, place)
        yield from survey.read(f"{place}/item.json", Decided)
        batch = yield from survey.read(f"{place}/batch", Decision)
        if batch is None:
            yield from _undecided(survey, place, names)


def _undecided(survey: Survey, place: str, names: tuple[str, ...]) -> Iterator[Violation]:
    """I16: before the batch cell, nothing of the batch is outside of incoming/."""
    for tree in (x for x in names if x.startswith("b.")):
        for uid in survey.names(f"{place}/{tree}"):
            for out in survey.places.get(uid, ()):
                what = f"is of a batch that was not decided: {place}"
                yield Violation(invariant="I16", path=out, what=what)


def batches(survey: Survey) -> Iterator[Violation]:
    """I16: a decided batch has each of its items somewhere, exactly once."""
    for home in survey.names("queue/incoming"):
        place = f"queue/incoming/{home}"
        batch = survey.disk.do_read(f"{place}/batch", Decision) if _sound(survey, place) else None
        if isinstance(batch, Decision):
            yield from _whole(survey, batch, place, f"{place}/{batch.tree}")
    for day in survey.names("queue/batches"):
        for home in survey.names(f"queue/batches/{day}"):
            place = f"queue/batches/{day}/{home}"
            batch = yield from survey.read(f"{place}/batch", Decision)
            if not isinstance(batch, Decision):
                yield Violation(invariant="I16", path=place, what="holds no decided batch")
                continue
            for uid in survey.names(f"{place}/{batch.tree}") if batch.tree else ():
                yield Violation(invariant="I16", path=f"{place}/{batch.tree}/{uid}", what="was never placed")
            yield from _whole(survey, batch, place, "")


def _sound(survey: Survey, place: str) -> bool:
    """`incoming` has said already what is wrong with it."""
    return next(survey.read(f"{place}/batch", Decision), None) is None


def _whole(survey: Survey, batch: Decision, place: str, tree: str) -> Iterator[Violation]:
    inside = set(survey.names(tree)) if tree else set()
    for uid in batch.items.values():
        where = [*survey.places.get(uid, ()), *([f"{tree}/{uid}"] if uid in inside else [])]
        if len(where) > 1 and uid in inside:
            yield Violation(invariant="I16", path=where[-1], what=f"is also {where[0]}")
        elif not where and not survey.stub(uid):
            survey.lost.add(uid)
            yield Violation(invariant="I16", path=place, what=f"its item {uid} is nowhere")


def rejected(survey: Survey) -> Iterator[Violation]:
    for home in survey.names("queue/rejected"):
        place = f"queue/rejected/{home}"
        names = survey.disk.do_ls(place)
        if names is None or not UID.match(home):
            yield foreign(place)
            continue
        survey.saw(home, place)
        if "why.json" not in names:
            yield Violation(
                invariant="why", path=place, what="is rejected without a reason", repair=Repair.WHY
            )
        yield from survey.read(f"{place}/why.json", Decision)
        if not survey.has_stub(home):
            yield Violation(invariant="I6", path=place, what="is rejected without a stub", repair=Repair.STUB)


def ids(survey: Survey) -> Iterator[Violation]:
    """Numbered without gaps; each held by an item that exists, existed, or was rejected.

    An item that its batch misses is not said twice: to free its id would be to say that it never was (I16).
    """
    for hh in survey.names("queue/ids"):
        names = survey.names(f"queue/ids/{hh}")
        for name in names:
            path = f"queue/ids/{hh}/{name}"
            digest, _, k = name.rpartition(".")
            if len(digest) != 64 or not k.isdecimal():
                yield foreign(path)
                continue
            cell = yield from survey.read(path, Name)
            if int(k) > 1 and f"{digest}.{int(k) - 1}" not in names:
                yield Violation(invariant="id", path=path, what=f"there is no number {int(k) - 1} before it")
            if isinstance(cell, Name) and cell.uid not in survey.lost and not _exists(survey, cell):
                what = f"the id {cell.id!r} is held by {cell.uid}, which is nowhere"
                yield Violation(invariant="id", path=path, what=what, repair=Repair.FREE)


def _exists(survey: Survey, cell: Name) -> bool:
    """Placed or finished; or its drop is still being decided, or was rejected."""
    places = survey.places
    if cell.uid in places or survey.stub(cell.uid) or (cell.drop and survey.stub(cell.drop)):
        return True
    return bool(cell.drop) and cell.drop in places
