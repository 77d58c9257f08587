"""A worktree is reused when it is proved to hold nothing unsaved, and kept otherwise."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.errors import TryAgainError
from harness.hub import Hub
from harness.hub.locks import HubLock
from harness.layout import Layout
from harness.logs import Event
from tests.hubs import Desk, commit, desk, git, person, reboot, submit, work


@pytest.fixture
def at(layout: Layout, tmp_path: Path) -> Desk:
    return desk(
        layout, person(tmp_path / "up"), keep=("cache", "web/node_modules"), copy=(".env", "conf/*.local")
    )


def assert_fresh(hub: Hub, path: Path, uid: str, n: int) -> None:
    assert git(path, "symbolic-ref", "HEAD") == f"refs/heads/harness/{uid}/{n}"
    assert git(path, "rev-parse", "HEAD") == hub.target()
    assert git(path, "status", "--porcelain") == ""


def test_the_first_worktree_is_on_a_fresh_branch_at_the_base(hub: Hub) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    assert not tree.reused
    assert tree.moved_aside is None
    assert tree.branch == "harness/x-1/1"
    assert_fresh(hub, tree.path, "x-1", 1)
    assert (tree.path / "src/b.txt").read_text() == "two\n"
    assert hub.find("agent-1") is not None
    assert hub.find("agent-2") is None


def test_a_clean_worktree_is_reused_with_few_processes(at: Desk, hub: Hub) -> None:
    submit(hub, "x-1")
    at.probe.calls.clear()
    tree = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert tree.reused
    assert_fresh(hub, tree.path, "y-1", 1)
    assert not (tree.path / "new.txt").exists()
    assert len(at.probe.calls) <= 6, at.probe.calls


def test_the_next_attempt_sees_nothing_of_the_one_before(hub: Hub) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    work(hub, tree)
    (tree.path / "out.log").write_text("ignored")
    (tree.path / ".gitignore").write_text("*.log\nbuild/\n")
    (tree.path / "build").mkdir()
    (tree.path / "build/x").write_text("x")
    hub.commit_leftovers(tree, "rest")
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert second.reused
    assert_fresh(hub, second.path, "y-1", 1)
    assert sorted(p.name for p in second.path.iterdir()) == [".git", "a.txt", "src"]
    assert "work on" not in git(second.path, "reflog", "show", "HEAD")


def test_caches_to_keep_stay_and_other_ignored_files_go(hub: Hub) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    (tree.path / ".gitignore").write_text("web/\n*.pyc\n")
    git(tree.path, "add", ".gitignore")
    git(tree.path, "commit", "-q", "-m", "ignore")
    for name in ("cache/deep/a", "web/node_modules/m/index.js", "web/dist/x.js", "x.pyc"):
        (tree.path / name).parent.mkdir(parents=True, exist_ok=True)
        (tree.path / name).write_text("x")
    git(tree.path / "cache", "init", "-q")  # a cache may hold repositories
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert second.reused
    assert (second.path / "cache/deep/a").exists()
    assert (second.path / "web/node_modules/m/index.js").exists()
    assert not (second.path / "web/dist").exists()
    assert not (second.path / "x.pyc").exists()


def test_copied_files_come_from_the_persons_clone_each_time(at: Desk, hub: Hub) -> None:
    (at.upstream / ".env").write_text("KEY=1\n")
    (at.upstream / "conf").mkdir()
    (at.upstream / "conf/a.local").write_text("a")
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    assert (tree.path / ".env").read_text() == "KEY=1\n"
    assert (tree.path / "conf/a.local").read_text() == "a"
    assert tree.missing == ()
    assert git(tree.path, "status", "--porcelain") == ""
    (tree.path / ".env").write_text("KEY=changed by an agent\n")
    second = hub.prepare("agent-1", "x-1", 2, hub.target())
    assert second.reused
    assert (second.path / ".env").read_text() == "KEY=1\n"


def test_what_an_agent_made_of_the_copied_files_is_not_the_next_ones(layout: Layout, tmp_path: Path) -> None:
    up = person(tmp_path / "up")
    (up / ".env").write_text("KEY=1\n")
    for name in ("conf", "lib"):
        (up / name).mkdir()
        (up / name / "a").write_text(name)
    hub = desk(layout, up, copy=(".env", "conf", "lib")).open()
    first = hub.prepare("agent-1", "x-1", 1, hub.target()).path
    (first / ".env").unlink()
    (first / ".env").mkdir()
    (first / ".env/x").write_text("evil")
    (first / "conf/extra").write_text("evil")
    (first / "lib/a").unlink()
    (first / "lib").rmdir()
    (first / "lib").symlink_to(".")
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert second.reused
    assert (second.path / ".env").read_text() == "KEY=1\n"
    assert [p.name for p in (second.path / "conf").iterdir()] == ["a"]
    assert (second.path / "lib").is_symlink() is False
    assert (second.path / "lib/a").read_text() == "lib"


def test_a_copied_file_that_the_person_does_not_have_is_named(hub: Hub) -> None:
    assert hub.prepare("agent-1", "x-1", 1, hub.target()).missing == (".env", "conf/*.local")


def test_a_copy_never_goes_through_a_link_of_the_repository(layout: Layout, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    up = person(tmp_path / "up")
    git(up, "switch", "-q", "main")
    (up / "conf").symlink_to(outside)
    git(up, "add", "conf")
    git(up, "commit", "-q", "-m", "a link")
    git(up, "switch", "-q", "work")
    (up / "conf").mkdir()
    (up / "conf/.env").write_text("secret")
    hub = desk(layout, up, copy=("conf",)).open()
    hub.prepare("agent-1", "x-1", 1, hub.target())
    assert list(outside.iterdir()) == []


def test_uncommitted_work_is_saved_and_the_worktree_reused(at: Desk, hub: Hub) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    (tree.path / "a.txt").write_text("changed\n")
    (tree.path / "notes").mkdir()
    (tree.path / "notes/untracked").write_text("new\n")
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert second.reused
    assert_fresh(hub, second.path, "y-1", 1)
    ((name, sha),) = hub.salvaged("x-1").items()
    assert name.startswith("refs/harness/salvage/x-1/1/tree-")
    assert git(hub.path, "show", f"{sha}:a.txt") == "changed"
    assert git(hub.path, "show", f"{sha}:notes/untracked") == "new"
    assert at.emitted(Event.WORK_SALVAGED)[0]["uid"] == "x-1"


def test_commits_that_were_not_pinned_are_saved(hub: Hub) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    sha = work(hub, tree)
    assert hub.prepare("agent-1", "y-1", 1, hub.target()).reused
    git(hub.path, "branch", "-D", "harness/x-1/1")
    assert sha in hub.salvaged("x-1").values()


def test_an_unknown_folder_in_the_place_of_a_worktree_is_kept(layout: Layout, hub: Hub) -> None:
    place = layout.worktree("app", "agent-1")
    place.mkdir(parents=True)
    (place / "mine").write_text("x")
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    assert tree.moved_aside == layout.kept / "agent-1"
    assert (layout.kept / "agent-1/mine").read_text() == "x"


@pytest.mark.parametrize("where", ["nested", "deep/er/nested"])
def test_a_nested_repository_is_kept_with_its_worktree(
    layout: Layout, at: Desk, hub: Hub, where: str
) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    nested = tree.path / where
    nested.mkdir(parents=True)
    git(nested, "init", "-q")
    inner = commit(nested, "inner", "precious\n")
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert second.moved_aside == layout.kept / "x-1.1"
    assert git(layout.kept / "x-1.1" / where, "rev-parse", "HEAD") == inner
    assert git(layout.kept / "x-1.1", "status", "--porcelain") != ""  # git still works in there
    assert_fresh(hub, second.path, "y-1", 1)
    assert at.emitted(Event.WORKTREE_KEPT)[0]["uid"] == "x-1"


def test_a_nested_repository_in_an_ignored_folder_is_kept_too(layout: Layout, hub: Hub) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    commit(tree.path, ".gitignore", "vendor/\n")
    (tree.path / "vendor/lib").mkdir(parents=True)
    git(tree.path / "vendor/lib", "init", "-q")
    commit(tree.path / "vendor/lib", "inner", "precious\n")
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert second.moved_aside is not None
    assert (second.moved_aside / "vendor/lib/inner").read_text() == "precious\n"


def test_a_nested_repository_that_was_committed_as_a_link_is_kept(hub: Hub) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    (tree.path / "nested").mkdir()
    git(tree.path / "nested", "init", "-q")
    commit(tree.path / "nested", "inner", "precious\n")
    git(tree.path, "add", "nested")
    git(tree.path, "commit", "-q", "-m", "a link")
    head = git(tree.path, "rev-parse", "HEAD")
    assert hub.faults(tree.base, head) == ("nested is a nested repository: commit its files, or remove it",)
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert second.moved_aside is not None
    assert (second.moved_aside / "nested/inner").exists()
    assert head in hub.salvaged("x-1").values()


def test_a_second_tree_to_keep_of_the_same_attempt_gets_another_name(layout: Layout, hub: Hub) -> None:
    (layout.kept / "x-1.1").mkdir(parents=True)
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    git(tree.path, "init", "-q", "nested")
    commit(tree.path / "nested", "x", "x")
    assert hub.prepare("agent-1", "y-1", 1, hub.target()).moved_aside == layout.kept / "x-1.1-2"


def test_a_rebase_in_progress_is_kept(layout: Layout, hub: Hub) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    work(hub, tree, "a.txt", "one way\n")
    git(tree.path, "switch", "-q", "--detach", tree.base)
    git(tree.path, "switch", "-q", "-c", "harness/x-1/other")
    commit(tree.path, "a.txt", "another way\n")
    git(tree.path, "rebase", "harness/x-1/1", ok=(1,))
    assert hub.status(tree).in_progress == "rebase"
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert second.moved_aside == layout.kept / "x-1.1"
    assert "rebas" in git(second.moved_aside, "status")
    assert_fresh(hub, second.path, "y-1", 1)


def test_a_worktree_whose_git_file_was_deleted_is_kept_and_repaired(layout: Layout, hub: Hub) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    sha = work(hub, tree)
    (tree.path / "late").write_text("x")
    (tree.path / ".git").unlink()
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert second.moved_aside == layout.kept / "x-1.1"
    assert git(second.moved_aside, "status", "--porcelain") == "?? late"
    assert sha in hub.salvaged("x-1").values()
    assert_fresh(hub, second.path, "y-1", 1)


def test_a_worktree_that_was_removed_is_made_anew_and_its_commits_saved(hub: Hub) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    sha = work(hub, tree)
    shutil.rmtree(tree.path)
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert not second.reused
    assert second.moved_aside is None
    assert sha in hub.salvaged("x-1").values()
    assert_fresh(hub, second.path, "y-1", 1)


def test_a_worktree_replaced_by_a_link_leads_nowhere(tmp_path: Path, layout: Layout, hub: Hub) -> None:
    elsewhere = tmp_path / "elsewhere"
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    tree.path.rename(elsewhere)
    tree.path.symlink_to(elsewhere)
    (elsewhere / "precious").write_text("x")
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert not second.path.is_symlink()
    assert (elsewhere / "precious").exists()
    assert_fresh(hub, second.path, "y-1", 1)


def test_a_damaged_index_of_the_agent_keeps_the_worktree(hub: Hub) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    (hub.path / "worktrees" / tree.admin / "index").write_bytes(b"DIRC garbage")
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert second.moved_aside is not None
    assert_fresh(hub, second.path, "y-1", 1)


def test_a_damaged_index_of_ours_costs_only_time(hub: Hub) -> None:
    hub.prepare("agent-1", "x-1", 1, hub.target())
    index = hub.path.with_suffix(".ours") / "slots/agent-1.index"
    index.write_bytes(b"DIRC garbage")
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert_fresh(hub, second.path, "y-1", 1)


def test_after_a_reboot_files_are_compared_by_content(hub: Hub) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    reboot(hub)
    before = (tree.path / "a.txt").stat()
    (tree.path / "a.txt").write_bytes(b"\0\0\0\0")  # as long as "one\n": what a power loss leaves
    os.utime(tree.path / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert (second.path / "a.txt").read_text() == "one\n"


def test_changes_hidden_from_git_status_by_the_agent_are_found(hub: Hub) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    git(tree.path, "update-index", "--assume-unchanged", "a.txt")
    git(tree.path, "update-index", "--skip-worktree", "src/b.txt")
    (tree.path / "a.txt").write_text("hidden\n")
    (tree.path / "src/b.txt").write_text("hidden too\n")
    assert git(tree.path, "status", "--porcelain") == ""
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert (second.path / "a.txt").read_text() == "one\n"
    assert (second.path / "src/b.txt").read_text() == "two\n"
    assert any(git(hub.path, "show", f"{sha}:a.txt") == "hidden" for sha in hub.salvaged("x-1").values())


def test_a_folder_that_cannot_be_changed_is_moved_aside(hub: Hub) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write into any folder")
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    work(hub, tree, "locked/x", "x")
    (tree.path / "locked").chmod(0o500)
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert second.moved_aside is not None
    (second.moved_aside / "locked").chmod(0o700)


def test_lock_files_of_a_killed_agent_do_not_stop_the_next(at: Desk, hub: Hub) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    admin = hub.path / "worktrees" / tree.admin
    (admin / "index.lock").write_text("")
    (admin / "HEAD.lock").write_text("")
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert second.reused
    commit(second.path, "works", "x")
    assert len(at.emitted(Event.STALE_LOCK_REMOVED)) == 2


def test_the_lock_of_our_own_index_that_a_killed_git_left_is_removed(at: Desk, hub: Hub) -> None:
    """It lies beside the hub, not in it: the slot could never be prepared again."""
    lock = hub.path.with_suffix(".ours") / "slots" / "agent-1.index.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.touch()
    hub.prepare("agent-1", "x-1", 1, hub.target())
    assert [e["file"] for e in at.emitted(Event.STALE_LOCK_REMOVED)] == [
        "../app.ours/slots/agent-1.index.lock"
    ]


def test_the_lock_of_a_killed_attempts_branch_is_removed_by_the_next_attempt(at: Desk, hub: Hub) -> None:
    hub.prepare("agent-1", "x-1", 1, hub.target())
    lock = hub.path / "refs/heads/harness/x-1/1.lock"
    lock.touch()
    hub.prepare("agent-2", "x-1", 2, hub.target())
    assert not lock.exists()


def test_a_branch_planted_in_the_place_of_ours_is_saved_and_replaced(hub: Hub) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    sha = work(hub, tree)
    git(tree.path, "branch", "harness/x-1/2/below", sha)
    git(tree.path, "branch", "harness/x-1/3", sha)
    assert_fresh(hub, hub.prepare("agent-1", "x-1", 2, hub.target()).path, "x-1", 2)
    assert_fresh(hub, hub.prepare("agent-1", "x-1", 3, hub.target()).path, "x-1", 3)
    assert sha in hub.salvaged("x-1").values()


def test_a_symbolic_branch_planted_in_the_place_of_ours_does_not_move_what_it_names(hub: Hub) -> None:
    hub.prepare("agent-1", "x-1", 1, hub.target())
    old = hub.target()
    (hub.path / "refs/heads/harness/x-1/2").write_text("ref: refs/heads/main\n")
    tree = hub.prepare("agent-1", "x-1", 2, hub.target())
    commit(tree.path, "x", "x")
    assert hub.target() == old


def test_slots_are_independent_and_prepared_by_several_processes(at: Desk, hub: Hub) -> None:
    other = at.open()
    first = hub.prepare("agent-1", "x-1", 1, hub.target())
    second = other.prepare("agent-2", "y-1", 1, hub.target())
    assert first.admin != second.admin
    work(hub, first)
    work(other, second)
    assert hub.prepare("agent-1", "x-1", 2, hub.target()).reused
    assert other.prepare("agent-2", "y-1", 2, hub.target()).reused


def test_worktrees_made_at_the_same_time_do_not_disturb_each_other(at: Desk, hub: Hub) -> None:
    base = hub.target()

    def make(k: int) -> Path:
        return at.open().prepare(f"agent-{k}", f"x-{k}", 1, base).path

    with ThreadPoolExecutor(6) as pool:
        paths = list(pool.map(make, range(6)))
    assert {git(path, "status", "--porcelain") for path in paths} == {""}
    assert len({git(path, "rev-parse", "--git-dir") for path in paths}) == 6


def test_a_hub_whose_lock_is_held_for_long_may_be_tried_again(hub: Hub) -> None:
    other = HubLock(path=hub.repo.lock.path)
    with other.held(), other.held(), pytest.raises(TryAgainError, match="fuser"), hub.repo.lock.held(0.05):
        pytest.fail("two holders")
    with hub.repo.lock.held(0.05):
        pass


def test_the_tree_for_gates_on_merges_is_reused_and_never_kept(layout: Layout, hub: Hub) -> None:
    sha = submit(hub, "x-1")
    built = hub.build_merge(hub.target(), "x-1", 1, sha, "x-1: work")
    path = hub.checkout_merged(built.sha)  # type: ignore[union-attr]
    assert (path / "new.txt").exists()
    assert git(path, "rev-parse", "HEAD") == built.sha  # type: ignore[union-attr]
    inode = path.stat().st_ino
    (path / "a.txt").write_text("a gate wrote this\n")
    (path / "left").write_text("x")
    git(path, "init", "-q", "nested")
    (path / "cache").mkdir()
    (path / "cache/x").write_text("kept")
    path = hub.checkout_merged(hub.target())
    assert path.stat().st_ino == inode
    assert git(path, "status", "--porcelain") == ""
    assert not (path / "nested").exists()
    assert not (path / "new.txt").exists()
    assert (path / "cache/x").exists()
    (path / ".git").unlink()
    path = hub.checkout_merged(hub.target())
    assert git(path, "status", "--porcelain") == ""
    assert list(layout.kept.iterdir()) == []


@pytest.mark.parametrize("torn", [b"", b"\0" * 40], ids=["empty", "zeros"])
def test_a_worktree_whose_head_a_power_loss_took_is_moved_aside_and_the_hub_is_whole(
    at: Desk, hub: Hub, torn: bytes
) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    (tree.path / "unsaved").write_text("precious")
    (hub.path / "worktrees" / tree.admin / "HEAD").write_bytes(torn)
    other = at.open()
    again = other.prepare("agent-1", "y-1", 1, other.target())
    assert not again.reused
    assert work(other, again)
    assert git(hub.path, "fsck", "--strict", "--no-dangling") == ""
    (kept,) = at.emitted(Event.WORKTREE_KEPT)
    assert (Path(kept["path"]) / "unsaved").read_text() == "precious"
