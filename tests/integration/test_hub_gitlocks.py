"""Lock files that killed gits left where nobody may ever come again are swept away; those of the living never are."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import TryAgainError
from harness.hub import Hub, gitlocks
from harness.hub.locks import HubLock
from harness.layout import Layout
from harness.logs import Event
from tests.hubs import Desk, git
from tests.support import running, until

PIN = "refs/harness/attempt/x-1/1.lock"


@pytest.fixture
def hub(at: Desk) -> Hub:
    hub = at.ready()
    at.probe.calls.clear()
    return hub


class Pause:
    """What happens between the two looks, instead of waiting; and how often somebody waited."""

    def __init__(self) -> None:
        self.act: Callable[[], object] = lambda: None
        self.waited: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.act()


@pytest.fixture(autouse=True)
def pause(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pause]:
    it = Pause()

    class Time:
        CLOCK_BOOTTIME = time.CLOCK_BOOTTIME
        clock_gettime = staticmethod(time.clock_gettime)
        time = staticmethod(time.time)
        sleep = it

    with monkeypatch.context() as patch:
        patch.setattr(gitlocks, "time", Time)
        yield it


def plant(hub: Hub, name: str) -> Path:
    lock = hub.path / name
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    return lock


def sweep(at: Desk, hub: Hub) -> list[str]:
    """-> what it says it removed"""
    told: list[str] = []

    def emit(event: Event, **values: Any) -> None:
        assert event is Event.STALE_LOCK_REMOVED
        assert values["project"] == "app"
        told.append(values["file"])

    hub.sweep(emit)
    assert at.probe.calls == []  # not one command
    return told


@pytest.mark.parametrize(
    "name",
    [
        *(PIN, "refs/heads/harness/x-1/1.lock", "refs/heads/main.lock", "refs/stash.lock"),
        *("HEAD.lock", "packed-refs.lock", "config.lock", "shallow.lock"),
        *("worktrees/app/index.lock", "worktrees/app/HEAD.lock", "worktrees/app/refs/bisect/bad.lock"),
    ],
)
def test_what_a_killed_git_left_is_removed_and_told(at: Desk, hub: Hub, name: str) -> None:
    lock = plant(hub, name)
    assert sweep(at, hub) == [name]
    assert not lock.exists()


def test_a_real_git_that_was_killed_while_it_moved_a_pin_leaves_nothing_for_ever(at: Desk, hub: Hub) -> None:
    with preparing(hub, "refs/harness/attempt/x-1/1", hub.target()) as holder:
        holder.kill()
    assert (hub.path / PIN).exists()
    assert sweep(at, hub) == [PIN]
    assert git(hub.path, "fsck", "--strict") == ""


def test_a_hub_without_locks_is_looked_through_and_not_waited_for(at: Desk, hub: Hub, pause: Pause) -> None:
    assert sweep(at, hub) == []
    assert pause.waited == []


def test_what_was_found_is_watched_as_long_as_git_itself_waits(at: Desk, hub: Hub, pause: Pause) -> None:
    plant(hub, PIN)
    plant(hub, "HEAD.lock")
    assert sweep(at, hub) == ["HEAD.lock", PIN]
    assert pause.waited == [2.0, 0.05]  # and whoever waits for the hub has a turn


# ---- the living ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def preparing(hub: Hub, ref: str, new: str) -> Iterator[subprocess.Popen[bytes]]:
    """A git that has prepared a transaction: it holds the lock of the ref, as a closed file, until it is told to go on."""
    with running(
        ["git", "update-ref", "--stdin"], cwd=hub.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        holder.stdin.write(f"start\nupdate {ref} {new}\nprepare\n".encode())
        holder.stdin.flush()
        until((hub.path / f"{ref}.lock").exists)
        yield holder


def test_a_lock_that_a_living_git_holds_is_never_removed(at: Desk, hub: Hub) -> None:
    with preparing(hub, "refs/harness/attempt/x-1/1", hub.target()) as holder:
        assert sweep(at, hub) == []
        assert (hub.path / PIN).exists()
        holder.communicate(b"commit\n", 20)
        assert holder.returncode == 0
    assert hub.repo.refs.read("refs/harness/attempt/x-1/1") == hub.target()
    assert not (hub.path / PIN).exists()


def test_a_lock_that_a_living_git_holds_stays_even_when_the_wall_clock_was_set(
    at: Desk, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own times the lock is a day older than every process then."""
    monkeypatch.setattr("harness.hub.gitlocks.time.time", lambda: time.time() + 86400)
    with preparing(hub, "refs/harness/attempt/x-1/1", hub.target()):
        assert sweep(at, hub) == []
        assert (hub.path / PIN).exists()


def test_a_lock_that_any_living_process_has_open_is_never_removed(at: Desk, hub: Hub) -> None:
    with plant(hub, PIN).open("w"):
        assert sweep(at, hub) == []
    assert sweep(at, hub) == [PIN]


def test_a_lock_younger_than_the_wait_is_left_alone(at: Desk, hub: Hub, pause: Pause) -> None:
    """The first was given up and taken by another; it may even have the same inode. The second was not there before."""
    lock = plant(hub, PIN)

    def meanwhile() -> None:
        lock.unlink()
        lock.touch()
        plant(hub, "HEAD.lock")

    pause.act = meanwhile
    assert sweep(at, hub) == []
    assert lock.exists()
    assert (hub.path / "HEAD.lock").exists()


