"""Worktrees of agent slots: reused when proved to hold nothing unsaved, else moved aside; never reset in hope.

Order of a switch, so that a crash between any two steps loses nothing and the same call succeeds afterwards: save what
is there (salvage) -> remove ignored files -> record ``switching`` -> change the files -> make the branch, point HEAD at
it, give the agent our index -> record ``ready``. Only between the two records may files be thrown away.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness.atomicfs import replace_file
from harness.dataclass import dataclass
from harness.hub.carrying import Carry
from harness.hub.clearing import (
    discard,
    doomed,
    locked,
    move_aside,
    remove_all,
    remove_ignored,
    repositories_in,
)
from harness.hub.copies import copy_files
from harness.hub.git import GitCommandError, Tree
from harness.hub.planted import below
from harness.hub.repo import BRANCHES, SALVAGED, Repo
from harness.hub.salvage import save
from harness.hub.slots import Phase, Place, fault, place_of, plain_refs, register, scrub, tree_of
from harness.hub.snapshot import copy_index, nested_in_index, status, unpipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Worktree:
    """A worktree that is ready for attempt `n` of `uid`, on branch `harness/<uid>/<n>` at `base`."""

    path: Path
    branch: str
    base: str
    reused: bool
    moved_aside: Path | None
    """Where the slot's former tree is now, when something in it could not be saved otherwise."""
    slot: str
    uid: str
    n: int
    admin: str
    missing: tuple[str, ...] = ()
    """Patterns of `copy:` that the person's clone has no file for."""


def prepare(repo: Repo, slot: str, uid: str, n: int, base: str, carry: Carry | None = None) -> Worktree:
    """A clean worktree at `base`; with `carry` at `carry.head`, with its uncommitted files, based on `carry.base`.

    The caller proves first that no process of the former attempt lives.
    """
    place = place_of(repo, slot)
    head = base
    if carry is not None:
        base, head = carry.base, carry.head
    at = carry.files if carry is not None and carry.files else head
    tree, moved = reusable(repo, place, uid=uid, n=n, base=at)
    reused = tree is not None
    if tree is None:
        tree = _add(repo, place, uid=uid, n=n, base=at)
    plain_refs(repo, uid)
    _unlock_branches(repo, uid)
    _free_branch(repo, uid, n)
    branch = f"harness/{uid}/{n}"
    repo.change_refs([f"update refs/heads/{branch} {head}"])
    _point_head(tree, f"ref: refs/heads/{branch}\n")
    if at != head:  # to git these files are not committed, and not staged either
        repo.git("read-tree", "-m", head, tree=tree)
    copy_index(tree.index, tree.admin / "index")
    missing = copy_files(repo, tree.path)
    place.write(phase=Phase.READY, uid=uid, n=n, base=base, admin=tree.admin.name)
    return Worktree(
        path=tree.path,
        branch=branch,
        base=base,
        reused=reused,
        moved_aside=moved,
        slot=slot,
        uid=uid,
        n=n,
        admin=tree.admin.name,
        missing=missing,
    )


