"""T11 in the order of its calls: our target follows the person's, takes in what they did beside ours, and is pushed there.

Generators that yield one operation on git each, as the store's do (`store.ops`): `facade.Hub` runs them on a
repository, the explorer (tests/model) on a model of two. Nobody's commit is ever taken off the person's branch: a push
has a lease on what was seen there, and only what contains that is pushed. Nothing is pushed before it is durable here:
what a power loss took from our target while others have it would be judged anew, and come back after a refusal.
"""

from __future__ import annotations

from collections.abc import Generator
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from harness.dataclass import dataclass

T = TypeVar("T")
Step: TypeAlias = Generator[tuple[Any, ...], Any, T]


class Upstream(StrEnum):
    """How the person's target relates to ours."""

    SAME = "same"
    FORWARDED = "forwarded"  # theirs had more: ours was moved to it
    AHEAD = "ahead"  # ours has merges that are not published yet
    DIVERGED = "diverged"  # both have more: the merger calls merge_upstream
    MOVED = "moved"  # the lane or our target moved meanwhile: the next refresh sees
    MISSING = "missing"  # the branch is gone there
    UNREACHABLE = "unreachable"  # the network, the path, the credentials


class Relation(StrEnum):
    """Of two commits, ours and theirs."""

    SAME = "same"
    AHEAD = "ahead"  # ours contains theirs
    BEHIND = "behind"  # theirs contains ours, on its first-parent line
    DIVERGED = "diverged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    state: Upstream
    target: str
    """Our target now."""
    upstream: str | None
    """Theirs, as last seen."""
    reason: str = ""
    was: str = ""
    """Our target before it was FORWARDED."""

    @property
    def diverged(self) -> bool:
        return self.state is Upstream.DIVERGED

    @property
    def reached(self) -> bool:
        return self.state not in (Upstream.UNREACHABLE, Upstream.MISSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamMerged:
    """Our target now contains theirs."""

    sha: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamUnchanged:
    """There was nothing to merge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamFenced:
    """The lane (start at m0) or the target (call again) moved meanwhile."""

    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Their target is ours now."""

    sha: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpToDate:
    """There was nothing to push."""

    sha: str


# ---- operations ------------------------------------------------------------------------------------------------------


def fetch() -> Step[tuple[str, str] | None]:
    """Look at their target, and note it as `seen`. -> None, or (MISSING or UNREACHABLE, what git said)"""
    reply: tuple[str, str] | None = yield ("fetch",)
    return reply


def lane() -> Step[Any]:
    return (yield ("lane",))


def target() -> Step[str]:
    reply: str = yield ("target",)
    return reply


def seen() -> Step[str | None]:
    """Their target as last seen: a ref of the hub."""
    reply: str | None = yield ("seen",)
    return reply


def relation(ours: str, theirs: str) -> Step[Relation]:
    reply: Relation = yield ("relation", ours, theirs)
    return reply


def join(ours: str, theirs: str) -> Step[Any]:
    """A commit with both as its parents, in this order. -> its sha; anything else says why they contradict each other"""
    return (yield ("join", ours, theirs))


def sync_hub() -> Step[None]:
    yield ("sync_hub",)


def swap_target(held: Any, new: str, old: str) -> Step[str]:
    """One transaction: verify the lane, move the target. -> ``ok``, ``lane`` or ``target`` (refused)"""
    reply: str = yield ("swap_target", held, new, old)
    return reply


def push(new: str, lease: str) -> Step[Any]:
    """Move their target to `new` if it is still `lease`. -> None, or why it was refused"""
    return (yield ("push", new, lease))


def unmerged() -> Step[Any]:
    """The refusal to push what does not contain theirs."""
    return (yield ("unmerged",))


def note(sha: str) -> Step[None]:
    """It is what we have seen of their target last. No promise: a power loss there may take it, so who starts looks."""
    yield ("note", sha)


# ---- the order -------------------------------------------------------------------------------------------------------


def follow() -> Step[Refreshed]:
    """Look at the person's target, and follow it when that is safe. A network that fails is a value."""
    trouble = yield from fetch()
    held = yield from lane()  # before the target: who takes it from here on looks at the target after us
    ours = yield from target()
    theirs = yield from seen()
    if trouble is not None:
        return Refreshed(state=Upstream(trouble[0]), target=ours, upstream=theirs, reason=trouble[1])
    if theirs is None:
        return Refreshed(state=Upstream.MISSING, target=ours, upstream=None)
    how = yield from relation(ours, theirs)
    if how is not Relation.BEHIND:
        return Refreshed(state=Upstream(how.value), target=ours, upstream=theirs)
    yield from sync_hub()  # what was fetched outlives the ref that names it
    if (yield from swap_target(held, theirs, ours)) != "ok":
        return Refreshed(state=Upstream.MOVED, target=(yield from target()), upstream=theirs)
    return Refreshed(state=Upstream.FORWARDED, target=theirs, upstream=theirs, was=ours)


def merge_upstream(held: Any) -> Step[Any]:
    """Merge what was seen last into our target, with our line as first parent, as the holder of the lane.

    -> UpstreamMerged, UpstreamUnchanged, UpstreamFenced, or what `join` says of lines that contradict each other: that
    needs a person.
    """
    ours = yield from target()
    theirs = yield from seen()
    how = Relation.SAME if theirs is None else (yield from relation(ours, theirs))
    if theirs is None or how in (Relation.SAME, Relation.AHEAD):
        return UpstreamUnchanged()
    new: Any = theirs
    if how is Relation.DIVERGED:
        new = yield from join(ours, theirs)
        if not isinstance(new, str):
            return new
    yield from sync_hub()  # the merge outlives the ref that names it
    reply = yield from swap_target(held, new, ours)
    return UpstreamMerged(sha=new) if reply == "ok" else UpstreamFenced(by=reply)


def publish() -> Step[Any]:
    """Push our target with a lease on what was seen last. -> Published, UpToDate, or why it was refused"""
    ours = yield from target()
    theirs = yield from seen()
    if theirs == ours:
        return UpToDate(sha=ours)
    if theirs is None or (yield from relation(ours, theirs)) is not Relation.AHEAD:
        return (yield from unmerged())
    yield from sync_hub()  # durable here before anybody else has it
    refused = yield from push(ours, theirs)
    if refused is not None:
        return refused
    yield from note(ours)
    return Published(sha=ours)
