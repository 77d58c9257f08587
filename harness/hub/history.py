"""Questions about commits, and the pin that keeps a result for ever.

Nothing here believes an agent: a result is checked for what a merge cannot hold before it is submitted.
"""

from __future__ import annotations

import filecmp
import os
import re
from collections.abc import Collection
from dataclasses import replace

from harness.dataclass import dataclass
from harness.errors import GitError
from harness.hub.git import GitCommandError
from harness.hub.refs import is_sha
from harness.hub.repo import ATTEMPTS, BRANCHES, SALVAGED, Repo

MAX_DIFF = 4 * 1024 * 1024
_GITLINK = "160000"
_BLAMED = re.compile(r"\bobject ([0-9a-f]{40}(?:[0-9a-f]{24})?):")
"""Objects that git finds badly made."""


class BrokenCommitError(GitError):
    """A commit that cannot be submitted: it is missing, or something that it reaches is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One path that differs between two commits."""

    status: str
    """A, M, D, R (renamed) or T (its type changed)."""
    path: str
    mode: str
    """The new mode as git writes it (``100755``); the old one of a deleted path."""
    was: str | None = None
    """The name before a rename."""


def changed_files(repo: Repo, base: str, sha: str) -> list[Change]:
    """Every path that differs; a rename with both its names; links to nested repositories too."""
    fields = iter(
        repo.git("diff-tree", "-r", "-z", "--raw", "-M", "--ignore-submodules=none", base, sha).fields()
    )
    found = []
    for what in fields:
        old, new, _, _, letter = what.decode("ascii", "replace").lstrip(":").split(" ")
        path = os.fsdecode(next(fields))
        was = None
        if letter[:1] == "R":
            was, path = path, os.fsdecode(next(fields))
        found.append(Change(status=letter[:1], path=path, mode=old if letter == "D" else new, was=was))
    return found


def diff(repo: Repo, base: str, sha: str) -> str:
    """For people. Cut at 4 MiB; bytes that are no text are replaced."""
    out = repo.git(
        "diff", "--no-ext-diff", "--no-textconv", "--no-color", "--stat", "--patch", base, sha, "--"
    )
    text = out.raw[:MAX_DIFF].decode("utf-8", "replace")
    return text if len(out.raw) <= MAX_DIFF else text + "\n[cut]\n"


def is_ancestor(repo: Repo, old: str, new: str) -> bool:
    """Whether `new` contains `old` (a commit contains itself)."""
    return old == new or repo.git("merge-base", "--is-ancestor", old, new, ok=(0, 1)).code == 0


def missing(repo: Repo, shas: Collection[str]) -> frozenset[str]:
    """Which of them are not commits that can be read. One process for all, unless git gives up at a damaged object."""
    asked = sorted(filter(is_sha, shas))
    nameless = frozenset(shas) - frozenset(asked)
    if not asked:
        return nameless
    names = "".join(f"{sha}^{{commit}}\n" for sha in asked).encode()
    out = repo.git("cat-file", "--batch-check=%(objecttype)", stdin=names, ok=(0, 128))
    types = out.text.split("\n")
    if out.code == 0 and len(types) == len(asked):
        return nameless | {sha for sha, said in zip(asked, types, strict=True) if said != "commit"}
    return nameless | frozenset(
        sha for sha in asked if repo.git("cat-file", "-e", f"{sha}^{{commit}}", ok=(0, 1, 128)).code
    )


def is_targets(repo: Repo, base: str, sha: str | None) -> bool:
    """Is this the base, or a commit that the target got since, and nobody's work here?"""
    if sha in (base, None):
        return True
    tip = repo.refs.read(repo.target)
    return (
        tip not in (base, None)
        and sha in repo.git("rev-list", "--first-parent", f"{base}..{tip}").text.split()
    )


def fork(repo: Repo, base: str, sha: str) -> str:
    """Where the work in `sha` parts from the target: at `base`, or at what it took from the target since (`git merge`)."""
    tip = repo.refs.read(repo.target)
    if tip in (base, None):
        return base
    found = repo.git("merge-base", sha, str(tip), ok=(0, 1)).text
    return found if found and is_ancestor(repo, base, found) else base