def find(repo: Repo, slot: str) -> Worktree | None:
    """The worktree of a slot as it was prepared last; None when it is not ready or unknown."""
    place = place_of(repo, slot)
    record = place.read()
    if record is None or record.phase is not Phase.READY:
        return None
    return Worktree(
        path=place.tree,
        branch=f"harness/{record.uid}/{record.n}",
        base=record.base,
        reused=True,
        moved_aside=None,
        slot=slot,
        uid=record.uid,
        n=record.n,
        admin=record.admin,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvage:
    """What was saved of an attempt's worktree."""

    refs: tuple[str, ...]
    """Refs that were added now."""
    kept: Path | None = None
    """Where the tree is now, when refs cannot hold everything."""


def salvage(repo: Repo, worktree: Worktree, uid: str, n: int) -> Salvage:
    """Saves what an attempt left. The tree stays for the next prepare, unless it must be kept as it is.

    Does nothing to a slot that was given to another attempt meanwhile: its prepare has saved everything.
    """
    place = place_of(repo, worktree.slot)
    record = place.read()
    if record is None or record.phase is not Phase.READY or (record.uid, record.n) != (uid, n):
        return Salvage(refs=())
    tree = tree_of(repo, place, record.admin)
    saved = save(repo, tree, uid=uid, n=n, base=record.base, sound=record.of_this_boot)
    if not saved.why_not or not os.path.lexists(place.tree):
        return Salvage(refs=saved.refs)
    return Salvage(refs=saved.refs, kept=move_aside(repo, place, record, saved.why_not))


def reusable(repo: Repo, place: Place, *, uid: str, n: int, base: str) -> tuple[Tree | None, Path | None]:
    """-> (the slot's old tree, switched to `base`, or None: it is out of the way; where it was moved, if it was).

    A tree of another boot is not used again: what git does not look at in it (caches, what `setup` made) may be torn.
    """
    record = place.read()
    if record is None or record.phase is Phase.SWITCHING:
        if record is None and os.path.lexists(place.tree):
            return None, move_aside(repo, place, None, "nothing is known about it")
        discard(repo, place, record)
        return None, None
    tree = tree_of(repo, place, record.admin)
    sound = record.of_this_boot
    saved = save(repo, tree, uid=record.uid, n=record.n, base=record.base, sound=sound)
    why = saved.why_not
    if not why and sound:
        why = locked(repo, tree) or remove_ignored(repo, tree, saved)
    elif not why and (inner := repositories_in(tree.path, doomed(repo, tree.path, saved.ignored))):
        why = f"it holds repositories in {inner}"
    if (why or saved.at is None) and os.path.lexists(place.tree):
        return None, move_aside(repo, place, record, why or "it has no commit")
    if why or saved.at is None or not sound:  # or only the admin directory is left; its commits are saved
        discard(repo, place, record)
        return None, None
    place.write(phase=Phase.SWITCHING, uid=uid, n=n, base=base, admin=record.admin)
    complaint = _switch(repo, tree, saved.at, base)
    if complaint:  # a folder without write permission, a file that appeared meanwhile
        return None, move_aside(repo, place, record, f"cannot be switched: {complaint[:200]}")
    scrub(tree.admin)
    return tree, None


def _switch(repo: Repo, tree: Tree, old: str, new: str) -> str:
    """Changes the files from one commit to another. -> what git complained about, or "".

    A file that git cannot remove is a mere warning to it; to us it would be the last attempt's in the next one's tree.
    """
    if old == new:
        return ""
    try:
        return repo.git("read-tree", "-m", "-u", old, new, tree=tree).stderr.strip()
    except GitCommandError as e:
        return e.stderr.strip() or e.what


def _add(repo: Repo, place: Place, *, uid: str, n: int, base: str) -> Tree:
    """A new worktree. Only the registration is serialised; files are written outside of the lock."""
    place.tree.parent.mkdir(parents=True, exist_ok=True)
    with repo.lock.held():
        place.write(phase=Phase.SWITCHING, uid=uid, n=n, base=base, admin="")
        admin = register(repo, place, base)
    tree = tree_of(repo, place, admin)
    tree.index.unlink(missing_ok=True)
    repo.git("read-tree", "-m", "-u", base, tree=tree)
    return tree


def _unlock_branches(repo: Repo, uid: str) -> None:
    """A git of an earlier attempt that was killed left its branch locked. Nobody would stumble over that: it stays for ever."""
    top = repo.path / BRANCHES / uid
    for entry in below(top):
        if entry.name.endswith(".lock"):
            repo.git.unlock(top / entry.path)


def _free_branch(repo: Repo, uid: str, n: int) -> None:
    """An earlier attempt's agent may have made our branch already, or one below its name: saved, then out of the way."""
    name = f"{BRANCHES}/{uid}/{n}"
    taken = repo.refs.below(name)
    own = repo.refs.read(name)
    if own is not None:
        taken[name] = own
    lines = []
    for ref, sha in taken.items():
        lines += [f"update {SALVAGED}/{uid}/{n}/taken-{sha[:12]} {sha}", f"delete {ref} {sha}"]
    if repo.refs.symbolic(name):
        lines.append(f"delete {name}")
    if lines:
        repo.change_refs(lines)
    left = [repo.path / name] if os.path.lexists(repo.path / name) else []
    folders = (repo.path / f"{name}.lock", repo.path / "logs" / name)
    left += [path for path in folders if path.is_dir() and not path.is_symlink()]
    remove_all(repo, left)  # what is no ref, and would stand in the way of one


def _point_head(tree: Tree, contents: str) -> None:
    replace_file(tree.admin / "HEAD", contents.encode(), durable=False, mode=0o644)


def scratch(repo: Repo, slot: str, sha: str) -> Path:
    """A worktree at `sha`, detached, in which nothing is worth keeping: gates on merged trees run there."""
    place = place_of(repo, slot)
    record = place.read()
    tree = tree_of(repo, place, record.admin) if record and record.admin else None
    known = record is not None and tree is not None and not fault(tree) and record.of_this_boot
    if tree is None or not known or not _wipe(repo, tree, sha):
        discard(repo, place, record)
        tree = _add(repo, place, uid="", n=0, base=sha)
    _point_head(tree, f"{sha}\n")
    scrub(tree.admin)
    copy_index(tree.index, tree.admin / "index")
    copy_files(repo, tree.path)
    place.write(phase=Phase.READY, uid="", n=0, base=sha, admin=tree.admin.name)
    return tree.path


def _wipe(repo: Repo, tree: Tree, sha: str) -> bool:
    """Makes a scratch tree equal to a commit, caches to keep apart; False: make a new one."""
    try:
        unpipe(repo, tree.path)
        repo.git("read-tree", "--reset", "-u", sha, tree=tree)
        _point_head(tree, f"{sha}\n")
        seen = status(repo, tree)
        gone = [*doomed(repo, tree.path, seen.ignored), *seen.untracked, *seen.nested]
        remove_all(repo, [tree.path / os.fsdecode(path) for path in gone])
        return not seen.changed and not nested_in_index(repo, tree)
    except GitCommandError:
        return False
