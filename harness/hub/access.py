"""What an agent may write so that git works in its worktree."""

from __future__ import annotations

from pathlib import Path

from harness.hub.repo import BRANCHES, Repo
from harness.hub.worktrees import Worktree


def writable(repo: Repo, worktree: Worktree, uid: str) -> tuple[Path, ...]:
    """The worktree, its admin directory, the hub's objects, and the branches of its own item with their logs.

    With these, `git add`, `commit`, `commit --amend`, `rebase`, `merge`, `restore`, `reset` and
    `git switch -c harness/<uid>/<name>` work. What does not: other branches, tags, `git stash` (one stack for all
    worktrees), deleting or renaming branches (`packed-refs` is locked for it), `git config`, `git worktree`, `git gc`.

    Guarantee not given: objects can be deleted, and replaced by what is none. A result that lacks some is refused when it is
    pinned; a git that waits for a pipe in their place is ended after ten minutes, and the pipe removed. Links there are removed
    before each call of ours: one that is made in the moment after leads what git writes, objects, to where it points.
    """
    admin = repo.path / "worktrees" / worktree.admin
    own = [
        repo.path / f"{BRANCHES}/{uid}",
        repo.path / f"logs/{BRANCHES}/{uid}",
    ]
    for folder in own:
        folder.mkdir(parents=True, exist_ok=True)
    return (worktree.path, admin, repo.path / "objects", *own)
