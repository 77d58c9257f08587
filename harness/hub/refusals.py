"""What we cannot work on is refused before any work is lost on it, with what to do about it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from harness.atomicfs import replace_file
from harness.errors import ConfigError, TryAgainError
from harness.hub.git import GitCommandError, Output
from harness.hub.refs import is_sha
from harness.hub.repo import Repo

OLDEST_GIT = (2, 38)
"""The first with `git merge-tree --write-tree`."""


_fit: set[tuple[int, ...]] = set()
"""Programs called git that were new enough: device, inode and time of change."""


def check_git(repo: Repo) -> None:
    """Git is there and new enough. Each program is asked once."""
    found = shutil.which("git")
    program = os.stat(found) if found else None
    known = (program.st_dev, program.st_ino, program.st_ctime_ns) if program else ()
    if known in _fit:
        return
    try:
        said = repo.git.elsewhere(repo.shelf, "version").text
    except GitCommandError as e:
        if e.exit_code == TryAgainError.exit_code:
            raise
        raise ConfigError(
            "git cannot be run", where="PATH", remedy=f"install git, then try: git version ({e.what})"
        ) from e
    version = re.search(r"(\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < OLDEST_GIT:
        oldest = ".".join(map(str, OLDEST_GIT))
        raise ConfigError(f"{said} is too old", where="PATH", remedy=f"install git {oldest} or later")
    _fit.add(known)


def refuse_own_folders(repo: Repo) -> None:
    if not repo.local:
        return
    path = Path(repo.project.path)
    where = f"projects.{repo.project.name}.path"
    if not path.exists():
        raise ConfigError(
            f"{path} does not exist", where=where, remedy=f"clone the repository there, or correct {where}"
        )
    for own in (repo.layout.state, repo.layout.queue):
        if own.resolve() in (path.resolve(), *path.resolve().parents):
            raise ConfigError(
                f"{path} is inside of our own {own.name}/",
                where=where,
                remedy="name the clone that people work in",
            )


def ask(repo: Repo, *args: str, ok: tuple[int, ...] = (0,)) -> Output:
    """A question to the person's local repository, under their own configuration. Reads only."""
    return repo.git.elsewhere(Path(repo.project.path), *args, ok=ok)


def inspect(repo: Repo) -> str:
    """Refuses a local path that is no repository of the kind we can work on. -> the hash that it uses."""
    path, target = repo.project.path, repo.project.target
    where = f"projects.{repo.project.name}.path"
    none = ConfigError(
        f"{path} is not a git repository", where=where, remedy=f"git init {path}, or correct {where}"
    )
    try:
        said = ask(
            repo,
            "rev-parse",
            "--show-object-format",
            "--is-bare-repository",
            "--is-shallow-repository",
            "--absolute-git-dir",
            "--show-cdup",
            f"refs/heads/{target}^{{commit}}",
            ok=(0, 128),
        )
    except GitCommandError as e:  # a file, a folder that may not be entered
        raise none from e
    if said.code and not said.text:
        if "dubious ownership" in said.stderr:
            raise ConfigError(
                f"{path} belongs to another user, git refuses to use it",
                where=where,
                remedy=f"git config --global --add safe.directory {path}",
            )
        raise none
    algorithm, bare, shallow, folder, *up, tip = said.text.split("\n")
    if any(up) or (bare == "true" and Path(folder) != Path(path).resolve()):
        raise ConfigError(
            f"{path} lies inside of a repository, it is not the top of one",
            where=where,
            remedy="name the top folder",
        )
    if shallow == "true":
        raise ConfigError(
            f"{path} is a shallow clone: merges need the history",
            where=where,
            remedy=f"git -C {path} fetch --unshallow",
        )
    if said.code or not is_sha(tip):
        branches = ask(repo, "for-each-ref", "--format=%(refname:short)", "refs/heads").text.split("\n")
        refuse_target(repo, [branch for branch in branches if branch])
    return algorithm


def refuse_target(repo: Repo, branches: list[str]) -> None:
    where = f"projects.{repo.project.name}.target"
    if not branches:
        raise ConfigError(
            f"{repo.project.path} has no commit yet",
            where=f"projects.{repo.project.name}.path",
            remedy="make a first commit: git commit --allow-empty -m start",
        )
    raise ConfigError(
        f"{repo.project.path} has no branch {repo.project.target}",
        where=where,
        remedy="its branches: " + ", ".join(sorted(branches)[:20]),
    )


def check_tree(repo: Repo) -> None:
    """Refuses what a worktree of ours would not hold whole: submodules and files stored with git-lfs.

    Each tip of the target is looked through once; the last that was fit is remembered beside the hub."""
    where = f"projects.{repo.project.name}.path"
    tip, last = repo.refs.read(repo.target), repo.shelf / "checked"
    with contextlib.suppress(OSError):
        if last.read_text(encoding="ascii", errors="replace") == tip:
            return
    found = repo.git(
        "grep",
        *("-a", "-i", "-l", "-z", "-E", r"\bfilter *= *lfs\b|\[submodule\b", repo.target, "--"),
        *(":(glob)**/.gitattributes", ":(top,literal).gitmodules"),
        ok=(0, 1),
    )
    files = [os.fsdecode(name).partition(":")[2] for name in found.fields()]
    if ".gitmodules" in files:
        raise ConfigError(
            f"{repo.project.path} uses submodules, which harness does not support",
            where=where,
            remedy="use a branch without .gitmodules as `target`, or vendor the submodules (git subtree)",
        )
    if files:
        raise ConfigError(
            f"{repo.project.path} stores files with git-lfs, which harness does not support",
            where=where,
            remedy="use a branch without `filter=lfs` in .gitattributes as `target`, or git lfs migrate export",
        )
    if tip is not None:
        with contextlib.suppress(OSError):  # a full disk: it is looked through again
            replace_file(last, tip.encode(), durable=False)


def unreachable(repo: Repo, error: GitCommandError) -> TryAgainError:
    return TryAgainError(
        f"{repo.project.path} cannot be fetched: {error.stderr.strip()[-500:]}",
        where=f"projects.{repo.project.name}.path",
        remedy=f"try it as the same user: git ls-remote {repo.project.path}",
    )
