"""What a power loss leaves of the work of agents whose git does not fsync: nobody builds on it, and git fsck is clean."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.hub import Hub
from harness.hub.torn import RECENT_S
from harness.layout import Layout
from harness.logs import Event
from tests.hubs import Desk, desk, git, person


@pytest.fixture
def at(layout: Layout, tmp_path: Path) -> Desk:
    return desk(layout, person(tmp_path / "up"))


@pytest.fixture
def hub(at: Desk) -> Hub:
    hub = at.ready()
    hub.repo.shelf.joinpath("boot").unlink(missing_ok=True)
    assert hub.mend() == 0
    return hub


def worked(hub: Hub, n: int = 1, text: str = "work") -> Path:
    """An agent's commit in its worktree, written as after `core.fsync=none`. -> the worktree"""
    tree = hub.prepare("agent-1", "x-1", n, hub.target()).path
    (tree / "folder").mkdir()
    (tree / "folder" / "file").write_text(f"{text}\n")
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", "work")
    return tree


def file_of(hub: Hub, sha: str) -> Path:
    path = hub.path / "objects" / sha[:2] / sha[2:]
    assert path.is_file()
    path.chmod(0o644)
    return path


def empty(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def other(path: Path) -> None:
    """A block of another file: unpacks well, and is not what its name says."""
    whole = next(p for p in path.parent.parent.glob("??/*") if p != path and p.stat().st_size)
    path.write_bytes(whole.read_bytes())


def reboot(hub: Hub) -> None:
    (hub.repo.shelf / "boot").write_text("before")


def fsck(hub: Hub) -> str:
    return git(hub.path, "fsck", "--strict", "--full", "--no-dangling")


@pytest.mark.parametrize("tear", [empty, half, zeros, other])
@pytest.mark.parametrize("what", ["HEAD:folder/file", "HEAD:folder", "HEAD^{tree}", "HEAD"])
def test_who_writes_the_same_again_does_not_build_on_what_a_power_loss_tore(
    at: Desk, hub: Hub, what: str, tear: Callable[[Path], None]
) -> None:
    tree = worked(hub)
    tear(file_of(hub, git(tree, "rev-parse", what)))
    reboot(hub)
    again = at.open()
    assert again.mend() == 1
    assert again.mend() == 0
    (said,) = at.emitted(Event.TORN_OBJECTS_REMOVED)
    assert said["number"] == 1
    assert fsck(again) == ""
    second = worked(again, 2)
    assert git(second, "show", "HEAD:folder/file") == "work"
    assert fsck(again) == ""
    salvaged = git(again.path, "for-each-ref", "--format=%(refname)", "refs/harness/salvage").split()
    assert [git(again.path, "show", f"{name}:folder/file") for name in salvaged] == ["work"]


def test_without_it_git_would_build_on_an_empty_object(hub: Hub) -> None:
    """If this fails, git has become careful, and `mend` may go."""
    tree = worked(hub)
    blob = git(tree, "rev-parse", "HEAD:folder/file")
    empty(file_of(hub, blob))
    git(tree, "rm", "-q", "-r", "--cached", "folder")
    git(tree, "add", "-A")
    assert file_of(hub, blob).stat().st_size == 0


def test_nothing_is_looked_at_twice_in_a_boot(at: Desk, hub: Hub) -> None:
    tree = worked(hub)
    path = file_of(hub, git(tree, "rev-parse", "HEAD"))
    empty(path)
    assert at.open().mend() == 0
    assert path.exists()


def test_what_was_on_the_disk_long_ago_is_not_read_but_what_is_empty_is_seen(at: Desk, hub: Hub) -> None:
    tree = worked(hub)
    old = {what: file_of(hub, git(tree, "rev-parse", what)) for what in ("HEAD:folder/file", "HEAD:folder")}
    zeros(old["HEAD:folder/file"])
    empty(old["HEAD:folder"])
    for path in old.values():
        os.utime(path, (1e9, path.stat().st_mtime - RECENT_S - 60))
    reboot(hub)
    assert at.open().mend() == 1
    assert old["HEAD:folder/file"].exists()


@pytest.mark.parametrize("name", ["boot gone", "boot torn"])
def test_a_note_that_a_power_loss_took_or_tore_means_another_boot(at: Desk, hub: Hub, name: str) -> None:
    tree = worked(hub)
    empty(file_of(hub, git(tree, "rev-parse", "HEAD")))
    note = hub.repo.shelf / "boot"
    note.unlink()
    if name == "boot torn":
        note.write_bytes(bytes(36))
    assert at.open().mend() == 1


def test_what_is_whole_and_what_is_not_gits_is_left_alone(at: Desk, hub: Hub) -> None:
    tree = worked(hub)
    head = git(tree, "rev-parse", "HEAD")
    strange = hub.path / "objects" / head[:2] / "tmp_obj_x"
    empty(strange)
    reboot(hub)
    assert at.open().mend() == 0
    assert strange.exists()
    assert git(tree, "rev-parse", "HEAD") == head
    assert at.emitted(Event.TORN_OBJECTS_REMOVED) == []


def test_branches_detached_heads_stashes_and_torn_refs_of_an_agent_do_not_stay_broken(
    at: Desk, hub: Hub
) -> None:
    tree = worked(hub)
    git(tree, "branch", "mine")
    (tree / "folder" / "file").write_text("stashed\n")
    git(tree, "stash", "-q")
    (tree / "folder" / "file").write_text("more\n")
    git(tree, "commit", "-q", "-a", "-m", "more")
    git(tree, "checkout", "-q", "--detach")
    torn = ("HEAD", "mine:folder/file", "refs/stash:folder/file")
    for what in torn:
        empty(file_of(hub, git(tree, "rev-parse", what)))
    (hub.path / "refs/heads/side").write_bytes(b"")
    reboot(hub)
    again = at.open()
    assert again.mend() == 3
    assert fsck(again) == ""
    assert git(again.path, "for-each-ref", "--format=%(refname)", "refs/heads", "refs/stash").split() == [
        "refs/heads/harness/x-1/1",
        "refs/heads/main",
    ]
    assert git(tree, "rev-parse", "HEAD") == again.target()


def test_a_branch_whose_file_is_empty_goes_back_to_the_base_of_its_attempt(at: Desk, hub: Hub) -> None:
    tree = worked(hub)
    (hub.path / "refs/heads/harness/x-1/1").write_bytes(b"")
    reboot(hub)
    again = at.open()
    assert again.mend() == 0
    assert len(at.emitted(Event.TORN_OBJECTS_REMOVED)) == 1
    assert fsck(again) == ""
    assert git(tree, "rev-parse", "HEAD") == again.target()


def test_what_a_cell_names_is_kept(at: Desk, hub: Hub) -> None:
    tree = worked(hub)
    head = git(tree, "rev-parse", "HEAD")
    hub.pin("x-1", 1, head)
    reboot(hub)
    assert at.open().mend() == 0
    assert git(hub.path, "rev-parse", "refs/harness/attempt/x-1/1") == head
