"""Following items until they need no more work: merged or done, or in need of a person."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import assert_never

from harness.control import hearing
from harness.control.desk import Desk
from harness.control.dropping import Fate
from harness.control.undecided import Meant
from harness.dataclass import dataclass
from harness.errors import NotFoundError
from harness.model import TERMINAL, State
from harness.store.view import Seen

GOOD = frozenset({State.MERGED, State.DONE})
SETTLED = TERMINAL | {State.PARKED}
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """An item that needs no more work, or (`timed_out`) still did when the time was over."""

    uid: str
    id: str
    state: State
    reason: str = ""
    timed_out: bool = False

    @property
    def good(self) -> bool:
        return self.state in GOOD


def admitted(
    desk: Desk, wanted: Sequence[Meant], timeout_s: float | None = None
) -> tuple[list[str], list[Settled]]:
    """Waits until drops among the names are decided. -> (uids of all items that are meant, what did not become one).

    Raises NotFoundError when a drop was taken out of the drop box again.
    """
    tickets = {one.name: one.ticket for one in wanted if one.ticket}
    limit_s = float("inf") if timeout_s is None else timeout_s
    fates = {fate.source: fate for fate in hearing.follow(desk, list(tickets.values()), limit_s)}
    uids: list[str] = []
    none: list[Settled] = []
    for one in wanted:
        fate = fates.get(one.name)
        if fate is None:
            uids.append(one.uid)
            continue
        match fate.fate:
            case Fate.ADMITTED | Fate.EXISTS:
                uids += [new.uid for new in fate.items if new.id == one.name] or [x.uid for x in fate.items]
            case Fate.REJECTED:
                reason = "\n".join(fate.reasons)
                none.append(Settled(uid="", id=one.name, state=State.REJECTED, reason=reason))
            case Fate.DROPPED:
                none.append(Settled(uid="", id=one.name, state=State.INCOMING, timed_out=True))
            case Fate.GONE:
                raise NotFoundError(
                    "it was taken out of the drop box before it was admitted",
                    where=desk.layout.queue / fate.name,
                    remedy="put it back, if it is wanted",
                )
            case _:
                assert_never(fate.fate)
    return list(dict.fromkeys(uids)), none


def settle(desk: Desk, uids: Sequence[str], timeout_s: float | None = None) -> Iterator[Settled]:
    """Each item when it is settled, in that order; at the end of the time the others as they are.

    Looks at the store, which is the truth; a parked item counts as settled, since only a person moves it on.
    """
    deadline = None if timeout_s is None else desk.clock.monotonic() + timeout_s
    left = dict.fromkeys(uids)
    pause_s = FIRST_PAUSE_S
    while True:
        for uid in list(left):
            seen = desk.view.item(uid)
            if seen is not None and seen.state in SETTLED:
                del left[uid]
                pause_s = FIRST_PAUSE_S
                yield _settled(seen)
        if not left:
            return
        rest_s = LONGEST_PAUSE_S if deadline is None else deadline - desk.clock.monotonic()
        if rest_s <= 0:
            break
        time.sleep(min(pause_s, rest_s))
        pause_s = min(pause_s * 1.2, LONGEST_PAUSE_S)
    for uid in left:
        seen = desk.view.item(uid) or Seen(uid=uid, state=State.INCOMING, place="")
        yield _settled(seen, timed_out=True)


def _settled(seen: Seen, *, timed_out: bool = False) -> Settled:
    return Settled(uid=seen.uid, id=seen.id, state=seen.state, reason=seen.reason, timed_out=timed_out)
