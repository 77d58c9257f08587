"""What people do to items: cancel, park, retry, boost.

Each act is decided by a cell (or, for boost, by a wish that the coordinator reads) before anybody is told; then whoever
is concerned is woken, and the event is written. All of it works with the coordinator down.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from harness import atomicfs
from harness.control.desk import Desk
from harness.dataclass import dataclass
from harness.errors import (
    ConflictError,
    HarnessError,
    NotFoundError,
    TryAgainError,
    UnreadableRecordError,
    UsageError,
)
from harness.logs import Event
from harness.model import TERMINAL, State
from harness.store import lane, operators
from harness.store.attempts import finish
from harness.store.operators import Answer, Said
from harness.store.ops import Step
from harness.store.promotion import promote
from harness.store.view import Seen

PRIORITIES = {"high": 2, "medium": 5, "low": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """What an act came to: it stands. `state` is the item's state afterwards."""

    uid: str
    id: str
    act: str
    state: State
    n: int = 0
    detail: str = ""


def cancel(desk: Desk, name: str, why: str = "") -> Acted:
    """Forbid an item for ever, wherever it is; a submitted result is refused through the merge lane.

    Raises ConflictError when it is over already (merged, done), naming the merge.
    """
    seen = desk.view.find(name)
    if seen.state is State.INCOMING:
        raise _not_yet(seen)
    if seen.state is State.CANCELLED:
        desk.disk.run(operators.make_durable(seen.uid))
        return _acted(desk, seen, "cancel", Answer(said=Said.DONE, detail="it was cancelled already"))
    _refuse_over(desk, seen, "cancel")
    project = seen.item.project if seen.item else ""

    def judge(uid: str, n: int, *, cancel_by: str, why: str) -> Step[bool]:
        return lane.judge(desk.actor, project, uid, n, cancel_by=cancel_by, why=why)

    answer = desk.disk.run(operators.cancel(desk.actor, seen.uid, desk.by, why, judge))
    _check(desk, seen, answer, "cancel")
    desk.disk.run(finish(seen.uid))
    desk.emit(Event.ITEM_CANCELLED, uid=seen.uid, id=seen.id, n=answer.n or None, why=why or None)
    desk.ring()
    acted = _acted(desk, seen, "cancel", answer)
    if acted.state is State.PARKED:
        return replace(acted, detail="it is cancelled, and shown as damaged: harnessctl fsck")
    return acted


def park(desk: Desk, name: str, why: str = "") -> Acted:
    """Hold an item until somebody retries it; a running attempt is given up and costs nothing.

    Raises ConflictError for an item that waits (it has no attempt that could be held) or is over, TryAgainError while
    its result is being merged.
    """
    seen = desk.view.find(name)
    if seen.state is State.INCOMING:
        raise _not_yet(seen)
    if seen.place.startswith("queue/waiting/"):
        raise ConflictError(
            "it waits, and what waits cannot be parked: nothing of it runs before what it waits for is there"
            + (f" ({seen.reason})" if seen.reason else ""),
            where=seen.id,
            remedy=f"to forbid it: harnessctl cancel {seen.uid}",
        )
    _refuse_over(desk, seen, "park")
    answer = desk.disk.run(operators.hold(desk.actor, seen.uid, desk.by, why))
    _check(desk, seen, answer, "park")
    desk.emit(Event.ITEM_HELD, uid=seen.uid, id=seen.id, n=answer.n, why=why or None)
    desk.ring()
    return _acted(desk, seen, "park", answer)


def retry(
    desk: Desk,
    name: str,
    why: str = "",
    *,
    extra: int = 1,
    mode: str = "fresh",
    without_waiting: bool = False,
) -> Acted:
    """Allow a parked item `extra` more attempts. An item that waits may be made to run without waiting.

    Raises ConflictError when it is neither parked nor (with `without_waiting`) waiting.
    """
    if extra < 1:
        raise UsageError(f"{extra} more attempts are none", remedy="allow at least one")
    seen = desk.view.find(name)
    if seen.state is State.INCOMING:
        raise _not_yet(seen)
    if seen.state is State.WAITING and not without_waiting:
        raise ConflictError(
            f"it is not parked, it waits for: {seen.reason or 'its turn'}",
            where=seen.id,
            remedy=f"to run it without waiting: harnessctl retry --without-waiting {seen.uid}",
        )
    _refuse_over(desk, seen, "retry")
    answer = desk.disk.run(operators.retry(desk.actor, seen.uid, desk.by, why, extra, mode))
    _check(desk, seen, answer, "retry")
    if seen.item and seen.place.startswith("queue/waiting/"):
        desk.disk.run(promote(seen.item))
    desk.emit(Event.ITEM_RETRIED, uid=seen.uid, id=seen.id, n=answer.n or None, extra=extra, why=why or None)
    desk.ring(work=True)
    return _acted(desk, seen, "retry", answer)


