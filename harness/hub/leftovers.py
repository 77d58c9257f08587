"""What an agent left uncommitted becomes a commit of ours; and the state of its worktree, for whoever decides."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from harness.dataclass import dataclass
from harness.hub.git import Tree
from harness.hub.repo import BRANCHES, Repo
from harness.hub.slots import fault, head_of, in_progress, place_of, plain_refs, remedy_of
from harness.hub.snapshot import (
    Status,
    copy_index,
    nested_in_index,
    point_index,
    snapshot,
    staged,
    status,
    unpipe,
)
from harness.hub.worktrees import Worktree


@dataclass(frozen=True, slots=True, kw_only=True)
class WorktreeStatus:
    """A worktree as the agent left it. Paths as git prints them; bytes that are no text are surrogate-escaped."""

    head: str | None
    """The commit that is checked out: what the agent offers as its result."""
    branch: str | None
    """Without ``refs/heads/``; None: detached."""
    tip: str | None
    """Where the attempt's own branch is; differs from `head` when the agent switched away."""
    changed: tuple[str, ...] = ()
    untracked: tuple[str, ...] = ()
    """Neither ignored nor a cache to keep; nested repositories end with a slash."""
    nested: tuple[str, ...] = ()
    """Repositories inside of the worktree: their files cannot be committed."""
    in_progress: str = ""
    """``rebase``, ``merge``, ...: a git command that was not finished."""
    fault: str = ""
    """Why it is no worktree of ours any more ("missing", ".git was changed")."""
    remedy: str = ""
    """What helps against the fault."""

    @property
    def dirty(self) -> tuple[str, ...]:
        """Tracked files that differ from what is checked out; of what is no worktree of ours any more, as `.git: `,
        what became of it and what helps."""
        return (*self.changed, f".git: {self.fault}. {self.remedy}") if self.fault else self.changed

    @property
    def clean(self) -> bool:
        return not (self.changed or self.untracked or self.nested or self.in_progress or self.fault)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """The result of `commit_leftovers`."""

    sha: str | None
    """The new commit; None: there was nothing to commit, or it could not be committed (see the rest)."""
    head: str | None
    """What is checked out now."""
    nested: tuple[str, ...] = ()
    in_progress: str = ""
    fault: str = ""


def agent_tree(repo: Repo, worktree: Worktree) -> Tree:
    """The worktree with the agent's own index: what it staged and unstaged counts."""
    admin = repo.path / "worktrees" / worktree.admin
    return Tree(path=worktree.path, admin=admin, index=admin / "index")


def head(repo: Repo, worktree: Worktree) -> str | None:
    return head_of(repo, repo.path / "worktrees" / worktree.admin).sha


def worktree_status(repo: Repo, worktree: Worktree) -> WorktreeStatus:
    tree = agent_tree(repo, worktree)
    plain_refs(repo, worktree.uid)
    head = head_of(repo, tree.admin)
    branch = head.branch.removeprefix("refs/heads/") if head.branch else None
    tip = repo.refs.read(f"{BRANCHES}/{worktree.uid}/{worktree.n}")
    wrong = fault(tree)
    if wrong:
        return WorktreeStatus(
            head=head.sha, branch=branch, tip=tip, fault=wrong, remedy=remedy_of(wrong, tree)
        )
    work = _private(repo, worktree, tree)
    unpipe(repo, tree.path)
    seen = status(repo, work, ignored=False)
    hidden = _hidden(repo, worktree, tree, head.sha, seen)
    nested = tuple(
        os.fsdecode(path.rstrip(b"/")) + "/" for path in (*seen.nested, *nested_in_index(repo, work))
    )
    return WorktreeStatus(
        head=head.sha,
        branch=branch,
        tip=tip,
        changed=tuple(map(os.fsdecode, (*seen.changed, *hidden))),
        untracked=(*map(os.fsdecode, seen.untracked), *nested),
        nested=nested,
        in_progress=in_progress(tree.admin),
    )


def _hidden(repo: Repo, worktree: Worktree, tree: Tree, head: str | None, seen: Status) -> tuple[bytes, ...]:
    """Files that differ from what is checked out although the agent's index says nothing of it (assume-unchanged,
    skip-worktree, times that are not true): gates judge the files, and the commit is merged.

    Not what is byte for byte in the commit, as the same kind of file: with `text` in .gitattributes git calls that changed
    or not, as the times are. No filter counts, whoever names it: here none is run.
    """
    if head is None:
        return ()
    place = place_of(repo, worktree.slot)
    ours = Tree(path=tree.path, admin=tree.admin, index=place.index.with_suffix(".judged"))
    copy_index(place.index, ours.index)
    point_index(repo, ours, head)
    fields = repo.git(
        "diff", "--raw", "--no-abbrev", "-z", "--no-renames", "--no-ext-diff", "--no-textconv", tree=ours
    ).fields()
    differ: dict[bytes, bytes | None] = {}
    """Path -> the committed blob, of what is a file there and here, in the same mode."""
    for what, path in zip(fields[::2], fields[1::2], strict=True):
        was, now, blob, _, _ = what.removeprefix(b":").split(b" ")
        if path not in seen.changed:
            alike = was == now and was.startswith(b"100") and _is_plain(tree.path, path)
            differ[path] = blob if alike else None
    plain = [path for path, blob in differ.items() if blob]
    made = (
        repo.git(
            *("hash-object", "--no-filters", "--stdin-paths"),
            tree=ours,
            stdin=b"".join(path + b"\n" for path in plain),
        ).raw.split()
        if plain
        else []
    )
    same = {path for path, sha in zip(plain, made, strict=True) if differ[path] == sha}
    return tuple(sorted(differ.keys() - same))


