"""What an earlier attempt of an item left, as a place to start from: a session that goes on finds its files as they were.

Found in refs alone (its branch, and what salvage added), so that any worker may go on, in any slot's worktree.
"""

from __future__ import annotations

from harness.dataclass import dataclass
from harness.hub.git import GitCommandError
from harness.hub.repo import BRANCHES, SALVAGED, Repo

DEEPEST = 50
"""Commits of an attempt that are tried, newest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carry:
    """Where an attempt stood."""

    base: str
    """The commit of the target that its work is based on."""
    head: str
    """The commit that was checked out."""
    files: str | None
    """A commit on top of `head` with what was not committed; None: nothing, or nothing that can be relied on (`found`)."""


def carried(repo: Repo, uid: str, n: int, target: str) -> Carry | None:
    """What attempt `n` left, or None: nothing, or nothing that can be read. `target`: where the target is now."""
    folder = f"{SALVAGED}/{uid}/{n}/"
    saved = {name.removeprefix(folder): sha for name, sha in repo.refs.below(folder.rstrip("/")).items()}
    files = _newest(repo, [sha for name, sha in saved.items() if name.startswith("tree-")])
    if files is not None:
        head = _parent(repo, files)
    else:
        heads = [sha for name, sha in saved.items() if name.startswith(("head-", "branch-"))]
        head = repo.refs.read(f"{BRANCHES}/{uid}/{n}") or _newest(repo, heads)
    if head is None:
        return None
    if files is None:
        head = _whole(repo, head, target)
    if head is None:
        return None
    try:
        base = repo.git("merge-base", head, target, ok=(0, 1)).text
    except GitCommandError:
        return None
    if not base or (files is None and base == head):
        return None
    return Carry(base=base, head=head, files=files)


def _whole(repo: Repo, head: str, target: str) -> str | None:
    """The newest commit on the way from `head` to the target of which everything can be read: an agent's git need not fsync."""
    commits = [head]
    for sha in commits:
        try:
            repo.git("rev-list", "--objects", "--quiet", sha, "--not", target)
        except GitCommandError as e:
            if e.passing:
                raise
        else:
            return sha
        parent = repo.git("rev-parse", "--verify", "-q", f"{sha}^", ok=(0, 1, 128)).text
        if parent and len(commits) < DEEPEST:
            commits.append(parent)
    return None


def found(repo: Repo, uid: str, n: int) -> str | None:
    """A commit with the uncommitted files of attempt `n` as they were after the machine had been restarted. They may be torn."""
    folder = f"{SALVAGED}/{uid}/{n}"
    there = repo.refs.below(folder).items()
    return _newest(repo, [sha for name, sha in there if name.startswith(f"{folder}/found-")])


def _newest(repo: Repo, shas: list[str]) -> str | None:
    """The one that was made last; None when there is none, or one cannot be read."""
    if len(shas) < 2:
        return shas[0] if shas else None
    try:
        out = repo.git("rev-list", "--no-walk=sorted", "--max-count=1", *shas).text
    except GitCommandError:
        return None
    return out or None


def _parent(repo: Repo, sha: str) -> str | None:
    try:
        return repo.git("rev-parse", "--verify", "-q", f"{sha}^", ok=(0, 1, 128)).text or None
    except GitCommandError:
        return None
