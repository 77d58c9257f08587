"""What may be wrong with a store, and what can be done about it without guessing."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from harness.dataclass import dataclass

HARMLESS = frozenset({"hint", "tmp", "expire", "finish"})
"""What a crash leaves behind in a healthy store: the next sweep of a coordinator repairs it."""


class Repair(StrEnum):
    """What `repair` does about a violation; the value is what it tells a person."""

    DROP_HINT = "remove the hint"
    ADD_HINT = "write the hint again"
    SWEEP = "remove it"
    COMPLETE = "complete the person's claim by its act"
    EXPIRE = "expire the attempt of the dead owner"
    FINISH = "finish it: stub, then archive"
    STUB = "write the stub again"
    WHY = "write why.json again"
    FREE = "free the id: there is no such item"
    MODE = "restore the mode"
    MAKE = "make it again"
    ASIDE = "move it aside, to state/kept/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One thing that is not as it should be. `path` is relative to the root; `repair` None: a person must decide.

    `invariant` is I1 .. I18 of PROTOCOL section 8, or a word for what is none of them.
    """

    invariant: str
    path: str
    what: str
    repair: Repair | None = None

    @property
    def harmless(self) -> bool:
        return self.invariant in HARMLESS

    def __str__(self) -> str:
        return f"{self.path}: {self.what} [{self.invariant}]"


def foreign(path: str) -> Violation:
    return Violation(invariant="foreign", path=path, what="is not ours", repair=Repair.ASIDE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hubs:
    """What git knows, asked by project; given by whoever knows hubs."""

    missing: Callable[[str, frozenset[str]], frozenset[str]]
    """(project, shas): which of them are no commits that can be read?"""
    merged: Callable[[str, str, int, str], str | None]
    """(project, uid, n, sha): its merge on the target's first-parent line."""
