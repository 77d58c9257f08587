"""How a merge of ours is written, and how it is recognised. Pure: git is asked elsewhere (`merging`).

A merge of ours has exactly two parents, the target as it was and the submitted commit, and ends with two trailers. It
is recognised on the first-parent line by trailers *and* second parent: agents and people write commit messages too.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.dataclass import dataclass

ITEM, ATTEMPT = "Harness-Item", "Harness-Attempt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One commit on the first-parent line of a target."""

    sha: str
    parents: tuple[str, ...]
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """One merge of ours on the target."""

    uid: str
    n: int
    sha: str
    """The merge commit."""
    submitted: str
    subject: str


def trailers(uid: str, n: int) -> str:
    """The end of the message of a merge."""
    return f"{ITEM}: {uid}\n{ATTEMPT}: {n}"


def merge_in(commit: Commit) -> Merge | None:
    """What it merged, if it looks like a merge of ours."""
    last = commit.message.rstrip("\n").split("\n")[-2:]
    if len(commit.parents) != 2 or len(last) != 2:
        return None
    item, attempt = last
    number = attempt.removeprefix(f"{ATTEMPT}: ")
    if not item.startswith(f"{ITEM}: ") or not number.isdecimal() or number == attempt:
        return None
    return Merge(
        uid=item.removeprefix(f"{ITEM}: "),
        n=int(number),
        sha=commit.sha,
        submitted=commit.parents[1],
        subject=commit.message.split("\n", 1)[0],
    )


def merge_of(line: Iterable[Commit], uid: str, n: int, sha: str) -> str | None:
    """m2: the merge of attempt n with exactly this commit among those of a first-parent line, or None."""
    for commit in line:
        merge = merge_in(commit)
        if merge is not None and (merge.uid, merge.n, merge.submitted) == (uid, n, sha):
            return merge.sha
    return None
