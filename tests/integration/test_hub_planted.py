"""What an agent puts in place of files of git that it may write: nobody waits for it, nothing is written through it, and it
costs nobody but its own attempt.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import GitError
from harness.hub import Hub, Worktree
from harness.hub import git as hub_git
from harness.layout import Layout
from tests.hubs import desk, git, person, work

PRECIOUS = "precious\n"
NAMES = (
    "gitdir",
    "HEAD",
    "commondir",
    "index",
    "logs",
    "logs/HEAD",
    "rebase-merge/done",
    "branch",
    "log of the branch",
)
WAYS = (
    "garbage",
    "a folder",
    "a pipe",
    "a link to a file",
    "a link to nothing",
    "a link to the target",
    "1 TiB",
)


@pytest.fixture
def hub(layout: Layout, tmp_path: Path) -> Hub:
    return desk(layout, person(tmp_path / "up")).ready()


@pytest.fixture
def tree(hub: Hub) -> Worktree:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    work(hub, tree)
    (tree.path / "fresh").write_text("new\n")
    return tree


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError("it waits for what an agent has planted")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def place(hub: Hub, tree: Worktree, name: str) -> Path:
    branch = f"refs/heads/harness/{tree.uid}/{tree.n}"
    match name:
        case "branch":
            return hub.path / branch
        case "log of the branch":
            return hub.path / "logs" / branch
        case _:
            return hub.path / "worktrees" / tree.admin / name


def plant(path: Path, way: str, victim: Path, hub: Hub) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        path.rename(path.with_name(f"{path.name}.old"))
    path.unlink(missing_ok=True)
    match way:
        case "garbage":
            path.write_bytes(b"\0" * 1000)
        case "a folder":
            path.mkdir()
            (path / "inside").touch()
        case "a pipe":
            os.mkfifo(path)
        case "1 TiB":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        case "a link to nothing":
            path.symlink_to(victim.with_name("made"))
        case "a link to the target":
            path.symlink_to(hub.path / hub.repo.target)
        case _:
            path.symlink_to(victim)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_planted_in_place_of_a_file_of_git(
    hub: Hub, tree: Worktree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    monkeypatch.setattr(hub_git, "LOCAL_S", 10.0)
    victim, target = tmp_path / "victim", hub.target()
    (hub.path / hub.repo.target).write_text(f"{target}\n")  # loose: what a link may lead to
    victim.write_text(PRECIOUS)
    plant(place(hub, tree, name), way, victim, hub)
    with at_most(30):
        for act in (
            lambda: hub.status(tree),
            lambda: hub.commit_leftovers(tree, "rest"),
            lambda: hub.salvage(tree, "x-1", 1),
        ):
            with contextlib.suppress(GitError, OSError):  # its own attempt may fail by it
                act()
        other = hub.prepare("agent-2", "y-1", 1, hub.target())
        hub.checkout_merged(hub.target())
        again = hub.prepare("agent-1", "x-1", 2, hub.target())
    for worktree in (other, again):
        assert git(worktree.path, "status", "--porcelain") == ""
        assert git(worktree.path, "rev-parse", "HEAD") == target
    assert victim.read_text() == PRECIOUS
    assert not victim.with_name("made").exists()
    assert hub.target() == target
    assert (hub.path / hub.repo.target).read_text() == f"{target}\n"
    assert git(hub.path, "fsck", "--strict", "--no-dangling") == ""


@pytest.mark.parametrize("name", ["index.new", ".index.tmp"])
def test_a_private_name_of_ours_cannot_be_guessed(
    hub: Hub, tree: Worktree, tmp_path: Path, name: str
) -> None:
    """Once an index was copied by way of index.new: what it linked to was overwritten, with names that the agent chose."""
    victim = tmp_path / "victim"
    victim.write_text(PRECIOUS)
    (hub.path / "worktrees" / tree.admin / name).symlink_to(victim)
    with contextlib.suppress(GitError):
        hub.commit_leftovers(tree, "rest")
    hub.salvage(tree, "x-1", 1)
    hub.prepare("agent-1", "x-1", 2, hub.target())
    assert victim.read_text() == PRECIOUS


def test_a_folder_of_objects_that_is_a_link_is_none(hub: Hub, tree: Worktree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    objects = hub.path / "objects"
    free = [f"{k:02x}" for k in range(256) if not (objects / f"{k:02x}").exists()]
    for name in free:
        (objects / name).symlink_to(outside)
    hub.commit_leftovers(tree, "rest")
    assert list(outside.iterdir()) == []
