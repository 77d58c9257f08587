"""Saves what an attempt left in its worktree: nothing that an agent made is destroyed without a ref to it.

Saved under `refs/harness/salvage/<uid>/<n>/<kind>-<sha>`; names carry the content, so that saving again adds nothing:

* ``tree``: uncommitted and untracked files (not ignored ones), as a commit on top of HEAD.
* ``found``: the same, of a worktree of another boot. Nobody goes on with it: a file that a power loss has torn looks as if
  somebody had emptied it.
* ``index``: what was staged, when it differs from HEAD.
* ``head``, ``branch``: tips that are not the pinned result. ``lost``: commits that only the reflog knows.
* ``stash``: entries of the one stash that all worktrees share, when their branch is the attempt's; those are dropped.

What cannot be put into a ref (nested repositories, an unfinished rebase, a damaged worktree) is left where it is, and
the caller moves the whole tree aside.
"""

from __future__ import annotations

import os
import re
from dataclasses import field
from pathlib import Path

from harness.atomicfs import open_plain
from harness.dataclass import dataclass
from harness.errors import GitError
from harness.hub.git import GitCommandError, GitInterrupted, Tree
from harness.hub.refs import is_sha
from harness.hub.repo import ATTEMPTS, BRANCHES, SALVAGED, Repo
from harness.hub.slots import fault, head_of, in_progress, plain_refs
from harness.hub.snapshot import Staged, Status, nested_in_index, read_status, snapshot, staged
from harness.logs import Event
from harness.runner import EndReason

_STASHED = re.compile(rb"^(?:WIP on|On) (?:refs/heads/)?harness/([a-z0-9-]+)/")
_PLAIN = re.compile(rb"(commit|commit \((initial|merge)\)|checkout|cherry-pick|merge [^:]*): ?")
"""Reflog messages after which the commit before is still reachable from the one after (amend, reset, rebase are not)."""
SHORT = 12
LONGEST_LOG = 4 << 20
"""Bytes of a reflog that are looked at: its last ones, some 20,000 entries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What became of a worktree's contents."""

    at: str | None
    """A commit that holds exactly what the tree holds (ignored files apart); None when there is none."""
    refs: tuple[str, ...] = ()
    """Names of the refs that were added."""
    ignored: tuple[bytes, ...] = ()
    """Ignored paths at the top of what is ignored; folders end with a slash."""
    why_not: str = ""
    """Why the worktree as it is must be kept: what could not be put into a ref."""


@dataclass(slots=True)
class _Collector:
    """Refs to be made, one for each commit that nothing of ours names yet."""

    repo: Repo
    uid: str
    n: int
    known: set[str]
    existing: dict[str, str]
    """Salvage refs of this item."""
    lines: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def add(self, kind: str, sha: str) -> None:
        """A commit that exists."""
        if sha not in self.known:
            self._name(self._path(kind, sha), sha)

    def add_tree(self, kind: str, tree: str, parent: str | None, message: str) -> str:
        """A tree, as a commit on top of `parent`; named by its contents, so that saving again adds nothing.

        -> the commit
        """
        path = self._path(kind, tree)
        if path not in self.existing:
            parents = ("-p", parent) if parent else ()
            self._name(path, self.repo.git("commit-tree", tree, *parents, "-m", message).text)
        return self.existing[path]

    def durable(self, tree: str) -> bool:
        """Was just this saved of the item before?"""
        return any(name.endswith(f"/tree-{tree[:SHORT]}") for name in self.existing)

    def _path(self, kind: str, sha: str) -> str:
        return f"{SALVAGED}/{self.uid}/{self.n}/{kind}-{sha[:SHORT]}"

    def _name(self, name: str, sha: str) -> None:
        self.known.add(sha)
        self.existing[name] = sha
        self.names.append(name)
        self.lines.append(f"update {name} {sha}")


