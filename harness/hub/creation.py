"""Opens a project's hub, and makes it when it is missing: whole or not at all.

A hub is built under a private name and renamed, so that whoever sees `state/repos/<project>.git` sees a complete
repository. What we cannot work on is refused here, before any work is lost on it, with what to do about it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from harness.atomicfs import fsync_dir
from harness.clock import Clock
from harness.config import Project
from harness.errors import ConfigError
from harness.hub.far import fetch
from harness.hub.git import CommandRunner, Git, GitCommandError
from harness.hub.gitlocks import GitLocks
from harness.hub.guard import Emit, Guard
from harness.hub.locks import HubLock
from harness.hub.refs import Refs, is_sha
from harness.hub.refusals import (
    check_git,
    check_tree,
    inspect,
    refuse_own_folders,
    refuse_target,
    unreachable,
)
from harness.hub.repo import Repo
from harness.layout import Layout
from harness.logs import Event

_CONFIG = """\
# Written by harness, compared before each use and put back: change config.yaml instead.
[core]
\trepositoryformatversion = {format}
\tfilemode = true
\tbare = true
\tlogallrefupdates = true
\tfsync = {fsync}
[extensions]
{extensions}[gc]
\tauto = 0
\twriteCommitGraph = false
[maintenance]
\tauto = false
[receive]
\tautogc = false
\tdenyDeletes = true
\tdenyNonFastForwards = true
[push]
\tdefault = nothing
[advice]
\tdetachedHead = false
"""


def open_repo(
    layout: Layout, project: Project, *, runner: CommandRunner, clock: Clock, durable: bool, emit: Emit
) -> Repo:
    """The hub of a project. Raises ConfigError when the project cannot be used, TryAgainError when it cannot be
    reached."""
    path = layout.hub(project.name)
    shelf = path.with_suffix(".ours")
    shelf.mkdir(parents=True, exist_ok=True, mode=0o700)
    (shelf / "home").mkdir(exist_ok=True)
    repo = _assemble(
        layout, project, path, runner=runner, clock=clock, durable=durable, emit=emit, shelf=shelf
    )
    check_git(repo)
    refuse_own_folders(repo)
    algorithm = inspect(repo) if repo.local else None
    with repo.lock.held():
        if path.exists():
            if (repo.guard.copies / "config").exists():
                repo.guard.check()  # before the copy changes with the configuration: tampering is still seen
            repo.guard.install(_contents(repo, _hash_of(path)))
            if repo.refs.read(repo.target) is None:
                _adopt_target(repo)
        else:
            _create(repo, algorithm or _remote_hash(repo))
    check_tree(repo)
    return repo


def _assemble(
    layout: Layout,
    project: Project,
    path: Path,
    *,
    runner: CommandRunner,
    clock: Clock,
    durable: bool,
    emit: Emit,
    shelf: Path,
) -> Repo:
    guard = Guard(repository=path, copies=shelf / "copies", emit=emit, project=project.name)
    lock = HubLock(path=shelf / "lock")
    gitlocks = GitLocks(
        hub=path,
        shelf=shelf,
        territory=(path, layout.worktree(project.name, "x").parent, layout.kept),
        ours=lock,
        emit=emit,
        project=project.name,
    )
    extra = {} if durable else {"core.fsync": "none"}
    git = Git(
        runner=runner,
        repository=path,
        home=shelf / "home",
        before=guard.check,
        unlock=gitlocks.unlock,
        extra=extra,
    )
    return Repo(
        layout=layout,
        project=project,
        path=path,
        shelf=shelf,
        durable=durable,
        clock=clock,
        emit=emit,
        git=git,
        refs=Refs(repository=path),
        guard=guard,
        lock=lock,
        gitlocks=gitlocks,
    )


def _contents(repo: Repo, algorithm: str) -> dict[str, bytes]:
    """The hub's own files, as this configuration wants them."""
    sha1 = algorithm == "sha1"
    config = _CONFIG.format(
        format=0 if sha1 else 1,
        fsync="committed,loose-object" if repo.durable else "none",
        extensions="" if sha1 else f"\tobjectFormat = {algorithm}\n",
    )
    return {
        "config": config.encode(),
        "HEAD": f"ref: {repo.target}\n".encode(),
        "info/exclude": exclude_file(repo.project),
    }


