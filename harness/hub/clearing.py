"""How a slot's old tree gets out of the way: cleaned of what is ignored, moved aside, or thrown away.

Thrown away is only what the record says is ``switching``: proved to hold nothing of value before (slots.py).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from harness.atomicfs import replace_file
from harness.errors import GitError
from harness.globs import matches_any
from harness.hub.git import Tree
from harness.hub.planted import holds_repository, make_writable, names_below
from harness.hub.repo import Repo
from harness.hub.salvage import Saved
from harness.hub.slots import Place, Slot, admins_at, mend_admin, put
from harness.logs import Event

CHUNK = 500
"""Paths in one `git clean`: far below the limit of an argument list."""


def locked(repo: Repo, tree: Tree) -> str:
    """Lock files of a killed git in the admin directory; proved stale and removed, or a reason not to touch it."""
    for lock in sorted(tree.admin.glob("*.lock")):
        if not repo.git.unlock(lock):
            return f"{lock.name} may still be in use"
    return ""


def remove_ignored(repo: Repo, tree: Tree, saved: Saved) -> str:
    """Removes what is ignored, except caches to keep. -> why that was not possible, or ""."""
    gone = doomed(repo, tree.path, saved.ignored)
    listed = [path for path in gone if path in saved.ignored]
    inner = [path for path in gone if path not in saved.ignored]
    for i in range(0, len(listed), CHUNK):
        repo.git(
            "clean",
            "-fdXq",  # a single -f: nested repositories stay, and are seen below
            "--",
            *map(os.fsdecode, listed[i : i + CHUNK]),
            tree=tree,
            env={"GIT_LITERAL_PATHSPECS": "1"},
            ok=(0, 1),
        )
    # `git clean -X -- a/b` removes all of an ignored `a`, so parts of a folder are removed without it.
    if not repositories_in(tree.path, inner):
        remove_all(repo, [tree.path / os.fsdecode(path) for path in inner])
    root = os.fsencode(tree.path)
    left = [path for path in gone if os.path.lexists(os.path.join(root, path.rstrip(b"/")))]
    return f"ignored files could not be removed: {os.fsdecode(left[0])}" if left else ""


def repositories_in(root: Path, ignored: Iterable[bytes]) -> str:
    """The first of these paths below which there is a repository, or ""."""
    names = map(os.fsdecode, ignored)
    return next((name for name in names if holds_repository(root / name)), "")


def doomed(repo: Repo, root: Path, ignored: tuple[bytes, ...]) -> list[bytes]:
    """Ignored paths that no cache to keep is in; a folder that holds one is taken apart."""
    keep = [pattern.removeprefix("./") for pattern in repo.project.keep]
    found: list[bytes] = []
    pending = list(ignored)
    while pending:
        path = pending.pop()
        name = os.fsdecode(path.rstrip(b"/"))
        if matches_any(name, keep):
            continue
        if path.endswith(b"/") and _holds_kept(root, name, keep):
            with os.scandir(os.fsencode(root / name)) as children:
                for child in children:
                    slash = b"/" if child.is_dir(follow_symlinks=False) else b""
                    pending.append(os.path.join(os.fsencode(name), child.name) + slash)
            continue
        found.append(path)
    return sorted(found)


def _holds_kept(root: Path, name: str, keep: list[str]) -> bool:
    """Whether something to keep lies below an ignored folder."""
    wanted = [pattern for pattern in keep if pattern.startswith(("*", f"{name}/"))]
    plain = [pattern for pattern in wanted if not {"*", "?"} & set(pattern)]
    if any(os.path.lexists(root / pattern) for pattern in plain):
        return True
    wild = [pattern for pattern in wanted if pattern not in plain]
    last = {pattern.rstrip("/").rpartition("/")[2] for pattern in wild}
    fixed = not any({"*", "?"} & set(one) for one in last)
    start = len(os.path.join(root, ""))
    return bool(wild) and any(
        matches_any(path[start:], wild)
        for path in names_below(root / name)
        if not fixed or path.rpartition("/")[2] in last
    )


def move_aside(repo: Repo, place: Place, record: Slot | None, why: str) -> Path:
    """Renames a worktree to `state/kept/`; its git metadata follows, so that git still works in it."""
    name = f"{record.uid}.{record.n}" if record and record.uid else place.name
    repo.kept.mkdir(parents=True, exist_ok=True)
    with repo.lock.held():
        admins = admins_at(repo, place.tree)
        recorded = repo.path / "worktrees" / record.admin if record and record.admin else None
        if recorded is not None and recorded.is_dir() and recorded not in admins:
            admins.append(recorded)
        kept = _rename_free(place.tree, repo.kept, name)
        for admin in admins:
            with contextlib.suppress(OSError, GitError):
                put(repo, admin / "gitdir", os.fsencode(f"{kept / '.git'}\n"))
                mend_admin(repo, admin, record)
                if not os.path.lexists(kept / ".git") and not kept.is_symlink():
                    replace_file(kept / ".git", os.fsencode(f"gitdir: {admin}\n"), durable=False, mode=0o644)
        place.forget()
    repo.emit(
        Event.WORKTREE_KEPT,
        project=repo.project.name,
        uid=record.uid if record else None,
        n=record.n if record else None,
        path=str(kept),
        reason=why,
    )
    return kept


def _rename_free(source: Path, folder: Path, name: str) -> Path:
    make_writable(source)  # no folder can be moved that may not be written
    k = 1
    while True:
        kept = folder / (name if k == 1 else f"{name}-{k}")
        if not os.path.lexists(kept):
            os.rename(source, kept)
            return kept
        k += 1


def discard(repo: Repo, place: Place, record: Slot | None) -> None:
    """Throws away a tree that was being switched, proved empty before, and admin directories without a tree."""
    with repo.lock.held():
        admins = admins_at(repo, place.tree)
        if record and record.admin and not os.path.lexists(place.tree):
            admins.append(repo.path / "worktrees" / record.admin)
        for path in (place.tree, *admins):
            if os.path.lexists(path):
                make_writable(path)  # as in _rename_free
                os.rename(path, place.record.with_suffix(f".trash.{os.urandom(4).hex()}"))
        place.forget()
    remove_all(repo, sorted(place.record.parent.glob(f"{place.name}.trash*")))


def remove_all(repo: Repo, paths: list[Path]) -> None:
    """Deletes, in a process of its own, because it may take long. Never follows a link, never crosses a mount. Folders that
    may not be written are made writable first; what cannot be removed all the same stays."""
    open_up = ("-xdev", "-type", "d", "!", "-perm", "-u+rwx", "-exec", "chmod", "u+rwx", "{}", ";")
    for opened in (False, True):
        there = [str(path) for path in paths if os.path.lexists(path)]
        for i in range(0, len(there), CHUNK):
            some = there[i : i + CHUNK]
            if opened:
                for path in some:
                    make_writable(Path(path).parent)
                repo.git.run_beside(("find", *some, *open_up), ok=(0, 1))
            repo.git.run_beside(("rm", "-rf", "--one-file-system", "--", *some), ok=(0, 1))