def save(repo: Repo, tree: Tree, *, uid: str, n: int, base: str, sound: bool = True) -> Saved:
    """Puts everything unsaved into refs, durably. Changes no file of the worktree. May be called any number of times.

    `sound`: no power loss can have torn its files. Otherwise they are compared by content.

    Afterwards our index (`tree.index`) describes the tree as it is, when `at` is set.
    """
    if not sound:
        tree.index.unlink(missing_ok=True)
    plain_refs(repo, uid)
    why_not = fault(tree) or ""
    existing = repo.refs.below(f"{SALVAGED}/{uid}")
    known = {base, *repo.refs.below(f"{ATTEMPTS}/{uid}").values(), *existing.values()}
    found = _Collector(repo, uid, n, known, existing)
    head = head_of(repo, tree.admin) if tree.admin.is_dir() else None
    at = head.sha if head else None
    status = Status()
    if not why_not:
        try:
            at, status, why_not = _contents(repo, tree, base, at, found, sound=sound)
        except GitError as e:
            if isinstance(e, GitInterrupted) and e.reason is not EndReason.TIMED_OUT:
                raise
            at, why_not = None, f"git cannot read it: {e.what[:300]}"
    for sha in repo.refs.below(f"{BRANCHES}/{uid}").values():
        found.add("branch", sha)
    if head and head.sha:
        _commits(repo, tree, head.sha, found)
    stashes = _stashes(repo, uid)
    for sha in stashes:
        found.add("stash", sha)
    _write(repo, found)
    for sha in stashes:
        _drop_stash(repo, sha)
    _forget_last_stash(repo, found.known)
    return Saved(at=None if why_not else at, refs=tuple(found.names), ignored=status.ignored, why_not=why_not)


def _contents(
    repo: Repo, tree: Tree, base: str, head: str | None, found: _Collector, *, sound: bool
) -> tuple[str | None, Status, str]:
    """Files: -> (commit that equals the tree, status, why the tree must be kept)."""
    unfinished = in_progress(tree.admin)
    own_index = Tree(path=tree.path, admin=tree.admin, index=tree.admin / "index")
    try:
        difference = staged(repo, own_index, head)
    except GitCommandError:
        if sound:
            raise
        difference = Staged()  # its index was torn
    if difference.entries and not difference.unmerged:
        written = repo.git("write-tree", tree=own_index).text
        found.add_tree("index", written, head, f"Staged, not committed, by attempt {found.uid}.{found.n}")
    status = read_status(repo, tree, base, head)
    nested = (*status.nested, *difference.gitlinks, *nested_in_index(repo, tree))
    at = head
    if status.dirty:
        written = snapshot(repo, tree, status.nested)
        kind = "tree" if sound or found.durable(written) else "found"
        at = found.add_tree(kind, written, head, f"wip: uncommitted work of attempt {found.uid}.{found.n}")
    if nested:
        return at, status, "it holds nested repositories: " + ", ".join(map(os.fsdecode, nested[:5]))
    return at, status, f"a {unfinished} is not finished" if unfinished else ""


def _commits(repo: Repo, tree: Tree, head: str, found: _Collector) -> None:
    """HEAD, and commits that only the reflog of the worktree still knows."""
    found.add("head", head)
    shas, plain = _reflog(tree.admin / "logs" / "HEAD")
    candidates = [sha for sha in dict.fromkeys(shas) if sha not in found.known and sha != head]
    if not candidates or plain:
        return
    lines = (*candidates, f"^{head}", *(f"^{sha}" for sha in sorted(found.known)))
    try:
        out = repo.git(
            "rev-list",
            "--ignore-missing",
            "--parents",
            "--stdin",
            stdin="".join(f"{x}\n" for x in lines).encode(),
        )
    except GitCommandError:  # a forged reflog, or a history with holes: whatever is a commit is saved
        for sha in candidates:
            found.add("lost", sha)
        return
    listed = [line.split() for line in out.text.split("\n") if line]
    parents = {parent for words in listed for parent in words[1:]}
    for words in listed:
        if words[0] in candidates and words[0] not in parents:
            found.add("lost", words[0])


