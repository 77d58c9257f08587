"""What the loop knows of an attempt when it is over."""

from __future__ import annotations

from harness.dataclass import dataclass
from harness.model import Outcome


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
