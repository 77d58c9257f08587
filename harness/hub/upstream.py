"""The person's repository, seen from the hub: fetched, followed when it moved, merged when both moved.

Nothing is written there; that is publish.py, by `git push` alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from harness.errors import GitError
from harness.hub.creation import fetch
from harness.hub.git import GitCommandError
from harness.hub.history import is_ancestor
from harness.hub.lane import Lane, Swap, swap_target
from harness.hub.merging import Conflict, join
from harness.hub.refs import is_sha
from harness.hub.repo import LANE, Repo
from harness.logs import Event


class Upstream(StrEnum):
    """How the person's target relates to ours."""

    SAME = "same"
    FORWARDED = "forwarded"  # theirs had more: ours was moved to it
    AHEAD = "ahead"  # ours has merges that are not published yet
    DIVERGED = "diverged"  # both have more: the merger calls merge_upstream
    MOVED = "moved"  # the lane or our target moved meanwhile: the next refresh sees
    MISSING = "missing"  # the branch is gone there
    UNREACHABLE = "unreachable"  # the network, the path, the credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    state: Upstream
    target: str
    """Our target now."""
    upstream: str | None
    """Theirs, as last seen."""
    reason: str = ""

    @property
    def diverged(self) -> bool:
        return self.state is Upstream.DIVERGED

    @property
    def reached(self) -> bool:
        return self.state not in (Upstream.UNREACHABLE, Upstream.MISSING)


def target_of(repo: Repo) -> str:
    sha = repo.refs.read(repo.target)
    if sha is None:
        raise GitError(
            "the target is no plain branch of the hub any more",
            where=f"{repo.path} {repo.target}",
            remedy="set it to its last merge: git log -g, then git update-ref --no-deref",
        )
    return sha


def refresh(repo: Repo) -> Refreshed:
    """Looks at the person's target and follows it when that is safe. Never raises for what a network may do."""
    if not _unmoved(repo):
        try:
            fetch(repo)
        except GitCommandError as e:
            missing = "couldn't find remote ref" in e.stderr
            state = Upstream.MISSING if missing else Upstream.UNREACHABLE
            return _seen(repo, state, target_of(repo), e.stderr.strip()[-500:])
    lane = repo.refs.read(LANE)
    target, theirs = target_of(repo), repo.refs.read(repo.upstream)
    if theirs is None:
        return _seen(repo, Upstream.MISSING, target)
    if theirs == target:
        return _seen(repo, Upstream.SAME, target)
    if is_ancestor(repo, theirs, target):
        return _seen(repo, Upstream.AHEAD, target)
    if not is_ancestor(repo, target, theirs) or not _on_first_line(repo, target, theirs):
        return _seen(repo, Upstream.DIVERGED, target)
    repo.sync()
    swapped = swap_target(repo, Lane(blob=lane, epoch=""), theirs, target)
    if swapped is not Swap.OK:
        return _seen(repo, Upstream.MOVED, target_of(repo))
    repo.emit(Event.TARGET_FETCHED, project=repo.project.name, old=target, new=theirs)
    return _seen(repo, Upstream.FORWARDED, theirs)


def _seen(repo: Repo, state: Upstream, target: str, reason: str = "") -> Refreshed:
    return Refreshed(state=state, target=target, upstream=repo.refs.read(repo.upstream), reason=reason)


def _unmoved(repo: Repo) -> bool:
    """Whether a local repository's target certainly is where we saw it last: one read of a loose ref, no process.

    False in every case of doubt (packed, a worktree's `.git` file, another ref format): then git looks.
    """
    if not repo.local:
        return False
    known = repo.refs.read(repo.upstream)
    base = Path(repo.project.path)
    for folder in (base / ".git", base):
        try:
            said = (folder / "refs" / "heads" / repo.project.target).read_text("ascii").strip()
        except (OSError, ValueError):
            continue
        return is_sha(said) and said == known and not os.path.lexists(folder / "reftable")
    return False


def _on_first_line(repo: Repo, old: str, new: str) -> bool:
    """Whether `old` stays on the first-parent line of `new`.

    A person who merges *our* target into *their* line makes it the second parent; following that would hide our merges
    from whoever looks whether an attempt is merged. Such a line is merged, with ours as first parent, not followed.
    """
    last = repo.git("rev-list", "--first-parent", "--parents", f"{old}..{new}").text.split("\n")[-1].split()
    return len(last) > 1 and last[1] == old


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

    by: Swap


def merge_upstream(repo: Repo, lane: Lane) -> UpstreamMerged | UpstreamUnchanged | UpstreamFenced | Conflict:
    """Merges what was fetched last into our target, with our line as first parent, as the holder of the lane.

    A Conflict needs a person: two lines of the project's history contradict each other.
    """
    target, theirs = target_of(repo), repo.refs.read(repo.upstream)
    if theirs is None or is_ancestor(repo, theirs, target):
        return UpstreamUnchanged()
    if is_ancestor(repo, target, theirs) and _on_first_line(repo, target, theirs):
        new = theirs
    else:
        joined = join(repo, target, theirs, f"Merge {repo.project.target} from upstream\n")
        if isinstance(joined, Conflict):
            return joined
        new = joined.sha
    repo.sync()
    swapped = swap_target(repo, lane, new, target)
    return UpstreamMerged(sha=new) if swapped is Swap.OK else UpstreamFenced(by=swapped)