def _reflog(path: Path) -> tuple[list[str], bool]:
    """-> (the commits HEAD was at, oldest first; whether each is certainly reachable from the last)."""
    lines = _tail(path)
    if lines is None:
        return [], True
    shas: list[str] = []
    plain = True
    for line in lines:
        head, _, message = line.partition(b"\t")
        words = head.split(b" ")
        if len(words) > 1 and is_sha(words[1].decode("ascii", "replace")):
            old, new = words[0].decode(), words[1].decode()
            moved_back = message.startswith(b"checkout") and old != new
            plain = plain and _PLAIN.match(message) is not None and not moved_back
            shas.append(new)
    return shas, plain


def _stashes(repo: Repo, uid: str) -> list[str]:
    """Stash entries made on a branch of this item, newest first."""
    found = []
    for line in _log_of_stash(repo):
        head, _, message = line.partition(b"\t")
        branch = _STASHED.match(message)
        if branch and branch[1].decode() == uid:
            found.append(head.split(b" ")[1].decode())
    return found


def _drop_stash(repo: Repo, sha: str) -> None:
    """Drops one entry by its content. Positions shift when another agent stashes at this moment: what was dropped in
    its place is put back."""
    positions = [i for i, line in enumerate(_log_of_stash(repo)) if line.split(b" ")[1].decode() == sha]
    if not positions:
        return
    dropped = f"refs/stash@{{{positions[0]}}}"
    there = repo.git("rev-parse", "--verify", "-q", dropped, ok=(0, 1)).text
    if there != sha:
        return  # somebody stashed in between; the next look finds it at its new place
    repo.git("reflog", "delete", "--updateref", "--rewrite", dropped)
    if any(
        line.split(b" ")[1].decode() == sha for line in _log_of_stash(repo)
    ):  # git says 0 when it cannot read the log
        raise GitError("a stash that was saved could not be dropped", where=repo.path)


def _forget_last_stash(repo: Repo, saved: set[str]) -> None:
    """`reflog delete` of the last entry leaves the ref; `git stash list` would be empty and `pop` still find it."""
    tip = repo.refs.read("refs/stash")
    if tip not in saved or _log_of_stash(repo):
        return
    try:
        repo.git("update-ref", "-d", "refs/stash", tip)
    except GitCommandError:
        if repo.refs.read("refs/stash") == tip:  # else somebody stashed meanwhile
            raise


def _log_of_stash(repo: Repo) -> list[bytes]:
    """Newest first, as `stash@{n}` counts."""
    return (_tail(repo.path / "logs/refs/stash") or [])[::-1]


def _tail(path: Path) -> list[bytes] | None:
    """The last lines of a log, whatever an agent has made of it; None: none that can be read."""
    try:
        fd = open_plain(path)
    except OSError:
        return None
    with open(fd, "rb") as file:
        start = file.seek(max(0, os.fstat(fd).st_size - LONGEST_LOG))
        try:
            lines = file.read(LONGEST_LOG).splitlines()
        except OSError:
            return None
    return lines[1:] if start else lines


def _write(repo: Repo, found: _Collector) -> None:
    if not found.lines:
        return
    repo.sync()
    try:
        repo.change_refs(found.lines)
    except GitCommandError:
        # One commit that is damaged must not keep the others from being saved; a full disk must not pass for that.
        for line, name in zip(list(found.lines), list(found.names), strict=True):
            try:
                repo.change_refs([line])
            except GitCommandError:
                sha = line.rpartition(" ")[2]
                if repo.git("cat-file", "-e", f"{sha}^{{commit}}", ok=(0, 1, 128)).code == 0:
                    raise
                found.names.remove(name)
    repo.sync()
    if found.names:
        repo.emit(
            Event.WORK_SALVAGED,
            project=repo.project.name,
            uid=found.uid,
            n=found.n,
            refs=" ".join(found.names),
        )