def _is_plain(top: Path, path: bytes) -> bool:
    """A regular file (git takes a pipe for one here), by a name that `--stdin-paths` takes as it is."""
    if path.startswith(b'"') or path.endswith(b"\r") or b"\n" in path:
        return False
    try:
        return stat.S_ISREG(os.lstat(os.path.join(os.fsencode(top), path)).st_mode)
    except OSError:
        return False


def tree_at(repo: Repo, worktree: Worktree) -> str | None:
    """The tree of what is checked out; None when the worktree differs from it, or git cannot tell."""
    seen = worktree_status(repo, worktree)
    if not seen.clean or seen.head is None:
        return None
    return repo.git("rev-parse", f"{seen.head}^{{tree}}").text


def commit_leftovers(repo: Repo, worktree: Worktree, message: str) -> Leftovers:
    """Commits everything uncommitted and not ignored on top of what is checked out.

    Not in the middle of a rebase or merge, whose half is nobody's result. Nested repositories are left out and named.
    The agent's own branch moves along; from any other place (a detached HEAD, somebody else's branch) HEAD is
    detached at the new commit, so that no branch but the attempt's can be moved by a HEAD that points there.
    """
    tree = agent_tree(repo, worktree)
    plain_refs(repo, worktree.uid)
    head = head_of(repo, tree.admin)
    wrong = fault(tree) or ""
    unfinished = in_progress(tree.admin)
    if wrong or unfinished:
        return Leftovers(sha=None, head=head.sha, in_progress=unfinished, fault=wrong)
    work = _private(repo, worktree, tree)
    unpipe(repo, tree.path)
    seen = status(repo, work, ignored=False, whole=True)
    if hidden := _hidden(repo, worktree, tree, head.sha, seen):
        entries = repo.git("ls-files", "--stage", "-z", tree=work).fields()
        again = b"".join(e + b"\0" for e in entries if e.partition(b"\t")[2] in hidden)
        repo.git("update-index", "-z", "--index-info", tree=work, stdin=again)  # without flags and times
        seen = status(repo, work, ignored=False, whole=True)
    links = staged(repo, work, head.sha).gitlinks if nested_in_index(repo, work) else ()
    nested = tuple(map(os.fsdecode, (*seen.nested, *links)))
    if not seen.dirty and not links:
        return Leftovers(sha=None, head=head.sha, nested=nested)
    if links:  # `git add` of a nested repository stages a link to a commit that nobody else has
        repo.git("update-index", "--force-remove", "-z", "--stdin", tree=work, stdin=b"\0".join(links))
    written = snapshot(repo, work, (*seen.nested, *links))
    if head.sha and repo.git("rev-parse", f"{head.sha}^{{tree}}").text == written:
        copy_index(
            work.index, tree.admin / "index"
        )  # also the end of an earlier call that was killed before this
        return Leftovers(sha=None, head=head.sha, nested=nested)
    parents = ("-p", head.sha) if head.sha else ()
    sha = repo.git("commit-tree", written, *parents, "-F", "-", stdin=message.encode("utf-8", "replace")).text
    own = head.branch is not None and head.branch.startswith(f"{BRANCHES}/{worktree.uid}/")
    if own and head.branch and not repo.refs.symbolic(head.branch):
        line = f"update {head.branch} {sha} {head.sha or '0' * len(sha)}"
    else:
        line = f"update HEAD {sha}"
    repo.git(
        "update-ref",
        "--stdin",
        "-m",
        "harness: commit",
        tree=work,
        stdin=f"option no-deref\n{line}\n".encode(),
    )
    copy_index(work.index, tree.admin / "index")
    return Leftovers(sha=sha, head=sha, nested=nested)


def _private(repo: Repo, worktree: Worktree, tree: Tree) -> Tree:
    """The same with a copy of the agent's index: its locks do not stop us, and a crash changes nothing of its own."""
    index = place_of(repo, worktree.slot).index.with_suffix(".agent")
    copy_index(tree.index, index)
    return Tree(path=tree.path, admin=tree.admin, index=index)
