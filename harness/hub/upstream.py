"""The person's repository, seen from the hub: fetched, and how it relates to ours. Nothing is written there."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import GitError, TryAgainError
from harness.hub.far import fetch
from harness.hub.git import GitCommandError
from harness.hub.history import is_ancestor
from harness.hub.publishing import Relation, Upstream
from harness.hub.refs import is_sha
from harness.hub.repo import Repo


def target_of(repo: Repo) -> str:
    sha = repo.refs.read(repo.target)
    if sha is None:
        raise GitError(
            "the target is no plain branch of the hub any more",
            where=f"{repo.path} {repo.target}",
            remedy="set it to its last merge: git log -g, then git update-ref --no-deref",
        )
    return sha


def look(repo: Repo) -> tuple[str, str] | None:
    """Fetches their target. -> None, or (how that failed, what git said). Never raises for what a network may do."""
    if _unmoved(repo):
        return None
    try:
        fetch(repo)
    except GitCommandError as e:
        missing = "couldn't find remote ref" in e.stderr
        return Upstream.MISSING if missing else Upstream.UNREACHABLE, e.stderr.strip()[-500:]
    except TryAgainError as e:
        return Upstream.UNREACHABLE, e.what
    return None


def relation(repo: Repo, ours: str, theirs: str) -> Relation:
    if ours == theirs:
        return Relation.SAME
    if is_ancestor(repo, theirs, ours):
        return Relation.AHEAD
    if is_ancestor(repo, ours, theirs) and _on_first_line(repo, ours, theirs):
        return Relation.BEHIND
    return Relation.DIVERGED


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
