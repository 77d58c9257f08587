"""What the loop knows of an attempt when it is over."""

from __future__ import annotations

from harness.clock import Clock
from harness.dataclass import dataclass
from harness.model import Outcome

INFRASTRUCTURE_WAIT_S = 30.0
"""An attempt that our own side could not carry out is given back, and tried again no sooner."""


class Broken(Exception):
    """The attempt goes no further: the beat said so. Not an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the end of the attempt will say. `salvage`: there may be work that is in no commit of ours."""

    outcome: Outcome
    reason: str
    sha: str | None = None
    not_before: float | None = None
    """Wall clock."""
    waits: str = ""
    """`model.End.waits`"""
    salvage: bool = True
    ours: bool = False
    """Our own side could not carry it out: this worker, its worktree, the hub. Says nothing about the item."""


def failed(reason: str) -> Result:
    """The attempt is spent."""
    return Result(outcome=Outcome.FAILED, reason=reason)


def given_back(reason: str, clock: Clock, *, ours: bool = True) -> Result:
    """The attempt is not spent; the next one begins no sooner than in `INFRASTRUCTURE_WAIT_S`."""
    return Result(
        outcome=Outcome.RELEASED, reason=reason, not_before=clock.wall() + INFRASTRUCTURE_WAIT_S, ours=ours
    )
