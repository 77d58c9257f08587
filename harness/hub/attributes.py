"""The target's `.gitattributes`, where git finds them when it merges.

`git merge-tree` takes attributes from a worktree and has none, so that `merge=union` and `-merge` would be ignored. It is
given a folder that holds the target's attribute files and nothing else. Not `--attr-source`: only git 2.41 and later have
it, and this does the same with every git. The target's attributes count, as in `git merge`, not those of the submitted
commit; what they may name is a driver that git itself has (text, binary, union), because the hub's configuration, which
defines others, is ours (guard.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.hub.git import Tree
from harness.hub.repo import Repo


@contextmanager
def attributes_of(repo: Repo, commit: str) -> Iterator[Tree | None]:
    """A tree for `Git` that has the attributes of a commit; None when they say nothing about merging."""
    if not _files(repo, commit, "merge|binary"):
        yield None
        return
    found = _files(repo, commit, ".")  # all of them: one may use a macro that another defines
    with repo.private_folder("attributes") as folder:
        for path in found:
            _write(repo, folder, commit, path)
        yield Tree(path=folder, admin=repo.path, index=folder / ".index")


def _files(repo: Repo, commit: str, pattern: str) -> list[str]:
    """Attribute files of a commit in which a line matches. Links are none, to git as well."""
    out = repo.git("grep", "-zlIE", pattern, commit, "--", ":(glob)**/.gitattributes", ok=(0, 1))
    return [os.fsdecode(name).removeprefix(f"{commit}:") for name in out.fields()]


def _write(repo: Repo, folder: Path, commit: str, path: str) -> None:
    parts = path.split("/")
    if not {"", ".", ".."}.isdisjoint(parts):
        return  # no checkout would write it either
    target = folder.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(repo.git("cat-file", "blob", f"{commit}:{path}").raw)
