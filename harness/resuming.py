"""Whether an item's next attempt goes on with the session of an earlier one, or begins a new one. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from harness.config import OutcomeName
from harness.model import Attempt, Item, Outcome
from harness.sessionrecord import SessionRecord
from harness.store.cells import spent

BROKEN_OFF = frozenset(
    {
        OutcomeName.CRASH,
        OutcomeName.STALLED,
        OutcomeName.TIMED_OUT,
        OutcomeName.NO_RESULT,
        OutcomeName.MAX_TURNS,
    }
)
"""Ends of a run after which its conversation is worth going on with. Not a refusal, a bad request, an empty budget: they
would come again."""
IN_A_ROW = 2
"""So many attempts that were spent without an end of their own may one session cost: then it may be what kills them."""


def goes_on(attempts: Sequence[Attempt], record: SessionRecord | None, agent: str) -> str:
    """Why the session was broken off, when the next attempt is to go on with it; "" when it is to begin a new one.

    `attempts` are the item's ended attempts, oldest first; `agent`: who is to run.
    """
    if record is None or not attempts or record.agent != agent:
        return ""
    if not record.conversation and all(run.outcome for run in record.runs):
        return ""  # of a run that nobody has ended its conversation may still be found in what it wrote
    last = attempts[-1]
    if last.end is None or last.verdict is not None or (last.grant and last.end.outcome is not Outcome.HELD):
        return ""  # judged, or a person wants it tried anew
    match last.end.outcome:
        case Outcome.RELEASED | Outcome.HELD:
            return last.end.reason or last.end.outcome.value
        case Outcome.EXPIRED:
            return "" if _in_a_row(record) >= IN_A_ROW else "the process that ran you died"
        case Outcome.FAILED:
            run = record.runs[-1] if record.runs else None
            broken = run is not None and run.outcome in {name.value for name in BROKEN_OFF}
            if not broken or _in_a_row(record) >= IN_A_ROW:
                return ""
            return last.end.reason.partition("\n")[0] or "your last run was broken off"
        case _:
            return ""


def _in_a_row(record: SessionRecord) -> int:
    """How many attempts at the end of the session's history ended in a way that was not theirs to choose."""
    seen: list[str] = []
    for run in reversed(record.runs):
        if run.outcome and run.outcome not in {name.value for name in BROKEN_OFF}:
            break
        if run.attempt not in seen:
            seen.append(run.attempt)
    return len(seen)


def preferred(item: Item, attempts: Sequence[Attempt]) -> tuple[str, ...]:
    """The agents of an item, the one whose turn it is first: each attempt that was spent moves on to the next fallback."""
    at = min(spent(tuple(attempts)), max(len(item.agents) - 1, 0))
    return (*item.agents[at:], *item.agents[:at])
