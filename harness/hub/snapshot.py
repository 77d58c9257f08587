"""What a worktree holds, as git sees it, and how it becomes a tree object.

All calls name the worktree's directories and an index; none runs anything inside a nested repository.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from harness.atomicfs import open_plain, replace_by_copy
from harness.dataclass import dataclass
from harness.hub.git import GitCommandError, Tree
from harness.hub.repo import Repo

_GITLINK = b"\x00\x00\xe0\x00"
"""Mode 160000 as it stands in an index entry: gitformat-index(5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """`git status`, reduced to what we decide by. Paths are bytes: names need not be text."""

    changed: tuple[bytes, ...] = ()
    untracked: tuple[bytes, ...] = ()
    ignored: tuple[bytes, ...] = ()
    nested: tuple[bytes, ...] = ()
    """Untracked repositories inside the worktree."""

    @property
    def dirty(self) -> bool:
        """There are files that differ from HEAD and can be committed."""
        return bool(self.changed or self.untracked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """How an index differs from HEAD."""

    entries: int = 0
    unmerged: bool = False
    gitlinks: tuple[bytes, ...] = ()


def read_status(repo: Repo, tree: Tree, base: str, head: str | None) -> Status:
    """Compares the worktree with HEAD by *our* index, which no agent can have told to look away.

    The index describes `base` from the last time (with file times, which makes this fast); it is moved to `head` first.
    """
    unpipe(repo, tree.path)
    if head is None or head != base or not tree.index.exists():
        point_index(repo, tree, head)
    return status(repo, tree, whole=True)


def unpipe(repo: Repo, path: Path) -> None:
    """git reads these two in every folder of a worktree, and waits for ever for who writes into a pipe."""
    pipes = ("-type", "p", "(", "-name", ".gitignore", "-o", "-name", ".gitattributes", ")")
    closed = ("-type", "d", "!", "-perm", "-u+rwx")
    find = ("find", str(path), "-xdev")
    if repo.git.run_beside((*find, *pipes, "-delete"), ok=(0, 1)):
        # Perhaps in a folder that may not be written.
        opened = (*find, *closed, "-exec", "chmod", "u+rwx", "{}", ";")
        repo.git.run_beside((*opened, "-o", *pipes, "-exec", "rm", "-f", "--", "{}", "+"), ok=(0, 1))


def point_index(repo: Repo, tree: Tree, head: str | None) -> None:
    """Makes the index describe a commit, with the file times that it has."""
    if head is None:
        repo.git("read-tree", "--empty", tree=tree)
        return
    try:
        repo.git("read-tree", "-m", head, tree=tree)
    except GitCommandError:
        tree.index.unlink(missing_ok=True)  # damaged by a power loss: everything is compared by content
        repo.git("read-tree", head, tree=tree)


def status(repo: Repo, tree: Tree, *, ignored: bool = True, whole: bool = False) -> Status:
    """One `git status`. It may write the index that it is given: later calls need its file times. `whole`: what is left
    out of it would be lost, so raises GitCommandError when there is a folder that git cannot look into."""
    out = repo.git(
        "status",
        "--porcelain=v2",
        "-z",
        "--untracked-files=all",
        f"--ignored={'matching' if ignored else 'no'}",
        "--ignore-submodules=all",
        "--no-renames",
        tree=tree,
        env={"GIT_OPTIONAL_LOCKS": "1"},
        whole=whole,
    )
    return parse_status(out.fields())


def parse_status(fields: list[bytes]) -> Status:
    """Fields of ``git status --porcelain=v2 -z --untracked-files=all``; there, only a repository ends with a slash."""
    changed: list[bytes] = []
    untracked: list[bytes] = []
    ignored: list[bytes] = []
    nested: list[bytes] = []
    for entry in fields:
        kind = entry[:2]
        if kind == b"1 ":
            changed.append(entry.split(b" ", 8)[8])
        elif kind == b"u ":
            changed.append(entry.split(b" ", 10)[10])
        elif kind == b"? ":
            (nested if entry.endswith(b"/") else untracked).append(entry[2:])
        elif kind == b"! ":
            ignored.append(entry[2:])
    return Status(
        changed=tuple(changed), untracked=tuple(untracked), ignored=tuple(ignored), nested=tuple(nested)
    )


def staged(repo: Repo, tree: Tree, head: str | None) -> Staged:
    """Whether an index (the agent's) holds what HEAD does not."""
    if not tree.index.exists():
        return Staged()
    against = head or repo.git("hash-object", "-t", "tree", "/dev/null").text
    fields = repo.git(
        "diff-index", "--cached", "--raw", "-z", "--ignore-submodules=none", against, tree=tree
    ).fields()
    gitlinks: list[bytes] = []
    unmerged = False
    for what, path in zip(fields[::2], fields[1::2], strict=True):
        words = what.split(b" ")
        unmerged = unmerged or words[4][:1] == b"U"
        if words[1] == b"160000":
            gitlinks.append(path)
    return Staged(entries=len(fields) // 2, unmerged=unmerged, gitlinks=tuple(gitlinks))


def nested_in_index(repo: Repo, tree: Tree) -> tuple[bytes, ...]:
    """Nested repositories that are committed (or staged) as bare links."""
    try:
        with (
            open(open_plain(tree.index), "rb") as file,
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as index,
        ):
            if index.find(_GITLINK) < 0:  # nearly always: no process needed
                return ()
    except (OSError, ValueError):  # ValueError: it is empty
        return ()
    entries = repo.git("ls-files", "--stage", "-z", tree=tree).fields()
    return tuple(entry.partition(b"\t")[2] for entry in entries if entry.startswith(b"160000 "))


def snapshot(repo: Repo, tree: Tree, without: tuple[bytes, ...]) -> str:
    """The worktree as a tree object, ignored files and the given nested repositories left out. `tree.index` then
    describes it."""
    excluded = [":(top,exclude,literal)" + os.fsdecode(path.rstrip(b"/")) for path in without]
    repo.git(
        "add",
        "--all",
        "--pathspec-from-file=-",
        "--pathspec-file-nul",
        tree=tree,
        stdin=b"\0".join(os.fsencode(spec) for spec in (":(top)", *excluded)),
        whole=True,
    )
    return repo.git("write-tree", tree=tree).text


def copy_index(source: Path, target: Path) -> None:
    """Whole or not at all; a missing source means an empty index.

    With its time: git reads a file again that was changed no earlier than the index was written (racy git). Follows no link
    that an agent has put in either place. Raises OSError, also when the source is no plain file.
    """
    try:
        fd = open_plain(source)
    except FileNotFoundError:
        target.unlink(missing_ok=True)
        return
    with open(fd, "rb") as file:
        replace_by_copy(target, file, mode=0o644, mtime_ns=os.fstat(fd).st_mtime_ns)
