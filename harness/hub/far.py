"""A repository in which git talks to the person's, or checks all: it has the hub's objects, and of its refs what it is given.

Before git fetches or pushes it looks at every ref of the repository that it runs in, and at the HEAD of each of its
worktrees. In a hub agents write some of both. One that names nothing (an agent's git that does not fsync, and a power loss)
makes every fetch fail; a pipe makes it wait for ever. So these calls see a repository that is made for them alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.errors import TryAgainError
from harness.hub.git import GitCommandError
from harness.hub.refs import Refs, zero
from harness.hub.repo import Repo

SEEN = "refs/harness/seen"


@contextlib.contextmanager
def far(repo: Repo, refs: Mapping[str, str] | None = None) -> Iterator[Path]:
    """For `Git(..., upstream=)`. What git writes there is gone afterwards, but for objects, which are the hub's.

    Raises TryAgainError when the disk has no room for it.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(repo.private_folder("far"))
            (folder / "refs").mkdir()
            for name in ("config", "HEAD"):
                shutil.copyfile(repo.guard.copies / name, folder / name)
            packed = "".join(f"{sha} {name}\n" for name, sha in sorted((refs or {}).items()))
            (folder / "packed-refs").write_bytes(os.fsencode(packed))
        except OSError as e:
            raise TryAgainError(
                f"no repository for one call can be made: {e.strerror}", where=repo.shelf
            ) from e
        yield folder


def fetch(repo: Repo) -> None:
    """Fetches the target of the person's repository, and tags that point into it. Writes to the hub only.

    Raises GitCommandError, TryAgainError.
    """
    was = repo.refs.read(repo.upstream)
    known = _known(repo)
    failed: GitCommandError | None = None
    with far(repo, known) as folder:
        try:
            repo.git(
                "fetch",
                "--quiet",
                "--no-write-fetch-head",
                "--no-auto-maintenance",
                "--no-recurse-submodules",
                repo.project.path,
                f"+refs/heads/{repo.project.target}:{repo.upstream}",
                upstream=folder,
            )
        except GitCommandError as e:  # perhaps because of a tag alone
            failed = e
        now = Refs(repository=folder)
        tags = {name: sha for name, sha in now.below("refs/tags").items() if known.get(name) != sha}
        tip = now.read(repo.upstream)
    if tip is None:
        if failed is not None:
            raise failed
        return  # git takes nothing from a shallow clone into a complete repository
    if tip != was:
        if was is None:
            (repo.path / repo.upstream).unlink(missing_ok=True)  # empty, after a power loss
            was = repo.refs.read(repo.upstream)
        try:
            repo.change_refs([f"update {repo.upstream} {tip} {was or zero(tip)}"])
        except GitCommandError:
            if repo.refs.read(repo.upstream) in (None, was):
                raise  # else another has fetched meanwhile: the next look says what is there
    if tags:
        _take_over(repo, [f"update {name} {sha}" for name, sha in tags.items()])


def _take_over(repo: Repo, tags: list[str]) -> None:
    """All of them, or those that there is room for: `v1` and `v1/rc1` cannot both be."""
    try:
        repo.change_refs(tags)
    except GitCommandError:
        for line in tags if len(tags) > 1 else ():
            with contextlib.suppress(GitCommandError):
                repo.change_refs([line])


def fsck(repo: Repo) -> str:
    """What is wrong, or "": refs of ours that name nothing, and what `git fsck --strict` says, which would read the agents'
    refs, too. Raises GitCommandError, TryAgainError."""
    names = {repo.target, *repo.refs.files("refs/harness"), *repo.refs.files("refs/tags")}
    refs = {name: sha for top in ("refs/harness", "refs/tags") for name, sha in repo.refs.below(top).items()}
    refs |= {name: sha for name in (repo.target, repo.upstream) if (sha := repo.refs.read(name))}
    doubtful = [name for name in sorted(names - refs.keys()) if repo.refs.read(name) is None]
    there = [name for name in doubtful if name == repo.target or os.path.lexists(repo.path / name)]
    torn = [f"{name} names nothing" for name in there]
    with far(repo, refs) as folder:
        said = repo.git(
            *("fsck", "--strict", "--no-dangling", "--no-progress"),
            env={"GIT_DIR": str(folder), "GIT_OBJECT_DIRECTORY": str(repo.path / "objects")},
            ok=tuple(range(32)),
        )
    wrong = (said.stderr.strip() or said.text or f"exit {said.code}") if said.code else ""
    return "; ".join(x for x in (*torn, wrong) if x)


def _known(repo: Repo) -> dict[str, str]:
    """What need not be fetched again: our target, what was seen of theirs (by another name: what has its own afterwards was
    fetched), tags; as far as their objects are there."""
    names = repo.refs.below("refs/tags")
    for name, ref in ((repo.target, repo.target), (SEEN, repo.upstream)):
        if sha := repo.refs.read(ref):
            names[name] = sha
    if not names:
        return {}
    asked = "".join(f"{sha}\n" for sha in set(names.values())).encode()
    said = repo.git("cat-file", "--batch-check=%(objectname)", stdin=asked).text.split("\n")
    missing = {row.partition(" ")[0] for row in said if row.endswith(" missing")}
    return {name: sha for name, sha in names.items() if sha not in missing}
