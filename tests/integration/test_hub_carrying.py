"""A session that goes on in another worktree finds what the last attempt left: its commits, and its files uncommitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.hub import Hub
from harness.layout import Layout
from tests.hubs import Desk, commit, desk, git, merge, person, submit, work


@pytest.fixture
def at(layout: Layout, tmp_path: Path) -> Desk:
    return desk(layout, person(tmp_path / "up"))


@pytest.fixture
def hub(at: Desk) -> Hub:
    return at.ready()


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


def test_a_branch_that_names_nothing_readable_carries_nothing(hub: Hub, at: Desk) -> None:
    first = hub.prepare("agent-1", "x-1", 1, hub.target())
    sha = work(hub, first)
    (hub.path / "objects" / sha[:2] / sha[2:]).unlink()
    assert hub.carried("x-1", 1) is None
    commit(at.upstream, "b", "b")  # and a fresh worktree can be made all the same
    assert hub.prepare("agent-2", "x-1", 2, hub.target()).base == hub.target()