def faults(repo: Repo, base: str, sha: str) -> tuple[str, ...]:
    """Why a commit cannot be merged, whatever the gates say; for the agent to read. Empty: nothing is wrong."""
    found = []
    if not is_ancestor(repo, base, sha):
        found.append(f"the commit {sha[:12]} does not contain {base[:12]}, on which the work was to be based")
    for change in changed_files(repo, base, sha):
        if change.status == "D":
            continue
        if change.mode == _GITLINK:
            found.append(f"{change.path} is a nested repository: commit its files, or remove it")
        elif change.path == ".gitmodules":
            found.append(".gitmodules: submodules are not supported")
        elif any(_is_git_name(part) for part in change.path.split("/")):
            found.append(f"{change.path}: git refuses to check out such a name")
    return tuple(found)


def _is_git_name(part: str) -> bool:
    """Names that git does not write into a worktree, on any file system (CVE-2014-9390)."""
    plain = part.casefold().rstrip(". ")
    return plain in ("", ".git", "git~1") or part in (".", "..")


def pin(repo: Repo, uid: str, n: int, sha: str) -> None:
    """Makes a submitted commit durable and keeps it in `refs/harness/attempt/<uid>/<n>`, in this order.

    Raises BrokenCommitError when it does not lead to all that it names (an agent can delete objects), or is no commit as git
    makes them: a repository with `receive.fsckObjects` would never take it, nor anything that is merged later.
    """
    if wrong := _examine(repo, sha):
        raise BrokenCommitError(
            f"commit {sha} of {uid}.{n} cannot be used by git: {wrong[:300]}", where=repo.path
        )
    name = f"{ATTEMPTS}/{uid}/{n}"
    if repo.refs.read(name) == sha:
        repo.sync()
        return
    repo.sync()
    repo.change_refs([f"update {name} {sha}"])
    repo.sync()


def _examine(repo: Repo, sha: str) -> str:
    """Why a repository that is pushed to with `receive.fsckObjects` would not take this commit, or "": everything that the
    target does not have is packed as for a push, and each object of the pack is what git calls it, and well made.

    What git finds wrong in objects that the target has already is not held against the commit. Raises GitCommandError when
    nothing is wrong with it, but git was killed or the disk is full.
    """
    with repo.private_folder("pin") as folder:
        index, found = folder / "index", folder / "found"
        # Drafts of git go where new objects do: not into the hub, where nobody would remove that of a killed one.
        env = {
            "GIT_OBJECT_DIRECTORY": str(folder),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(repo.path / "objects"),
        }
        git = replace(repo.git, extra={**repo.git.extra, "core.fsync": "none", "pack.compression": "1"})
        names = f"{sha}\n^{repo.target}\n".encode()
        pack_up = ("pack-objects", "--quiet", "--revs", "--non-empty", "--window=0", f"{folder}/new")
        try:
            git(*pack_up, stdin=names, env=env)
            pack = next(folder.glob("new-*.pack"), None)
            if pack is None:
                return ""  # the target has it all
            pack.with_suffix(".idx").rename(index)
            try:
                git("index-pack", "--strict", "-o", str(found), str(pack), env=env)
            except GitCommandError as e:
                blamed = _BLAMED.findall(e.stderr)
                new = index.read_bytes()
                if not blamed or any(bytes.fromhex(name) in new for name in blamed):
                    raise
                git("index-pack", "-o", str(found), str(pack), env=env)
        except GitCommandError as e:
            if e.passing:
                raise
            return e.stderr.strip()
        # git believes the name of a loose object; this index has the names that the contents give.
        return "" if filecmp.cmp(index, found, shallow=False) else "an object is not what its name says"


def retire(repo: Repo, uid: str) -> int:
    """Removes the branches and pins of an item whose merge (or cancellation) is decided; salvage stays. -> how many.

    The commits of a merged item stay reachable from the target; results that were returned or cancelled become
    unreachable, which fsck (I18) allows when the item is over. Not for an item that is done without a merge: its pin
    is all that keeps its result. Nothing calls this yet: refs of items that are over stay.
    """
    refs = {**repo.refs.below(f"{BRANCHES}/{uid}"), **repo.refs.below(f"{ATTEMPTS}/{uid}")}
    if refs:
        repo.change_refs(f"delete {name} {sha}" for name, sha in refs.items())
    return len(refs)


def salvaged(repo: Repo, uid: str) -> dict[str, str]:
    """What was saved of an item: ref name -> commit."""
    return repo.refs.below(f"{SALVAGED}/{uid}")