def test_a_lock_that_is_being_written_is_left_alone(at: Desk, hub: Hub, pause: Pause) -> None:
    lock = plant(hub, "worktrees/app/index.lock")
    pause.act = lambda: lock.write_text("more")
    assert sweep(at, hub) == []
    assert lock.exists()


def test_a_lock_that_went_by_itself_is_no_failure(at: Desk, hub: Hub, pause: Pause) -> None:
    lock = plant(hub, PIN)
    plant(hub, "refs/heads/main.lock")

    def gone() -> None:
        if lock.exists():
            lock.unlink()
            lock.parent.rmdir()  # git removes the empty folders of a ref

    pause.act = gone
    assert sweep(at, hub) == ["refs/heads/main.lock"]


# ---- links, and what is not ours -------------------------------------------------------------------------------------


def test_no_link_is_followed_and_nothing_else_is_touched(at: Desk, hub: Hub, tmp_path: Path) -> None:
    theirs = [at.upstream / ".git" / name for name in ("index.lock", "refs/heads/main.lock")]
    for lock in theirs:
        lock.touch()
    (hub.path / "refs/harness").mkdir(exist_ok=True)
    (hub.path / "refs/harness/attempt").symlink_to(at.upstream / ".git/refs")
    (hub.path / "worktrees").symlink_to(at.upstream)
    (hub.path / "refs/heads/link.lock").symlink_to(theirs[0])
    (hub.path / "refs/heads/folder.lock").mkdir()
    plant(hub, "objects/info/commit-graph.lock")
    assert gitlocks.left(hub.path) == {}
    assert sweep(at, hub) == []
    assert all(lock.exists() for lock in theirs)
    assert (hub.path / "refs/heads/link.lock").is_symlink()


def test_a_folder_that_becomes_a_link_during_the_wait_leads_nowhere(
    at: Desk, hub: Hub, pause: Pause, tmp_path: Path
) -> None:
    """An agent may rename what lies below its branches; the lock of a person's git would be the same file as before."""
    lock = plant(hub, "refs/heads/harness/x-1/1.lock")

    def swap() -> None:
        lock.parent.rename(tmp_path / "elsewhere")
        lock.parent.symlink_to(tmp_path / "elsewhere")

    pause.act = swap
    assert sweep(at, hub) == []
    assert (tmp_path / "elsewhere/1.lock").exists()
    assert not hub.repo.git.unlock(lock)
    assert (tmp_path / "elsewhere/1.lock").exists()


def test_a_folder_in_the_place_of_a_lock_stops_no_call(at: Desk, hub: Hub) -> None:
    (hub.path / "refs/heads/harness/x-1/1.lock").mkdir(parents=True)
    assert not hub.repo.git.unlock(hub.path / "refs/heads/harness/x-1/1.lock")
    assert hub.prepare("agent-1", "x-1", 2, hub.target()).branch == "harness/x-1/2"


def test_a_hub_that_is_reached_through_a_link_is_swept_with_the_same_care(
    layout: Layout, tmp_path: Path, at: Desk
) -> None:
    """A person may keep state/ on another disk."""
    (layout.state / "repos").rename(tmp_path / "big disk")
    (layout.state / "repos").symlink_to(tmp_path / "big disk")
    hub = at.ready()
    at.probe.calls.clear()
    with preparing(hub, "refs/harness/attempt/x-1/1", hub.target()) as holder:
        assert sweep(at, hub) == []
        assert not hub.repo.git.unlock(hub.path / PIN)
        assert (hub.path / PIN).exists()
        holder.kill()
    assert sweep(at, hub) == [PIN]


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_read_hides_no_other(
    at: Desk, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(hub, PIN)
    plant(hub, "refs/harness/attempt/x-2/1.lock")
    scandir = os.scandir

    def refused(folder: Any) -> Any:
        if str(folder).endswith("/x-1"):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr("harness.hub.gitlocks.os.scandir", refused)
    assert sweep(at, hub) == ["refs/harness/attempt/x-2/1.lock"]


def test_a_lock_that_cannot_be_removed_keeps_no_other(
    at: Desk, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(hub, PIN)
    plant(hub, "HEAD.lock")
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.name == "HEAD.lock":
            raise OSError(errno.EROFS, "Read-only file system")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    assert sweep(at, hub) == [PIN]


def test_a_hub_full_of_locks_is_swept_in_parts(at: Desk, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gitlocks, "AT_ONCE", 2)
    for k in range(5):
        plant(hub, f"refs/heads/harness/x-{k}/1.lock")
    assert [len(sweep(at, hub)) for _ in range(4)] == [2, 2, 1, 0]


def test_nothing_is_removed_without_our_lock(at: Desk, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = plant(hub, PIN)
    other = HubLock(path=hub.repo.lock.path)
    monkeypatch.setattr(HubLock, "held", functools.partialmethod(HubLock.held, patience_s=0.01))
    with other.held(), pytest.raises(TryAgainError, match="the lock of this hub"):
        sweep(at, hub)
    assert lock.exists()


# ---- who asks for it -------------------------------------------------------------------------------------------------


def test_opening_a_hub_sweeps_nothing(at: Desk, hub: Hub) -> None:
    lock = plant(hub, PIN)
    at.open()
    assert len(at.probe.calls) <= 2
    assert lock.exists()