def boost(desk: Desk, name: str, priority: int | str = 0) -> Acted:
    """Ask for another priority (0 first, 9 last). The coordinator orders by it; a running attempt is not concerned."""
    band = priority_of(priority)
    seen = desk.view.find(name)
    if seen.state is State.INCOMING:
        raise _not_yet(seen)
    _refuse_over(desk, seen, "boost")
    if seen.item is None:
        raise _damaged(seen.uid, seen.reason)
    _wish(desk, seen.uid, band)
    desk.emit(Event.ITEM_BOOSTED, uid=seen.uid, id=seen.id, priority=band)
    desk.ring()
    return _acted(desk, seen, "boost", Answer(said=Said.DONE, detail=f"priority {band}"))


def _wish(desk: Desk, uid: str, band: int) -> None:
    """state/control/priority/<uid>; its readers take hidden names for drafts."""
    folder = desk.layout.control / "priority"
    atomicfs.ensure_dir(folder)
    atomicfs.replace_file(folder / uid, f"{band}\n".encode(), durable=True)


def priority_of(value: int | str) -> int:
    """high, medium, low, or 0 (first) to 9. Raises UsageError."""
    text = str(value).strip().lower()
    band = PRIORITIES.get(text, int(text) if text.isdecimal() else -1)
    if not 0 <= band <= 9:
        raise UsageError(
            f"{value!r} is no priority", remedy="use high, medium, low, or a number from 0 (first) to 9"
        )
    return band


def _acted(desk: Desk, seen: Seen, act: str, answer: Answer) -> Acted:
    now = desk.view.item(seen.uid)
    state = now.state if now else seen.state
    return Acted(uid=seen.uid, id=seen.id, act=act, state=state, n=answer.n, detail=answer.detail)


def _not_yet(seen: Seen) -> HarnessError:
    return TryAgainError(
        "it is not admitted yet",
        where=seen.uid,
        remedy="a running coordinator admits it within moments; is one running? see: harnessctl status",
    )


def _damaged(uid: str, trouble: str) -> HarnessError:
    return UnreadableRecordError(
        trouble, where=uid, remedy="see what is damaged, and what helps: harnessctl fsck"
    )


def _refuse_over(desk: Desk, seen: Seen, act: str) -> None:
    if seen.state not in TERMINAL:
        return
    desk.disk.run(operators.make_durable(seen.uid))
    last = seen.last.verdict if seen.last else None
    fact = (
        f"it is merged already, as {last.merged}"
        if last and last.merged
        else f"it is {seen.state.value} already"
    )
    remedy = f"see it: harnessctl show {seen.uid}"
    if act == "cancel" and seen.state is State.MERGED:
        remedy = "to undo it, revert that commit (git revert -m 1), or add an item that does"
    raise ConflictError(fact, where=seen.id, remedy=remedy)


def _check(desk: Desk, seen: Seen, answer: Answer, act: str) -> None:
    """The answer of the protocol, when it is no: as an error that says what is true and what to do."""
    match answer.said:
        case Said.DONE:
            return
        case Said.UNKNOWN:
            # Mostly it was finished and archived while we looked: then that is what is true.
            now = desk.view.item(seen.uid)
            if act == "cancel" and now is not None and now.state is State.CANCELLED:
                return
            if now is not None:
                _refuse_over(desk, now, act)
            raise NotFoundError(
                "it is not there any more", where=seen.id, remedy="list: harnessctl items --all"
            )
        case Said.TOO_LATE:
            detail = answer.detail or "it is over"
            raise ConflictError(detail, where=seen.id, remedy=f"see it: harnessctl show {seen.uid}")
        case Said.DAMAGED:
            raise _damaged(seen.uid, answer.detail)
        case Said.NOT_NOW if act == "retry":
            raise ConflictError(
                answer.detail or "it is not parked",
                where=seen.id,
                remedy=f"see it: harnessctl show {seen.uid}",
            )
        case Said.NOT_NOW:
            raise TryAgainError(
                answer.detail or "not now", where=seen.id, remedy=f"wait for it: harnessctl wait {seen.uid}"
            )
        case _:
            assert_never(answer.said)
