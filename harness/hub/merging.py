"""Merge commits: how they are made, and where one is looked for later. `trailers` says how one is recognised."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator

from harness.dataclass import dataclass
from harness.hub.attributes import attributes_of
from harness.hub.git import IDENTITY, GitCommandError
from harness.hub.history import is_ancestor
from harness.hub.repo import Repo
from harness.hub.trailers import ITEM, Commit, Merge, merge_in, merge_of, trailers

TITLES = 20
MAX_BODY = 16 * 1024
PAGE = 1000
"""Merges that are read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A merge commit, not yet on the target."""

    sha: str
    tree: str
    empty: bool
    """It changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """The two sides cannot be merged."""

    files: tuple[str, ...]
    titles: tuple[str, ...]
    """What was merged meanwhile: the target's commits that touched these files since the fork, newest first."""
    submitted: tuple[str, ...]
    """The same for the side to be merged."""
    messages: str
    """What git says about each file."""


def build_merge(
    repo: Repo, onto: str, uid: str, n: int, sha: str, subject: str, body: str = ""
) -> Built | Conflict:
    """Merges `sha` into `onto`, without a worktree, always as a merge commit. The same arguments give the same commit
    (unless a parent's date lies in the future)."""
    parts = [" ".join(subject.split()) or f"{uid}: merge", body.replace("\0", "").strip()[:MAX_BODY]]
    message = "\n\n".join(part for part in (*parts, trailers(uid, n)) if part) + "\n"
    built = join(repo, onto, sha, message)
    if not (isinstance(built, Built) and built.empty and is_ancestor(repo, sha, onto)):
        return built
    # Another's merge has brought these commits, perhaps without what they change (`git merge -s ours`).
    afresh = _afresh(repo, onto, sha)
    return join(repo, onto, sha, message, contents=afresh) if afresh else built


def _afresh(repo: Repo, onto: str, sha: str) -> str | None:
    """What `sha` changes, as one commit based on the target as it was before a merge of ours brought it there. None when a
    person did: they may have reverted it since."""
    line = repo.git("rev-list", "--first-parent", onto).text.split()
    before = bisect_left(line, True, key=lambda tip: not is_ancestor(repo, sha, tip))
    if before in (0, len(line)) or line[before - 1] == sha:
        return None
    if not merges_between(repo, line[before], line[before - 1]):
        return None
    fork = repo.git("merge-base", sha, line[before], ok=(0, 1)).text
    if not fork:
        return None
    dated = {"GIT_AUTHOR_DATE": "@0 +0000", "GIT_COMMITTER_DATE": "@0 +0000"}
    return repo.git("commit-tree", f"{sha}^{{tree}}", "-p", fork, "-m", sha, env={**IDENTITY, **dated}).text


def join(repo: Repo, onto: str, sha: str, message: str, *, contents: str = "") -> Built | Conflict:
    """A commit with the parents `onto` and `sha`. `contents`: a commit that is merged in the place of `sha`."""
    try:
        with attributes_of(repo, onto) as tree:
            out = repo.git(
                "merge-tree",
                "--write-tree",
                "-z",
                "--name-only",
                "--messages",
                onto,
                contents or sha,
                tree=tree,
                ok=(0, 1),
            )
    except GitCommandError as e:
        if "unrelated histories" not in e.stderr:
            raise
        return Conflict(files=(), titles=(), submitted=(), messages="the two have no commit in common")
    fields = out.raw.split(b"\0")
    merged = fields[0].decode("ascii")
    if out.code == 1:
        return _conflict(repo, onto, sha, fields[1:])
    when, before = _dated(repo, onto, sha)
    date = f"@{when} +0000"
    made = repo.git(
        "commit-tree",
        merged,
        "-p",
        onto,
        "-p",
        sha,
        "-F",
        "-",
        stdin=message.encode("utf-8", "replace"),
        env={**IDENTITY, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date},
    )
    return Built(sha=made.text, tree=merged, empty=merged == before)


def _dated(repo: Repo, onto: str, sha: str) -> tuple[int, str]:
    """-> (the later of the parents' dates: two mergers build the same commit, and an agent's clock may not lead us ahead;
    the tree of `onto`)"""
    said = repo.git("log", "--no-walk=unsorted", "--format=%ct %T", onto, sha).text.split()
    return min(max(map(int, said[::2])), int(repo.clock.wall())), said[1]


def _conflict(repo: Repo, onto: str, sha: str, fields: list[bytes]) -> Conflict:
    """Sections of `merge-tree -z`: conflicted paths, an empty field, then (count, paths..., kind, text) for each message."""
    end = fields.index(b"")
    files = tuple(dict.fromkeys(map(os.fsdecode, fields[:end])))
    texts = []
    rest = fields[end + 1 :]
    while len(rest) > 2 and rest[0].isdigit():
        count = int(rest[0])
        texts.append(rest[count + 2].decode("utf-8", "replace").strip())
        rest = rest[count + 3 :]
    return Conflict(
        files=files,
        titles=_titles(repo, sha, onto, files),
        submitted=_titles(repo, onto, sha, files),
        messages="\n".join(t for t in texts if not t.startswith("Auto-merging ")),
    )


def _titles(repo: Repo, without: str, of: str, files: tuple[str, ...]) -> tuple[str, ...]:
    out = repo.git(
        "log",
        f"-{TITLES}",
        "--no-merges",
        "--format=%s",
        "--end-of-options",
        f"{without}..{of}",
        "--",
        *files[:100],
        env={"GIT_LITERAL_PATHSPECS": "1"},
    )
    return tuple(line for line in out.raw.decode("utf-8", "replace").split("\n") if line)


def merged_as(repo: Repo, tip: str, uid: str, n: int, sha: str) -> str | None:
    """m2: the merge of attempt n with exactly this commit on the first-parent line of `tip`, or None.

    Only what `sha` does not contain is looked at: its merge is never among its own ancestors.
    """
    return merge_of(_line(repo, tip, sha, "--fixed-strings", f"--grep={ITEM}: {uid}"), uid, n, sha)


def merges_between(repo: Repo, old: str | None, new: str) -> list[Merge]:
    """Our merges on the first-parent line of `new` that `old` does not have, oldest first."""
    return [merge for commit in _line(repo, new, old, "--reverse") if (merge := merge_in(commit))]


def all_merges(repo: Repo, tip: str) -> list[Merge]:
    """Our merges on the whole first-parent line of `tip`, oldest first. Read by pages: messages hold whole prompts."""
    found: list[Merge] = []
    pages = 0
    while True:
        page = list(
            _line(
                repo,
                tip,
                None,
                "--fixed-strings",
                f"--grep={ITEM}: ",
                f"--skip={pages * PAGE}",
                f"--max-count={PAGE}",
            )
        )
        found += [merge for commit in page if (merge := merge_in(commit))]
        if len(page) < PAGE:
            return found[::-1]
        pages += 1


def _line(repo: Repo, tip: str, since: str | None, *options: str) -> Iterator[Commit]:
    """The merges on the first-parent line of `tip`, newest first."""
    out = repo.git(
        "log",
        "--first-parent",
        "--min-parents=2",
        "--max-parents=2",
        "-z",
        "--format=%H %P%n%B",
        *options,
        f"{since}..{tip}" if since else tip,
        "--",
    )
    for entry in out.raw.split(b"\0"):
        head, _, message = entry.decode("utf-8", "replace").partition("\n")
        if head:
            sha, *parents = head.split()
            yield Commit(sha=sha, parents=tuple(parents), message=message)