def exclude_file(project: Project) -> bytes:
    """Caches and copied files of a project are nobody's work: git in a worktree, also the agent's, ignores them."""
    lines = ["# Written by harness from `keep` and `copy` of config.yaml."]
    for pattern in (*project.keep, *project.copy):
        plain = pattern.removeprefix("./").replace("\\", "\\\\").replace("[", "\\[")
        trailing = len(plain) - len(plain.rstrip(" "))
        lines.append("/" + plain.rstrip(" ") + "\\ " * trailing)
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def _hash_of(repository: Path) -> str:
    """The hash that an existing hub uses; our copy of its config says, or the objects do."""
    try:
        for name in ("packed-refs", "refs/harness/lane"):
            for word in (repository / name).read_text(errors="replace").split():
                if is_sha(word):
                    return "sha256" if len(word) == 64 else "sha1"
    except OSError:
        pass
    return "sha256" if "sha256" in (repository / "config").read_text(errors="replace") else "sha1"


# ---- making it -----------------------------------------------------------------------------------------------------


def _create(repo: Repo, algorithm: str) -> None:
    """Builds the hub beside its place, durable, and moves it there. Under the lock."""
    folder = repo.path.parent
    for old in folder.glob(f".{repo.project.name}.*.new"):
        shutil.rmtree(old, ignore_errors=True)
    draft = folder / f".{repo.project.name}.{os.getpid()}.new"
    draft.mkdir()
    try:
        new = _assemble(
            repo.layout,
            repo.project,
            draft,
            runner=repo.git.runner,
            clock=repo.clock,
            durable=repo.durable,
            emit=repo.emit,
            shelf=repo.shelf,
        )
        new.git.unguarded(
            "init",
            "-q",
            "--bare",
            "--template=",
            f"--object-format={algorithm}",
            f"--initial-branch={repo.project.target}",
        )
        new.guard.install(_contents(repo, algorithm))
        _adopt_target(new)
        check_tree(new)
        new.git("pack-refs", "--all")  # a repository with ten thousand tags: one file
        new.sync()
        draft.rename(repo.path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    if repo.durable:
        fsync_dir(folder)
    repo.emit(Event.HUB_CREATED, project=repo.project.name, path=str(repo.path))


def _adopt_target(repo: Repo) -> None:
    """The first fetch: the target begins where the person's does."""
    try:
        fetch(repo)
    except GitCommandError as e:
        if "couldn't find remote ref" in e.stderr:
            refuse_target(repo, [repo.project.target + " (missing)"])
        raise unreachable(repo, e) from e
    tip = repo.refs.read(repo.upstream)
    if tip is None:  # git takes nothing from a shallow clone into a complete one
        raise ConfigError(
            f"{repo.project.path} is a shallow clone: merges need the history",
            where=f"projects.{repo.project.name}.path",
            remedy="name a complete repository",
        )
    repo.sync()
    repo.change_refs([f"update {repo.target} {tip}"])


def _remote_hash(repo: Repo) -> str:
    try:
        said = repo.git.elsewhere(repo.shelf, "ls-remote", "--heads", repo.project.path).text
    except GitCommandError as e:
        raise unreachable(repo, e) from e
    heads = {name: sha for sha, _, name in (line.partition("\t") for line in said.split("\n")) if name}
    if f"refs/heads/{repo.project.target}" not in heads:
        refuse_target(repo, [name.removeprefix("refs/heads/") for name in heads])
    return "sha256" if len(heads[f"refs/heads/{repo.project.target}"]) == 64 else "sha1"
