"""Commits of the model, by content: the same parents with the same message are the same commit, as in git.

What was ever committed stays in one table; which of them a hub holds, and what its refs name, is `Git`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from harness.hub.trailers import Commit

BASE = "base"
"""What everything begins with."""
Merged = tuple[str, int, str]
"""(uid, n, merge commit)"""


class Git(NamedTuple):
    """What a hub holds, and the person's branch."""

    objects: frozenset[str] = frozenset({BASE})
    target: str = BASE
    lane: Any = None
    seen: str = BASE
    """What was last seen of the person's branch."""
    theirs: str = BASE
    """The person's branch: a ref of another repository."""


class Commits:
    def __init__(self) -> None:
        self._commits: dict[str, Commit] = {BASE: Commit(sha=BASE, parents=(), message="")}
        self._shas: dict[tuple[tuple[str, ...], str], str] = {}
        self._merges: dict[str, tuple[str, int]] = {}
        self._ancestors: dict[str, frozenset[str]] = {}
        self._lines: dict[str, tuple[Commit, ...]] = {}

    def write(self, name: str, parents: tuple[str, ...], message: str) -> str:
        """-> its sha: `name` and a number."""
        sha = self._shas.get((parents, message))
        if sha is None:
            sha = self._shas[parents, message] = f"{name}.{len(self._shas)}"
            self._commits[sha] = Commit(sha=sha, parents=parents, message=message)
        return sha

    def merge(self, onto: str, uid: str, n: int, sha: str, message: str) -> str:
        """The merge of an attempt, as a merger makes it: that is what the invariants know it by."""
        made = self.write(f"m-{uid}-{n}", (onto, sha), message)
        self._merges[made] = (uid, n)
        return made

    def commit(self, sha: str) -> Commit:
        """What an attempt submits is made with its name alone, on what everything begins with."""
        return self._commits.get(sha) or Commit(sha=sha, parents=(BASE,), message="work")

    def ancestors(self, sha: str) -> frozenset[str]:
        """With itself."""
        found = self._ancestors.get(sha)
        if found is None:
            parents = self.commit(sha).parents
            found = self._ancestors[sha] = frozenset({sha}).union(*(self.ancestors(p) for p in parents))
        return found

    def line(self, tip: str) -> tuple[Commit, ...]:
        """By first parents, oldest first."""
        found = self._lines.get(tip)
        if found is None:
            commit = self.commit(tip)
            found = self._lines[tip] = (*(self.line(commit.parents[0]) if commit.parents else ()), commit)
        return found

    def between(self, old: str, new: str) -> list[str]:
        """What is on the line of `new` after `old`, if that is on it, and before `new`."""
        line = [c.sha for c in self.line(new)]
        return line[line.index(old) + 1 : -1] if old in line else []

    def history(self, tip: str) -> tuple[Merged, ...]:
        """The merges of attempts on the line of a target, by whom they were made for, not by what they say."""
        return tuple((*self._merges[c.sha], c.sha) for c in self.line(tip) if c.sha in self._merges)
