"""`copy:` of a project: untracked files of the person's clone that every worktree needs, such as `.env`."""

from __future__ import annotations

import filecmp
import os
from pathlib import Path

from harness.atomicfs import replace_by_copy
from harness.hub.repo import Repo


def copy_files(repo: Repo, tree: Path) -> tuple[str, ...]:
    """Copies them anew, so that no attempt inherits another's changes. -> patterns that match nothing.

    Never writes through a symbolic link: a worktree's folders may lead anywhere.
    """
    if not repo.project.copy or not repo.local:
        return ()
    source = Path(repo.project.path)
    missing = []
    for pattern in repo.project.copy:
        found = sorted(source.glob(pattern.removeprefix("./").rstrip("/")))
        if not found:
            missing.append(pattern)
        for path in found:
            _copy(path, tree, path.relative_to(source))
    return tuple(missing)


def _copy(source: Path, tree: Path, name: Path) -> None:
    if ".git" in name.parts or source.is_symlink():
        return
    if source.is_dir():
        for child in sorted(source.iterdir()):
            _copy(child, tree, name / child.name)
        return
    target = tree / name
    if not source.is_file() or target.parent.resolve() != tree.resolve() / name.parent:
        return
    if target.is_file() and not target.is_symlink() and filecmp.cmp(source, target, shallow=False):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not target.is_symlink():
        return
    with source.open("rb") as file:
        info = os.fstat(file.fileno())
        replace_by_copy(target, file, mode=info.st_mode & 0o777, mtime_ns=info.st_mtime_ns)
