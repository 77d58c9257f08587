"""A session that goes on in another worktree finds what the last attempt left: its commits, and its files uncommitted."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness.hub import Hub
from harness.hub.snapshot import copy_index
from tests.hubs import Desk, commit, git, merge, reboot, submit, work


def test_commits_and_uncommitted_files_are_there_in_another_slot_on_a_branch_of_its_own(hub: Hub) -> None:
    first = hub.prepare("agent-1", "x-1", 1, hub.target())
    sha = work(hub, first)
    (first.path / "a.txt").write_text("half\n")
    (first.path / "fresh").write_text("new\n")
    (first.path / "src" / "b.txt").unlink()
    hub.salvage(first, "x-1", 1)
    carry = hub.carried("x-1", 1)
    assert carry is not None
    assert (carry.base, carry.head) == (first.base, sha)
    again = hub.prepare("agent-2", "x-1", 2, hub.target(), carry)
    assert (again.base, again.branch) == (first.base, "harness/x-1/2")
    assert (again.path / "a.txt").read_text() == "half\n"
    seen = hub.status(again)
    assert (seen.head, seen.tip) == (sha, sha)
    assert sorted(seen.changed) == ["a.txt", "src/b.txt"]
    assert seen.untracked == ("fresh",)
    assert git(again.path, "diff", "--cached", "--name-only") == ""
    left = hub.commit_leftovers(again, "rest")
    assert left.sha is not None
    assert {change.path for change in hub.changed_files(again.base, left.sha)} == {
        "a.txt",
        "fresh",
        "new.txt",
        "src/b.txt",
    }


def test_what_was_merged_meanwhile_does_not_hide_what_was_carried(hub: Hub) -> None:
    first = hub.prepare("agent-1", "x-1", 1, hub.target())
    base = first.base
    sha = work(hub, first)
    hub.salvage(first, "x-1", 1)
    other = submit(hub, "y-1", 1, "other.txt", slot="agent-3")
    merge(hub, "y-1", 1, other)
    carry = hub.carried("x-1", 1)
    assert carry is not None
    assert (carry.base, carry.head, carry.files) == (base, sha, None)
    again = hub.prepare("agent-2", "x-1", 2, hub.target(), carry)
    assert not (again.path / "other.txt").exists()
    assert [change.path for change in hub.changed_files(again.base, sha)] == ["new.txt"]


def test_an_attempt_that_changed_nothing_leaves_nothing_to_carry(hub: Hub) -> None:
    first = hub.prepare("agent-1", "x-1", 1, hub.target())
    hub.salvage(first, "x-1", 1)
    assert hub.carried("x-1", 1) is None
    assert hub.carried("unknown", 1) is None


def test_only_uncommitted_files_are_carried_too(hub: Hub) -> None:
    first = hub.prepare("agent-1", "x-1", 1, hub.target())
    (first.path / "a.txt").write_text("late\n")
    hub.salvage(first, "x-1", 1)
    carry = hub.carried("x-1", 1)
    assert carry is not None
    assert carry.head == carry.base
    again = hub.prepare("agent-1", "x-1", 2, hub.target(), carry)
    assert again.reused
    assert (again.path / "a.txt").read_text() == "late\n"
    assert hub.status(again).changed == ("a.txt",)


def torn(hub: Hub, *, committed: bool) -> str | None:
    """x-1/1, and what a power loss left of it: a file that nobody has touched is empty. -> its commit"""
    first = hub.prepare("agent-1", "x-1", 1, hub.target())
    sha = work(hub, first) if committed else None
    (first.path / "a.txt").write_text("")
    (first.path / "fresh").write_text("new\n")
    reboot(hub)
    return sha


@pytest.mark.parametrize("saved_first", [True, False])
def test_a_file_that_a_power_loss_tore_is_not_carried_as_if_the_agent_had_emptied_it(
    hub: Hub, saved_first: bool
) -> None:
    sha = torn(hub, committed=True)
    if saved_first:  # by who goes on in another slot
        hub.salvage(hub.find("agent-1"), "x-1", 1)  # type: ignore[arg-type]
        slot = "agent-2"
    else:
        hub.prepare("agent-1", "y-1", 1, hub.target())
        slot = "agent-1"
    carry = hub.carried("x-1", 1)
    assert carry is not None
    assert (carry.head, carry.files) == (sha, None)
    again = hub.prepare(slot, "x-1", 2, hub.target(), carry)
    assert (again.path / "a.txt").read_text() == "one\n"
    assert hub.status(again).clean
    found = hub.found("x-1", 1)  # nothing is destroyed: whoever goes on may look at it
    assert found is not None
    assert git(hub.path, "show", f"{found}:fresh") == "new"
    assert git(hub.path, "show", f"{found}:a.txt") == ""


def test_without_a_commit_a_session_goes_on_at_the_target_after_a_power_loss(hub: Hub) -> None:
    torn(hub, committed=False)
    hub.salvage(hub.find("agent-1"), "x-1", 1)  # type: ignore[arg-type]
    assert hub.carried("x-1", 1) is None
    assert hub.found("x-1", 1) is not None


def test_what_was_saved_before_the_machine_was_restarted_is_carried(hub: Hub) -> None:
    first = hub.prepare("agent-1", "x-1", 1, hub.target())
    (first.path / "a.txt").write_text("late\n")
    hub.salvage(first, "x-1", 1)
    reboot(hub)
    hub.salvage(first, "x-1", 1)  # the same files: no other name for them
    assert hub.found("x-1", 1) is None
    (first.path / "a.txt").write_text("")
    hub.salvage(first, "x-1", 1)
    carry = hub.carried("x-1", 1)
    assert carry is not None
    again = hub.prepare("agent-1", "x-1", 2, hub.target(), carry)
    assert (again.path / "a.txt").read_text() == "late\n"
    assert hub.found("x-1", 1) is not None


def test_of_commits_that_a_power_loss_tore_the_whole_ones_are_carried(hub: Hub) -> None:
    first = hub.prepare("agent-1", "x-1", 1, hub.target())
    whole = work(hub, first, "one.txt")
    work(hub, first, "two.txt", "torn\n")
    blob = git(first.path, "rev-parse", "HEAD:two.txt")
    (hub.path / "objects" / blob[:2] / blob[2:]).unlink()  # `mend` has found it
    reboot(hub)
    hub.salvage(first, "x-1", 1)
    carry = hub.carried("x-1", 1)
    assert carry is not None
    assert carry.head == whole
    again = hub.prepare("agent-2", "x-1", 2, hub.target(), carry)
    assert (again.path / "one.txt").exists()


def test_a_torn_index_hides_no_file(hub: Hub) -> None:
    torn(hub, committed=True)
    first = hub.find("agent-1")
    assert first is not None
    (hub.path / "worktrees" / first.admin / "index").write_bytes(b"")
    assert hub.salvage(first, "x-1", 1).kept is None
    assert hub.found("x-1", 1) is not None


def test_what_was_carried_once_is_carried_again_after_a_restart(hub: Hub) -> None:
    first = hub.prepare("agent-1", "x-1", 1, hub.target())
    (first.path / "a.txt").write_text("late\n")
    hub.salvage(first, "x-1", 1)
    second = hub.prepare("agent-1", "x-1", 2, hub.target(), hub.carried("x-1", 1))
    reboot(hub)
    hub.salvage(second, "x-1", 2)
    carry = hub.carried("x-1", 2)
    assert carry is not None
    third = hub.prepare("agent-2", "x-1", 3, hub.target(), carry)
    assert (third.path / "a.txt").read_text() == "late\n"


def test_a_worktree_of_another_boot_is_not_used_again_its_caches_may_be_torn(at: Desk) -> None:
    at.project = replace(at.project, keep=("cache",))
    hub = at.open()
    first = hub.prepare("agent-1", "x-1", 1, hub.target())
    (first.path / "cache").mkdir()
    (first.path / "cache" / "compiled").write_text("")
    assert hub.prepare("agent-1", "x-1", 2, hub.target()).reused
    assert (first.path / "cache" / "compiled").exists()
    reboot(hub)
    again = hub.prepare("agent-1", "x-1", 3, hub.target())
    assert not again.reused
    assert not (again.path / "cache").exists()
    assert list(hub.repo.layout.kept.iterdir()) == []


def test_an_index_is_copied_with_its_time_by_which_git_knows_what_to_read_again(
    hub: Hub, tmp_path: Path
) -> None:
    """gitracy: a file that is changed in the instant in which the index was written has the time that stands there."""
    first = hub.prepare("agent-1", "x-1", 1, hub.target())
    index = hub.path / "worktrees" / first.admin / "index"
    os.utime(index, ns=(10**18, 10**18))
    copy_index(index, tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_mtime_ns == 10**18
    link = tmp_path / "link"
    link.symlink_to(index)
    with pytest.raises(OSError, match="links"):
        copy_index(link, tmp_path / "copy")


def test_a_branch_that_names_nothing_readable_carries_nothing(hub: Hub, at: Desk) -> None:
    first = hub.prepare("agent-1", "x-1", 1, hub.target())
    sha = work(hub, first)
    (hub.path / "objects" / sha[:2] / sha[2:]).unlink()
    assert hub.carried("x-1", 1) is None
    commit(at.upstream, "b", "b")  # and a fresh worktree can be made all the same
    assert hub.prepare("agent-2", "x-1", 2, hub.target()).base == hub.target()
