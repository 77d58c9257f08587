"""What a power loss leaves of the work of agents whose git does not fsync: nobody builds on it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from harness.hub import Hub, torn
from harness.layout import Layout
from harness.logs import Event
from tests.hubs import Desk, desk, git


@pytest.fixture
def hub(at: Desk) -> Hub:
    hub = at.ready()
    hub.repo.shelf.joinpath("boot").unlink(missing_ok=True)
    assert hub.mend() == 0
    return hub


def worked(hub: Hub, n: int = 1) -> Path:
    """An agent's commit in its worktree, written as after `core.fsync=none`. -> the worktree"""
    tree = hub.prepare("agent-1", "x-1", n, hub.target()).path
    (tree / "folder").mkdir()
    (tree / "folder" / "file").write_text("work\n")
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


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(100))


def reboot(hub: Hub) -> None:
    (hub.repo.shelf / "boot").write_text("before")


@pytest.mark.parametrize("tear", [empty, half, zeros, other, longer])
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
    assert [said["number"] for said in at.emitted(Event.TORN_OBJECTS_REMOVED)] == [1]
    second = worked(again, 2)
    assert git(second, "show", "HEAD:folder/file") == "work"
    again.pin("x-1", 2, git(second, "rev-parse", "HEAD"))


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


def test_what_was_on_the_disk_long_ago_is_not_read_but_what_is_empty_is_seen(
    at: Desk, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = worked(hub)
    old = {what: file_of(hub, git(tree, "rev-parse", what)) for what in ("HEAD:folder/file", "HEAD:folder")}
    zeros(old["HEAD:folder/file"])
    empty(old["HEAD:folder"])
    reboot(hub)
    monkeypatch.setattr(torn, "RECENT_S", -1.0)
    assert at.open().mend() == 1
    assert old["HEAD:folder/file"].exists()


def test_a_time_in_the_future_hides_nothing(at: Desk, hub: Hub) -> None:
    tree = worked(hub)
    path = file_of(hub, git(tree, "rev-parse", "HEAD"))
    zeros(path)
    os.utime(next(p for p in path.parent.parent.glob("??/*") if p != path), (4e9, 4e9))
    reboot(hub)
    assert at.open().mend() == 1


def test_large_objects_of_one_do_not_hide_the_torn_ones_of_another(
    at: Desk, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = worked(hub)
    head, blob = (file_of(hub, git(tree, "rev-parse", what)) for what in ("HEAD", "HEAD:folder/file"))
    for k in range(3):
        git(hub.path, "hash-object", "-w", "--stdin", stdin=bytes(3_000_000) + b"%d" % k)
    zeros(head)
    empty(blob)
    reboot(hub)
    monkeypatch.setattr(torn, "LARGEST", 1_000_000)
    monkeypatch.setattr(torn, "CHUNK", 100_000)
    assert at.open().mend() == 2
    reboot(hub)
    monkeypatch.setattr(torn, "BUDGET", 1)
    assert at.open().mend() == 0  # beyond it nothing is unpacked, and nothing fails


def test_what_an_agent_planted_in_place_of_objects_is_passed_over(at: Desk, hub: Hub, tmp_path: Path) -> None:
    tree = worked(hub)
    head = git(tree, "rev-parse", "HEAD")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ("a" * 38)).write_bytes(b"")
    free = [f"{k:02x}" for k in range(256) if not (hub.path / "objects" / f"{k:02x}").exists()]
    (hub.path / "objects" / free[0]).symlink_to(outside)
    (hub.path / "objects" / free[1]).write_text("no folder")
    planted = hub.path / "objects" / free[2]
    planted.mkdir()
    os.mkfifo(planted / ("b" * 38))
    (planted / ("c" * 38)).symlink_to(outside / ("a" * 38))
    (planted / ("d" * 38)).mkdir()
    empty(planted / "tmp_obj_x")
    empty(file_of(hub, head))
    reboot(hub)
    assert at.open().mend() == 1
    assert (outside / ("a" * 38)).exists()
    assert sorted(p.name[0] for p in planted.iterdir()) == ["b", "c", "d", "t"]


def test_a_block_that_the_disk_does_not_give_is_torn_and_what_we_may_not_read_is_left(
    at: Desk, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """btrfs and zfs know that a block is torn, and say EIO."""
    tree = worked(hub)
    sick, closed = (file_of(hub, git(tree, "rev-parse", what)) for what in ("HEAD", "HEAD:folder"))
    real = os.open

    def no_open(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == closed.name:
            raise PermissionError(errno.EACCES, "closed", path)
        return real(path, flags, mode, dir_fd=dir_fd)

    def no_read(fd: int, count: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{fd}") == str(sick):
            raise OSError(errno.EIO, "sick")
        return os_read(fd, count)

    os_read = os.read
    again = at.open()
    reboot(hub)
    monkeypatch.setattr(os, "open", no_open)
    monkeypatch.setattr(os, "read", no_read)
    assert again.mend() == 1
    assert not sick.exists()
    assert closed.exists()


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


def test_who_was_killed_in_it_or_cannot_note_that_it_was_done_does_it_again(
    at: Desk, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = worked(hub)
    for path in [file_of(hub, git(tree, "rev-parse", what)) for what in ("HEAD", "HEAD:folder")]:
        empty(path)
    again = at.open()
    reboot(hub)
    monkeypatch.setattr(os, "unlink", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        again.mend()
    monkeypatch.undo()
    assert again.mend() == 2


def test_without_a_name_of_this_boot_nothing_is_done(
    at: Desk, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = worked(hub)
    empty(file_of(hub, git(tree, "rev-parse", "HEAD")))
    monkeypatch.setattr(torn, "boot_id", lambda: "")
    assert at.open().mend() == 0


def test_objects_of_another_hash_are_judged_by_theirs(layout: Layout, tmp_path: Path) -> None:
    up = tmp_path / "up"
    up.mkdir()
    git(up, "init", "-q", "-b", "main", "--object-format=sha256")
    (up / "file").write_text("x\n")
    git(up, "add", "-A")
    git(up, "commit", "-q", "-m", "first")
    git(up, "switch", "-q", "-c", "work")
    at = desk(layout, up)
    hub = at.open()
    tree = worked(hub)
    empty(file_of(hub, git(tree, "rev-parse", "HEAD:folder/file")))
    reboot(hub)
    assert at.open().mend() == 1


def test_what_a_cell_names_is_kept(at: Desk, hub: Hub) -> None:
    tree = worked(hub)
    head = git(tree, "rev-parse", "HEAD")
    hub.pin("x-1", 1, head)
    reboot(hub)
    assert at.open().mend() == 0
    assert git(hub.path, "rev-parse", "refs/harness/attempt/x-1/1") == head


# ---- what git writes without fsync when it adds a worktree -------------------------------------------------------------

ADMIN = [("commondir",), ("HEAD",), ("gitdir",), ("commondir", "HEAD", "gitdir")]
RECORDS: dict[str, Callable[[bytes], bytes]] = {
    "known": lambda record: record,
    "torn": lambda record: b"",
    "being made": lambda record: json.dumps(
        json.loads(record) | {"phase": "switching", "admin": "", "boot": "before"}
    ).encode(),
}


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("files", ADMIN, ids="+".join)
def test_a_worktree_that_a_power_loss_tore_keeps_nobody_from_checking_the_hub(
    hub: Hub, files: tuple[str, ...], record: str
) -> None:
    tree = worked(hub)
    (admin,) = (hub.path / "worktrees").iterdir()
    slot = hub.repo.shelf / "slots" / "agent-1.json"
    slot.write_bytes(RECORDS[record](slot.read_bytes()))
    for name in files:
        empty(admin / name)
    reboot(hub)
    hub.mend()
    hub.prepare("agent-2", "y-1", 1, hub.target())  # another is not kept from its work
    again = hub.prepare("agent-1", "x-1", 2, hub.target())
    assert git(again.path, "status", "--porcelain") == ""
    assert git(again.path, "rev-parse", "HEAD") == again.base
    assert git(hub.path, "fsck", "--strict", "--no-dangling") == ""
    assert git(hub.path, "show", "harness/x-1/1:folder/file") == "work"
    assert tree == again.path


@pytest.mark.parametrize("name", ["commondir", "HEAD"])
def test_an_agent_that_makes_a_folder_of_a_file_of_git_stops_nobody_after_a_power_loss(
    hub: Hub, name: str
) -> None:
    worked(hub)
    (admin,) = (hub.path / "worktrees").iterdir()
    (hub.repo.shelf / "slots" / "agent-1.json").unlink()
    (admin / name).unlink()
    (admin / name).mkdir()
    reboot(hub)
    assert hub.mend() == 0
